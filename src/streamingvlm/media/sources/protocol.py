"""What every source is: something that connects and hands over pictures with their times. And what keeps one connected, whatever happens to it.

    for item in watched(kinds.source("rtsp://camera/1"), stop):      # Picture | Change

Knows no protocol on the wire. A source knows one connection and nothing of trying again; `watched` knows trying again and nothing of connections.
"""

from __future__ import annotations

import math
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from streamingvlm.media.watchdog import Ahead

if TYPE_CHECKING:
    import av

STATES = ("connecting", "live", "stalled", "waiting", "refused", "ended", "failed")
ROOM = 8  # pictures between a connection's thread and whoever takes them: more would only be older
LOOK_S = 0.1  # how long a stop, or a silence, goes unnoticed
SECRETS = ((re.compile(r"(\w+://)(?:[^/\n]*|\S*)@"), r"\1***@"),
           (re.compile(r"((?:pass\w*|pwd|token|secret|api_?key|(?<![a-z])(?:key|sig|signature|auth))=)[^&\s;/'\"]+", re.IGNORECASE), r"\1***"))


@dataclass(frozen=True)
class Picture:
    """One picture. `pts_s` by the sender's clock, which begins anew with each connection; `received_at` and `captured_at` in seconds since 1970,
    the latter by the sender's clock and None where it is unknown. `image`: as decoded or [H, W, C] uint8 RGB; None where nothing could be decoded.
    `corrupt`: lost in part, or refers to one that was; not to be looked at. `lost`: {cause: pictures} that the
    source itself lost since the one before."""

    pts_s: float
    image: av.VideoFrame | np.ndarray | None
    received_at: float
    captured_at: float | None = None
    corrupt: bool = False
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A source is in another state. `epoch` counts connections from 0; `at` in seconds since 1970; `reason` is a sentence for the states that need
    one, without any password."""

    state: str
    reason: str
    epoch: int
    at: float


class SourceError(Exception):
    """Why a connection ended or never came about. `fatal`: trying again cannot help. `refused`: a wrong password, which may be mended at the
    camera; but cameras lock out who tries it a few times in a row."""

    def __init__(self, reason: str, fatal: bool = False, refused: bool = False):
        super().__init__(redacted(reason))
        self.reason, self.fatal, self.refused = redacted(reason), fatal, refused


class Source(Protocol):
    """`live`: pictures come when they come, and a silence means something. `label`: the address without what is secret in it."""

    live: bool
    label: str

    def connect(self, stop: threading.Event) -> Iterator[Picture | str]:
        """One connection, from the first picture to the last. Returns when the sender said that this is the end, or soon after `stop`; raises
        `SourceError` for everything else. A sentence among the pictures says what it waits for: until the next picture, a silence then means nothing.
        Called in a thread of its own; each call is a new connection."""


def redacted(text: str) -> str:
    """`text` without user names and passwords of addresses and without tokens in their queries."""
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text


def watched(source: Source, stop: threading.Event, *, stall_s: float = 3.0, patience_s: float = 10.0, backoff: tuple[float, float] = (0.25, 8.0),
            refused_backoff: tuple[float, float] = (30.0, 600.0), clock: Callable[[], float] = time.time) -> Iterator[Picture | Change]:
    """The pictures of `source` over as many connections as it takes, and each change of its state. Ends after `stop`, `ended` or `failed`.

    `stall_s` without a picture is a stall, and twice as long the end of the connection; the first picture of one may take `patience_s`. Between two
    connections, and after a first that failed, it waits `backoff[0]` seconds, twice as long after each further failure, at most `backoff[1]`; after
    one that showed pictures for longer than a stall, as at first. After a refusal it waits as `refused_backoff` says. Each connection has a thread of
    its own: one that hangs delays no stop.
    """
    epoch, waits_s = 0, {False: backoff[0], True: refused_backoff[0]}
    patience = (stall_s, patience_s) if source.live else (math.inf, math.inf)
    while not stop.is_set():
        yield Change("connecting", "", epoch, clock())
        left = threading.Event()
        ahead = Ahead(source.connect(left), ROOM)
        try:
            end, lived_s = yield from _follow(ahead, stop, epoch, *patience, clock)
        finally:
            left.set()
            ahead.leave()
        if stop.is_set():
            return
        if end is None or end.fatal:
            yield Change("ended", "", epoch, clock()) if end is None else Change("failed", end.reason, epoch, clock())
            return
        if lived_s > stall_s:
            waits_s = {False: backoff[0], True: refused_backoff[0]}
        yield Change("refused" if end.refused else "waiting", end.reason, epoch, clock())
        stop.wait(waits_s[end.refused])
        waits_s[end.refused] = min(2 * waits_s[end.refused], (refused_backoff if end.refused else backoff)[1])
        epoch += 1


def _follow(ahead: Ahead[Picture | str], stop: threading.Event, epoch: int, stall_s: float, patience_s: float,
            clock: Callable[[], float]) -> Generator[Picture | Change, None, tuple[SourceError | None, float]]:
    """One connection's pictures and changes -> what ended it (None: the sender said so, or `stop`), and how long it had been showing pictures."""
    state, last = "connecting", time.monotonic()
    first = math.inf
    while not stop.is_set():
        try:
            kind, what = ahead.take(LOOK_S)
        except queue.Empty:
            silent_s = time.monotonic() - last if state != "waiting" else 0.0
            if state == "live" and silent_s > stall_s:
                state = "stalled"
                yield Change(state, f"No picture came for {stall_s:g} s.", epoch, clock())
            if silent_s > (patience_s if state == "connecting" else 2 * stall_s):
                return SourceError(f"No picture came for {silent_s:.0f} s."), max(last - first, 0.0)
            continue
        if kind != "item":
            return _reason(what), max(last - first, 0.0)
        last = time.monotonic()
        if isinstance(what, str):
            state = "waiting"
            yield Change(state, what, epoch, clock())
            continue
        first = min(first, last)
        if state != "live":
            state = "live"
            yield Change(state, "", epoch, clock())
        yield what
    return None, 0.0


def _reason(error: Exception | None) -> SourceError | None:
    """What a connection raised, as a `SourceError`: one that nobody foresaw must not end a camera either."""
    if error is None or isinstance(error, SourceError):
        return error
    return SourceError(f"{type(error).__name__}: {error}")
