"""What rooms hand each other: a chunk of video or a live frame on its way in, a comment on its way out. Plain data; knows no file and no model.

Letters for shapes: F frames, H W pixels, C channels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chunk:
    """`chunk_s` of video. `start_s`, `end_s` count from read_chunks' `start_s`, and where the picture begins after the sound, from as much before it:
    that is the time players show. `times_s` is the picture's clock, 0 = its first frame. `note`: what another model says of this chunk, in words; it
    stands in the user's turn, before the pictures."""

    index: int
    start_s: float
    end_s: float
    frames: np.ndarray  # [F, H, W, C] uint8 RGB
    times_s: tuple[float, ...]
    note: str = ""


@dataclass(frozen=True)
class Comment:
    """What was said in one chunk. Times in seconds of the stream; `tokens` spoken, without the end token; `kv_tokens` cached after the chunk."""

    stream: str
    policy: str
    chunk: int
    start_s: float
    end_s: float
    text: str
    tokens: int
    kv_tokens: int
    kv_bytes: int
    ms: dict[str, float]
    memory_mb: float

    def line(self, timed: bool = True) -> dict:
        """As one JSON line of the contract; without what differs from run to run unless `timed`."""
        row = dataclasses.asdict(self)
        return row if timed else {key: value for key, value in row.items() if key not in {"ms", "memory_mb"}}


@dataclass(frozen=True)
class Answer:
    """What was answered when a stream was asked, `at_s` seconds into it. `tokens` said, or compared where there were `options`: of each its log
    likelihood, in the order offered. `kv_tokens` cached while it was asked. `ms` has `ttft`, to the first token or to the first comparison."""

    stream: str
    policy: str
    at_s: float
    question: str
    text: str
    tokens: int
    kv_tokens: int
    ms: dict[str, float]
    options: dict[str, float]

    def line(self, timed: bool = True) -> dict:
        """As one JSON line, told from a comment's by its `question`; without what differs from run to run unless `timed`."""
        row = dataclasses.asdict(self)
        return row if timed else {key: value for key, value in row.items() if key != "ms"}


@dataclass(frozen=True)
class Stamp:
    """A live frame without its picture. `index` counts a stream's frames, `epoch` its connections; `pts_s` is the sender's clock, which begins anew
    with each of them. `captured_at` and `received_at` are seconds since 1970, the first by the clock of `captured_by`: sender or receiver. `fps`:
    as measured by the timestamps so far, 0 while unknown."""

    stream: str
    index: int
    epoch: int
    pts_s: float
    captured_at: float
    captured_by: str
    received_at: float
    fps: float = 0.0


@dataclass(frozen=True)
class Frame:
    """A live frame: pixels [H, W, C] uint8 RGB."""

    stamp: Stamp
    pixels: np.ndarray
