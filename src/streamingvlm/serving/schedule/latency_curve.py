"""How long a batch of n frames takes on this machine: a measured curve, kept true by every batch that runs. Knows numbers only.

    curve = LatencyCurve({1: 10.0, 8: 29.0}, largest=16)
    curve.ms(4); curve.learn(4, 18.2); curve.largest_within(60.0)

An estimate is the given curve times what is learned: how slow the machine is now (shared by all sizes, so that a size that was found slow once
and is no longer tried recovers with the others), how this size differs (slowly), and a margin of mean deviations, so that most batches are no longer.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping

SPEED_MEMORY, SHAPE_MEMORY = 0.1, 0.02  # share of a new measurement in the running means
MARGIN = 1.5  # mean deviations: some nine in ten batches are no longer
OUTLIER = 2.0  # one frozen batch counts as this many times the estimate at most; a machine that stays slow is learned all the same


class LatencyCurve:
    """`given`: batch size -> ms, at least one; sizes between lie on straight lines, beyond them on the last line."""

    def __init__(self, given: Mapping[int, float], largest: int):
        if not given or largest < 1 or any(size < 1 or not 0 < ms < math.inf for size, ms in given.items()):
            raise ValueError(f"a latency curve needs sizes and ms above 0, not {dict(given)} up to {largest}")
        self.largest = largest
        self._speed = 1.0
        self._deviation = 0.1  # mean, as a share of the estimate
        self.replace(given)

    def replace(self, given: Mapping[int, float]) -> None:
        """Another curve from now on, of a machine that is as slow just now as this one was."""
        self._shape = [0.0, *(_between(sorted(given.items()), size) for size in range(1, self.largest + 1))]
        self._first = [0, *(self._split(size) for size in range(1, self.largest + 1))]
        self._estimate()

    def ms(self, size: int) -> float:
        """Expected ms of a batch of 1..largest frames, on the safe side."""
        return self.table[size]

    def first_batch(self, size: int) -> int:
        """Of so many waiting frames, how many to run first: all, or fewer where the curve has a step and two batches are done sooner than one."""
        return self._first[size]

    def learn(self, size: int, ms: float) -> None:
        """One batch took this long. What is no time at all teaches nothing."""
        if not (1 <= size <= self.largest and 0 < ms < math.inf):
            return
        off = min(ms / (self._shape[size] * self._speed), OUTLIER) - 1.0
        self._deviation += SPEED_MEMORY * (abs(off) - self._deviation)
        self._speed *= 1.0 + SPEED_MEMORY * off
        self._shape[size] *= 1.0 + SHAPE_MEMORY * off
        self._estimate()

    def largest_within(self, limit_ms: float) -> int:
        """The largest size whose batch is done within `limit_ms`; 0 if none is."""
        return next((size for size in range(self.largest, 0, -1) if self.ms(size) <= limit_ms), 0)

    def _estimate(self) -> None:
        safe = self._speed * (1.0 + MARGIN * self._deviation)
        self.table = [ms * safe for ms in self._shape]  # size -> ms

    def _split(self, size: int) -> int:
        shape = self._shape
        return min(range(size, 0, -1), key=lambda first: shape[first] + shape[size - first])

    def as_dict(self) -> dict[int, float]:
        """Size -> ms as now believed."""
        return dict(enumerate(self.table[1:], 1))


def _between(points: list[tuple[int, float]], size: int) -> float:
    """The line through the two points around `size`; below the first point its value, beyond the last the last line, never falling."""
    at = bisect_left(points, (size, -math.inf))
    if at < len(points) and (points[at][0] == size or at == 0):
        return points[at][1]
    if len(points) == 1:
        return points[0][1] * size / points[0][0]
    (n0, ms0), (n1, ms1) = points[at - 1 : at + 1] if at < len(points) else points[-2:]
    return max(ms0 + (ms1 - ms0) * (size - n0) / (n1 - n0), ms1 if at == len(points) else 0.0)
