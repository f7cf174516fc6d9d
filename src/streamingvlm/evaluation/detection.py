"""Boxes against boxes: mean average precision as COCO defines it, by a library that keeps to it. Knows no model, no world and no file.

    truth = Boxes(image=[0, 0], box=[[8, 10, 16, 30], [40, 12, 66, 24]], label=[0, 1])
    found = Boxes(image=[0], box=[[8, 11, 16, 30]], label=[0], score=[0.9])
    average_precision(truth, found, images=1, classes=("person", "car", "bag"))["map50"]
    at_threshold(truth, found, threshold=0.5, classes=("person", "car", "bag"))["person"]["recall"]

Letters for shapes: N M boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Any number of boxes in any number of pictures; lists do as well as arrays. `score` is for found ones."""

    image: np.ndarray  # [N] int: which picture
    box: np.ndarray  # [N, 4] x0 y0 x1 y1 in px
    label: np.ndarray  # [N] int
    score: np.ndarray | None = None  # [N]


def average_precision(truth: Boxes, found: Boxes, images: int, classes: Sequence[str]) -> dict:
    """{"map50", "map": the mean over IoU .5 to .95, "by_class": {name: {"map50", "map"}}}, each 0 to 1, None where the truth has no box of it.

    At most 100 boxes a picture and class count, the surest first (COCO's rule).
    """
    from faster_coco_eval import COCO, COCOeval_faster

    known = COCO(_dataset(truth, images, classes))
    run = COCOeval_faster(known, known.loadRes(_annotations(found)), iouType="bbox")
    run.evaluate()
    run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class], of boxes of every size
    by_class = {name: _means(precision[:, :, k]) for k, name in enumerate(classes)}
    return {**_means(precision), "by_class": by_class}


def at_threshold(truth: Boxes, found: Boxes, threshold: float, classes: Sequence[str], overlap: float = 0.5) -> dict[str, dict]:
    """{class: {"recall", "precision", "boxes"}} of what was found with at least `threshold`: the surest box first takes the truth that it overlaps
    most, by at least `overlap`, and that nobody has yet. None where there is nothing to be a share of."""
    out = {}
    known, given = np.asarray(truth.image), np.asarray(found.image)
    for k, name in enumerate(classes):
        scores = np.asarray(found.score)
        real, sure = np.asarray(truth.label) == k, (np.asarray(found.label) == k) & (scores >= threshold)
        hits = sum(_hits(np.asarray(truth.box, float)[real & (known == image)], np.asarray(found.box, float)[some], scores[some], overlap)
                   for image in np.unique(given[sure]) for some in [sure & (given == image)])
        boxes, told = int(real.sum()), int(sure.sum())
        out[name] = {"recall": hits / boxes if boxes else None, "precision": hits / told if told else None, "boxes": boxes}
    return out


def _hits(truth: np.ndarray, found: np.ndarray, score: np.ndarray, overlap: float) -> int:
    """truth [N, 4], found [M, 4], score [M] of one picture and class -> how many of `found` have a truth of their own."""
    shares, hits = iou(found, truth), 0  # [M, N]
    for row in np.argsort(-score, kind="stable") if truth.size else ():
        best = int(shares[row].argmax())
        if shares[row, best] >= overlap:
            hits, shares[:, best] = hits + 1, -1.0
    return hits


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[M, 4], [N, 4] corners -> [M, N] share of the union that is common."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (corner[1] - corner[0]).clip(min=0).prod(2)  # [M, N]
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9)


def _means(precision: np.ndarray) -> dict[str, float | None]:
    """-1 marks what the truth does not have."""
    means = {}
    for name, part in (("map50", precision[0]), ("map", precision)):
        there = part[part > -1]
        means[name] = float(there.mean()) if there.size else None
    return means


def _dataset(truth: Boxes, images: int, classes: Sequence[str]) -> dict:
    annotations = [known | {"id": k + 1, "iscrowd": 0, "area": known["bbox"][2] * known["bbox"][3]} for k, known in enumerate(_annotations(truth))]
    return {"info": {}, "images": [{"id": k} for k in range(images)], "annotations": annotations,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)]}


def _annotations(boxes: Boxes) -> list[dict]:
    box = np.asarray(boxes.box, float).reshape(-1, 4)
    sized = np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], 1).tolist()
    scores = [1.0] * len(box) if boxes.score is None else np.asarray(boxes.score, float).tolist()
    return [{"image_id": int(image), "category_id": int(label) + 1, "bbox": bbox, "score": score}
            for image, label, bbox, score in zip(boxes.image, boxes.label, sized, scores, strict=True)]
