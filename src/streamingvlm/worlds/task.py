"""What training and evaluation ask of a world, and all they know of one: labels, words, videos to practise on, how a commentary is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamingvlm.base import config
from streamingvlm.data.labelled import LabelledVideo


class Task(Protocol):
    """A made-up world as a task. `labels`: what can happen in a second; `words`: all that is ever said; `metrics`: the scores, the decisive first."""

    labels: Sequence[str]
    words: Sequence[str]
    metrics: Sequence[str]

    def blind_video(self, seed: int, seconds: int, video: config.Video, lively: bool = False) -> LabelledVideo:
        """What happens and is said, without a picture. `lively`: with more of what is rare."""

    def drawn_video(self, seed: int, seconds: int, video: config.Video) -> LabelledVideo:
        """The same with its pictures, straight into memory."""

    def score(self, texts: Sequence[str], row: dict, tolerance_s: float = 1.0) -> dict[str, float | None]:
        """What was said, chunk by chunk, against what is true of a stream row: a value for each of `metrics`."""
