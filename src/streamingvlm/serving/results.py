"""What the service has to say, in order: newest records for who asks, all of them for who listens, and no more memory than agreed.

    results.publish({"type": "decision", "stream": "door", "frame": 7, ...})    # from any thread; never waits for anybody
    records, missed = results.since(seq, streams=["door"])                      # resume: what came after `seq`
    async with results.subscribe(streams=["door"], since=seq) as records:       # from then on
        async for record in records: ...

Each record gets `seq`, which rises, over restarts of the service too. Of each stream and type the last `kept` stay; who reads too slowly skips
records and is told how many: `{"type": "missed", "count": n}`. Knows no network, no database and no model.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
import weakref
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from heapq import merge

from streamingvlm.serving.privacy.redactor import Redacted, jpeg_of

TYPES = ("decision", "comment", "alarm", "state")
ORDER = {"decision": "frame", "comment": "chunk"}  # what must rise within a stream
KEPT, QUEUED, PAGE, PICTURES = 256, 256, 128, 128
REMEMBERED = 4096  # numbers of records that were let go, of each stream and type: so far back the count of missed ones is exact

Listener = Callable[["Record", Redacted | None], None]
LostListener = Callable[[str, Mapping[str, float]], None]


class Record(dict):
    """A published record; written as JSON once, however many read it. A number that is none is null: JavaScript reads no NaN."""

    @cached_property
    def json(self) -> str:
        try:
            return json.dumps(self, separators=(",", ":"), allow_nan=False)
        except ValueError:
            return json.dumps(_finite(self), separators=(",", ":"))


def _seq(record: Record) -> int:
    return record["seq"]


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Kept:
    """The newest records of one stream and type, and the numbers of those that had to go."""

    def __init__(self, size: int):
        self.size, self.records = size, []
        self.gone, self.gone_before = array("Q"), 0  # `gone_before`: let go so long ago that their numbers are forgotten

    def add(self, record: Record) -> None:
        self.records.append(record)
        if len(self.records) > self.size:
            self.gone.append(self.records.pop(0)["seq"])
            if len(self.gone) > 2 * REMEMBERED:
                del self.gone[:REMEMBERED]
                self.gone_before += REMEMBERED

    def after(self, seq: int, limit: int | None) -> list[Record]:
        first = bisect_right(self.records, seq, key=_seq)
        return self.records[first : None if limit is None else first + limit]

    def gone_between(self, seq: int, until: int, from_the_start: bool) -> int:
        """How many behind `seq`, up to `until`, are gone; at least so many, where `seq` is older than all numbers that are remembered."""
        return bisect_right(self.gone, until) - bisect_right(self.gone, seq) + (self.gone_before if from_the_start else 0)


class Results:
    """One for a service. `first`: the number before the first record; by default from the clock, so that numbers rise over restarts and a reader
    that resumes with one of an earlier run gets all of this one. `behind`: the highest of earlier runs, if known: clocks are set back. A
    number stays below 2^53: JavaScript can hold it."""

    def __init__(self, kept: int = KEPT, queued: int = QUEUED, first: int | None = None, behind: int = 0):
        self.kept, self.queued = kept, queued
        self.oldest = self.newest = max(int(time.time()) * 1_000_000, behind) if first is None else first
        self.late: dict[str, int] = {}  # stream -> results that came behind a newer one, and were not published
        self._caches: dict[tuple[str, str], _Kept] = {}
        self._order: dict[tuple[str, str], int] = {}
        self._pictures: OrderedDict[str, tuple[Record, Redacted]] = OrderedDict()  # name -> its alarm, picture
        self._listeners: list[Listener] = []
        self._lost_listeners: list[LostListener] = []
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._lock = threading.RLock()

    def publish(self, record: dict, picture: Redacted | None = None) -> int:
        """Number and hand out a record -> its seq; 0 where it came too late to be in order. `picture`: an alarm's; the record then names it."""
        if picture is not None:
            jpeg_of(picture)
        key = record["stream"], record["type"]
        if record["type"] not in TYPES:
            raise ValueError(f"no such type of record: {record['type']}")
        with self._lock:
            if record["type"] in ORDER:
                position = record[ORDER[record["type"]]]
                if position <= self._order.get(key, -1):
                    self.late[record["stream"]] = self.late.get(record["stream"], 0) + 1
                    return 0
                self._order[key] = position
            self.newest += 1
            record = Record({"seq": self.newest, "at": round(time.time(), 3)} | record)
            if picture is not None:
                record["picture"] = str(self.newest)
                self._pictures[record["picture"]] = record, picture
                if len(self._pictures) > PICTURES:
                    self._pictures.popitem(last=False)
            self._caches.setdefault(key, _Kept(self.kept)).add(record)
            for subscription in list(self._subscriptions):
                subscription.offer(record)
            for listener in self._listeners:
                listener(record, picture)
        return self.newest

    def since(self, seq: int, streams: Collection[str] | None = None, types: Collection[str] | None = None,
              limit: int | None = None) -> tuple[list[Record], int]:
        """Records behind `seq` in their order, at most the first `limit`, and how many more there were, up to the last of them, that are gone."""
        with self._lock:
            asked = [kept for (stream, type_), kept in self._caches.items()
                     if (streams is None or stream in streams) and (types is None or type_ in types)]
            records = list(merge(*(kept.after(seq, limit) for kept in asked), key=_seq))
            until = self.newest if limit is None or len(records) <= limit else records[limit - 1]["seq"]
            return records[:limit], sum(kept.gone_between(seq, until, seq <= self.oldest) for kept in asked)

    def subscribe(self, streams: Collection[str] | None = None, types: Collection[str] | None = None, since: int | None = None) -> Subscription:
        """What is published from now on, or behind `since`. Called in the event loop that reads."""
        subscription = Subscription(self, streams, types, since)
        with self._lock:
            self._subscriptions.add(subscription)
        return subscription

    def listen(self, listener: Listener, of_lost: LostListener | None = None) -> None:
        """Call `listener(record, picture)` with each record, at once and in order: it must not wait for anything. `of_lost`: as `lost`."""
        self._listeners.append(listener)
        if of_lost:
            self._lost_listeners.append(of_lost)

    def lost(self, stream: str, ms: Mapping[str, float]) -> None:
        """A frame was lost and a newer one decided now, {clock: ms} after it: no record, but part of how late decisions are."""
        for listener in self._lost_listeners:
            listener(stream, ms)

    def picture(self, name: str, streams: Collection[str] | None = None) -> Redacted | None:
        """An alarm's picture by the name in its record, if it is of one of these streams; only the newest are kept here."""
        record, picture = self._pictures.get(name, (None, None))
        return picture if record is not None and (streams is None or record["stream"] in streams) else None

    def forget(self, stream: str) -> None:
        """A stream was taken away: one of its name that comes later begins anew."""
        with self._lock:
            for held in (self._caches, self._order):
                for key in [key for key in held if key[0] == stream]:
                    del held[key]
            for name in [name for name, (record, _) in self._pictures.items() if record["stream"] == stream]:
                del self._pictures[name]
            self.late.pop(stream, None)

    def erase(self, streams: Collection[str] | None = None, start: float | None = None, end: float | None = None) -> int:
        """Let go what is kept here of these streams, of [start, end) seconds since 1970, pictures too, and what of it still waits for somebody who
        reads -> how many records."""
        def stays(record: Record) -> bool:
            if record["type"] == "missed" or (streams is not None and record["stream"] not in streams):
                return True
            return (start is not None and record["at"] < start) or (end is not None and record["at"] >= end)

        with self._lock:
            before = sum(len(kept.records) for kept in self._caches.values())
            for kept in self._caches.values():
                kept.records[:] = filter(stays, kept.records)
            for name in [name for name, (record, _) in self._pictures.items() if not stays(record)]:  # its alarm may have had to go before it
                del self._pictures[name]
            for reader in list(self._subscriptions):
                reader.page, reader.waiting = deque(filter(stays, reader.page)), deque(filter(stays, reader.waiting))
            return before - sum(len(kept.records) for kept in self._caches.values())

    def depths(self) -> list[int]:
        """Records that wait for each of those who listen."""
        return [len(reader.waiting) if reader.behind is None else self.queued for reader in list(self._subscriptions)]

    def close(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)


