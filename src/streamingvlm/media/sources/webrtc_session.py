"""One publisher's WebRTC connection: its offer is answered, its pictures are taken as they come, and what aiortc does not tell of them is found out.

aiortc's receiver knows when a picture arrived and what the sender's clock said, and keeps it to itself; and its queues have no end. `Tap` reaches
into a few private places of one receiver object: the handler of RTCP, what maps RTP timestamps, what puts packets in order, the queue to its decoder
and the flag that asks the sender for a key frame. Should a version of aiortc move them, pictures still come, with neither `captured_at` nor a limit
on what waits; tests/media/sources/test_webrtc.py fails then. Knows no camera: a session begins with an offer and ends for good.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import queue
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription, rtp
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamError

from streamingvlm.media.sources.protocol import Picture

HUNG_UP = "The publisher hung up."
BROKEN = "The connection to the publisher broke, or none came about."
HOW = "push one video track as H.264 (constrained baseline) or VP8"
HOLD_S = 0.5  # of pictures that nobody has taken yet
HOLD_PICTURES = 32  # at most, whatever their timestamps say
HZ = 90_000  # of every video payload's RTP clock
NTP_1970 = 2_208_988_800  # seconds from NTP's beginning to Unix's
BEHIND = 60  # pictures wait to be decoded at most; then they are thrown away until a key frame comes with no more than CAUGHT_UP waiting
CAUGHT_UP = 5
GAP_S = 1.0  # how long a packet may be missing
H264_KEY = re.compile(rb"\x00\x00\x01[\x05\x07\x25\x27\x45\x47\x65\x67]")  # a picture that needs no other, or the parameter set in front of one


class Session:
    """Filled in the event loop of its connection, emptied by the thread that reads the source; both hold `changed` for that. No STUN server is asked:
    publisher and service see each other's addresses."""

    def __init__(self, changed: threading.Condition):
        self.resource = secrets.token_urlsafe(12)
        self.changed = changed
        self.ended = ""  # why
        self.told = False  # its silence was reported
        self.tap: Tap | None = None
        self._heard = time.monotonic()  # its last picture, or its offer
        self._pictures: collections.deque[Picture] = collections.deque()
        self._lost: Counter[str] = Counter()  # since a picture was last taken, by cause
        self._draining: asyncio.Task | None = None
        self._parting: asyncio.Task | None = None

    async def answer(self, offer: str) -> str:
        """SDP -> SDP. Raises whatever aiortc raises for an offer that it cannot answer."""
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        video = None
        for transceiver in self._connection.getTransceivers():
            if transceiver.kind == "video" and video is None and transceiver.receiver.track:
                video = transceiver.receiver
            else:
                transceiver.direction = "inactive"  # sound, and a second picture: nobody would take them
        self.tap = Tap(video)
        self._connection.on("connectionstatechange", self._moved)
        self._draining = asyncio.create_task(self._drain(video.track))
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        return self._connection.localDescription.sdp

    async def part(self, reason: str) -> None:
        """Close the connection; `reason` is told when the last picture was taken from it."""
        await asyncio.shield(self._part(reason))

    def _part(self, reason: str) -> asyncio.Task:
        self._parting = self._parting or asyncio.get_running_loop().create_task(self._close(reason))
        return self._parting

    async def _close(self, reason: str) -> None:
        await self._connection.close()
        if self._draining:
            await asyncio.wait([self._draining], timeout=1.0 if self.tap.decoded else 0.0)  # the last pictures are still to come out
            self._draining.cancel()
        with self.changed:
            self.ended = reason
            self.changed.notify_all()

    def _moved(self) -> None:
        state = self._connection.connectionState
        if state in {"failed", "closed"}:
            self._part(HUNG_UP if state == "closed" else BROKEN)

    async def _drain(self, track: MediaStreamTrack) -> None:
        """Take every picture as soon as it is decoded: aiortc's own queue has no end."""
        with contextlib.suppress(MediaStreamError):
            while True:
                image = await track.recv()
                received_at, captured_at = self.tap.times(image.pts)
                self._put(Picture(image.pts / HZ, image, received_at, captured_at, image.is_corrupt))
        self._part(HUNG_UP)

    def _put(self, picture: Picture) -> None:
        """A new picture; the oldest go for it where nobody took them in time."""
        with self.changed:
            self._pictures.append(picture)
            self._lost.update(self.tap.lost)
            self.tap.lost.clear()
            while len(self._pictures) > HOLD_PICTURES or picture.pts_s - self._pictures[0].pts_s > HOLD_S:
                self._pictures.popleft()
                self._lost["buffer_full"] += 1
            self._heard, self.told = time.monotonic(), False
            self.changed.notify_all()

    def take(self) -> Picture | None:
        """The oldest picture that waits, with what was lost since the last call. Hold `changed`."""
        if not self._pictures:
            return None
        lost, self._lost = dict(self._lost), Counter()
        return dataclasses.replace(self._pictures.popleft(), lost=lost)

    def silent(self, longer_than_s: float) -> bool:
        return time.monotonic() - self._heard > longer_than_s

    def silence(self) -> str:
        """What its silence means."""
        if not self.tap.heard:
            return "The publisher's offer was answered, but nothing comes from it."
        if self.tap.decoded:
            return "The publisher has stopped sending pictures."
        return f"What the publisher sends cannot be decoded as what it announced: {HOW}."


