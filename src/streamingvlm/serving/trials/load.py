"""The real model on a made-up machine: a city's cameras among any number of others, in virtual time, with run times drawn from measured ones.

    measured = run_times(analyst, frames, sizes=(1, 2, 4, 8, 16))
    under = watch(analyst, City(seed, frames=240), 32, RunTimes(measured["cpu_ms"]))
    quality(under.decided, city.truth, limits, FPS, under.phases_s)        # evaluation.under_load

What is decided is computed for the city's cameras only, by the service's own analyst, on the frames that the schedule left; the others take their
places in the batches. So a machine with two cores shows what another would decide, late as it would be. Letters: F frames, B streams.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.serving.live.analyst import Analyst
from streamingvlm.serving.live.baseline import Asked
from streamingvlm.serving.schedule.events import FrameArrived, Settings
from streamingvlm.serving.schedule.virtual import Cameras, Outcome, RunTimes, cameras, drive, names, phases_s, scheduler
from streamingvlm.serving.trials.under_load import Decided
from streamingvlm.worlds.city.world import City

WARM = 4  # rounds that are not counted
LARGEST = 32  # streams in a batch


@dataclass(frozen=True)
class UnderLoad:
    """What became of all frames, and of each of the city's cameras its decisions and when its frame 0 was taken."""

    outcome: Outcome
    decided: list[Decided]
    phases_s: np.ndarray


def run_times(analyst: Analyst | Asked, pictures: np.ndarray, sizes: Sequence[int], rounds: int = 48) -> dict[str, dict[int, list[float]]]:
    """pictures [B, F, H, W, 3] of some streams, which take turns: what they show may cost more or less -> {"wall_ms", "cpu_ms"}: size -> one number a
    batch. `cpu_ms` is this thread's own time, and what to read on a machine that others use too. The analyst forgets all streams."""
    out: dict[str, dict[int, list[float]]] = {"wall_ms": {}, "cpu_ms": {}}
    for size in sizes:
        spent = []
        for k in range(rounds + WARM):
            frames = [Frame(_stamp(f"{size}/{b}", k, k / 8), pictures[(b + k) % len(pictures), k % pictures.shape[1]]) for b in range(size)]
            wall, own = time.perf_counter(), time.thread_time()
            analyst.decide(frames, k / 8)
            spent.append((time.perf_counter() - wall, time.thread_time() - own))
        for name, column in zip(out, zip(*spent[WARM:], strict=True), strict=True):
            out[name][size] = [round(seconds * 1e3, 3) for seconds in column]
        analyst.forget_all()
    return out


def watch(analyst: Analyst, city: City, streams: int, run_ms: RunTimes, settings: Settings | None = None, fps: float = 8.0,
          seed: int = 0) -> UnderLoad:
    """The first cameras of `streams` are the city's, for as long as it lasts. The analyst must have seen nothing yet."""
    made = Cameras(streams, city.frames / fps, fps, seed=seed, settings=settings or Settings())
    mine = {name: camera for camera, name in enumerate(names(made)[: city.cameras])}
    pictures = [city.render(camera) for camera in mine.values()]  # [F, H, W, 3] each
    told: dict[str, list[tuple[float, int, dict]]] = {name: [] for name in mine}

    def decide(frames: Sequence[FrameArrived], now: float) -> None:
        real = [frame for frame in frames if frame.stream in mine]
        if real:
            stamps = [_stamp(one.stream, one.frame_id, one.captured_at) for one in real]
            rows = analyst.decide([Frame(stamp, pictures[mine[stamp.stream]][stamp.index]) for stamp in stamps], now)
            for one, row in zip(real, rows, strict=True):
                told[one.stream].append((now, one.frame_id, row))

    outcome = drive(scheduler(run_ms, LARGEST), cameras(made), run_ms, decide)
    return UnderLoad(outcome, [Decided.of(rows) for rows in told.values()], phases_s(made)[: len(mine)])


def curve(run_ms: RunTimes, counts: Sequence[int], seconds: float, settings: Settings, fps: float = 8.0) -> list[dict]:
    """One row for each number of streams: latencies, goodput, drops by cause, utilisation. Virtual time, no model."""
    rows = []
    for seed, streams in enumerate(counts):
        outcome = drive(scheduler(run_ms, LARGEST), cameras(Cameras(streams, seconds, fps, seed=seed, settings=settings)), run_ms)
        total = outcome.counts
        rows.append({"streams": streams, "covered_ms": outcome.covered.summary(), "decided_ms": outcome.decided.summary(),
                     "goodput": round(outcome.goodput / seconds, 2), "frames": total.frames_in, "decided": total.decided,
                     "dropped": {cause: count for cause, count in total.dropped.items() if count},
                     "busy": round(outcome.busy_s / outcome.seconds, 3), "batch": round(total.decided / max(1, outcome.batches), 2)})
    return rows


def _stamp(stream: str, index: int, at_s: float) -> Stamp:
    return Stamp(stream, index, 0, at_s, at_s, "sender", at_s)


def spread(most: int) -> list[int]:
    """Numbers of streams to try, evenly on a logarithm: 1, 2, 3, 4, 6, 8, 12 ... up to `most`."""
    return sorted({n for power in itertools.takewhile(lambda n: n <= most, (2**k for k in range(20))) for n in (power, power * 3 // 2) if n <= most})
