"""What aiortc's receiver knows of a video track and does not tell: when each picture arrived, the sender's clock, how far decoding is behind.

Reaches into three private places of one receiver object: the handlers of its RTP and RTCP packets, and what maps RTP timestamps. Should a version of
aiortc move them, pictures still come, with neither `captured_at` nor a limit on what waits to be decoded; tests/media/sources/test_webrtc.py fails then.
Knows no source and no desk. Everything runs in the connection's event loop.
"""

from __future__ import annotations

import time

from aiortc import RTCRtpReceiver, rtp

HZ = 90_000  # of every video payload's RTP clock
NTP_1970 = 2_208_988_800  # seconds from NTP's beginning to Unix's
BEHIND_S = 2.0  # of video waits to be decoded at most; what comes on top is thrown away until the decoder has caught up
CAUGHT_UP_S = 0.25


class Tap:
    """On `receiver` from its first packet. `lost` counts pictures that did not come out, by cause, until `take_lost` hands them over."""

    def __init__(self, receiver: RTCRtpReceiver):
        self._packet, self._report = receiver._handle_rtp_packet, receiver._handle_rtcp_packet
        self._origin = self._last = None  # of the RTP timestamps, the latter unwrapped to more than 32 bits
        self._sender_clock: tuple[float, int] | None = None  # (seconds since 1970, RTP timestamp) of one moment, by the sender's last report
        self._arrived: dict[int, float] = {}  # pts -> seconds since 1970, of pictures that the decoder has not given back
        self._lost: dict[str, int] = {}
        self._thrown: int | None = None  # RTP timestamp of the picture that is being thrown away
        self._behind = False
        self.packets = self.decoded = 0  # that came; pictures that came out
        receiver._handle_rtp_packet, receiver._handle_rtcp_packet = self._on_packet, self._on_report
        receiver._RTCRtpReceiver__timestamp_mapper = self

    async def _on_packet(self, packet: rtp.RtpPacket, arrival_time_ms: int) -> None:
        self.packets += 1
        waiting_s = (max(self._arrived) - min(self._arrived)) / HZ if self._arrived else 0.0
        self._behind = waiting_s > (CAUGHT_UP_S if self._behind else BEHIND_S)
        if not self._behind:
            return await self._packet(packet, arrival_time_ms)
        if packet.timestamp != self._thrown:
            self._thrown = packet.timestamp
            self._count("buffer_full")

    async def _on_report(self, packet) -> None:
        if isinstance(packet, rtp.RtcpSrPacket) and packet.sender_info.ntp_timestamp:
            self._sender_clock = packet.sender_info.ntp_timestamp / 2**32 - NTP_1970, packet.sender_info.rtp_timestamp
        await self._report(packet)

    def map(self, timestamp: int) -> int:
        """aiortc asks this for the pts of a picture that is complete, by its RTP timestamp: ticks since the first picture."""
        if self._origin is None:
            self._origin = self._last = timestamp
        self._last += _signed(timestamp - self._last)
        self._arrived[self._last - self._origin] = time.time()
        return self._last - self._origin

    def times(self, pts: int) -> tuple[float, float | None]:
        """(received_at, captured_at) of the decoded picture `pts`, in seconds since 1970. Pictures before it that did not come out are lost."""
        self.decoded += 1
        received_at = self._arrived.pop(pts, None) or time.time()
        for earlier in [other for other in self._arrived if other < pts]:
            del self._arrived[earlier]
            self._count("decode_error")
        if self._sender_clock is None or self._origin is None:
            return received_at, None
        at, ticks = self._sender_clock
        return received_at, at + _signed(self._origin + pts - ticks) / HZ

    def _count(self, cause: str) -> None:
        self._lost[cause] = self._lost.get(cause, 0) + 1

    def take_lost(self) -> dict[str, int]:
        """{cause: pictures} lost since the last call."""
        lost, self._lost = self._lost, {}
        return lost


def _signed(ticks: int) -> int:
    """A difference of two RTP timestamps, which wrap at 32 bits."""
    return (ticks + 2**31) % 2**32 - 2**31
