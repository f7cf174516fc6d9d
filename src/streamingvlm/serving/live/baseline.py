"""The article's baseline in the analyst's place: a VLM asked about every frame on its own, which remembers nothing. Knows no process and no clock.

    asked = Asked(Path("data/city-base/frame-vlm")); asked.decide(frames)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from streamingvlm.base.records import Frame
from streamingvlm.evaluation.frame_vlm import Asker, FrameAnswer
from streamingvlm.models.qwen25 import loading
from streamingvlm.worlds.city.knobs import ACTIONS, CLASSES, SIZE_PX

TOGETHER = (1, 2, 4, 8, 16)  # frames asked about at a time: a recorded step costs what it was recorded for, however few there are


class Asked:
    """Decides as `analyst.Analyst` does. UserError where the folder holds no such model."""

    def __init__(self, folder: Path):
        vlm = loading.load(folder, torch.device("cpu"), decode="graph")
        self.askers = {size: Asker(vlm, size) for size in TOGETHER}

    def decide(self, frames: Sequence[Frame], now: float | None = None) -> list[dict]:
        """Frames [H, W, C] uint8, 16 at most -> the JSON of each. What time it is does not matter to it."""
        begun = time.perf_counter()
        asker = next(asker for size, asker in self.askers.items() if size >= len(frames))
        answers = asker.ask(np.stack([frame.pixels for frame in frames]))  # [B, H, W, C]
        ms = round((time.perf_counter() - begun) * 1e3, 3)
        return [_row(answer) | {"ms": {"see": ms, "memory": 0.0}} for answer in answers]

    def forget(self, stream: str) -> None:
        """There is nothing it remembers."""

    def forget_all(self) -> None:
        """Nor here."""


def _row(answer: FrameAnswer) -> dict:
    alarms = [kind for kind, on in answer.anomalies.items() if on]
    boxes = [{"box": [round(corner / SIZE_PX, 4) for corner in box], "label": CLASSES[label], "score": round(score, 3)}
             for *box, label, score in answer.boxes]
    return {"boxes": boxes, "action": ACTIONS[answer.action], "anomalies": {kind: round(answer.sure[kind], 4) for kind in answer.anomalies},
            "alarms": alarms, "event_score": float(bool(alarms)), "future": 0.0}
