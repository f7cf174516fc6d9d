"""H.264 as a camera sends it: access units that come when they are due, cut into RTP packets, with the sender's clock beside them. No socket in here.

A feed is one picture for however many clients: `Looped` repeats a file without encoding it anew, `Encoded` encodes pictures as they are drawn.
"""

from __future__ import annotations

import asyncio
import base64
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.media import packets, writer

CLOCK_HZ = 90_000
TO_NTP_S = 2_208_988_800  # from 1900 to 1970
PAYLOAD_BYTES = 1400  # with all headers below the 1500 of an Ethernet frame
LATE_S = 1.0  # a feed that was stopped for longer leaves out what it missed, as a camera would
SPS, PPS, DELIMITER, FRAGMENT = 7, 8, 9, 28  # kinds of NAL units


@dataclass(frozen=True)
class AccessUnit:
    """One picture's NAL units. `pts_s` by the feed's clock, `captured_at` in seconds since 1970. `key`: decoding can begin here."""

    units: list[bytes]
    key: bool
    pts_s: float
    captured_at: float


class Feed(Protocol):
    """`setup`: the sequence and picture parameter sets, from before the first unit comes. `fps` as far as it is known."""

    setup: tuple[bytes, bytes]
    fps: float

    def units(self, wanted: Wanted, pool: Executor) -> AsyncIterator[AccessUnit]:
        """The access units, each when it is due. What takes long is done in `pool`."""


@dataclass
class Wanted:
    """What clients want of a feed: pictures at all, and one that they can begin with."""

    pictures: bool = False
    key: bool = False


class Looped:
    """An H.264 file, again and again, each pass later by the length of the file."""

    def __init__(self, path: Path):
        import av

        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                if stream.codec_context.name != "h264":
                    raise UserError(f"{path} is {stream.codec_context.name}, and only H.264 is repeated as it is: let it be encoded anew.")
                annexb = av.BitStreamFilterContext("h264_mp4toannexb", stream)
                stored = [q for p in container.demux(stream) if p.size for q in annexb.filter(p)]
                self.fps = float(stream.average_rate or 25)
                tick_s = float(stream.time_base)
        except (av.error.FFmpegError, IndexError):
            raise UserError(f"{path} is no video that can be read: name an H.264 file.") from None
        dts, pts = (np.array([(getattr(p, name) or 0) * tick_s for p in stored]) for name in ("dts", "pts"))
        self.due_s, self.pts_s = dts - dts[0], pts - dts[0]
        self.delay_s = float((self.pts_s - self.due_s).max())  # of B frames: sent after what is shown later
        self.length_s = float(np.sort(self.pts_s)[-1] - np.sort(self.pts_s)[0]) + 1 / self.fps
        self.stored = [(_units(bytes(p)), p.is_keyframe) for p in stored]
        self.setup = _setup(unit for found, _ in self.stored for unit in found)

    async def units(self, wanted: Wanted, pool: Executor) -> AsyncIterator[AccessUnit]:
        begun, began, base_s = time.monotonic(), time.time(), 0.0
        while True:
            for (found, key), due_s, pts_s in zip(self.stored, self.due_s, self.pts_s, strict=True):
                late_s = time.monotonic() - begun - base_s - due_s
                base_s += late_s if late_s > LATE_S else 0.0
                await asyncio.sleep(max(-late_s, 0.0))
                yield AccessUnit(found, key, base_s + pts_s, began + base_s + pts_s - self.delay_s)
            base_s += self.length_s


class Encoded:
    """Pictures [H, W, C] uint8 RGB of one even size as they are drawn, `fps` a second: each is asked for when it is due, and captured then. Where the
    drawing or this machine is too slow, it leaves out moments and not pictures. It ends with them. Without clients nothing is encoded."""

    def __init__(self, pictures: Iterator[np.ndarray], fps: float, key_s: float = 1.5, crf: int = 20):
        self.pictures, self.fps, self.key_s, self.crf = pictures, fps, key_s, crf
        self.encoder = None
        self.first = next(self.pictures)
        self.setup = _setup(self._encode(self.first, 0, True)[0])

    async def units(self, wanted: Wanted, pool: Executor) -> AsyncIterator[AccessUnit]:
        begun, began, moment = time.monotonic(), time.time(), 0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(begun + moment / self.fps - time.monotonic())
            drawn = await loop.run_in_executor(pool, self._next, moment, wanted)
            if drawn is None:
                return
            if drawn[0]:
                yield AccessUnit(*drawn, moment / self.fps, began + moment / self.fps)
            moment = max(moment + 1, int((time.monotonic() - begun) * self.fps))

    def _next(self, moment: int, wanted: Wanted) -> tuple[list[bytes], bool] | None:
        """Draw, and encode what somebody wants -> (units, whether decoding can begin with them); None behind the last picture."""
        picture, self.first = self.first if self.first is not None else next(self.pictures, None), None
        if picture is None:
            return None
        if not wanted.pictures:
            return [], False
        key, wanted.key = wanted.key, False
        return self._encode(picture, moment + 1, key)

    def _encode(self, picture: np.ndarray, pts: int, key: bool) -> tuple[list[bytes], bool]:
        import av

        height, width, channels = picture.shape
        if self.encoder is None:
            if height % 2 or width % 2 or channels != 3:
                raise ValueError(f"Encoded takes pictures [H, W, 3] of an even size, not {picture.shape}.")
            self.encoder = encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            writer.tell_colours(encoder)
            encoder.framerate = Fraction(self.fps).limit_denominator(1001)
            encoder.time_base, encoder.thread_count = 1 / encoder.framerate, 1
            encoder.options = {"preset": "superfast", "tune": "zerolatency", "crf": str(self.crf), "bf": "0",
                               "g": str(max(round(self.key_s * self.fps), 1))}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = pts, self.encoder.time_base
        frame.pict_type = av.video.frame.PictureType.I if key else av.video.frame.PictureType.NONE
        found = self.encoder.encode(frame)
        return [unit for p in found for unit in _units(bytes(p))], any(p.is_keyframe for p in found)


