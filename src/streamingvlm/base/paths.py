"""Where things are: the root of the clone, and the folders of the pipeline below it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamingvlm.base.errors import UserError

STUDENTS = {"overlapped": "model", "tiled": "tiled", "base": "base"}  # who watches, and its folder below artifacts/sft


def repository_root(start: Path | None = None) -> Path:
    """The folder that holds params.yaml, from `start` (default: the working folder) upwards, so that no path hangs on where one stands."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise UserError(f"No params.yaml in {here} or above: run this inside a clone of the workbench.")


@dataclass(frozen=True)
class Paths:
    """Every folder of the pipeline, below the repository root."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        known = {"data": "data", "subset": "artifacts/subset", "sft": "artifacts/sft", "compress": "artifacts/compress", "stream": "artifacts/stream",
                 "city": "artifacts/city", "city_model": "artifacts/city-model", "live": "artifacts/live",
                 "checkpoints": "artifacts/checkpoints", "figures": "reports/figures", "timings": "reports/timings", "reports": "reports"}
        if name not in known:
            raise AttributeError(name)
        return self.root / known[name]
