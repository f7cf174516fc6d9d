"""The scheduler in virtual time: cameras or a trace, run times drawn from measured ones -> decisions, drops, latencies. An hour takes seconds.

    outcome = drive(Scheduler(curve), cameras(Cameras(streams=32, seconds=3600.0)), RunTimes(measured, seed=0))
    outcome.covered.percentile(99); outcome.counts.dropped

Open loop: a frame's clock starts when it was due, whether or not anybody was there to take it. A frame that was dropped is *covered* by the next
decision of its stream on a newer frame, and its latency runs until then: by what was decided alone, a server that stands still for six seconds and
drops what comes meanwhile would look as quick as ever. Results stream: nothing is kept of a frame that is decided. Computes no picture.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamingvlm.media.arrivals import Arrival, Lost, Row
from streamingvlm.media.buffer import JitterBuffer
from streamingvlm.serving.schedule.events import BatchDone, Counts, Drop, Event, FrameArrived, FrameLost, Run, Settings, StreamAdded, Timer, Wake
from streamingvlm.serving.schedule.latencies import Latencies
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Limits, Scheduler

Told = tuple[float, Event]  # when, what
QUANTILES = 1000  # of a distribution that is drawn from
BLOCK_S = 10.0  # cameras are made up so far ahead
MOST_UNCOVERED = 4096  # dropped frames of a stream that wait for a decision; more are as good as never answered


@dataclass(frozen=True)
class Cameras:
    """Live cameras at even rates and any phase; `late_ms`: how late a frame is handed over after it was due, on average (exponential)."""

    streams: int
    seconds: float
    fps: float = 8.0
    late_ms: float = 1.0
    delay_s: float = 0.0
    seed: int = 0
    settings: Settings = field(default_factory=Settings)


def names(made: Cameras) -> list[str]:
    return [f"camera-{k}" for k in range(made.streams)]


def phases_s(made: Cameras) -> np.ndarray:
    """When each camera takes its frame 0 [B]."""
    return np.random.default_rng([made.seed, 0]).uniform(0, 1 / made.fps, made.streams)


def cameras(made: Cameras) -> Iterator[Told]:
    """Each stream is added at 0, then its frames come, by the time they are handed over."""
    rng, phase, called = np.random.default_rng([made.seed, 1]), phases_s(made), names(made)
    for name in called:
        yield 0.0, StreamAdded(name, made.settings)
    per_block = max(1, round(BLOCK_S * made.fps))
    latest, delay_s = np.zeros(made.streams), made.delay_s
    for first in range(0, math.ceil(made.seconds * made.fps), per_block):
        n = np.arange(first, min(first + per_block, math.ceil(made.seconds * made.fps)))
        due = phase[:, None] + n / made.fps + delay_s  # [B, F]
        at = np.maximum(np.maximum.accumulate(due + rng.exponential(made.late_ms / 1e3, due.shape), 1), latest[:, None])
        latest = at[:, -1]
        order = np.argsort(at, axis=None, kind="stable")
        columns = (at.ravel()[order].tolist(), due.ravel()[order].tolist(), (order // len(n)).tolist(), n[order % len(n)].tolist())
        for when, released_at, camera, number in zip(*columns, strict=True):
            captured_at = released_at - delay_s
            yield when, FrameArrived(called[camera], number, captured_at, captured_at, released_at)


def from_trace(rows: Iterable[Row], settings: Settings, delay_s: float) -> Iterator[Told]:
    """The arrivals of a trace through jitter buffers of `delay_s`, released on time. A stream is added when it is first heard of."""
    buffers: dict[str, JitterBuffer[Arrival]] = {}

    def released(until: float) -> Iterator[Told]:
        while True:
            due = min((buffer.next_at for buffer in buffers.values() if buffer.next_at is not None), default=math.inf)
            if due > until or due == math.inf:
                return
            for buffer in buffers.values():
                for row, at in buffer.pop(due):
                    yield max(due, at), FrameArrived(row.stream, row.index, row.pts_s, row.captured_at, at)

    for row in rows:
        if not isinstance(row, Arrival | Lost):
            continue
        at = row.arrived_at if isinstance(row, Arrival) else row.at
        yield from released(at)
        if row.stream not in buffers:
            buffers[row.stream] = JitterBuffer(delay_s)
            yield at, StreamAdded(row.stream, settings)
        if isinstance(row, Lost):
            yield at, FrameLost(row.stream, row.count, row.cause)
            continue
        for _, cause in buffers[row.stream].push(row, row.epoch, row.pts_s, at):
            yield at, FrameLost(row.stream, 1, cause)
    yield from released(math.inf)


class RunTimes:
    """ms of a batch, drawn from measured ones: size -> what was measured. A size between two is drawn between them, at one quantile of both."""

    def __init__(self, measured: Mapping[int, Sequence[float]], seed: int = 0):
        if not measured or any(size < 1 or not len(ms) for size, ms in measured.items()):
            raise ValueError("run times are drawn from measured ones: give sizes, and at least one ms of each")
        self._sizes = np.array(sorted(measured))
        self._known = np.stack([np.quantile(measured[size], np.linspace(0, 1, QUANTILES)) for size in self._sizes.tolist()])  # [sizes, QUANTILES]
        self._tables: dict[int, list[float]] = {}
        self._random = random.Random(seed).random

    def __call__(self, size: int, now: float) -> float:
        if size not in self._tables:
            self._tables[size] = self._table(size)
        return self._tables[size][int(self._random() * QUANTILES)]

    def _table(self, size: int) -> list[float]:
        if len(self._sizes) == 1:
            return (self._known[0] * size / self._sizes[0]).tolist()
        at = int(np.clip(np.searchsorted(self._sizes, size), 1, len(self._sizes) - 1))
        n0, n1 = self._sizes[at - 1 : at + 1]
        slope = np.maximum(self._known[at] - self._known[at - 1], 0) / (n1 - n0)
        return (self._known[at] + slope * (size - n1)).clip(self._known[0] * min(1.0, size / self._sizes[0])).tolist()

    def curve(self) -> dict[int, float]:
        """Size -> median ms: what a LatencyCurve starts from."""
        return {int(size): float(np.median(row)) for size, row in zip(self._sizes, self._known, strict=True)}


def scheduler(run_ms: RunTimes, largest: int, slower: float = 1.0) -> Scheduler:
    """One that knows the medians of a machine so many times slower, batches up to `largest` streams and turns nobody away."""
    return Scheduler(LatencyCurve({size: ms * slower for size, ms in run_ms.curve().items()}, largest), Limits(utilisation=None))


def frozen(run_ms: Callable[[int, float], float], at_s: float, for_s: float) -> Callable[[int, float], float]:
    """The same server, stopped from `at_s` on for so long: what runs or begins then goes on behind it."""

    def taken(size: int, now: float) -> float:
        ms = run_ms(size, now)
        if now >= at_s + for_s or now + ms / 1e3 <= at_s:
            return ms
        return ms + (at_s + for_s - max(now, at_s)) * 1e3

    return taken


@dataclass
class Outcome:
    """`decided`: release -> decision of frames that were decided; `covered`: of every frame, until it or a newer one of its stream was decided.
    `over`: of the covered, those beyond their budget; `goodput`: decided within it."""

    decided: Latencies = field(default_factory=Latencies)
    dropped: Latencies = field(default_factory=Latencies)  # of those covered by a newer one
    over: int = 0
    goodput: int = 0
    seconds: float = 0.0
    busy_s: float = 0.0
    batches: int = 0
    counts: Counts = field(default_factory=Counts)

    @property
    def covered(self) -> Latencies:
        out = Latencies()
        out.merge(self.decided)
        out.merge(self.dropped)
        return out


class Books:
    """Keeps the outcome, frame by frame."""

    def __init__(self, outcome: Outcome):
        self.outcome = outcome
        self.budget_ms: dict[str, float] = {}
        self._uncovered: dict[str, deque[float]] = {}  # release times of dropped frames, by stream

    def add(self, stream: str, settings: Settings) -> None:
        self.budget_ms[stream] = settings.budget_ms
        self._uncovered[stream] = deque()

    def decided(self, frame: FrameArrived, now: float) -> None:
        stream, released_at = frame.stream, frame.released_at
        waiting = self._uncovered[stream]
        while waiting and waiting[0] <= released_at:
            self._cover(stream, waiting.popleft(), now)
        ms, outcome = (now - released_at) * 1e3, self.outcome
        outcome.decided.record(ms)
        if ms <= self.budget_ms[stream]:
            outcome.goodput += 1
        else:
            outcome.over += 1

    def dropped(self, frame: FrameArrived) -> None:
        waiting = self._uncovered.get(frame.stream)
        if waiting is not None:
            waiting.append(frame.released_at)
            if len(waiting) > MOST_UNCOVERED:
                self._cover(frame.stream, waiting.popleft(), math.inf)

    def finish(self, now: float) -> None:
        """Nothing more comes: what nobody answered was late by at least so much."""
        for stream, waiting in self._uncovered.items():
            for released_at in waiting:
                self._cover(stream, released_at, now)

    def _cover(self, stream: str, released_at: float, now: float) -> None:
        ms = (now - released_at) * 1e3
        self.outcome.dropped.record(ms)
        self.outcome.over += ms > self.budget_ms[stream]


def drive(scheduler: Scheduler, told: Iterable[Told], run_ms: Callable[[int, float], float],
        on_batch: Callable[[Sequence[FrameArrived], float], None] = lambda frames, now: None,
        on_drop: Callable[[FrameArrived, str], None] = lambda frame, cause: None) -> Outcome:
    """Drive the scheduler until everything told is answered. `run_ms(size, now)`: how long a batch that begins now takes; `on_batch(frames, now)` is
    called when it is done, and may tell the scheduler of alarms."""
    outcome = Outcome()
    books, source = Books(outcome), iter(told)
    handle, nothing = scheduler.handle, (math.inf, None)
    at, event = next(source, nothing)
    now, done_at, wake_at, batch, batch_ms = 0.0, math.inf, math.inf, None, 0.0
    while True:
        if done_at <= at and done_at <= wake_at:
            if done_at == math.inf:
                break
            now, done_at = done_at, math.inf
            for frame in batch.frames:
                books.decided(frame, now)
            on_batch(batch.frames, now)
            actions = handle(BatchDone(batch.batch_id, batch_ms), now)
        elif wake_at <= at:
            now, wake_at = wake_at, math.inf
            actions = handle(Timer(), now)
        else:
            now = at
            if type(event) is StreamAdded:
                books.add(*event)
            actions = handle(event, now)
            at, event = next(source, nothing)
        for action in actions:
            kind = type(action)
            if kind is Run:
                batch, batch_ms = action, run_ms(len(action.frames), now)
                done_at = now + batch_ms / 1e3
                outcome.batches += 1
                outcome.busy_s += batch_ms / 1e3
            elif kind is Wake:
                wake_at = action.at
            elif kind is Drop:
                books.dropped(action.frame)
                on_drop(*action)
    books.finish(now)
    outcome.seconds, outcome.counts = now, scheduler.totals()
    return outcome
