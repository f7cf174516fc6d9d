"""What every view of a live stream must be able to do, and the latencies it shows. Knows no terminal and no browser."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from streamingvlm.base.records import Answer, Comment

if TYPE_CHECKING:
    import numpy as np


class View(Protocol):
    """Shows a stream to people, and takes what they type. A context manager: entered before the model is loaded."""

    drawn: bool  # whether it shows pictures
    typed: queue.SimpleQueue[str]  # lines: questions, or wishes behind `/tell `

    def see(self, frame: np.ndarray) -> None:
        """A frame [H, W, C] has arrived."""

    def say(self, comment: Comment, tally: LatencyStats) -> None:
        """A chunk was commented on."""

    def answer(self, answer: Answer) -> None:
        """A question was answered."""


@dataclasses.dataclass
class LatencyStats:
    """Latencies and lateness so far. Every chunk counts, the first ones too. `fps`: frames in a second of the stream; `speed`: of its clock."""

    fps: float
    speed: float
    latency_ms: list[float] = dataclasses.field(default_factory=list)
    late: int = 0  # chunks that waited for the model
    latest_ms: float = 0.0  # the longest such wait

    def add(self, comment: Comment) -> None:
        self.latency_ms.append(comment.ms["latency"])
        self.late += comment.ms["late"] >= 1  # ms: less is how exactly this machine sleeps
        self.latest_ms = max(self.latest_ms, comment.ms["late"])

    def of(self, said: Iterable[Comment]) -> Iterator[Comment]:
        """Pass comments through, counting."""
        for comment in said:
            self.add(comment)
            yield comment

    @property
    def percentiles(self) -> dict[str, float]:
        from streamingvlm.base.timing import percentiles

        return percentiles(self.latency_ms)

    def numbers(self, newest: Comment) -> list[tuple[str, str]]:
        """What a view says beside the text: (name, value)."""
        p, ms = self.percentiles, newest.ms
        fps = newest.end_s * self.fps / (newest.end_s / self.speed + ms["late"] / 1e3)
        return [("latency", f"{ms['latency']:.0f} ms"), ("p50", f"{p['p50']:.0f} ms"), ("p95", f"{p['p95']:.0f} ms"),
                ("behind", f"{ms['late'] / 1e3:.1f} s"), ("late chunks", f"{self.late} of {len(self.latency_ms)}"),
                ("frames", f"{fps:.1f} / s"), ("cache", f"{newest.kv_tokens:,} tokens"), ("its size", f"{newest.kv_bytes / 2**20:.1f} MiB")]

    def __str__(self) -> str:
        p, n = self.percentiles, len(self.latency_ms)
        late = f"{self.late} had to wait, at most {self.latest_ms:.0f} ms" if self.late else "none had to wait"
        return f"From the last frame to the text: {p['p50']:.0f} ms (p50), {p['p95']:.0f} ms (p95); of {n} chunks {late}."
