"""A camera behind an HLS playlist: from its newest segment on, each segment's pictures spread over the time that they were filmed in.

Segments come whole, seconds at a time; what is handed over comes evenly, so that a silence of seconds is a silence here too. The latency is that of
HLS: a segment, and what it takes to notice the next. Fetching runs ahead in a thread of its own. A segment that is missing is left out.
"""

from __future__ import annotations

import base64
import bisect
import http.client
import io
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources import playlist
from streamingvlm.media.sources.decoding import Decoder
from streamingvlm.media.sources.playlist import Playlist, Segment
from streamingvlm.media.sources.protocol import LOOK_S, Picture, SourceError, redacted
from streamingvlm.media.sources.rtsp import ANSWER_S, REFUSALS, UNHEARD, why
from streamingvlm.media.watchdog import Ahead

if TYPE_CHECKING:
    import av

LIST_BYTES, SEGMENT_BYTES = 1 << 22, 1 << 28  # more is a mistake
STALE = 3  # target durations after which a list that does not grow is dead
MISSING = 3  # segments in a row that cannot be had are no gap any more
BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"emsg", b"prft")  # that an MP4 begins with
TARDY_S, GAP_S = 0.05, 2.0  # a picture later than the one, or before which there is more to wait than the other, moves those that follow
SPARE_S = 0.2  # that it then has
KEPT = 8  # segments whose places are known: of what FFmpeg has read and not yet handed over
BEHIND = 3  # segments not yet read, with which reading goes on at the newest
OPTIONS = {"probesize": "200000", "analyzeduration": "300000", "fpsprobesize": "0"}  # no more of a segment than it takes to see what is in it


class Hls:
    """`answer_s`: how long one answer of the server may take. `check`: UserError for an address that is not to be asked; a playlist may name any."""

    live = True

    def __init__(self, address: str, answer_s: float = ANSWER_S, check: Callable[[str], None] | None = None):
        self.address, self.answer_s, self.check = address, answer_s, check
        self.label = redacted(address)
        self.going_on: int | None = None  # the segment that the next connection begins with: where the stream began anew

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        import av

        joined = Joined(Segments(self.address, self.answer_s, stop, self.going_on, self.check), stop)
        try:
            if not joined.begins():
                return
            with av.open(joined, format=joined.kind(), options=OPTIONS) as container:
                if not container.streams.video:
                    raise SourceError("It sends no picture.")
                stream = container.streams.video[0]
                decoder, due = Decoder(stream, joined.captured_at), Due()
                for packet in container.demux(stream):
                    for picture in decoder.pictures(packet):  # the empty one at the end too: it brings what the decoder still held
                        if stop.wait(due.wait_s(picture.pts_s)):
                            return
                        yield picture
        except (av.error.FFmpegError, OSError) as error:
            raise joined.failed or SourceError(why(error, self.address)) from None
        finally:
            self.going_on = joined.broke_at
            joined.leave()
        if joined.failed:
            raise joined.failed


class Due:
    """When to hand over what came all at once: evenly by its timestamps, and later by as much as the latest was too late."""

    def __init__(self) -> None:
        self.base: float | None = None  # from timestamps to this machine's clock

    def wait_s(self, pts_s: float) -> float:
        now = time.monotonic()
        if self.base is None:
            self.base = now - pts_s
        early_s = self.base + pts_s - now
        if not -TARDY_S < early_s < GAP_S:
            self.base += SPARE_S - early_s
        return max(self.base + pts_s - now, 0.0)


