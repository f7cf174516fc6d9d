"""Average precision: equal to what a hand computes, and to COCO's own code."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from streamingvlm.evaluation.detection import Boxes, at_threshold, average_precision

CASES = json.loads((Path(__file__).parents[1] / "data/cases/detection.json").read_text())
CLASSES = ("person", "car", "bag")


def boxes(rows: list[list[float]]) -> Boxes:
    table = np.array(rows, float) if rows else np.zeros((0, 7))
    return Boxes(table[:, 0].astype(int), table[:, 1:5], table[:, 5].astype(int), table[:, 6] if table.shape[1] > 6 else None)


@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_by_hand(case):
    got = average_precision(boxes(case["truth"]), boxes(case["found"]), case["images"], CLASSES)
    assert got["map50"] == pytest.approx(case["map50"], abs=1e-9) and got["map"] == pytest.approx(case["map"], abs=1e-9)
    held = {int(row[5]) for row in case["truth"]}
    assert all((got["by_class"][name]["map50"] is None) == (k not in held) for k, name in enumerate(CLASSES))


def test_as_cocos_own_code_has_it():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng, truth, found = np.random.default_rng(5), [], []
    for image in range(30):
        for _ in range(int(rng.integers(0, 6))):
            x, y, w, h, label = *rng.uniform(0, 60, 2), *rng.uniform(4, 30, 2), int(rng.integers(3))
            truth.append([image, x, y, x + w, y + h, label])
            if rng.random() < 0.8:
                moved = rng.normal(0, 1.5, 4)
                found.append([image, x + moved[0], y + moved[1], x + w + moved[2], y + h + moved[3], label, round(rng.random(), 2)])
        found.append([image, *np.sort(rng.uniform(0, 96, 4)), int(rng.integers(3)), round(rng.random(), 2)])
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {"info": {}, "images": [{"id": k} for k in range(30)], "categories": [{"id": k + 1} for k in range(3)], "annotations": [
            {"id": k + 1, "image_id": row[0], "category_id": row[5] + 1, "bbox": [row[1], row[2], row[3] - row[1], row[4] - row[2]],
             "area": (row[3] - row[1]) * (row[4] - row[2]), "iscrowd": 0} for k, row in enumerate(truth)]}
        known.createIndex()
        run = COCOeval(known, known.loadRes([{"image_id": row[0], "category_id": row[5] + 1, "score": row[6],
                                              "bbox": [row[1], row[2], row[3] - row[1], row[4] - row[2]]} for row in found]), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    got = average_precision(boxes(truth), boxes(found), 30, CLASSES)
    assert 0.2 < got["map"] < got["map50"] < 0.95
    assert got["map"] == pytest.approx(run.stats[0], abs=1e-9) and got["map50"] == pytest.approx(run.stats[1], abs=1e-9)


def test_at_a_threshold_a_truth_is_found_once_and_by_the_surest():
    truth = Boxes([0, 0, 1], [[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 10]], [0, 0, 0])
    found = Boxes([0, 0, 0, 1, 0], [[0, 0, 10, 9], [0, 0, 10, 10], [21, 0, 31, 10], [50, 0, 60, 10], [0, 0, 10, 10]], [0, 0, 0, 0, 1],
                  [0.9, 0.8, 0.7, 0.6, 0.9])
    assert at_threshold(truth, found, 0.5, CLASSES)["person"] == {"recall": 2 / 3, "precision": 2 / 4, "boxes": 3}
    assert at_threshold(truth, found, 0.75, CLASSES)["person"] == {"recall": 1 / 3, "precision": 1 / 2, "boxes": 3}
    assert at_threshold(truth, found, 0.5, CLASSES)["car"] == {"recall": None, "precision": 0.0, "boxes": 0}
