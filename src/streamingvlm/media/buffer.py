"""Between a live source and those who use its frames: in order and evenly (`JitterBuffer`), and no more of them than wanted (`Pace`). Pure: the
clock is the caller's; knows no picture, thread or socket.

    buffer = JitterBuffer(delay_s=0.2)
    lost = buffer.push(frame, epoch, pts_s, now)          # (item, cause) of each frame that will never leave
    for item, released_at in buffer.pop(now): ...         # call again at buffer.next_at
    pace = Pace(8.0); kept = [frame for frame in frames if pace.keeps(frame.pts_s)]

A frame is due at `pts + offset + delay_s`. The offset takes the stream's clock to ours: the least (arrival - pts) of the last WINDOW_S, that is, of
the frame that the network held least, since a first frame can come late (a reader that probes hands over a burst) or, against all that follow,
early. So `delay_s` is what a frame may be later than the quickest one; from capture to release it takes that and the quickest one's way.
Times are in seconds on one monotonic clock; `pts_s` counts on the stream's own.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item")
WINDOW_S = 10.0  # clocks drift, routes change: what the network did before does not count
JUMP_S = 10.0  # timestamps that part from the clock by more than this begin anew, as with a new connection
LONGEST_S = 10.0  # of a delay
EARLY = 1 / 8  # of a step of a pace: so much before its place a frame may come; cameras do not keep time to the microsecond
BREAK_S = 1.0  # timestamps that go back further than this begin a pace anew
TICK_S = 1e-6  # two times no further apart are one: sums of them are rounded


@dataclass
class BufferCounts:
    """pushed = released + lost + held. `overdue`: of those released, the ones that came after they were due, and so left at once."""

    pushed: int = 0
    released: int = 0
    overdue: int = 0
    late: int = 0  # lost: a newer frame had left (`stale`)
    full: int = 0  # lost: more frames than `limit` (`buffer_full`)
    old_epoch: int = 0  # lost: of a connection that was given up (`reconnect_gap`)

    @property
    def lost(self) -> int:
        return self.late + self.full + self.old_epoch


class JitterBuffer(Generic[Item]):
    """`limit`: most frames held; with more, the oldest is lost."""

    def __init__(self, delay_s: float, limit: int = 256):
        if not 0 <= delay_s <= LONGEST_S or limit < 1:
            raise ValueError(f"a jitter buffer holds 0 to {LONGEST_S:g} s and at least one frame, not {delay_s} s and {limit}")
        self.delay_s, self.limit = delay_s, limit
        self.counts = BufferCounts()
        self._held: list[tuple[int, float, int, float, Item]] = []  # heap: part, pts, number, arrival, item
        self._part = 0  # connections, and jumps of the timestamps within one
        self._epoch: int | None = None
        self._offsets: dict[int, float] = {}  # of the parts that have frames here
        self._told_at = -math.inf  # when the offset last became less: no frame could have been released by it before
        self._recent: deque[tuple[float, float]] = deque()  # (arrival, arrival - pts) that may yet be the least, rising
        self._released: tuple[int, float] = (0, -math.inf)  # part and pts of the last frame that left
        self._released_at = -math.inf
        self._now = -math.inf

    def __len__(self) -> int:
        return len(self._held)

    def push(self, item: Item, epoch: int, pts_s: float, now: float) -> list[tuple[Item, str]]:
        """Take a frame in -> what is lost by it, with causes. `epoch` counts connections; a new one begins with a new offset, and the frames of
        the one before still leave first, when they are due."""
        now = self._advance(now)
        self.counts.pushed += 1
        if self._epoch is None or epoch > self._epoch:
            self._epoch = epoch
            self._begin_part()
        elif epoch < self._epoch:
            self.counts.old_epoch += 1
            return [(item, "reconnect_gap")]
        elif self._recent and abs(now - pts_s - self._offsets[self._part]) > JUMP_S:
            self._begin_part()
        self._learn(now, now - pts_s)
        if (self._part, pts_s) <= self._released:
            self.counts.late += 1
            return [(item, "stale")]
        heappush(self._held, (self._part, pts_s, self.counts.pushed, now, item))
        if len(self._held) <= self.limit:
            return []
        self.counts.full += 1
        return [(heappop(self._held)[-1], "buffer_full")]

    @property
    def next_at(self) -> float | None:
        """When to call `pop` again; None while nothing is held."""
        return self._due(self._held[0]) if self._held else None

    def pop(self, now: float) -> list[tuple[Item, float]]:
        """The frames that are due, in order, each with the time from which it could have left, never falling: a caller that comes late to fetch
        them does not move it."""
        now, out = self._advance(now), []
        while self._held and self._due(self._held[0]) <= now + TICK_S:
            due = self._due(self._held[0])
            part, pts_s, _, arrived_at, item = heappop(self._held)
            self._released = (part, pts_s)
            self.counts.released += 1
            self.counts.overdue += arrived_at > due + TICK_S
            self._released_at = min(now, max(due, arrived_at, self._told_at, self._released_at))
            out.append((item, self._released_at))
        return out

    def _due(self, held: tuple) -> float:
        return self._offsets[held[0]] + held[1] + self.delay_s

    def _advance(self, now: float) -> float:
        """A clock that goes back counts as standing still."""
        self._now = max(self._now, now)
        return self._now

    def _begin_part(self) -> None:
        self._part += 1
        self._recent.clear()
        here = {held[0] for held in self._held}
        self._offsets = {part: offset for part, offset in self._offsets.items() if part in here}

    def _learn(self, now: float, offset: float) -> None:
        """The least offset of the last WINDOW_S."""
        recent = self._recent
        while recent and recent[-1][1] >= offset:
            recent.pop()
        recent.append((now, offset))
        while recent[0][0] < now - WINDOW_S:
            recent.popleft()
        if recent[0][1] < self._offsets.get(self._part, math.inf):
            self._told_at = now
        self._offsets[self._part] = recent[0][1]


class Pace:
    """Fewer frames a second, chosen by timestamp: exact in the long run, whatever the source's rate. Places lie at first + k / fps; each
    takes the first frame at it or beyond. A source slower than `fps` keeps all of its frames."""

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
