"""Small video files whose every frame shows its own number, so that a test can say which frame it was given.

The number is drawn as a 4 x 4 grid of black and white cells, 16 bits, most significant first: it outlives compression and resizing.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

BITS = 1 << np.arange(15, -1, -1)


def picture(number: int, width: int, height: int) -> np.ndarray:
    """-> [H, W, C] uint8: the grid for `number`."""
    cells = np.where(number & BITS, 220, 30).astype(np.uint8).reshape(4, 4)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return np.repeat(cells[rows][:, columns, None], 3, axis=2)


def number(frame: np.ndarray) -> int:
    """[H, W, C] -> the number the frame shows."""
    height, width = frame.shape[:2]
    rows, columns = (np.arange(4) * 2 + 1) * height // 8, (np.arange(4) * 2 + 1) * width // 8
    return int((BITS * (frame[rows][:, columns].mean(axis=2) > 125).ravel()).sum())


def make(path: Path, frames: int, fps: Fraction | int = 30, size: tuple[int, int] = (64, 48), ticks: list[int] | None = None,
         codec: str = "libx264", pix_fmt: str = "yuv420p", codec_options: dict | None = None, container_options: dict | None = None,
         file_format: str | None = None, audio: bool = False, color: dict | None = None, first: int = 0,
         pixels: Fraction | None = None) -> Path:
    """Write `frames` frames numbered from `first`. `ticks`: timestamps in milliseconds, for variable frame rates and late starts. `pixels`: their
    width by their height."""
    import av

    base = Fraction(1, 1000) if ticks is not None else 1 / Fraction(fps)
    with av.open(str(path), "w", format=file_format, options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(fps), options={"threads": "1", **(codec_options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = base
        if pixels:
            stream.codec_context.sample_aspect_ratio = pixels
        for name, value in (color or {}).items():
            setattr(stream.codec_context, name, value)
        sound = out.add_stream("aac", rate=16000, layout="mono") if audio else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + index, *size), format="rgb24")
            frame.pts, frame.time_base = (ticks[index] if ticks is not None else index), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            _silence(out, sound, float(frames / Fraction(fps)))
    return path


def make_audio(path: Path, seconds: float) -> Path:
    """Write a file that holds sound and no picture."""
    import av

    with av.open(str(path), "w") as out:
        _silence(out, out.add_stream("aac", rate=16000, layout="mono"), seconds)
    return path


def _silence(out, stream, seconds: float) -> None:
    import av

    for block in range(int(seconds * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, block * 1024
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def rotate(path: Path, degrees: int) -> Path:
    """Write a clockwise turn by `degrees` into the display matrix of an MP4, where phones put it."""
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    return place(path, cosine, sine, -sine, cosine)


def place(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write x' = a x + c y, y' = b x + d y into the display matrix of an MP4."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes stand between the type and the matrix
    values = np.array([a, b, 0, c, d, 0, 0, 0, 0x40000000 >> 16], ">i4") * np.array([1 << 16] * 9, ">i8")
    data[matrix : matrix + 36] = values.astype(">i4").tobytes()
    path.write_bytes(data)
    return path


def cut_by_edits(path: Path, edits: list[tuple[float, float | None]]) -> Path:
    """Give an MP4 of one picture whose index lies at its end an edit list: (seconds shown, from second; None: nothing is shown), in that order."""
    data = path.read_bytes()
    moov, trak, mdia, mvhd, mdhd = (data.index(name) - 4 for name in (b"moov", b"trak", b"mdia", b"mvhd", b"mdhd"))
    timescale = [int.from_bytes(data[at + 20 : at + 24], "big") for at in (mvhd, mdhd)]  # version 0
    delay = 0
    if (old := data.find(b"elst", trak)) > 0:  # where the first frame is: behind the delay of B frames
        delay = int.from_bytes(data[old + 16 : old + 20], "big")
        data = data[: old - 12] + data[old - 12 + int.from_bytes(data[old - 12 : old - 8], "big") :]
        shorter = len(path.read_bytes()) - len(data)
        mdia = data.index(b"mdia") - 4
    else:
        shorter = 0
    rows = b"".join(round(shown * timescale[0]).to_bytes(4, "big")
                    + (-1 if start is None else delay + round(start * timescale[1])).to_bytes(4, "big", signed=True) + b"\0\1\0\0"
                    for shown, start in edits)
    elst = (16 + len(rows)).to_bytes(4, "big") + b"elst" + bytes(4) + len(edits).to_bytes(4, "big") + rows
    box = bytearray(data[:mdia] + (8 + len(elst)).to_bytes(4, "big") + b"edts" + elst + data[mdia:])
    for at in (moov, trak):
        size = int.from_bytes(box[at : at + 4], "big") - shorter + 8 + len(elst)
        box[at : at + 4] = size.to_bytes(4, "big")
    path.write_bytes(box)
    return path
