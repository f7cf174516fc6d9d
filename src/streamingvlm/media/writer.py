"""Frames -> H.264 in MP4 files, complete or not at all. Knows PyAV's encoder, no model and no text.

    write_h264("match.mp4", frames, fps=10)
    loop("clip.avi", "long.mp4", loop_s=600)

Letters for shapes: H W pixels, C channels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamingvlm.media import file_index

if TYPE_CHECKING:
    import av


def write_h264(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Frames [H, W, C] uint8, even sizes, -> an MP4 at a constant `fps`. The same frames give the same bytes. Appears when complete."""
    rate = Fraction(fps).limit_denominator(1001)
    with _appearing(path) as part:
        _encode(part, enumerate(frames), rate, 1 / rate)


def loop(source: str | Path, target: str | Path, loop_s: float, max_pixels: int = 384 * 288) -> None:
    """Write an MP4 that shows `source` again and again for `loop_s` seconds, at most `max_pixels` large, its timestamps always rising."""
    index = file_index.scan(source)
    scale = min(1.0, math.sqrt(max_pixels / (index.info.width * index.info.height)))
    width, height = (max(2, int(side * scale) // 2 * 2) for side in (index.info.width, index.info.height))
    ticks = np.round(index.times_s * 90000).astype(int)
    with _appearing(target) as part, _appearing(f"{target}.once", keep=False) as once:
        shown = ((int(ticks[np.searchsorted(index.pts, pts)]), file_index.rgb(frame, index.turn, width, height))
                 for pts, frame in file_index.decode(index))
        kept = ((tick, frame) for tick, frame in shown if tick < loop_s * 90000)
        _encode(once, kept, Fraction(index.info.fps).limit_denominator(1001), Fraction(1, 90000))
        _repeat(once, part, loop_s, index.info.duration_s)


def tell_colours(codec: av.VideoCodecContext) -> None:
    """RGB is encoded by BT.601's matrix here; who plays a picture of 720 lines or more takes BT.709's for granted, unless told."""
    if min(codec.width, codec.height) >= 720:
        codec.colorspace, codec.color_range = 6, 1  # H.273: SMPTE 170M, limited


@contextlib.contextmanager
def _appearing(path: str | Path, keep: bool = True) -> Iterator[Path]:
    """A temporary name next to `path`, renamed to it when all went well, gone otherwise."""
    part = Path(path).with_name(f".{Path(path).name}.part")
    try:
        yield part
        if keep:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _encode(part: Path, ticked: Iterable[tuple[int, np.ndarray]], rate: Fraction, tick_s: Fraction) -> None:
    """(tick, frame [H, W, C]) -> H.264. No B-frames: decoding order is display order. A key frame every 2 s: cheap seeks."""
    import av

    with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        # x264's look-ahead reads memory it never wrote: about one encode in twenty came out with other bytes. Without it the bytes are stable.
        stable = {"threads": "1", "x264-params": "rc-lookahead=0:mbtree=0"}
        options = {"preset": "veryfast", "crf": "20", "bf": "0", "g": str(round(2 * rate))} | stable
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt, stream.codec_context.time_base, stream.width = "yuv420p", tick_s, 0
        for tick, pixels in ticked:
            if not stream.width:
                stream.width, stream.height = pixels.shape[1], pixels.shape[0]
                tell_colours(stream.codec_context)
            if pixels.shape != (stream.height, stream.width, 3) or stream.width % 2 or stream.height % 2:
                raise ValueError(f"write_h264 takes frames of one even size, not {pixels.shape}.")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = tick, tick_s
            out.mux(stream.encode(frame))
        if not stream.width:
            raise ValueError("write_h264 was given no frame.")
        out.mux(stream.encode(None))


def _repeat(once: Path, part: Path, loop_s: float, pass_s: float) -> None:
    """Copy the packets of `once` again and again, each pass `pass_s` later than the one before, up to `loop_s`."""
    import av

    with av.open(str(once)) as source, av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number in range(math.ceil(loop_s / pass_s)):
            shift = round(number * pass_s / stream.time_base)
            source.seek(0)
            for packet in source.demux(stream):
                if packet.pts is not None and (packet.pts + shift) * stream.time_base < loop_s:
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                    out.mux(packet)
