"""What aiortc's receiver knows of a video track and does not tell: when each picture arrived, the sender's clock. And an end to its queue.

Reaches into a few private places of one receiver object: the handler of RTCP, what maps RTP timestamps, the queue to its decoder and the flag that asks
the sender for a key frame. Should a version of aiortc move them, pictures still come, with neither `captured_at` nor a limit on what waits to be
decoded; tests/media/sources/test_webrtc.py fails then. Knows no source and no desk. All of it runs in the connection's event loop.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections import Counter

from aiortc import RTCRtpReceiver, rtp

HZ = 90_000  # of every video payload's RTP clock
NTP_1970 = 2_208_988_800  # seconds from NTP's beginning to Unix's
BEHIND = 60  # pictures wait to be decoded at most; then they are thrown away until a key frame comes with no more than CAUGHT_UP waiting
CAUGHT_UP = 5
H264_KEY = re.compile(rb"\x00\x00\x01[\x05\x07\x25\x27\x45\x47\x65\x67]")  # a picture that needs no other, or the parameter set in front of one


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
