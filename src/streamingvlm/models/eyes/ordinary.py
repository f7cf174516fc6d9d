"""What a camera usually shows, so that what it never shows stands out, without labels: a frozen ViT's embedding a second, and two ways to be unusual.

- `surprise`: 1 - cosine of the embedding and the one that a TRM foretold, both standardised; the `future` of a decision, seen from the other side.
- `distance`: 1 - cosine of the embedding and the nearest that was seen of this camera when it learned.

    ordinary = load(Path("artifacts/learned")); state = ordinary.start()
    found, state = ordinary("gate", embedding, state)          # [256] -> {"surprise": 0 to 2, "distance": 0 to 2}; no surprise at a first picture
    ordinary.scores("gate", found), ordinary.unusual("gate", found)   # the share of ordinary seconds that were less so; whether none came near

The second is what tells (`bench/ordinary.py`). Knows no camera's address and no clock; `training.ordinary` teaches it.
Letters: B cameras, T pictures of one, E hidden size.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera import backbone
from streamingvlm.models.multicamera.backbone import EMBEDDING
from streamingvlm.models.multicamera.nets import linear, seeded
from streamingvlm.models.multicamera.trm import TRM, Carry, Recursion

EVERY_S = 1.0  # between two looks at a camera
SIDE_PX = 112  # of the ViT's picture: 64 patches, a quarter of the work of its own 224
BEYOND = 1.0  # an alarm: beyond the most surprising ordinary second by as much again as that lies beyond the middle one
KNOWN = "known."  # before a camera's name, in the file of weights
FILES = ("ordinary.safetensors", "ordinary.json")

State = tuple[Carry, Tensor | None]  # what the TRM carries, and the embedding it foretold, standardised [B, 256]


class Ordinary(nn.Module):
    """`usual`: camera -> what is found in seconds that it did not learn from, by name, sorted. `known`: camera -> the embeddings it did [T, 256]."""

    def __init__(self, knobs: Recursion | None = None):
        super().__init__()
        self.knobs = knobs or Recursion()
        self.usual: dict[str, dict[str, np.ndarray]] = {}
        self.known: dict[str, Tensor] = {}
        self.register_buffer("mean", torch.zeros(EMBEDDING))
        self.register_buffer("deviation", torch.ones(EMBEDDING))
        self.embed, self.core, self.change = linear(EMBEDDING, self.knobs.width), TRM(self.knobs), linear(self.knobs.width, EMBEDDING)
        nn.init.zeros_(self.change.weight)  # before it learned anything it foretells that nothing changes

    def start(self, cameras: int = 1) -> State:
        return self.core.start(cameras), None

    def standard(self, embedding: Tensor) -> Tensor:
        return (embedding - self.mean) / self.deviation

    def foretell(self, x: Tensor, carry: Carry) -> tuple[list[Tensor], Carry]:
        """x [B, 256] standardised -> the next one [B, 256] as each recursion foretells it, and what is carried on."""
        answers, carry = self.core(self.embed(x)[:, None], carry)
        return [x + self.change(answer[:, 0]) for answer in answers], carry

    @torch.inference_mode()
    def forward(self, camera: str, embedding: Tensor, state: State) -> tuple[dict[str, float], State]:
        """A known camera's next embedding [256] -> what is found, and the state after it."""
        carry, expected = state
        x = self.standard(embedding)[None]
        found = {} if expected is None else {"surprise": float(apart(x, expected))}
        foretold, carry = self.foretell(x, carry)
        return found | {"distance": float(nearest(embedding[None], self.known[camera]))}, (carry, foretold[-1])

    def scores(self, camera: str, found: Mapping[str, float]) -> dict[str, float]:
        """The share of the camera's ordinary seconds that were less so, 0 to 1 each."""
        return {kind: float(np.searchsorted(self.usual[camera][kind], value) / len(self.usual[camera][kind])) for kind, value in found.items()}

    def unusual(self, camera: str, found: Mapping[str, float]) -> Collection[str]:
        """The kinds in which no ordinary second comes near."""
        usual = self.usual[camera]
        return [kind for kind, value in found.items() if value > usual[kind][-1] + BEYOND * (usual[kind][-1] - np.median(usual[kind]))]


def apart(x: Tensor, expected: Tensor) -> Tensor:
    """x, expected [..., 256] -> 1 - cosine [...]."""
    return 1 - F.cosine_similarity(x, expected, dim=-1)


def nearest(x: Tensor, known: Tensor) -> Tensor:
    """x [T, 256], known [T', 256] -> 1 - cosine of each and the nearest known, [T]."""
    return 1 - (F.normalize(x, dim=1) @ F.normalize(known, dim=1).T).amax(1)


def eyes(weights: Path) -> backbone.Borrowed:
    """The ViT-S/14 that `make real-eyes` fetches, for pictures of 112 px. UserError where it is not."""
    if not (weights / "model.safetensors").is_file():
        raise UserError(f"{weights} holds no ViT: `make real-eyes` fetches it (90 MB, once).")
    vit = backbone.build("vit-s14", str(weights))
    vit.size_px = SIDE_PX
    return vit


@torch.inference_mode()
def embeddings(vit: backbone.Borrowed, pictures: Sequence[np.ndarray]) -> Tensor:
    """Pictures [H, W, C] uint8 RGB of one size -> [T, 256]."""
    return vit(torch.from_numpy(np.stack(pictures))).embedding


def save(ordinary: Ordinary, folder: Path, said: Mapping) -> None:
    """Into a folder, whole or not at all. `said`: what else its JSON file tells."""
    from safetensors.torch import save as packed

    from streamingvlm.base import files

    folder.mkdir(parents=True, exist_ok=True)
    usual = {name: {kind: values.round(6).tolist() for kind, values in kinds.items()} for name, kinds in ordinary.usual.items()}
    known = {f"{KNOWN}{name}": x.contiguous() for name, x in ordinary.known.items()}
    files.write_json({**said, "usual": usual}, folder / FILES[1])
    files.write(folder / FILES[0], packed(ordinary.state_dict() | known))  # last: where it is, all is


def load(folder: Path) -> Ordinary:
    """UserError where the folder holds none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        told = json.loads((folder / FILES[1]).read_text())
        weights, ordinary = load_file(folder / FILES[0]), seeded(0, Ordinary)
        ordinary.usual = {name: {kind: np.array(values) for kind, values in kinds.items()} for name, kinds in told["usual"].items()}
        ordinary.known = {name: weights.pop(KNOWN + name) for name in ordinary.usual}
        ordinary.load_state_dict(weights)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} holds nothing that `streamingvlm learn` wrote ({error}): run it, and name its folder.") from None
    return ordinary.eval()
