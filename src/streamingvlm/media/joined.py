"""Recordings that were joined by copying one file behind the other: what of them FFmpeg does not reach. Knows how containers begin, no packet.

MPEG-TS, Matroska and AVI are read through; of MP4 and FLV only the first recording is, by players too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from streamingvlm.base.errors import UserError

SAID = "another recording is joined to its end, and {} are not watched: watch that one as a file of its own"
SPARE_BYTES = 1 << 16  # what may follow a file's last packet and is none


def unread(path: str, kind: str, fragments: bool, end_bytes: int) -> str | None:
    """A sentence without a subject if a second recording follows the first. `end_bytes`: where the last packet that was read ends.

    UserError for MP4 in fragments: FFmpeg then takes the second recording's frames from the first one's bytes."""
    size_bytes = os.path.getsize(path)
    if kind == "mov":
        begins = [at for at, name in _boxes(path, size_bytes) if name == b"ftyp"][1:]
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


def _boxes(path: str, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(where, name) of the boxes that stand side by side in an MP4."""
    at = 0
    with open(path, "rb") as file:
        while at + 8 <= size_bytes:
            file.seek(at)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            yield at, head[4:8]
            if size < 8:  # up to the end
                return
            at += size