class Segments:
    """The segments of an address from the newest on, or from number `begin` if it is still there, fetched (`Ahead` iterates it in a thread)."""

    def __init__(self, address: str, answer_s: float, stop: threading.Event, begin: int | None = None,
                 check: Callable[[str], None] | None = None):
        parts, self.begin, self.check = urlsplit(address), begin, check
        self.opener = urllib.request.build_opener(_Redirects(self._may_ask))
        host = parts.netloc.rpartition("@")[2]
        self.address, self.host, self.answer_s, self.stop = parts._replace(netloc=host).geturl(), parts.hostname, answer_s, stop
        name = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        self.proof = f"Basic {base64.b64encode(name.encode()).decode()}" if parts.username else ""

    def __iter__(self) -> Iterator[tuple[Segment, bytes]]:
        listed = self._list()
        if better := listed.variant():
            self.address = better
            listed = self._list()
        # Of a list that is complete all is seen, of one that grows only what is new.
        following = listed.segments[0 if listed.ended else -1].number if listed.segments else 0
        if self.begin in {segment.number for segment in listed.segments}:
            following = self.begin
        missing, grown, setup = 0, time.monotonic(), b""
        while not self.stop.is_set():
            segment = next((s for s in listed.segments if s.number >= following), None)
            if segment is None:
                if listed.ended:
                    return
                if time.monotonic() - grown > STALE * listed.target_s + self.answer_s:
                    raise SourceError("Its playlist no longer grows.")
                self.stop.wait(min(max(listed.target_s / 4, 0.1), 1.0))
            else:
                data = self._segment(segment, listed.target_s)
                if data and segment.setup and not setup:
                    setup = self._fetch(segment.setup, SEGMENT_BYTES)[1]
                    data = setup + data
                if data:
                    yield segment, data
                missing = 0 if data else missing + 1
                if missing == MISSING:
                    raise SourceError(f"Its playlist names segments that are not there, {MISSING} in a row.")
                following, grown = segment.number + 1, time.monotonic()
            if not listed.ended:
                listed, following = self._renewed(following)

    def _renewed(self, following: int) -> tuple[Playlist, int]:
        """The list as it is now, and the number of the segment to go on with."""
        listed = self._list()
        last = listed.segments[-1].number if listed.segments else following
        if last < following - 1:
            raise SourceError("Its playlist began anew.")
        return listed, last if last - following >= BEHIND and not listed.ended else following

    def _list(self) -> Playlist:
        self.address, data = self._fetch(self.address, LIST_BYTES)
        return playlist.parse(data.decode("utf-8", "replace"), self.address)

    def _segment(self, segment: Segment, target_s: float) -> bytes:
        """b"" where it is missing, asked for twice."""
        if segment.locked:
            raise SourceError("Its segments are encrypted, and cannot be watched without their key.", fatal=True)
        for wait_s in (target_s / 4, 0.0):
            try:
                return self._fetch(segment.address, SEGMENT_BYTES, segment.part)[1]
            except Missing:
                self.stop.wait(wait_s)
        return b""

    def _may_ask(self, address: str) -> None:
        """Each address that is asked, wherever it was named. Raises `SourceError`."""
        if urlsplit(address).scheme not in {"http", "https"}:
            raise SourceError("It names addresses that are not of the web.")
        if self.check:
            try:
                self.check(address)
            except UserError as error:
                raise SourceError(str(error), fatal=True) from None

    def _fetch(self, address: str, limit: int, part: tuple[int, int] | None = None) -> tuple[str, bytes]:
        """-> where it was found at last, and what it is. `Missing`, or `SourceError` for all else that goes wrong."""
        self._may_ask(address)
        request = urllib.request.Request(address, headers={"Range": f"bytes={part[0]}-{sum(part) - 1}"} if part else {})
        if self.proof and urlsplit(address).hostname == self.host:
            request.add_unredirected_header("Authorization", self.proof)  # for no other host
        try:
            with self.opener.open(request, timeout=self.answer_s) as answer:
                data = answer.read(limit)
                if part and answer.status == 200:  # it knows no ranges
                    data = data[part[0] : sum(part)]
                return answer.geturl(), data
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(_unreachable(error)) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, check: Callable[[str], None]):
        self.check = check

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Missing(SourceError):
    """What was asked for is not there, or no longer."""


def _refusal(code: int) -> SourceError:
    if code in {404, 410}:
        return Missing(f"It has nothing at this path ({code}): see whether the address is right, or whether the camera sends.")
    return SourceError(REFUSALS.get(code, f"It answers with an error ({code})."), refused=code in REFUSALS)


def _unreachable(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "It did not answer in time."
    return UNHEARD if isinstance(reason, ConnectionRefusedError) else f"It cannot be reached: {getattr(reason, 'strerror', None) or reason}."


class Joined:
    """Segments as one file, as FFmpeg wants to read it; and which of its bytes were captured when."""

    def __init__(self, segments: Segments, stop: threading.Event):
        self.ahead, self.stop = Ahead(segments), stop
        self.rest, self.length = io.BytesIO(), 0
        self.starts: list[int] = []  # the bytes at which segments begin
        self.dates: list[float | None] = []  # of those whose first key frame has not come yet
        self.offset_s: float | None = None  # from timestamps to seconds since 1970
        self.over = False
        self.failed: SourceError | None = None
        self.broke_at: int | None = None  # the segment with which the stream began anew

    def begins(self) -> bool:
        """Wait for the first segment -> whether there is one. Raises `SourceError`."""
        there = self._next()
        if self.failed:
            raise self.failed
        return there

    def kind(self) -> str:
        """FFmpeg's name of what segments are. Asked, because FFmpeg would read on for ever in search of it."""
        head = bytes(self.rest.getbuffer()[:8])
        if head[:1] == b"\x47":
            return "mpegts"
        if head[4:] in BOXES:
            return "mp4"
        raise SourceError("Its segments are neither MPEG-TS nor MP4, or hold no picture.")

    def read(self, size: int) -> bytes:
        """b"" at the end, and where something is wrong: what FFmpeg is told by an exception, it forgets."""
        while not (given := self.rest.read(size)) and self._next():
            pass
        return given

    def leave(self) -> None:
        self.ahead.leave()

    def captured_at(self, packet: av.Packet, pts_s: float) -> float | None:
        """By the date of the segment in which `packet` lies, which is that of its first key frame."""
        k = -1 if packet.pos is None or packet.pts is None else bisect.bisect_right(self.starts, packet.pos) - 1
        if k >= 0 and packet.is_keyframe and self.dates[k] is not None:
            self.offset_s, self.dates[k] = self.dates[k] - float(packet.pts * packet.time_base), None
        return None if self.offset_s is None else pts_s + self.offset_s

    def _next(self) -> bool:
        """Go on to the next segment, once it is there -> whether there is one."""
        while not self.over and not self.stop.is_set():
            try:
                kind, what = self.ahead.take(LOOK_S)
            except queue.Empty:
                continue
            if kind == "item" and not (what[0].breaks and self.starts):
                segment, data = what
                self.starts, self.dates = [*self.starts[-KEPT:], self.length], [*self.dates[-KEPT:], segment.date]
                self.rest, self.length = io.BytesIO(data), self.length + len(data)
                return True
            self.over = True
            if kind == "item":
                self.broke_at = what[0].number
                self.failed = SourceError("Its stream begins anew.")
            elif kind == "error":
                self.failed = what if isinstance(what, SourceError) else SourceError(f"{type(what).__name__}: {what}")
        return False
