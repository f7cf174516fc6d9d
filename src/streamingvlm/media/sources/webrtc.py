"""Cameras that push: browsers and other WHIP clients, over WebRTC. A `WebRTCSource` answers their offers and hands over their pictures.

    source = WebRTCSource()                                  # somebody iterates over watched(source, stop)
    resource, answer = source.offer(sdp)                     # from any thread

A camera has one publisher at a time. The first keeps it while it sends: a second is refused. One that has sent nothing for `SILENT_S` gives way, so
that a browser that crashed can come back at once. Knows no HTTP and no camera list.
"""

from __future__ import annotations

import asyncio
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


class WebRTCSource:
    """One camera: a `protocol.Source`. A connection ends with the publisher's, or after `stall_s` without a picture; then the publisher's session
    stays, and what comes from it later is the next connection's. Its event loop runs in a thread from the first offer to `close`, which is due when
    the camera goes: what decodes keeps the process alive."""

    live = True
    label = "webrtc:"

    def __init__(self, stall_s: float = 5.0):
        self._stall_s = stall_s
        self._changed = threading.Condition()
        self._session: Session | None = None
        self._answering = asyncio.Lock()  # one offer at a time
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def offer(self, offer: str) -> tuple[str, str]:
        """(resource, SDP answer) for a WHIP client's SDP offer. Raises `UserError` with a sentence for the client. From any thread."""
        check(offer)
        with self._changed:
            if self._closed:
                raise Taken(REMOVED)
            if self._loop is None:
                self._loop = _loop_in_a_thread()
        return self._run(self._offer(offer))

    def _run(self, work: Coroutine):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * ANSWER_S)

    async def _offer(self, offer: str) -> tuple[str, str]:
        async with self._answering:
            before = self._session
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
        """End the session that `offer` named so. From any thread."""
        session = self._session
        if session is None or session.ended or session.resource != resource:
            raise Gone("There is no such session: it has ended already.")
        self._run(session.part(HUNG_UP))

    def close(self) -> None:
        """The camera is gone: hang up, and refuse whoever pushes to it."""
        with self._changed:
            before, self._closed = self._closed, True
        if self._loop is not None and not before:
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        async with self._answering:
            if self._session:
                await self._session.part(REMOVED)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:  # of offers that nobody took up
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

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


def _loop_in_a_thread() -> asyncio.AbstractEventLoop:
    logging.getLogger("aiortc.rtcrtpreceiver").setLevel(logging.ERROR)  # it warns of each picture that cannot be decoded; they are counted here
    loopback_if_need_be()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="webrtc").start()
    return loop


def loopback_if_need_be() -> None:
    """aioice never offers 127.0.0.1. From here on this process does where there is no other address: so one machine without a network can push."""
    listed: Callable[..., list[str]] = aioice.ice.get_host_addresses
    if listed is not _addresses:
        _addresses.listed = listed
        aioice.ice.get_host_addresses = _addresses


def _addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    return _addresses.listed(use_ipv4=use_ipv4, use_ipv6=use_ipv6) or ["127.0.0.1"]
