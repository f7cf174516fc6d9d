"""Cameras that push: browsers and other WHIP clients, over WebRTC. A `Desk` answers their offers, a `WebRTCSource` hands over one camera's pictures.

    desk = Desk(); desk.start()
    source = WebRTCSource("door", desk)                      # somebody iterates over watched(source, stop)
    resource, answer = await desk.offer("door", sdp)         # from any event loop; from a plain thread: asyncio.run(desk.offer(...))

A camera has one publisher at a time. The first keeps it while it sends: a second is refused. One that has sent nothing for `SILENT_S` gives way, so
that a browser that crashed can come back at once. Pictures are always taken from the track, at most `HOLD_S` of them wait here, and what a newer one
overwrites is counted. Knows no HTTP and no camera list. No STUN server is asked: publisher and service see each other's addresses.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TypeVar

import aioice.ice
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription, sdp
from aiortc.mediastreams import MediaStreamError

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.protocol import Picture, SourceError
from streamingvlm.media.sources.webrtc_tap import HZ, Tap

Result = TypeVar("Result")
NOBODY = "It waits for somebody to push to it."
HUNG_UP = "The publisher hung up."
REPLACED = "Another publisher took its place."
HOLD_S = 0.5  # of pictures that nobody has taken yet
HOLD_PICTURES = 32  # at most, whatever their timestamps say
SILENT_S = 2.0  # without a picture: another publisher may take the camera
ANSWER_S = 10.0  # for one offer: a browser's .local address may have to be looked up
SDP_BYTES = 100_000
CODECS = ("H264", "VP8")
HOW = "push one video track as H.264 (constrained baseline) or VP8"


class NoSuchCamera(UserError):
    """An offer for a camera that nobody watches, or the end of a session that is none. HTTP: 404."""


class Taken(UserError):
    """An offer for a camera whose publisher still sends. HTTP: 409."""


class Session:
    """One publisher's connection: filled by the desk's event loop, emptied by the thread that reads the source, both holding `changed`."""

    tap: Tap

    def __init__(self, connection: RTCPeerConnection, changed: threading.Condition):
        self.resource = secrets.token_urlsafe(12)
        self.connection, self.changed = connection, changed
        self.ended = ""  # why
        self.told = False  # its silence was reported
        self.draining: asyncio.Task | None = None
        self.closing: asyncio.Task | None = None
        self.heard = time.monotonic()  # its last picture, or its offer
        self._waiting: collections.deque[Picture] = collections.deque()
        self._lost: collections.Counter[str] = collections.Counter()  # since a picture was last taken, by cause

    def put(self, picture: Picture) -> None:
        """A new picture; the oldest go for it where nobody took them in time."""
        with self.changed:
            self._waiting.append(picture)
            self._lost.update(picture.lost)
            while len(self._waiting) > HOLD_PICTURES or picture.pts_s - self._waiting[0].pts_s > HOLD_S:
                self._waiting.popleft()
                self._lost["buffer_full"] += 1
            self.heard, self.told = time.monotonic(), False
            self.changed.notify_all()

    def take(self) -> Picture | None:
        """The oldest picture that waits, with what was lost since the last call."""
        if not self._waiting:
            return None
        lost, self._lost = dict(self._lost), collections.Counter()
        return dataclasses.replace(self._waiting.popleft(), lost=lost)

    def end(self, reason: str) -> None:
        with self.changed:
            self.ended = self.ended or reason
            self.changed.notify_all()

    def silent(self, longer_than_s: float) -> bool:
        return time.monotonic() - self.heard > longer_than_s

    def silence(self) -> str:
        """What its silence means."""
        if not self.tap.heard:
            return "The publisher's offer was answered, but nothing comes from it."
        if self.tap.decoded:
            return "The publisher has stopped sending pictures."
        return f"What the publisher sends cannot be decoded as what it announced: {HOW}."


class Seat:
    """Where a camera waits for its publisher."""

    def __init__(self):
        self.changed = threading.Condition()
        self.session: Session | None = None
        self.answering = asyncio.Lock()  # one offer at a time


class Desk:
    """Answers offers for all cameras of one process, in an event loop in a thread of its own. `loopback`: also over 127.0.0.1, which WebRTC leaves out
    by itself, for a machine without any network; it changes aioice's list of addresses for the whole process."""

    def __init__(self, loopback: bool = False):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="webrtc")
        self._seats: dict[str, Seat] = {}
        self._loopback = loopback

    def start(self) -> None:
        logging.getLogger("aiortc.rtcrtpreceiver").setLevel(logging.ERROR)  # it warns of every picture that cannot be decoded; they are counted here
        if self._loopback:
            also_loopback()
        self._thread.start()

    def close(self) -> None:
        """Hang up on everybody and end the threads; without it those of the decoders keep the process alive."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(2 * ANSWER_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_S)

    def expect(self, name: str) -> Seat:
        """Offers for camera `name` are welcome from now on, until `forget`."""
        return self._seats.setdefault(name, Seat())

    def forget(self, name: str) -> None:
        """The camera is gone: hang up, and refuse whoever pushes to it."""
        seat = self._seats.pop(name, None)
        if seat and seat.session:
            self._loop.call_soon_threadsafe(self._part, seat.session, "The camera was removed.")

    async def offer(self, name: str, sdp: str) -> tuple[str, str]:
        """(resource, SDP answer) for a WHIP client's SDP offer. Raises `UserError` with a sentence for the client."""
        return await self._here(self._offer(name, sdp))

    async def hang_up(self, resource: str) -> None:
        """End the session that `offer` named so."""
        session = next((seat.session for seat in self._seats.values() if seat.session and seat.session.resource == resource), None)
        if session is None:
            raise NoSuchCamera("There is no such session: it has ended already.")
        await self._here(self._hang_up([session], HUNG_UP))

    async def _end(self) -> None:
        await self._hang_up([seat.session for seat in self._seats.values() if seat.session], "The service ends.")
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1.0)
        for task in others:
            task.cancel()

    async def _hang_up(self, sessions: list[Session], reason: str) -> None:
        await asyncio.gather(*[self._part(session, reason) for session in sessions], return_exceptions=True)

    async def _here(self, work: Coroutine[None, None, Result]) -> Result:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _offer(self, name: str, offer: str) -> tuple[str, str]:
        seat = self._seats.get(name)
        if seat is None:
            raise NoSuchCamera(f"No camera {name!r} waits for somebody to push to it; add one with the address webrtc:.")
        check(offer)
        async with seat.answering:
            before = seat.session
            if before and not before.ended and not before.silent(SILENT_S):
                raise Taken(f"Somebody pushes to camera {name!r} already; hang up there first, or add another camera.")
            session = Session(RTCPeerConnection(RTCConfiguration(iceServers=[])), seat.changed)
            try:
                answer = await asyncio.wait_for(self._answer(session, offer), ANSWER_S)
            except Exception as error:
                await self._part(session, "Its offer could not be answered.")
                raise UserError(f"The offer cannot be answered ({type(error).__name__}): {HOW}.") from error
            with seat.changed:
                seat.session = session
            if before:
                self._part(before, REPLACED)
        return session.resource, answer

    async def _answer(self, session: Session, offer: str) -> str:
        connection = session.connection
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        video = None
        for transceiver in connection.getTransceivers():
            if transceiver.kind == "video" and video is None and transceiver.receiver.track:
                video = transceiver.receiver
            else:
                transceiver.direction = "inactive"  # sound, and a second picture: nobody would take them
        session.tap = Tap(video)
        connection.on("connectionstatechange", lambda: self._look(session))
        session.draining = asyncio.create_task(self._drain(video.track, session))
        await connection.setLocalDescription(await connection.createAnswer())
        return connection.localDescription.sdp

    def _look(self, session: Session) -> None:
        state = session.connection.connectionState
        if state in {"failed", "closed"}:
            self._part(session, HUNG_UP if state == "closed" else "The connection to the publisher broke, or none came about.")

    async def _drain(self, track: MediaStreamTrack, session: Session) -> None:
        """Take every picture as soon as it is decoded: aiortc's own queue has no end."""
        with contextlib.suppress(MediaStreamError):
            while True:
                image = await track.recv()
                received_at, captured_at = session.tap.times(image.pts)
                session.put(Picture(image.pts / HZ, image, received_at, captured_at, image.is_corrupt, dict(session.tap.lost)))
                session.tap.lost.clear()
        self._part(session, HUNG_UP)

    def _part(self, session: Session, reason: str) -> asyncio.Task:
        """Begin to close the connection; `reason` is told when the last picture was taken from it."""
        session.closing = session.closing or self._loop.create_task(self._close(session, reason))
        return session.closing

    async def _close(self, session: Session, reason: str) -> None:
        await session.connection.close()
        if session.draining:
            await asyncio.wait([session.draining], timeout=1.0 if session.tap.decoded else 0.0)  # the last pictures are still to come out
            session.draining.cancel()
        session.end(reason)


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


