"""One stream in the scheduler: what waits, what was dropped and why, how soon it must run. Knows no other stream and no batch.

Frames wait in the order they came in and leave it in that order, decided or dropped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from streamingvlm.serving.schedule.events import Counts, FrameArrived, Settings

RATE_MEMORY = 0.1  # share of a new interval between frames in their running mean
PAUSE = 4.0  # times the mean: a longer interval is a pause, and says little of the rate
Dropped = tuple[FrameArrived, str]


class StreamQueue:
    """`calm_s`: how long a stream of mode `auto` stays with the newest frame after it was behind."""

    __slots__ = ("_boost", "_boost_until", "_calm_s", "_counts", "_freshest_until", "_interval_s", "_last_arrival", "_stale_s", "budget_s",
                 "expected_at", "live", "name", "removed", "running", "settings", "unserved_since", "waiting")

    def __init__(self, name: str, settings: Settings, calm_s: float):
        self.name, self.settings, self._calm_s = name, settings, calm_s
        self.live, self.budget_s, self._stale_s = settings.live, settings.budget_ms / 1e3, settings.stale_ms / 1e3
        self.waiting: deque[FrameArrived] = deque()
        self.running = 0
        self.removed = False
        self.unserved_since = math.inf  # since when frames came and none was run
        self.expected_at = math.inf  # when the next frame should arrive
        self._counts = Counts()
        self._interval_s, self._last_arrival = 1.0 / settings.fps, math.nan
        self._boost, self._boost_until = 0.0, -math.inf
        self._freshest_until = math.inf if settings.mode == "freshest" else -math.inf

    @property
    def counts(self) -> Counts:
        """A copy, as of now."""
        own = self._counts
        return Counts(own.frames_in, own.decided, own.late, len(self.waiting), self.running, dict(own.dropped))

    @property
    def fps(self) -> float:
        """Of late; what its settings say until frames have come."""
        return 1.0 / self._interval_s

    def urgency(self, now: float) -> tuple[float, float]:
        """Smallest first: priority, then the deadline. One that has passed says nothing: such streams take turns. A newer frame takes the turn of
        the one that it replaced, or a stream under load would have none."""
        since, released = self.unserved_since, self.waiting[0].released_at
        if released < since and released + self.budget_s >= now:
            since = released
        boost = self._boost if now < self._boost_until else 0.0
        return -self.settings.priority - boost, since + self.budget_s

    def alarm(self, severity: float, now: float, until: float) -> None:
        """A lesser alarm takes nothing from a greater one that still holds."""
        if severity >= self._boost or now >= self._boost_until:
            self._boost, self._boost_until = severity, until

    def is_freshest(self, now: float) -> bool:
        """Is only the newest frame kept now?"""
        return self.live and now < self._freshest_until

    def arrive(self, frame: FrameArrived, now: float) -> Sequence[Dropped]:
        """A frame more -> those that make room for it."""
        self._counts.frames_in += 1
        usual = self._interval_s
        interval = now - self._last_arrival
        if interval > 0:  # not of the first one
            self._interval_s = usual + RATE_MEMORY * ((interval if interval < PAUSE * usual else PAUSE * usual) - usual)
        self._last_arrival = now
        if self.live:
            self.expected_at = now + self._interval_s
        if not frame.released_at <= now:  # the future, or no number: it may run now, so its budget runs now
            frame = frame._replace(released_at=now)
        waiting, out = self.waiting, ()
        if waiting and self.live:
            if now < self._freshest_until:
                out = self._drop_all("superseded", now)
            elif len(waiting) >= self.settings.queue:
                out = [self._drop("buffer_full", now)]
        if self.unserved_since == math.inf:
            self.unserved_since = now
        waiting.append(frame)
        return out

    def lose(self, count: int, cause: str) -> None:
        """Frames that came in but never got here."""
        self._counts.frames_in += count
        self._counts.dropped[cause] += count

    def prune(self, now: float, run_s: float) -> Sequence[Dropped]:
        """Frames too old for anybody; in `auto`, those that no batch can decide in time (it takes `run_s`) while a newer one waits."""
        waiting = self.waiting
        if not self.live or (len(waiting) == 1 and waiting[0].released_at >= now - self._stale_s):
            return ()
        out = []
        while waiting and waiting[0].released_at < now - self._stale_s:
            out.append(self._drop("stale", now))
        if self.settings.mode == "auto":
            while len(waiting) > 1 and waiting[0].released_at + self.budget_s < now + run_s:
                out.append(self._drop("late_for_batch", now))
        return out

    def run(self, now: float) -> FrameArrived:
        """The first waiting frame, which runs from now on."""
        self.running += 1
        frame = self.waiting.popleft()
        self.unserved_since = now if self.waiting else math.inf
        return frame

    def decide(self, frame: FrameArrived, now: float) -> None:
        self.running -= 1
        self._counts.decided += 1
        self._counts.late += now > frame.released_at + self.budget_s

    def run_again(self, frame: FrameArrived, now: float) -> list[Dropped]:
        """The batch it was in is lost: it is the first to wait again. Of a removed stream, it is dropped."""
        self.running -= 1
        self.waiting.appendleft(frame)
        self.unserved_since = min(self.unserved_since, now)
        if self.removed:
            return self._drop_all("admission", now)
        return self._drop_all("superseded", now, keep=1) if self.is_freshest(now) else []

    def remove(self, now: float) -> list[Dropped]:
        """Nothing waits any more."""
        self.removed = True
        self.unserved_since = math.inf
        return self._drop_all("admission", now)

    def _drop_all(self, cause: str, now: float, keep: int = 0) -> list[Dropped]:
        return [self._drop(cause, now) for _ in range(len(self.waiting) - keep)]

    def _drop(self, cause: str, now: float) -> Dropped:
        self._counts.dropped[cause] += 1
        if self.settings.mode == "auto":
            self._freshest_until = now + self._calm_s
        return self.waiting.popleft(), cause
