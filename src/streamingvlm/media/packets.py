"""The packets of a file's picture, read through to its end without decoding one: stamps, flags, and at which of them decoding may truly begin.

A container's key-frame flags are claims: intra refresh, recovery points and wrong tables of sync samples set them where decoders do not start clean.
A place to begin counts as proven only if the packet's own bytes say so. Knows no pixel and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

HEAD_BYTES = 1 << 16  # enough to find a packet's first picture behind its parameter sets
START_CODE = b"\x00\x00\x01"


@dataclass
class Table:
    """A picture's packets in the order of the file, from the first that the file calls a key frame on."""

    pts: list[int | None] = field(default_factory=list)  # dts where there is no other
    dts: list[int | None] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)  # as the file says
    proven: list[bool] = field(default_factory=list)  # decoding may begin here whatever was before
    shown: list[bool] = field(default_factory=list)  # False: needed to decode others, and cut away by an edit list
    sound: list[int] = field(default_factory=list)  # packets of sound since the picture's packet before
    setups: set[bytes] = field(default_factory=set)  # sequence parameter sets within the stream
    reached_s: float = 0.0  # where any stream ends
    end_bytes: int = 0  # where in the file the last packet of any stream ends, where the container tells
    lost: int = 0  # packets that were not written whole


def read(container: av.container.InputContainer, stream: av.VideoStream) -> Table:
    """All packets. The last ones of a fragment that was never written to its end are counted as lost."""
    table, heard, begun = Table(), 0, False
    for packet in container.demux():
        stamp, duration = packet.dts if packet.pts is None else packet.pts, packet.duration or 0
        if packet.stream.index != stream.index:
            heard += packet.stream.type == "audio" and packet.size > 0
        elif packet.size and torn(packet, container):
            table.lost += 1
            continue
        table.end_bytes = max(table.end_bytes, (packet.pos or 0) + packet.size)
        if stamp is not None:
            table.reached_s = max(table.reached_s, float((stamp + duration) * packet.time_base))
        if packet.stream.index == stream.index and packet.size:
            if packet.is_keyframe and not begun:
                begun, table = True, Table(reached_s=table.reached_s, lost=table.lost)
            table.pts.append(stamp)
            table.dts.append(packet.dts)
            table.duration.append(duration)
            table.keys.append(packet.is_keyframe)
            table.proven.append(packet.is_keyframe and _begins(packet, stream.codec_context, table.setups))
            table.shown.append(not packet.is_discard)
            table.sound.append(heard)
            heard = 0
    return table


def torn(packet: av.Packet, container: av.container.InputContainer) -> bool:
    """Whether an MP4 lists a packet that was not written whole. (MPEG-TS says the same of packets that are whole, after a gap in its count.)"""
    return packet.is_corrupt and container.format.name.startswith("mov")


def _begins(packet: av.Packet, codec: av.CodecContext, setups: set[bytes]) -> bool:
    """Whether a decoder that starts with this packet shows it and all that follows as it should."""
    proof = PROOFS.get(codec.codec.canonical_name)
    if proof is None or codec.codec.intra_only:
        return codec.codec.intra_only
    return proof(bytes(memoryview(packet)[:HEAD_BYTES]), codec, setups)


def _visual(head: bytes, codec: av.CodecContext, setups: set[bytes]) -> bool:
    """MPEG-4: the first picture is an I picture, and none is stored before it that is shown after it."""
    at = head.find(START_CODE + b"\xb6")
    return 0 <= at < len(head) - 4 and head[at + 4] >> 6 == 0 and not codec.has_b_frames


def _vp9(head: bytes, codec: av.CodecContext, setups: set[bytes]) -> bool:
    """No repetition of an earlier frame, and a key frame."""
    profile_3 = head[0] & 0x30 == 0x30
    return head[0] >> 6 == 2 and not head[0] & (0x06 if profile_3 else 0x0C)


def _instantaneous(head: bytes, codec: av.CodecContext, setups: set[bytes]) -> bool:
    """H.264 and H.265: the first picture is an IDR."""
    name = codec.codec.canonical_name
    for unit in units(head, bytes(codec.extradata or b""), name):
        kind = unit[0] & 31 if name == "h264" else unit[0] >> 1 & 63
        if kind == (7 if name == "h264" else 33):
            setups.add(unit)
        if name == "h264" and 1 <= kind <= 5:
            return kind == 5
        if name == "hevc" and kind < 32:
            return kind in {19, 20}
    return False


def units(head: bytes, setup: bytes, name: str):
    """The NAL units at the beginning of a packet: with their length before them where the file's setup says so, else between start codes."""
    if setup[:1] == b"\x01" and len(setup) > 22 - 15 * (name == "h264"):
        width, at = (setup[4] if name == "h264" else setup[21]) % 4 + 1, 0
        while at + width < len(head):
            size = int.from_bytes(head[at : at + width], "big")
            if size:
                yield head[at + width : at + width + size]
            at += width + size
        return
    at = head.find(START_CODE)
    while at >= 0:
        following = head.find(START_CODE, at + 3)
        unit = head[at + 3 : following if following >= 0 else len(head)].rstrip(b"\x00")
        if unit:
            yield unit
        at = following


# Codec -> whether a packet (its head, the codec, the parameter sets seen so far) is what the file says; not named: not provable
PROOFS = {"h264": _instantaneous, "hevc": _instantaneous, "mpeg4": _visual, "vp9": _vp9, "vp8": lambda head, *_: not head[0] & 1,
          "msmpeg4v2": lambda head, *_: head[0] >> 6 == 0, "msmpeg4v3": lambda head, *_: head[0] >> 6 == 0}
