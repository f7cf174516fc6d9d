"""Latencies of any number of frames in a fixed amount of memory: an HdrHistogram, three digits from a microsecond to an hour. Knows no stream.

    latencies = Latencies(); latencies.record(23.4); latencies.percentile(99); latencies.merge(other)
"""

from __future__ import annotations

from array import array

import numpy as np
from hdrh.histogram import HdrHistogram

LONGEST_US = 3_600_000_000
BLOCK = 1 << 11  # values that are sorted into the histogram together: one at a time costs more than all the rest


class Latencies:
    def __init__(self):
        self._histogram = HdrHistogram(1, LONGEST_US, 3)
        self._new = array("d")

    def record(self, ms: float) -> None:
        """What is longer than an hour counts as an hour."""
        self._new.append(ms)
        if len(self._new) >= BLOCK:
            self._flush()

    def __len__(self) -> int:
        return self._histogram.get_total_count() + len(self._new)

    def percentile(self, q: float) -> float:
        """ms that `q` percent are within; 0 of none."""
        self._flush()
        return self._histogram.get_value_at_percentile(q) / 1e3

    def over(self, ms: float) -> int:
        """How many were longer, to three digits."""
        self._flush()
        return sum(step.count_added_in_this_iter_step for step in self._histogram.get_recorded_iterator() if step.value_iterated_to > ms * 1.001e3)

    def summary(self) -> dict[str, float]:
        """p50, p95, p99 and the most, in ms."""
        return {**{f"p{q}": self.percentile(q) for q in (50, 95, 99)}, "max": self.percentile(100)}

    def merge(self, other: Latencies) -> None:
        other._flush()
        self._flush()
        self._histogram.add(other._histogram)

    def encode(self) -> bytes:
        """The histogram in its own compressed format, for a file: `HdrHistogram.decode` reads it."""
        self._flush()
        return self._histogram.encode()

    @classmethod
    def decode(cls, encoded: bytes | str) -> Latencies:
        """What `encode` gave."""
        out = cls()
        out._histogram.add(HdrHistogram.decode(encoded))
        return out

    def _flush(self) -> None:
        us = np.clip(np.frombuffer(self._new, float) * 1e3, 1, LONGEST_US)
        step = 10.0 ** np.clip(np.floor(np.log10(us)) - 3, 0, None)  # four digits: finer than the histogram's own
        values, counts = np.unique((np.rint(us / step) * step).astype(np.int64), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._histogram.record_value(min(value, LONGEST_US), count)
        self._new = array("d")
