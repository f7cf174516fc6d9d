"""How often somebody may ask: a bucket for each, filled at a steady rate. Bounded memory; knows no clock but the one it is told.

    limit = Limit(per_s=30, burst=120); limit.take("token id", now)      # seconds to wait, 0.0: go on
"""

from __future__ import annotations

from collections import OrderedDict

KNOWN = 4096  # of whom it remembers how much they had left; who is forgotten begins with a full bucket


class Limit:
    def __init__(self, per_s: float, burst: int):
        self.per_s, self.burst = per_s, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, now: float, count: float = 1.0) -> float:
        """Take `count` out of the bucket -> 0.0, or nothing -> the seconds until it holds so much."""
        left, then = self._left.pop(who, (float(self.burst), now))
        left = min(self.burst, left + max(now - then, 0.0) * self.per_s)
        short = count - left
        self._left[who] = (left if short > 0 else left - count, now)
        if len(self._left) > KNOWN:
            self._left.popitem(last=False)
        return max(short / self.per_s, 0.0)
