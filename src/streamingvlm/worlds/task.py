"""What training and evaluation ask of a world, and all they know of one: labels, words, videos to practise on, how a commentary is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamingvlm.base import config
from streamingvlm.data.labelled import LabelledVideo


@dataclass(frozen=True)
class Question:
    """What a stream is asked. `kind`: what it tests; `options`: what may be answered, each once, the true `answer` among them."""

    kind: str
    text: str
    answer: str
    options: tuple[str, ...]


class Task(Protocol):
    """A made-up world as a task. `labels`: what can happen in a second; `words`: all that is ever said; `metrics`: the scores, the decisive first."""

    labels: Sequence[str]
    words: Sequence[str]
    metrics: Sequence[str]

    def blind_video(self, seed: int, seconds: int, video: config.Video, lively: bool = False) -> LabelledVideo:
        """What happens and is said, without a picture. `lively`: with more of what is rare."""

    def drawn_video(self, seed: int, seconds: int, video: config.Video) -> LabelledVideo:
        """The same with its pictures, straight into memory."""

    def told(self, video: LabelledVideo, start: int, stop: int) -> tuple[str, list[tuple[str, str]]]:
        """What is written beside the clip of chunks [start, stop): its title, and questions with answers, what it shows as a whole first."""

    def score(self, texts: Sequence[str], row: dict, tolerance_s: float = 1.0) -> dict[str, float | None]:
        """What was said, chunk by chunk, against what is true of a stream row: a value for each of `metrics`."""

    def questions(self, row: dict, at_s: float, since_s: float = 0.0) -> list[Question]:
        """What can be asked of a stream row when its seconds from `since_s` to `at_s` have passed, with what is true."""
