"""Fewer frames a second, chosen by their timestamps: exact in the long run, whatever the source's rate. Knows timestamps only.

    pace = Pace(8.0)
    kept = [frame for frame in frames if pace.keeps(frame.pts_s)]
"""

from __future__ import annotations

import math

EARLY = 1 / 8  # of a step: a frame may come so much before its place; timestamps are rounded, and cameras do not keep time to the microsecond
BREAK_S = 1.0  # timestamps that go back further than this begin anew


class Pace:
    """Places lie at first + k / fps; each takes the first frame at it or beyond. A source slower than `fps` keeps all of its frames."""

    def __init__(self, fps: float):
        if not 0 < fps < math.inf:
            raise ValueError(f"a rate is a number of frames a second above 0, not {fps}")
        self.fps = fps
        self.restart()

    def restart(self) -> None:
        """The next frame is a first one, as after a reconnection."""
        self._first: float | None = None
        self._place = 0  # the next one to fill
        self._last = -math.inf

    def keeps(self, pts_s: float) -> bool:
        """Is this frame one of those that stay? Ask once a frame, in order."""
        if self._first is None or pts_s < self._last - BREAK_S:
            self._first, self._place = pts_s, 0
        self._last = pts_s
        at = (pts_s - self._first) * self.fps + EARLY
        if at < self._place:
            return False
        self._place = math.floor(at) + 1
        return True
