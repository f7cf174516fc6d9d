"""What a video file holds and when each of its frames is shown: one pass over its packets, and the frames PyAV decodes.

It says in one sentence what is wrong with a file that is not a whole video. It knows no decord, no chunk and no model.
PyAV is imported when a file is opened, not before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamingvlm.base.errors import UserError

if TYPE_CHECKING:
    import av


@dataclass(frozen=True)
class Info:
    """What a file holds. `width`, `height`: pixels as displayed, after rotation. `fps`: the mean rate."""

    path: str
    frames: int
    duration_s: float
    width: int
    height: int
    fps: float


@dataclass(frozen=True)
class Index:
    """Every frame of a file by its clock, and what a reader has to know about how they are stored."""

    info: Info
    kind: str  # FFmpeg's name of the container
    pts: np.ndarray  # [frames] int64, strictly rising
    times_s: np.ndarray  # [frames] float64, from 0
    key_pts: np.ndarray  # where decoding can start
    clocked: bool  # False: the file has no timestamps, pts counts frames
    stream: int
    closed: bool  # no frame that follows a key frame in the file precedes it on screen
    forward: bool  # the file stores frames in the order of display
    tick_s: float
    first: np.ndarray | None  # [H, W, C] the first frame, as displayed


def scan(path: str | Path) -> Index:
    """Reads the packet headers through to the end and decodes one frame. Raises `UserError` for a file that is not a whole video."""
    file = Path(path)
    if not os.path.exists(file):  # Path.exists raises where the name is too long
        raise UserError(f"There is no file {path}: check the name.")
    if not file.is_file():
        raise UserError(f"{path} is not a file: name one video file.")
    if file.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes): copy or download it again.")
    import av

    try:
        with av.open(str(file)) as container:
            pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not pictures:
                raise UserError(f"{path} holds no moving picture, only {container.streams[0].type}: choose a video file.")
            # MP4 lists its packets up front, so a missing end shows before anything is read. FFmpeg's `tty` draws any text as a film.
            if any(entry.pos + entry.size > file.stat().st_size for entry in pictures[0].index_entries):
                raise damaged(path, "its end is missing")
            if container.format.name == "tty":
                raise damaged(path, "it is text, not a video")
            return _index(str(path), container, pictures[0])
    except (av.error.FFmpegError, IndexError, StopIteration):
        raise damaged(path, "it is not a video, or it was not written to its end") from None


def damaged(path: str | Path, why: str) -> UserError:
    """What to raise where `path` can be read no further."""
    return UserError(f"{path} cannot be read, because {why}: copy it again, or export it anew as MP4 (H.264).")


def _index(path: str, container, stream) -> Index:
    kind = container.format.name.split(",")[0]
    rate = Fraction(stream.guessed_rate or 25)
    stamps, keys, held, reached_s = _packets(container, stream)
    # Other containers promise no length, or FFmpeg only guesses it; of a cut AVI it believes the cut, but the header still counts frames.
    promised_s = float((container.duration or 0) / 1e6 if kind in ("matroska", "flv") else stream.frames / rate if kind == "avi" else 0)
    if reached_s < promised_s - 1:
        raise damaged(path, "its end is missing")
    clocked = None not in stamps
    order = np.array(stamps if clocked else range(len(stamps)), np.int64)
    pts, tick_s = np.unique(order), stream.time_base if clocked else 1 / rate
    times_s = (pts - pts[0]) * tick_s.numerator / tick_s.denominator
    gap_s = float(held * tick_s) if clocked and held else float(np.median(np.diff(times_s))) if len(pts) > 1 else float(1 / rate)
    at = np.flatnonzero(keys)
    closed = len(pts) == len(order) and bool(np.all(order[at] == pts[at]) and np.all(np.maximum.accumulate(order)[at] == order[at]))
    forward = bool(np.all(np.diff(order) > 0))
    unseen = Info(path, len(pts), 0.0, 0, 0, 0.0)
    draft = Index(unseen, kind, pts, times_s, order[at], clocked, stream.index, closed, forward, float(tick_s), None)
    first = rgb(next(decode(draft))[1])
    fps = (len(pts) - 1) / times_s[-1] if len(pts) > 1 else float(rate)
    info = Info(path, len(pts), float(times_s[-1]) + gap_s, first.shape[1], first.shape[0], float(fps))
    return replace(draft, info=info, first=first)


def _packets(container, stream) -> tuple[list[int | None], list[bool], int, float]:
    """-> timestamps and key flags in decoding order from the first key frame on, ticks the last frame is shown, where any stream ends."""
    stamps, keys, last, reached_s = [], [], (-math.inf, 0), 0.0
    for packet in container.demux():
        stamp, duration = packet.dts if packet.pts is None else packet.pts, packet.duration or 0
        if stamp is not None:
            reached_s = max(reached_s, float((stamp + duration) * packet.time_base))
        if packet.stream is stream and packet.size and not packet.is_discard:
            stamps.append(stamp)
            keys.append(packet.is_keyframe)
            last = max(last, (stamp, duration)) if stamp is not None else last
    begin = keys.index(True) if True in keys else 0
    return stamps[begin:], keys[begin:], last[1], reached_s


def decode(index: Index, start_pts: int | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
    """PyAV's frames in display order with their pts, from the first one or from about the key frame at `start_pts`."""
    import av

    count = 0
    try:
        with av.open(index.info.path) as container:
            stream = container.streams[index.stream]
            stream.codec_context.thread_count = 1
            if start_pts is not None:
                container.seek(int(start_pts), stream=stream)
            begun = not len(index.key_pts)
            for packet in container.demux(stream):
                # A recording may start between two key frames; FFmpeg calls what comes before the first one an error.
                begun = begun or packet.is_keyframe
                for frame in packet.decode() if begun else ():
                    yield (count if not index.clocked else frame.dts if frame.pts is None else frame.pts), frame
                    count += 1
    except av.error.FFmpegError:
        after = f"{count} frames" + (f" from {(start_pts - index.pts[0]) * index.tick_s:.0f} s on" if start_pts is not None else "")
        raise damaged(index.info.path, f"it is damaged after {after}") from None


def rgb(frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> np.ndarray:
    """-> [H, W, C] uint8 as displayed: turned as the file says, and scaled where a size is given."""
    turns = round(frame.rotation / 90) % 4
    if width and turns % 2:
        width, height = height, width
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA"), turns))


def check_rate(info: Info, fps: float) -> None:
    """UserError if more frames a second are asked for than there are: the model would be shown frames twice."""
    if fps > 1.02 * info.fps:  # 2 %: a short file's mean rate is not exact
        raise UserError(f"{info.path} has {info.fps:.3g} frames a second and `video.fps` asks for {fps:.3g}: set it no higher.")
