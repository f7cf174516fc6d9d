"""A file at the speed at which it was filmed: a clock, and chunks handed over when their last frame's time has come. Knows no model and no view."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from streamingvlm.base.records import Chunk


class Clock:
    """The stream's time: second 0 is when `start` is called, and it passes `speed` times as fast as that on the wall."""

    def __init__(self, speed: float = 1.0, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self.speed, self.now, self.sleep = speed, now, sleep
        self.begun = 0.0

    def start(self) -> None:
        self.begun = self.now()

    def since(self, at_s: float) -> float:
        """Seconds on the wall since the stream's second `at_s`; negative before it."""
        return self.now() - self.begun - at_s / self.speed

    def wait(self, at_s: float) -> float:
        """Wait for the stream's second `at_s` -> how many seconds on the wall it had been over when asked, 0 if it was still to come."""
        late_s = self.since(at_s)
        while (left_s := -self.since(at_s)) > 0:
            self.sleep(left_s)
        return max(late_s, 0.0)


def paced(chunks: Iterable[Chunk], clock: Clock, see: Callable[[int, int], None]) -> Iterator[tuple[Chunk, float, float]]:
    """(chunk, its arrival in the stream's seconds, how many seconds late it is), each when its last frame has arrived. `see` (chunk, frame): has
    arrived. The clock starts when the first chunk is at hand; the next one is read while this waits."""
    for chunk in chunks:
        if chunk.index == 0:
            clock.start()
        step_s = (chunk.end_s - chunk.start_s) / len(chunk.frames)
        late_s = arrival_s = 0.0
        for j in range(len(chunk.frames)):
            arrival_s = chunk.start_s + j * step_s
            late_s = clock.wait(arrival_s)
            see(chunk.index, j)
        yield chunk, arrival_s, late_s
