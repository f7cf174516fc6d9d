"""Clocks and counters: milliseconds per stage (CUDA events on a GPU, perf_counter on a CPU), percentiles, memory. Measures; decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

STAGES = ("read", "encode", "evict", "prefill", "decode")
WARM_CHUNKS = 5  # the first chunks of a stream pay for what is set up once; timings leave them out


class Stopwatch:
    """Milliseconds of each named stage since the last `read`. On a GPU the stages are bracketed by events and synchronised once, at `read`."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self._marks: list[tuple[str, object, object]] = []

    def _now(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        yield
        self._marks.append((stage, start, self._now()))

    def read(self) -> dict[str, float]:
        """ms per stage, every stage of `STAGES` present, and their `total`. Starts anew."""
        if self.cuda and self._marks:
            self._marks[-1][2].synchronize()  # what runs beside, on other streams, runs on
        out = dict.fromkeys(STAGES, 0.0)
        for stage, start, stop in self._marks:
            out[stage] += start.elapsed_time(stop) if self.cuda else (stop - start) * 1e3
        self._marks = []
        out = {stage: round(ms, 3) for stage, ms in out.items()}
        return out | {"total": round(sum(out.values()), 3)}


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of a series."""
    return {f"p{q}": round(float(np.percentile(ms, q)), 3) for q in (50, 95, 99)}


def resident_mb() -> float:
    """Resident memory of this process, MiB (0 where the system does not tell)."""
    status = Path("/proc/self/statm")
    if status.exists():
        import resource

        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def peak_gpu_mb(device: torch.device) -> float | None:
    """Peak memory torch has allocated on the GPU, MiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
