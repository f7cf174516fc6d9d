"""Cameras that push: browsers and other WHIP clients, over WebRTC. A `WebRTCSource` answers their offers and hands over their pictures.

    desk = Desk()                                            # an event loop in a thread, for all cameras of a process
    source = WebRTCSource(desk)                              # somebody iterates over watched(source, stop)
    resource, answer = source.offer(sdp)                     # from any thread

A camera has one publisher at a time. The first keeps it while it sends: a second is refused. One that has sent nothing for `SILENT_S` gives way, so
that a browser that crashed can come back at once. Pictures are always taken from the track, at most `HOLD_S` of them wait here, and what a newer one
overwrites is counted. Knows no HTTP and no camera list. No STUN server is asked: publisher and service see each other's addresses.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator

import aioice.ice
from aiortc import sdp

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.protocol import Picture, SourceError
from streamingvlm.media.sources.webrtc_session import HOW, HUNG_UP, Session

NOBODY = "It waits for somebody to push to it."
REPLACED = "Another publisher took its place."
REMOVED = "The camera was removed."
SILENT_S = 2.0  # without a picture: another publisher may take the camera
ANSWER_S = 10.0  # for one offer: a browser's .local address may have to be looked up
SDP_BYTES = 100_000
CODECS = ("H264", "VP8")


class Taken(UserError):
    """An offer for a camera whose publisher still sends, or that was removed."""

    kind = "conflict"


class Gone(UserError):
    """What was to be ended has ended."""

    kind = "not_found"


class Desk:
    """The event loop of all connections of one process, in a thread. `loopback`: they go over 127.0.0.1 too, which WebRTC leaves out by itself, for a
    machine without any network; it changes aioice's list of addresses for the whole process."""

    def __init__(self, loopback: bool = False):
        logging.getLogger("aiortc.rtcrtpreceiver").setLevel(logging.ERROR)  # it warns of every picture that cannot be decoded; they are counted here
        if loopback:
            also_loopback()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="webrtc")
        self._thread.start()

    def run(self, work: Coroutine, timeout_s: float = 2 * ANSWER_S):
        """The result of `work` in the loop. From any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def close(self) -> None:
        """End what is left, and the thread. Close the sources first: what decodes for them keeps the process alive."""
        with contextlib.suppress(concurrent.futures.TimeoutError):
            self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(ANSWER_S)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1.0)
        for task in others:
            task.cancel()


class WebRTCSource:
    """One camera: a `protocol.Source`. A connection ends with the publisher's, or after `stall_s` without a picture; then the publisher's session
    stays, and what comes from it later is the next connection's. `close` it when the camera goes."""

    live = True
    label = "webrtc:"

    def __init__(self, desk: Desk, stall_s: float = 5.0):
        self._desk, self._stall_s = desk, stall_s
        self._changed = threading.Condition()
        self._session: Session | None = None
        self._answering = asyncio.Lock()  # one offer at a time
        self._closed = False

    def offer(self, offer: str) -> tuple[str, str]:
        """(resource, SDP answer) for a WHIP client's SDP offer. Raises `UserError` with a sentence for the client. From any thread but the desk's."""
        check(offer)
        return self._desk.run(self._offer(offer))

    async def _offer(self, offer: str) -> tuple[str, str]:
        async with self._answering:
            before = self._session
            if self._closed:
                raise Taken(REMOVED)
            if before and not before.ended and not before.silent(SILENT_S):
                raise Taken("Somebody pushes to this camera already; hang up there first, or add another camera.")
            session = Session(self._changed)
            try:
                answer = await asyncio.wait_for(session.answer(offer), ANSWER_S)
            except Exception as error:
                await session.part("Its offer could not be answered.")
                raise UserError(f"The offer cannot be answered ({type(error).__name__}): {HOW}.") from error
            with self._changed:
                self._session = session
            if before:
                await before.part(REPLACED)
        return session.resource, answer

    def hang_up(self, resource: str) -> None:
        """End the session that `offer` named so. From any thread but the desk's."""
        session = self._session
        if session is None or session.ended or session.resource != resource:
            raise Gone("There is no such session: it has ended already.")
        self._desk.run(session.part(HUNG_UP))

    def close(self) -> None:
        """The camera is gone: hang up, and refuse whoever pushes to it."""
        self._closed = True
        if session := self._session:
            self._desk.run(session.part(REMOVED))

    def connect(self, stop: threading.Event) -> Iterator[Picture | str]:
        """Yields first what it waits for where nobody pushes yet."""
        mine = None
        if self._session is None or self._session.told:
            yield NOBODY
        while not stop.is_set():
            with self._changed:
                session = self._session
                picture = session.take() if session and mine in (None, session) else None
                if picture is None:
                    self._look(mine)
                    self._changed.wait(0.1)
            if picture:
                mine = session
                yield picture

    def _look(self, mine: Session | None) -> None:
        """No picture waits: raise `SourceError` where this connection has none to hope for."""
        session = self._session
        if mine and session is not mine:
            raise SourceError(mine.ended or REPLACED)
        if session and session.ended:
            self._session = None
            raise SourceError(session.ended)
        if session and not session.told and session.silent(self._stall_s):
            session.told = True
            raise SourceError(session.silence())


def check(offer: str) -> None:
    """`UserError` for an offer that cannot lead to pictures."""
    if len(offer) > SDP_BYTES:
        raise UserError(f"The offer is longer than {SDP_BYTES} bytes: {HOW}.")
    try:
        media = sdp.SessionDescription.parse(offer).media
    except Exception as error:  # the parser fails in as many ways as there are lines
        raise UserError(f"The offer is no SDP: {HOW}.") from error
    videos = [section for section in media if section.kind == "video"]
    if not videos:
        raise UserError(f"The offer has no video: {HOW}.")
    sending = [section for section in videos if section.direction in ("sendonly", "sendrecv")]
    if not sending:
        raise UserError(f"The offer has video, but sends none ({videos[0].direction}): {HOW}.")
    names = {codec.name for section in sending for codec in section.rtp.codecs}
    if not names & set(CODECS):
        raise UserError(f"The offer has video only as {', '.join(sorted(names)) or 'nothing'}: {HOW}.")


def also_loopback() -> None:
    """From here on this process offers 127.0.0.1 too, as publisher or service. For tests and for a machine without a network."""
    listed: Callable[..., list[str]] = aioice.ice.get_host_addresses
    if listed is not _with_loopback:
        _with_loopback.listed = listed
        aioice.ice.get_host_addresses = _with_loopback


def _with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    return ["127.0.0.1", *_with_loopback.listed(use_ipv4=use_ipv4, use_ipv6=use_ipv6)]
