"""One replica: a model, perhaps a commentator, and the streams that live here. What it knows of a stream it can hand over; another goes on exactly.

    replica = Replica(folder, precision="float32"); answers, ms = replica.decide([Frame(...)])
    other.take("gate", replica.hand_over("gate"))

Knows no scheduler and no other replica. Streams look at each other (clone, surge) within a replica only.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from streamingvlm.base.records import Chunk, Comment, Frame
from streamingvlm.serving import slots
from streamingvlm.serving.live import analysis

if TYPE_CHECKING:
    from streamingvlm.streaming.commentator import Commentator


class Replica:
    """`commentator`: a folder, or None where nobody speaks here."""

    def __init__(self, folder: Path, precision: str = "float32", learned: str = "", commentator: Path | None = None):
        torch.set_num_threads(1)
        self.shape = slots.shape(Path(folder))
        self.analyst = analysis.load(Path(folder), precision, learned)
        self.commentator = _commentator(commentator) if commentator else None
        self.decided = 0

    def curve(self) -> dict[int, float]:
        """Milliseconds of a batch by its size; only before the first stream, for it leaves the model as new."""
        return analysis.curve(self.analyst, self.shape)

    def decide(self, frames: Sequence[Frame]) -> tuple[list[dict], float]:
        """At most one frame a stream -> the answers, and the milliseconds they took."""
        begun = time.perf_counter()
        answers = self.analyst.decide(frames)
        self.decided += len(frames)
        return answers, (time.perf_counter() - begun) * 1e3

    def say(self, chunks: Mapping[str, Chunk]) -> dict[str, Comment]:
        """A sentence for a second of each of some streams."""
        return self.commentator.say(chunks)

    def hand_over(self, stream: str) -> dict:
        """All that is known of a stream, which is forgotten here: {"analysis": plain data | None, "commentary": bytes | None}."""
        told: dict = {"analysis": None, "commentary": None}
        if hasattr(self.analyst, "hand_over") and stream in self.analyst.streams:
            told["analysis"] = self.analyst.hand_over(stream)
        if self.commentator and stream in self.commentator.streams:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "stream"
                self.commentator.save(stream, path)
                told["commentary"] = path.read_bytes()
        self.forget(stream)
        return told

    def take(self, stream: str, told: dict) -> None:
        """Go on with a stream from where another replica was."""
        if told["analysis"] is not None:
            self.analyst.take_over(stream, told["analysis"])
        if self.commentator and told["commentary"] is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "stream"
                path.write_bytes(told["commentary"])
                self.commentator.restore(stream, path)

    def forget(self, stream: str) -> None:
        self.analyst.forget(stream)
        if self.commentator:
            self.commentator.leave(stream)


def _commentator(folder: Path) -> Commentator:
    from streamingvlm.streaming.commentator import Commentator  # transformers, four seconds of a replica's start

    return Commentator.load(folder)
