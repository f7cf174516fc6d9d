"""A pretrained detector in the analyst's place: boxes of COCO's 80 things on real cameras, each frame on its own. Knows no process and no clock.

    spotter = Spotter(Path("artifacts/real-eyes/coco-ssd")); spotter.decide(frames)
    spotter = Spotter(Path("artifacts/real-eyes/coco-ssd"), Path("artifacts/learned"))     # what `streamingvlm learn` wrote

It knows nothing of actions and kinds of anomalies, and leaves them empty. What it learned of its cameras says how unusual a second is: once a second
of each camera that it knows, held until the next; such a frame costs a ViT more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamingvlm.base.records import Frame
from streamingvlm.models.eyes import ordinary
from streamingvlm.models.eyes.coco import NAMES, Coco, Things
from streamingvlm.serving.live.analyst import MAYBE

SURE = 0.5  # of a box that is handed on: of people on vtest.avi, .83 of such boxes are right, and .71 of those who are there are found
VIT = "vit-s14"  # the folder beside the detector's
KINDS = {"surprise": "surprising", "distance": "unusual"}  # what is found, and what a decision calls it


class Spotter:
    """Decides as `analyst.Analyst` does. UserError where the folder holds no such detector, or `learned` nothing that was learned."""

    def __init__(self, folder: Path, learned: Path | None = None):
        self.eyes = Coco(folder)
        self.usual = _Usual(folder.parent / VIT, learned) if learned else None

    def decide(self, frames: Sequence[Frame], now: float | None = None) -> list[dict]:
        """Frames [H, W, C] uint8 -> the JSON of each. What time it is does not matter to it."""
        begun = time.perf_counter()
        found = self.eyes([frame.pixels for frame in frames])
        seen = time.perf_counter()
        rows = [_row(things, frame.pixels.shape) for things, frame in zip(found, frames, strict=True)]
        if self.usual:
            rows = [row | more for row, more in zip(rows, self.usual.told(frames), strict=True)]
        ms = {"see": round((seen - begun) * 1e3, 3), "memory": round((time.perf_counter() - seen) * 1e3, 3)}
        return [row | {"ms": ms} for row in rows]

    def forget(self, stream: str) -> None:
        if self.usual:
            self.usual.streams.pop(stream, None)

    def forget_all(self) -> None:
        if self.usual:
            self.usual.streams.clear()


@dataclass
class _Stream:
    """A camera since its connection `epoch` began: what it carries, when it was looked at, and what is said of it until the next look."""

    epoch: int
    state: ordinary.State
    looked_s: float
    said: dict


class _Usual:
    def __init__(self, weights: Path, learned: Path):
        self.model, self.vit = ordinary.load(learned), ordinary.eyes(weights)
        self.streams: dict[str, _Stream] = {}

    def told(self, frames: Sequence[Frame]) -> list[dict]:
        """What is to be added to the row of each frame; nothing for a camera that it does not know."""
        due = [frame for frame in frames if frame.stamp.stream in self.model.usual and self._due(frame)]
        if due:
            for frame, embedding in zip(due, ordinary.embeddings(self.vit, [frame.pixels for frame in due]), strict=True):
                self._look(frame, embedding)
        return [self.streams[frame.stamp.stream].said if frame.stamp.stream in self.streams else {} for frame in frames]

    def _due(self, frame: Frame) -> bool:
        one = self.streams.get(frame.stamp.stream)
        return one is None or one.epoch != frame.stamp.epoch or not 0 <= frame.stamp.pts_s - one.looked_s < ordinary.EVERY_S

    def _look(self, frame: Frame, embedding) -> None:
        name, old = frame.stamp.stream, self.streams.get(frame.stamp.stream)
        fresh = old is None or old.epoch != frame.stamp.epoch
        found, state = self.model(name, embedding, self.model.start() if fresh else old.state)
        scores = {KINDS[kind]: round(score, 4) for kind, score in self.model.scores(name, found).items()}
        said = {"anomalies": scores, "alarms": [KINDS[kind] for kind in self.model.unusual(name, found)], "event_score": max(scores.values()),
                "future": round(1 - found["surprise"], 4) if "surprise" in found else 0.0}
        self.streams[name] = _Stream(frame.stamp.epoch, state, frame.stamp.pts_s, said)


def _row(things: Things, shape: tuple[int, ...]) -> dict:
    """Boxes as shares of the picture. `people`: where somebody may be, for whoever hides them; no part of a decision."""
    shares = (things.box / np.array([shape[1], shape[0]] * 2)).round(4).tolist()
    found = [(box, NAMES[label], score) for box, label, score in zip(shares, things.label.tolist(), things.score.tolist(), strict=True)]
    boxes = [{"box": box, "label": name, "score": round(score, 3)} for box, name, score in found if score > SURE]
    people = [box for box, name, score in found if score > MAYBE and name == "person"]
    return {"boxes": boxes, "people": people, "action": "", "anomalies": {}, "alarms": [], "event_score": 0.0, "future": 0.0}
