"""The scheduler at work: frames that were released in, batches to the model's process, answers and drops out. Runs in the service's loop.

The scheduler decides; this hands it what happens with the time at which it happened, does what it answers, and keeps where each frame's picture lies
until nobody needs it. Knows the model's process and the pools of slots; no source, and nobody who reads results.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Stamp
from streamingvlm.media.arrivals import Arrival, Ran, Row, Setup
from streamingvlm.serving.clock import Clock
from streamingvlm.serving.processes import Worker
from streamingvlm.serving.schedule import events
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.replay import to_row
from streamingvlm.serving.schedule.scheduler import Scheduler
from streamingvlm.serving.slots import Slots

log = logging.getLogger(__name__)
LARGEST = 16  # streams in a batch
SEVERITY = 1.0  # what an alarm adds to a stream's priority for a while
DELAY_S = 2.5  # what a jitter buffer holds a frame back, at most, and a little
UNCOVERED = 4096  # lost frames of a stream that wait for a newer one


@dataclass(frozen=True)
class Flying:
    """A frame that is neither decided nor dropped, and where its picture is."""

    stamp: Stamp
    pool: int
    slot: int
    released_at: float  # monotonic


@dataclass(frozen=True)
class Told:
    """What `Decider` calls in the loop: `decided(stamp, answer, ms)`, `dropped(stamp, cause)`, `refused(stream, reason)`, and
    `covered(stream, {"release", "capture"})`, ms, for each lost frame once a newer one is decided: its clock runs until then, or a freeze that loses
    frames would not show."""

    decided: Callable[[Stamp, dict, dict[str, float]], None]
    dropped: Callable[[Stamp, str], None]
    refused: Callable[[str, str], None]
    covered: Callable[[str, dict[str, float]], None]


Engine = Callable[[Sequence[Slots], Callable[[tuple], None]], Worker]  # or what sends and takes a worker's messages


class Decider:
    """`record`: is handed a row for everything that happens, so that a run can be told again (`serving.schedule.replay`). `largest`: streams in a
    batch, at most. `engine(pools, on_message)`: what runs the model in the place of one process of this machine."""

    def __init__(self, model: Path, pools: Sequence[Slots], told: Told, record: Callable[[Row], None] = lambda row: None, largest: int = LARGEST,
                 precision: str = "float32", learned: str = "", engine: Engine | None = None):
        self.pools, self.told, self.record, self.largest = pools, told, record, largest
        self.worker = engine(pools, self._message) if engine else Worker(
            "analysis", "streamingvlm.serving.live.analysis:work", (model, pools, precision, learned), self._message, self._gone)
        self.scheduler: Scheduler | None = None
        self.curve: dict[int, float] = {}  # as the model's process measured it
        self.ready: asyncio.Future | None = None
        self.flying: dict[int, Flying] = {}
        self.running: tuple[int, tuple[events.FrameArrived, ...], float] | None = None
        self.numbers = itertools.count()
        self.batches: Counter[int] = Counter()
        self.uncovered: dict[str, deque[tuple[float, Stamp]]] = {}  # stream -> lost frames, when each was released, that no newer one is decided of
        self.restarts, self.stopped = 0, False
        self._wake: asyncio.TimerHandle | None = None
        self.clock = Clock()

    async def start(self, seconds: float) -> None:
        """Wait for the model. UserError where it cannot be loaded."""
        loop = asyncio.get_running_loop()
        self.ready = loop.create_future()
        self.worker.start(loop)
        try:
            curve = await asyncio.wait_for(self.ready, seconds)
        except TimeoutError:
            raise UserError(f"The model was not ready within {seconds:g} s: is the machine overloaded?") from None
        self.scheduler, self.curve = Scheduler(LatencyCurve(curve, self.largest)), curve
        self._setup()

    def _setup(self) -> None:
        self.record(Setup(time.monotonic(), list(self.curve.items()), self.largest, asdict(self.scheduler.limits)))

    async def stop(self) -> None:
        self.stopped = True
        if self._wake:
            self._wake.cancel()
        await self.worker.stop()

    def admit(self, utilisation: float | None) -> None:
        """Streams that are added from now on may bring the machine to this share of its time, by the latency curve; None: to any."""
        self.scheduler.limits = replace(self.scheduler.limits, utilisation=utilisation)
        self._setup()

    def add(self, stream: str, settings: events.Settings) -> None:
        self.drive(events.StreamAdded(stream, settings))

    def remove(self, stream: str) -> None:
        self.drive(events.StreamRemoved(stream))
        self.uncovered.pop(stream, None)
        self.worker.send(("forget", stream))

    def frame(self, stamp: Stamp, pool: int, slot: int, released_at: float) -> None:
        """A frame was released."""
        number = next(self.numbers)
        self.flying[number] = Flying(stamp, pool, slot, released_at)
        self.record(Arrival(stamp.stream, stamp.epoch, stamp.index, stamp.pts_s, stamp.captured_at, stamp.received_at - self.clock.look()))
        self.drive(events.FrameArrived(stamp.stream, number, stamp.pts_s, stamp.captured_at, released_at))

    def lost(self, stream: str, cause: str, count: int, released: tuple[float, Stamp] | None = None) -> None:
        """Frames never came this far. `released`: when, of one that should have."""
        if released:
            self._uncover(*released)
        self.drive(events.FrameLost(stream, count, cause))

    def _uncover(self, released_at: float, stamp: Stamp) -> None:
        self.uncovered.setdefault(stamp.stream, deque(maxlen=UNCOVERED)).append((released_at, stamp))

    def _cover(self, here: Flying, now: float) -> None:
        """`here` is decided: what was lost before it is late by so much. Not over connections: how long a camera was away is not our lateness."""
        waiting = self.uncovered.get(here.stamp.stream, ())
        while waiting and waiting[0][0] <= here.released_at:
            released_at, stamp = waiting.popleft()
            if stamp.epoch == here.stamp.epoch:
                self.told.covered(stamp.stream, self._late_ms(now, released_at, stamp.captured_at))

    def held(self, pool: int) -> set[int]:
        """The slots of a pool that frames in flight lie in."""
        return {frame.slot for frame in self.flying.values() if frame.pool == pool}

    def drive(self, event: events.Event) -> None:
        """Tell the scheduler, and do what it says."""
        now = time.monotonic()
        self.record(to_row(event, now))
        for action in self.scheduler.handle(event, now):
            match action:
                case events.Run():
                    self._run(action)
                case events.Drop(frame, cause):
                    here = self._land(frame)
                    self._uncover(here.released_at, here.stamp)
                    self.told.dropped(here.stamp, cause)
                case events.Wake(at):
                    self._wake_at(at)
                case events.Refused(stream, reason):
                    self.told.refused(stream, reason)

    def _land(self, frame: events.FrameArrived) -> Flying:
        """Its picture is needed no more."""
        here = self.flying.pop(frame.frame_id)
        self.pools[here.pool].free(here.slot)
        return here

    def _wake_at(self, at: float) -> None:
        if self._wake:
            self._wake.cancel()
        loop = asyncio.get_running_loop()
        self._wake = loop.call_later(max(at - time.monotonic(), 0.0), lambda: self.drive(events.Timer()))

    def _run(self, run: events.Run) -> None:
        places = [(here.stamp, here.pool, here.slot) for here in (self.flying[frame.frame_id] for frame in run.frames)]
        self.running = (run.batch_id, run.frames, time.monotonic())
        if not self.worker.send(("run", run.batch_id, places)):
            log.warning("a batch waits for the model's process to come back")

    def _message(self, message: tuple) -> None:
        match message:
            case ("ready", curve):
                if not self.ready.done():
                    self.ready.set_result(curve)
                elif self.running:  # come back: what it was asked for is asked for again
                    self._lose_batch()
            case ("failed", reason) if self.ready.done():
                log.error("the model cannot be loaded again: %s", reason)
            case ("failed", reason):
                self.stopped = True
                self.ready.set_exception(UserError(reason))
            case ("curve", curve):
                self.drive(events.CurveChanged(tuple(curve.items())))
            case ("done", batch, answers, run_ms):
                self._done(batch, answers, run_ms)

    def _done(self, batch: int, answers: list[dict], run_ms: float) -> None:
        if self.running is None or self.running[0] != batch:
            return
        (_, frames, begun), self.running = self.running, None
        now = time.monotonic()
        self.batches[len(frames)] += 1
        landed = [self._land(frame) for frame in frames]
        for frame, answer in zip(frames, answers, strict=True):
            if answer["alarms"]:
                self.drive(events.Alarm(frame.stream, SEVERITY))
        took_ms = max((now - begun) * 1e3, run_ms)
        self.record(Ran(len(frames), took_ms, now))
        self.drive(events.BatchDone(batch, took_ms))  # the next batch runs while this one is told of
        self.worker.watch(len(self.flying), [(now - here.released_at) * 1e3 for here in landed])
        for here, answer in zip(landed, answers, strict=True):
            self._cover(here, now)
            ms = {"wait": (begun - here.released_at) * 1e3} | self._late_ms(now, here.released_at, here.stamp.captured_at)
            self.told.decided(here.stamp, answer, ms)

    def _late_ms(self, now: float, released_at: float, captured_at: float) -> dict[str, float]:
        """From a frame's release, and from its capture; from its release too where the clock was set since it was captured, as nobody knows when."""
        release_s = now - released_at
        unknown = self.clock.set_within(DELAY_S + release_s)
        return {"release": release_s * 1e3, "capture": (release_s if unknown else now + self.clock.offset - captured_at) * 1e3}

    def _lose_batch(self) -> None:
        batch, self.running = self.running[0], None
        self.drive(events.BatchLost(batch))

    def _gone(self, code: int | None) -> None:
        """The model's process ended unasked: begin it again; frames wait meanwhile, and grow stale as they would."""
        if self.stopped:
            return
        if not self.ready.done():
            self.ready.set_exception(UserError(f"The model's process ended while it was loading (exit code {code})."))
            return
        self.restarts += 1
        log.warning("the model's process ended (exit code %s); it is started again", code)
        self.worker.again()
