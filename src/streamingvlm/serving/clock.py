"""The machine's clock may be set while the service runs: when that was, and what it showed before. Knows nothing of what the times are of.

    clock = Clock(); clock.look()       # now and then: a step is noticed by whoever looks
    clock.ago(3600)                     # what is older than an hour was written down as before this
    clock.set_within(5.0)               # whether it was set in the last five seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_S = 0.5  # a clock that is only being slewed moves by less between two looks
KEPT = 1000  # steps


class Clock:
    """`wall`: seconds since 1970, by a clock that is set; `steady`: seconds by one that is not."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic):
        self.wall, self.steady = wall, steady
        self.offset = wall() - steady()
        self.steps: list[tuple[float, float]] = [(float("-inf"), self.offset)]  # (from when on, by `steady`; what `wall` was ahead of it)

    def look(self) -> float:
        """-> how far `wall` is ahead of `steady`."""
        now = self.steady()
        offset = self.wall() - now
        if abs(offset - self.offset) > STEP_S:
            self.steps = [*self.steps[-KEPT:], (now, offset)]
        self.offset = offset
        return offset

    def ago(self, seconds: float) -> float:
        """The least that was shown since so many seconds ago: after a step back what is older may stay for a while, so that nothing younger goes."""
        begin, shown = self.steady() - seconds, [self.steady() + self.look()]
        for (since, offset), (until, _) in zip(self.steps, [*self.steps[1:], (float("inf"), 0.0)], strict=True):
            if until > begin:
                shown.append(max(since, begin) + (self.offset if until == float("inf") else offset))
        return min(shown)

    def set_within(self, seconds: float) -> bool:
        self.look()
        return self.steady() - self.steps[-1][0] < seconds
