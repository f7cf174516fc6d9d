"""The end of a file that FFmpeg does not reach: a recording that was copied behind the first, a fragment of an MP4 that was not written whole.

MPEG-TS, Matroska and AVI are read through where recordings are joined; of MP4 and FLV only the first one is, by players too. Knows how containers are
cut into boxes, no packet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from streamingvlm.base.errors import UserError

SAID = "another recording is joined to its end, and {} are not watched: watch that one as a file of its own"
SPARE_BYTES = 1 << 16  # what may follow a file's last packet and is none


def joined(path: str, kind: str, fragments: bool, end_bytes: int) -> str | None:
    """A sentence without a subject if a second recording follows the first. `end_bytes`: where the last packet that was read ends.

    UserError for MP4 in fragments: FFmpeg then takes the second recording's frames from the first one's bytes."""
    size_bytes = os.path.getsize(path)
    if kind == "mov":
        begins = [at for at, name, _ in boxes(path) if name == b"ftyp"][1:]
        if begins and fragments:
            raise UserError(f"{path} holds several recordings, copied one behind the other, which MP4 does not allow: "
                            "watch each as a file of its own, or join them with ffmpeg's `concat`.")
        return SAID.format(f"its {size_bytes - begins[0]:,} bytes") if begins else None
    if kind == "flv" and size_bytes > end_bytes:
        with open(path, "rb") as file:
            file.seek(end_bytes)
            if b"FLV\x01" in file.read(SPARE_BYTES):
                return SAID.format(f"its {size_bytes - end_bytes:,} bytes")
    return None


def torn_at(path: str) -> int | None:
    """Where the last box of a fragmented MP4 begins, if it was not written whole: FFmpeg opens no file that ends within the list of a fragment."""
    found = list(boxes(path)) if _is_mp4(path) else []
    if not found or all(name != b"moof" for _, name, _ in found):
        return None
    at, name, size = found[-1]
    return at if name not in {b"mdat", b"moov"} and at + max(size, 8) > os.path.getsize(path) else None


def _is_mp4(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8)[4:] in {b"ftyp", b"styp"}


def boxes(path: str) -> Iterator[tuple[int, bytes, int]]:
    """(where, name, bytes) of the boxes that stand side by side in an MP4."""
    at, size_bytes = 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while at < size_bytes:
            file.seek(at)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            yield at, head[4:8], size
            if size < 8:  # up to the end
                return
            at += size
