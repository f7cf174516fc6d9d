"""A pretrained detector in the analyst's place: boxes of COCO's 80 things on real cameras, each frame on its own. Knows no process and no clock.

    spotter = Spotter(Path("artifacts/real-eyes/coco-ssd")); spotter.decide(frames)

It knows nothing of actions and anomalies, and says so by leaving them empty.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamingvlm.base.records import Frame
from streamingvlm.models.eyes.coco import NAMES, Coco, Things
from streamingvlm.serving.live.analyst import MAYBE

SURE = 0.5  # of a box that is handed on: of people on vtest.avi, .83 of such boxes are right, and .71 of those who are there are found


class Spotter:
    """Decides as `analyst.Analyst` does. UserError where the folder holds no such detector."""

    def __init__(self, folder: Path):
        self.eyes = Coco(folder)

    def decide(self, frames: Sequence[Frame], now: float | None = None) -> list[dict]:
        """Frames [H, W, C] uint8 -> the JSON of each. What time it is does not matter to it."""
        begun = time.perf_counter()
        found = self.eyes([frame.pixels for frame in frames])
        ms = round((time.perf_counter() - begun) * 1e3, 3)
        return [_row(things, frame.pixels.shape) | {"ms": {"see": ms, "memory": 0.0}} for things, frame in zip(found, frames, strict=True)]

    def forget(self, stream: str) -> None:
        """There is nothing it remembers."""

    def forget_all(self) -> None:
        """Nor here."""


def _row(things: Things, shape: tuple[int, ...]) -> dict:
    """Boxes as shares of the picture. `people`: where somebody may be, for whoever hides them; no part of a decision."""
    shares = (things.box / np.array([shape[1], shape[0]] * 2)).round(4).tolist()
    found = [(box, NAMES[label], score) for box, label, score in zip(shares, things.label.tolist(), things.score.tolist(), strict=True)]
    boxes = [{"box": box, "label": name, "score": round(score, 3)} for box, name, score in found if score > SURE]
    people = [box for box, name, score in found if score > MAYBE and name == "person"]
    return {"boxes": boxes, "people": people, "action": "", "anomalies": {}, "alarms": [], "event_score": 0.0, "future": 0.0}