class WebRTCSource:
    """Camera `name` at `desk`: a `protocol.Source`. A connection ends with the publisher's, or after `stall_s` without a picture; then the publisher's
    session stays, and what comes from it later is the next connection's. When the camera goes, tell the desk to `forget` it."""

    live = True

    def __init__(self, name: str, desk: Desk, stall_s: float = 5.0):
        self.label = f"webrtc:{name}"
        self._seat, self._stall_s = desk.expect(name), stall_s

    def connect(self, stop: threading.Event) -> Iterator[Picture | str]:
        """Yields first what it waits for where nobody pushes yet."""
        seat, mine = self._seat, None
        if seat.session is None or seat.session.told:
            yield NOBODY
        while not stop.is_set():
            with seat.changed:
                session = seat.session
                picture = session.take() if session and mine in (None, session) else None
                if picture is None:
                    self._look(seat, mine)
                    seat.changed.wait(0.1)
            if picture:
                mine = session
                yield picture

    def _look(self, seat: Seat, mine: Session | None) -> None:
        """No picture waits: raise `SourceError` where this connection has none to hope for."""
        session = seat.session
        if mine and session is not mine:
            raise SourceError(mine.ended or REPLACED)
        if session and session.ended:
            seat.session = None
            raise SourceError(session.ended)
        if session and not session.told and session.silent(self._stall_s):
            session.told = True
            raise SourceError(session.silence())