class Tap:
    """On `receiver` before its first packet. `lost` counts pictures that did not come out, by cause; whoever reads it may empty it."""

    def __init__(self, receiver: RTCRtpReceiver):
        self._receiver, self._report = receiver, receiver._handle_rtcp_packet
        self._origin = self._last = None  # of the RTP timestamps, the latter unwrapped to more than 32 bits
        self._sender_clock: tuple[float, int] | None = None  # (seconds since 1970, RTP timestamp) of one moment, by the sender's last report
        self.lost: Counter[str] = Counter()
        self.waiting = Waiting(self.lost, getattr(receiver, "_RTCRtpReceiver__decoder_error", threading.Event()))
        self.decoded = 0
        receiver._handle_rtcp_packet = self._on_report
        receiver._RTCRtpReceiver__timestamp_mapper = self
        receiver._RTCRtpReceiver__decoder_queue = self.waiting
        receiver._RTCRtpReceiver__jitter_buffer = InOrder()

    @property
    def heard(self) -> bool:
        """Packets have come lately, whether or not they made a picture."""
        return bool(self._receiver.getSynchronizationSources())

    async def _on_report(self, packet) -> None:
        if isinstance(packet, rtp.RtcpSrPacket) and packet.sender_info.ntp_timestamp:
            self._sender_clock = packet.sender_info.ntp_timestamp / 2**32 - NTP_1970, packet.sender_info.rtp_timestamp
        await self._report(packet)

    def map(self, timestamp: int) -> int:
        """aiortc asks this for the pts of a picture that is complete, by its RTP timestamp: ticks since the first picture."""
        if self._origin is None:
            self._origin = self._last = timestamp
        self._last += _signed(timestamp - self._last)
        return self._last - self._origin

    def times(self, pts: int) -> tuple[float, float | None]:
        """(received_at, captured_at) of the decoded picture `pts`, in seconds since 1970. Pictures before it that did not come out are lost."""
        self.decoded += 1
        received_at = self.waiting.arrived.pop(pts, None) or time.time()
        for earlier in [other for other in self.waiting.arrived if other < pts]:
            del self.waiting.arrived[earlier]
            self.lost["decode_error"] += 1
        if self._sender_clock is None or self._origin is None:
            return received_at, None
        at, ticks = self._sender_clock
        return received_at, at + _signed(self._origin + pts - ticks) / HZ


class InOrder(JitterBuffer):
    """Puts packets in order as aiortc's own does, but waits no longer than GAP_S for one that is missing; then it goes on with what is there, and a
    key frame is asked for. aiortc's own waits until 512 packets have come: 17 s after a cable was out, where a picture is one packet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__(capacity=512, is_video=True)
        self._clock, self._moved_at = clock, clock()

    def add(self, packet: rtp.RtpPacket) -> tuple[bool, JitterFrame | None]:
        if self._origin is None:
            self._moved_at = self._clock()
        elif 0 < (self._origin - packet.sequence_number) % 2**16 < 2**12:
            return False, None  # repeated too late
        ask, picture = super().add(packet)
        if picture is not None:
            self._moved_at = self._clock()
        elif self._clock() - self._moved_at > GAP_S:
            self.remove(self.capacity)
            self._origin = None
            _, picture = self.add(packet)
            ask = True
        return ask, picture


class Waiting(queue.Queue):
    """What waits to be decoded, with an end. What is thrown away goes into `lost`; `ask` then has the sender send a key frame."""

    def __init__(self, lost: Counter[str], ask: threading.Event):
        super().__init__()
        self._lost, self._ask, self._skipping = lost, ask, False
        self.arrived: dict[int, float] = {}  # pts -> seconds since 1970, of what has not come out of the decoder

    def put(self, item, block: bool = True, timeout: float | None = None) -> None:
        if item is not None:
            codec, picture = item
            waiting = self.qsize()
            if self._skipping or waiting >= BEHIND:
                self._skipping = waiting > CAUGHT_UP or not is_key(codec.name, picture.data)
            if self._skipping:
                self._lost["buffer_full"] += 1
                if waiting <= CAUGHT_UP:
                    self._ask.set()
                return
            self.arrived[picture.timestamp] = time.time()
        super().put(item)


def is_key(codec: str, data: bytes) -> bool:
    """Whether decoding can begin with this picture."""
    return bool(H264_KEY.search(data)) if codec == "H264" else bool(data) and not data[0] & 1


def _signed(ticks: int) -> int:
    """A difference of two RTP timestamps, which wrap at 32 bits."""
    return (ticks + 2**31) % 2**32 - 2**31