class Packets:
    """A feed's RTP: one sequence for all its clients."""

    def __init__(self, setup: tuple[bytes, bytes]):
        self.setup, self.source, self.begin = setup, random.getrandbits(31), random.getrandbits(32)
        self.sequence, self.sent, self.sent_bytes = random.getrandbits(15), 0, 0

    def cut(self, unit: AccessUnit) -> list[bytes]:
        """One access unit's packets; a key frame's begin with the parameter sets."""
        inside = {nal[0] & 31 for nal in unit.units}
        nals = ([] if not unit.key or SPS in inside else [*self.setup]) + unit.units
        payloads = [part for nal in nals for part in fragments(nal)]
        done = []
        for number, payload in enumerate(payloads):
            last = 0x80 if number == len(payloads) - 1 else 0
            done.append(struct.pack("!BBHII", 0x80, 96 | last, self.sequence, self._stamp(unit.pts_s), self.source) + payload)
            self.sequence = self.sequence + 1 & 0xFFFF
        self.sent = self.sent + len(done) & 0xFFFFFFFF
        self.sent_bytes = self.sent_bytes + sum(map(len, payloads)) & 0xFFFFFFFF
        return done

    def report(self, unit: AccessUnit) -> bytes:
        """RTCP: a sender report that says when `unit` was captured, and an empty description of the sender, which has to follow."""
        ntp_s = unit.captured_at + TO_NTP_S
        whole = int(ntp_s)
        times = whole & 0xFFFFFFFF, int((ntp_s - whole) * (1 << 32)), self._stamp(unit.pts_s)
        return (struct.pack("!BBHIIIIII", 0x80, 200, 6, self.source, *times, self.sent, self.sent_bytes)
                + struct.pack("!BBHIBB2x", 0x81, 202, 2, self.source, 1, 0))

    def description(self, fps: float, control: str) -> str:
        """SDP: what the packets hold, and where (`control`, relative to the feed's address) a client asks for them."""
        sps, pps = self.setup
        sets = ",".join(base64.b64encode(unit).decode() for unit in (sps, pps))
        lines = ("v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=streamingvlm", "t=0 0", "a=range:npt=now-", "m=video 0 RTP/AVP 96", "c=IN IP4 0.0.0.0",
                 "a=rtpmap:96 H264/90000", f"a=framerate:{fps:g}",
                 f"a=fmtp:96 packetization-mode=1;profile-level-id={sps[1:4].hex()};sprop-parameter-sets={sets}", f"a=control:{control}")
        return "".join(line + "\r\n" for line in lines)

    def _stamp(self, pts_s: float) -> int:
        return self.begin + round(pts_s * CLOCK_HZ) & 0xFFFFFFFF


def fragments(nal: bytes, limit: int = PAYLOAD_BYTES) -> list[bytes]:
    """A NAL unit as RTP payloads (RFC 6184): whole, or in pieces (FU-A) that each carry its kind and whether they are its first or its last."""
    if len(nal) <= limit:
        return [nal]
    pieces = [nal[at : at + limit - 2] for at in range(1, len(nal), limit - 2)]
    edges = [0x80, *[0] * (len(pieces) - 2), 0x40]
    return [bytes((nal[0] & 0xE0 | FRAGMENT, nal[0] & 31 | edge)) + piece for edge, piece in zip(edges, pieces, strict=True)]


def _units(stored: bytes) -> list[bytes]:
    return [unit for unit in packets.units(stored, b"", "h264") if unit[0] & 31 != DELIMITER]


def _setup(units: Iterator[bytes]) -> tuple[bytes, bytes]:
    found: dict[int, bytes] = {}
    for unit in units:
        found.setdefault(unit[0] & 31, unit)
        if SPS in found and PPS in found:
            return found[SPS], found[PPS]
    raise UserError("This H.264 holds no parameter sets: encode it anew.")