class Subscription:
    """An async iterator over records. Each has a short queue of its own; who does not keep up, or resumes, reads what is kept page by page, and is
    told how many were let go meanwhile, until there is no more: so many slow readers hold no more memory than as many quick ones."""

    def __init__(self, results: Results, streams: Collection[str] | None, types: Collection[str] | None, since: int | None):
        self.results, self.streams, self.types = results, streams, types
        self.behind = since  # while it reads what is kept: the number up to which it has; then None
        self.page: deque[Record] = deque()
        self.waiting: deque[Record] = deque()
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()

    def offer(self, record: Record) -> None:
        """Called by whoever publishes, under the lock of Results."""
        if self.behind is not None or (self.streams is not None and record["stream"] not in self.streams) \
                or (self.types is not None and record["type"] not in self.types):
            return
        if len(self.waiting) >= self.results.queued:
            self.behind = self.waiting[0]["seq"] - 1
            self.waiting.clear()
            return
        self.waiting.append(record)
        if len(self.waiting) == 1 and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def __anext__(self) -> Record:
        while True:
            with self.results._lock:
                if self.behind is not None and not self.page:
                    self._turn()
                if self.page or self.waiting:
                    return (self.page or self.waiting).popleft()
                self._woken.clear()
            await self._woken.wait()

    def _turn(self) -> None:
        """The next page of what is kept; behind the last one it is up to date."""
        records, missed = self.results.since(self.behind, self.streams, self.types, PAGE)
        self.page.extend([Record(type="missed", count=missed), *records] if missed else records)
        self.behind = records[-1]["seq"] if len(records) == PAGE else None

    def __aiter__(self) -> Subscription:
        return self

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *raised) -> None:
        self.results.close(self)
