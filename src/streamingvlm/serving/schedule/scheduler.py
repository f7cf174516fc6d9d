"""Which frames run next, in what batch, and which never will: events in, actions out, in virtual time. Has no clock, thread, socket or model.

    scheduler = Scheduler(LatencyCurve({1: 10.0, 8: 29.0}, largest=16))
    for action in scheduler.handle(FrameArrived("gate", 7, pts_s, captured_at, released_at=now), now): ...

One batch runs at a time (a device has one model, which holds the streams' states), with at most one frame of a stream, so results stay in order.
After every event, of every stream: frames in = decided + dropped by cause + in flight (`counts`).

Who goes first: higher priority, then the earlier deadline; but one place of a batch belongs to whoever has waited `starve_ms` for a turn. A batch
grows while those in it are decided in time and while it takes no longer than half the shortest budget of all live streams, or than a frame alone:
whoever just missed it waits that half and runs in the other, however patient those in it are. It is held back for a frame that is expected soon
only while all that wait lose less than the batch gains.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from streamingvlm.serving.schedule import events
from streamingvlm.serving.schedule.events import CAUSES, Action, Counts, Drop, FrameArrived, Run, Settings, Wake
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.stream_queue import Dropped, StreamQueue

NEARLY = 1.1  # a batch that takes so many times one frame's time holds nobody up who would not be anyway: replicas share it


@dataclass(frozen=True)
class Limits:
    """longest_wait_ms: a batch is never held longer. starve_ms: see above. alarm_s: how long an alarm raises a stream's priority. calm_s: how long
    `auto` stays with the newest frame after it was behind. utilisation: share of the machine up to which live streams are admitted; None: always."""

    longest_wait_ms: float = 20.0
    starve_ms: float = 500.0
    alarm_s: float = 10.0
    calm_s: float = 2.0
    utilisation: float | None = 1.0


class Scheduler:
    def __init__(self, curve: LatencyCurve, limits: Limits = Limits()):
        self.curve, self.limits = curve, limits
        self.now = -math.inf
        self._streams: dict[str, StreamQueue] = {}
        self._ready: dict[str, StreamQueue] = {}  # those with a waiting frame
        self._batch: tuple[int, list[tuple[StreamQueue, FrameArrived]]] | None = None  # the one that runs
        self._batches = 0
        self._budgets: list[float] = []  # seconds, of the live streams, rising
        self._gone = Counts()  # of streams that were closed or never admitted
        self._expected: list[tuple[float, int, StreamQueue]] = []  # heap of next arrivals; one that no longer holds is told by its time
        self._started = 0  # frames, ever: what breaks a tie of two times in the heap
        self._held_since = math.nan  # since when frames wait for a batch although the machine is free
        self._wake: float | None = None
        self._gave_place = False  # did the last batch have a starving stream in place of a more urgent one?
        self._handlers: dict[type, Callable[..., None]] = {
            events.FrameArrived: self._arrived, events.BatchDone: self._done, events.Timer: self._timer, events.FrameLost: self._lost,
            events.Alarm: self._alarm, events.StreamAdded: self._added, events.StreamRemoved: self._removed, events.BatchLost: self._batch_lost,
            events.CurveChanged: self._curve_changed}

    def handle(self, event: events.Event, now: float) -> list[Action]:
        """What follows from an event at `now`. A clock that goes back counts as standing still."""
        if self.now < now < math.inf:
            self.now = now
        out: list[Action] = []
        self._handlers[type(event)](event, out)
        if self._batch is None:
            self._consider(out)
        return out

    # What callers ask

    def counts(self, stream: str) -> Counts:
        """Of a stream that is here. One that was removed says its last in `Closed`; added again, a stream begins at 0."""
        return self._streams[stream].counts

    def totals(self) -> Counts:
        """Of all that ever came, closed streams and strangers included."""
        out = Counts()
        leaving = [queue for queue, _ in self._batch[1] if queue.removed] if self._batch else []
        for counts in (self._gone, *(queue.counts for queue in (*self._streams.values(), *leaving))):
            out.add(counts)
        return out

    def wants(self, stream: str) -> int:
        """Frames the stream may hand in now; a file waits while it is 0. 0 of a stream that is not here."""
        queue = self._streams.get(stream)
        return max(0, queue.settings.queue - len(queue.waiting)) if queue else 0

    def is_freshest(self, stream: str) -> bool:
        """Does the stream drop all but its newest frame now?"""
        return self._streams[stream].is_freshest(self.now)

    def utilisation(self, more: Settings | None = None) -> float:
        """Share of the machine's time that the live streams take, and `more` with them, in batches that keep the shortest budget."""
        live = [queue for queue in self._streams.values() if queue.settings.live]
        rates, budgets = [queue.fps for queue in live], [queue.settings.budget_ms for queue in live]
        if more is not None:
            rates, budgets = [*rates, more.fps], [*budgets, more.budget_ms]
        size = max(1, self.curve.largest_within(min(budgets, default=0.0) / 2))
        return sum(rates) * self.curve.ms(size) / size / 1e3

    # Events

    def _added(self, event: events.StreamAdded, out: list[Action]) -> None:
        name, settings = event
        if name in self._streams:
            out.append(events.Refused(name, f"A stream named {name} is already here; give this one another name."))
            return
        if settings.live and self.limits.utilisation is not None:
            share = self.utilisation(settings)
            if share > self.limits.utilisation:
                out.append(events.Refused(name, f"With {name} the streams would take {share:.0%} of this machine, above the limit of "
                                                f"{self.limits.utilisation:.0%}; remove a stream, or lower the frames per second."))
                return
        queue = self._streams[name] = StreamQueue(name, settings, self.limits.calm_s)
        if queue.live:
            insort(self._budgets, queue.budget_s)
        out.append(events.Admitted(name))

    def _removed(self, event: events.StreamRemoved, out: list[Action]) -> None:
        queue = self._streams.pop(event.stream, None)
        if queue is not None:
            self._ready.pop(queue.name, None)
            if queue.live:
                self._budgets.remove(queue.budget_s)
            self._drop(queue.remove(self.now), out)
            self._close(queue, out)

    def _arrived(self, frame: FrameArrived, out: list[Action]) -> None:
        queue = self._streams.get(frame.stream)
        if queue is None:
            self._lost(events.FrameLost(frame.stream, 1, "admission"), out)
            out.append(Drop(frame, "admission"))
            return
        dropped = queue.arrive(frame, self.now)
        if dropped:
            self._drop(dropped, out)
        self._ready[queue.name] = queue

    def _lost(self, event: events.FrameLost, out: list[Action]) -> None:
        _, count, cause = event
        if cause not in CAUSES or count < 0:
            raise ValueError(f"frames are lost by one of {', '.join(CAUSES)}, and not a negative number of them: {event}")
        queue = self._streams.get(event.stream)
        if queue is not None:
            queue.lose(count, cause)
        else:
            self._gone.frames_in += count
            self._gone.dropped[cause] += count

    def _alarm(self, event: events.Alarm, out: list[Action]) -> None:
        queue = self._streams.get(event.stream)
        if queue is not None and event.severity > 0:
            queue.alarm(event.severity, self.now, self.now + self.limits.alarm_s)

    def _curve_changed(self, event: events.CurveChanged, out: list[Action]) -> None:
        self.curve.replace(dict(event.curve))

    def _timer(self, event: events.Timer, out: list[Action]) -> None:
        self._wake = None

    def _done(self, event: events.BatchDone, out: list[Action]) -> None:
        batch = self._take_batch(event.batch_id)
        for queue, frame in batch:
            queue.decide(frame, self.now)
            if queue.removed:
                self._close(queue, out)
        self.curve.learn(len(batch), event.run_ms)

    def _batch_lost(self, event: events.BatchLost, out: list[Action]) -> None:
        for queue, frame in self._take_batch(event.batch_id):
            self._drop(queue.run_again(frame, self.now), out)
            if queue.waiting:
                self._ready[queue.name] = queue
            self._close(queue, out)

    def _take_batch(self, batch_id: int) -> list[tuple[StreamQueue, FrameArrived]]:
        """What ran under this number; nothing if no such batch runs."""
        if self._batch is None or self._batch[0] != batch_id:
            return []
        batch, self._batch = self._batch[1], None
        return batch

    def _drop(self, dropped: list[Dropped], out: list[Action]) -> None:
        out += [Drop(frame, cause) for frame, cause in dropped]

    def _close(self, queue: StreamQueue, out: list[Action]) -> None:
        if queue.removed and not queue.running:
            self._gone.add(queue.counts)
            out.append(events.Closed(queue.name, queue.counts))

    # Batches

    def _consider(self, out: list[Action]) -> None:
        """The machine is free and frames may wait: run a batch, or say when to look again."""
        now, alone_s = self.now, self.curve.ms(1) / 1e3
        order = []
        for at, queue in enumerate(list(self._ready.values())):
            dropped = queue.prune(now, alone_s)
            if dropped:
                self._drop(dropped, out)
            if queue.waiting:
                order.append((queue.urgency(now), at, queue))
            else:
                del self._ready[queue.name]
        if not order:
            self._held_since = math.nan
            return
        order.sort()
        queues = [queue for _, _, queue in order]
        size, tightest = self._fit(queues)
        if size == len(queues):
            if math.isnan(self._held_since):
                self._held_since = now
            until = self._hold_until(size, tightest)
            if until > now:
                if until != self._wake:
                    self._wake = until
                    out.append(Wake(until))
                return
        self._start(self._choose(queues, size), out)

    def _fit(self, order: list[StreamQueue]) -> tuple[int, float]:
        """How many of `order` run together, and the earliest deadline among them that this keeps."""
        table, now = self.curve.table, self.now
        attainable = bisect_left(self._budgets, table[1] / 1e3)  # a budget that not even one frame keeps limits nobody
        longest_s = max(self._budgets[attainable] / 2, NEARLY * table[1] / 1e3) if attainable < len(self._budgets) else math.inf
        tightest, size = math.inf, 0
        for queue in order[: self.curve.largest]:
            run_s = table[size + 1] / 1e3
            if size and (run_s > longest_s or now + run_s > tightest):
                break
            size += 1
            deadline = queue.waiting[0].released_at + queue.budget_s
            if now + run_s <= deadline < tightest:  # one that is late all the same must hinder nobody
                tightest = deadline
        return size, tightest

    def _hold_until(self, size: int, tightest: float) -> float:
        """Until when to wait for one frame more, if it is worth it; else a time that is past.

        Run now, and the next frame waits for this batch and then runs alone; hold, and all of this batch wait for it, and longer in it."""
        curve, now, expected = self.curve, self.now, self._expected
        if size >= curve.largest:
            return now
        while expected and (expected[0][0] < now or expected[0][0] != expected[0][2].expected_at or expected[0][2].waiting or expected[0][2].removed):
            heappop(expected)
        if not expected:
            return now
        this_ms, next_ms = curve.ms(size), curve.ms(size + 1)
        gained_ms = this_ms + curve.ms(1) - next_ms - size * (next_ms - this_ms)
        wait_ms = min(gained_ms / (size + 1), self.limits.longest_wait_ms)
        until = min(self._held_since + wait_ms / 1e3, tightest - next_ms / 1e3)
        return until if expected[0][0] < until else now

    def _choose(self, order: list[StreamQueue], size: int) -> list[StreamQueue]:
        """The first `size`, or fewer where two batches are done sooner than one; the last place goes to a stream that is starving."""
        size = self.curve.first_batch(size)
        chosen = order[:size]
        gives, self._gave_place = False, self._gave_place and size == 1
        if size < len(order) and not self._gave_place:
            hungry = min(order[size:], key=lambda queue: queue.unserved_since)
            gives = hungry.unserved_since <= self.now - self.limits.starve_ms / 1e3
            if gives:
                chosen[-1] = hungry
        self._gave_place = gives
        return chosen

    def _start(self, chosen: list[StreamQueue], out: list[Action]) -> None:
        now, expected, batch = self.now, self._expected, []
        while expected and expected[0][0] < now:
            heappop(expected)
        for queue in chosen:
            batch.append((queue, queue.run(now)))
            if not queue.waiting:
                del self._ready[queue.name]
            if queue.expected_at < math.inf:
                self._started += 1
                heappush(expected, (queue.expected_at, self._started, queue))
        self._held_since, self._wake = math.nan, None
        self._batches += 1
        self._batch = (self._batches, batch)
        out.append(Run(self._batches, tuple(frame for _, frame in batch)))
