"""Packets of a live connection -> pictures: which of them to trust, and a clock that must not jump. Knows FFmpeg's packets, and no protocol.

A decoder fed with losses goes on and says little: it flags a picture with a hole, and neither that one is missing nor those that refer to it. What
follows a loss counts as corrupt here until a picture comes that refers to nothing, or `HEALED_S` have passed: a sender that refreshes its picture in
stripes has no such one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from streamingvlm.media import packets
from streamingvlm.media.sources.protocol import Picture, SourceError

if TYPE_CHECKING:
    import av

BACK_S, AHEAD_S = 1.0, 10.0  # how far a sender's clock may step back, or on beyond the time that passed here, within one connection
HEALED_S = 10.0
HEAD_BYTES = 4096  # of a packet: what stands before its first slice, and that slice's header
HIGH = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # profiles whose parameter sets say more
Captured = Callable[["av.Packet", float], "float | None"]  # (packet, a picture's pts_s) -> when it was captured


class Decoder:
    """One connection's. `captured` is asked for each picture."""

    def __init__(self, stream: av.VideoStream, captured: Captured):
        stream.thread_type = "NONE"  # a thread of the decoder's own would hold pictures back, and costs more
        self.captured = captured
        codec = stream.codec_context
        self.numbers = Numbers(bytes(codec.extradata or b"")) if codec.codec.canonical_name == "h264" else None
        self.torn_at: float | None = None  # when something was lost that later pictures may refer to
        self.last: tuple[float, float] | None = None  # pts_s and arrival of the picture before

    def pictures(self, packet: av.Packet) -> Iterator[Picture]:
        """What `packet` completes. Raises `SourceError` where the sender's clock jumps."""
        import av

        received_at = time.time()
        if self.numbers and self.numbers.skipped(packet):
            self.torn_at = received_at
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self.torn_at = received_at
            if self.last:
                pts_s = self.last[0] if packet.pts is None else float(packet.pts * packet.time_base)
                yield Picture(pts_s, None, received_at, self.captured(packet, pts_s), True)
            return
        for frame in frames:
            if frame.is_corrupt:
                self.torn_at = received_at
            elif frame.key_frame or received_at - (self.torn_at or received_at) > HEALED_S:
                self.torn_at = None
            if frame.pts is None:  # the first one or two of some senders: without a time they are nowhere in the stream
                continue
            pts_s = float(frame.pts * frame.time_base)
            self._check(pts_s, received_at)
            yield Picture(pts_s, frame, received_at, self.captured(packet, pts_s), self.torn_at is not None)

    def _check(self, pts_s: float, received_at: float) -> None:
        """`received_at` is the wall's clock, which may be set: a step of it forward only makes this more lenient."""
        if self.last:
            step_s, passed_s = pts_s - self.last[0], received_at - self.last[1]
            if step_s < -BACK_S or step_s > passed_s + AHEAD_S:
                raise SourceError(f"Its clock jumped by {step_s:.1f} s.")
        self.last = pts_s, received_at


class Numbers:
    """H.264 numbers the pictures that others refer to (frame_num, 7.4.3 of the standard): a number left out is a picture lost. `setup`: as FFmpeg has
    it from the container, or nothing."""

    def __init__(self, setup: bytes):
        self.setup, self.bits, self.last = setup, 0, -1
        if setup[:1] == b"\x01":  # MP4's: the first parameter set follows its length
            self._see(setup[8 : 8 + int.from_bytes(setup[6:8], "big")])
        else:
            for unit in packets.units(setup, b"", "h264"):
                self._see(unit)

    def skipped(self, packet: av.Packet) -> bool:
        """Whether a picture is missing right before this one."""
        for unit in packets.units(bytes(memoryview(packet)[:HEAD_BYTES]) if packet.size else b"", self.setup, "h264"):
            self._see(unit)
            kind, refers = unit[0] & 31, unit[0] >> 5 & 3
            if kind in {1, 5} and self.bits:
                bits = Bits(unit[1:])
                bits.number(), bits.number(), bits.number()  # first macroblock, kind of slice, picture parameter set
                number, before = bits.take(self.bits), self.last
                self.last = number if refers else before
                return kind == 1 and before >= 0 and (number - before) % (1 << self.bits) > 1
        return False

    def _see(self, unit: bytes) -> None:
        """Learn from a sequence parameter set how long numbers are; 0 where it allows gaps or is of a kind that is not read here."""
        if unit[:1] and unit[0] & 31 == 7:
            bits = Bits(unit[1:])
            profile = bits.take(24) >> 16
            bits.number()
            if profile in HIGH and (bits.number() == 3 or bits.number() + bits.number() < 0 or bits.take(2) & 1):  # 4:4:4, or own scaling matrices
                self.bits = 0
                return
            length = bits.number() + 4
            order = bits.number()
            if order == 0:
                bits.number()
            bits.number()
            self.bits = 0 if order == 1 or bits.take(1) else length


class Bits:
    """Of a NAL unit, from its beginning; zeros behind its end."""

    def __init__(self, unit: bytes):
        plain = unit[:64].replace(b"\0\0\3", b"\0\0")
        self.value, self.left = int.from_bytes(plain, "big") << 256, 8 * len(plain) + 256

    def take(self, count: int) -> int:
        self.left = max(self.left - count, 0)
        return self.value >> self.left & (1 << count) - 1

    def number(self) -> int:
        """Exponential Golomb, unsigned."""
        zeros = 0
        while zeros < 32 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
