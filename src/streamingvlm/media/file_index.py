"""What a video file holds and when each of its frames is shown: one pass over its packets, and the frames PyAV decodes.

It says in one sentence what is wrong with a file that is not a whole video, and in `Info.notes` what of a file is not watched as it is stored. It
knows no decord, no chunk and no model. PyAV is imported when a file is opened, not before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.media import leftover, packets, timeline

if TYPE_CHECKING:
    import av

LATE_S = 0.1  # a picture that begins later than this after the sound is late; encoders' own delays are shorter
UPRIGHT = (False, 1, 1)
PROTECTED = (b"encv", b"drmi")  # sample entries of the common encryption and of Apple's


@dataclass(frozen=True)
class Info:
    """What a file holds. `width`, `height`: square pixels as displayed, after rotation. `fps`: the mean rate. `start_s`: when the picture begins, in
    the time that players show. `notes`: sentences about what is left out, held or put right, each without the file's name."""

    path: str
    frames: int
    duration_s: float
    width: int
    height: int
    fps: float
    start_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Index:
    """Every frame of a file by its clock, and what a reader has to know about how they are stored."""

    info: Info
    kind: str  # FFmpeg's name of the container
    codec: str
    pts: np.ndarray  # [frames] int64, strictly rising
    times_s: np.ndarray  # [frames] float64, from 0
    key_pts: np.ndarray  # where decoding can start, by the packets' own bytes
    keyed: bool  # the file calls some of its frames key frames
    clocked: bool  # False: the file has no timestamps, pts counts frames
    stamps: np.ndarray | None  # [packets] int64 from the first key frame on, where those in the file contradict its order
    stream: int
    simple: bool  # decoding can start wherever the file says so; nothing is hidden, mended, mirrored, in fragments or set up anew
    forward: bool  # the file stores frames in the order of display
    tick_s: float
    turn: tuple[bool, int, int]  # how its frames are displayed, see `rgb`
    first: np.ndarray | None  # [H, W, C] the first frame, as displayed but for the shape of its pixels

    @property
    def peak_fps(self) -> float:
        """The fastest that pictures follow one another, but for a few."""
        return float(1 / np.quantile(np.diff(self.times_s), 0.05)) if len(self.times_s) > 1 else self.info.fps


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
        with _open(path) as container:
            stream, notes = _picture(str(path), container)
            # MP4 lists its packets up front, so a missing end shows before anything is read. FFmpeg's `tty` draws any text as a film.
            entries = stream.index_entries if stream.frames else ()  # a fragmented file has a list for each part that was written
            if any(entry.pos + entry.size > file.stat().st_size for entry in entries):
                raise damaged(path, "its end is missing")
            if container.format.name == "tty":
                raise damaged(path, "it is text, not a video")
            return _index(str(path), container, stream, notes)
    except (av.error.FFmpegError, IndexError, StopIteration):
        raise damaged(path, "it is not a video, or it was not written to its end") from None


def damaged(path: str | Path, why: str) -> UserError:
    """What to raise where `path` can be read no further."""
    return UserError(f"{path} cannot be read, because {why}: copy it again, or export it anew as MP4 (H.264).")


def _open(path: str | Path) -> av.container.InputContainer:
    """Never by a relative name: FFmpeg takes `12:30.mp4` for an address."""
    import av

    place, end = os.path.abspath(path), leftover.torn_at(os.path.abspath(path))
    return av.open(place if end is None else f"subfile,,start,0,end,{end},,:{place}")


def _picture(path: str, container) -> tuple[av.VideoStream, list[str]]:
    """The picture that players show: none that is attached or a thumbnail; the default one before others; the largest."""
    from av.stream import Disposition

    never = Disposition.attached_pic | Disposition.timed_thumbnails
    pictures = [s for s in container.streams.video if not s.disposition & never]
    if not pictures:
        held = container.streams[0].type if len(container.streams) else "nothing"
        raise UserError(f"{path} holds no moving picture, only {held}: choose a video file.")
    known = [s for s in pictures if s.codec_context is not None]
    if container.format.name.startswith("mov") and _protected(path):
        raise UserError(f"{path} is protected (encrypted), and cannot be watched without its key: choose a copy without protection.")
    if not known:
        raise UserError(f"{path} holds a picture in a format that no decoder here knows: export it anew as MP4 (H.264).")

    def rank(s) -> tuple:
        return s.frames != 1, bool(s.disposition & Disposition.default), s.width * s.height

    best = max(known, key=rank)
    many = f"it holds {len(pictures)} pictures, and the one of {best.width} x {best.height} is watched"
    return best, [many] if len(pictures) > 1 else []


def _protected(path: str) -> bool:
    """Whether an MP4 says that the samples of its picture are encrypted."""
    with open(path, "rb") as file:
        file.seek(next((at for at, name, _ in leftover.boxes(path) if name == b"moov"), 0))
        head = file.read(1 << 20)
    return any(tag in head for tag in PROTECTED)


def _index(path: str, container, stream, notes: list[str]) -> Index:
    kind, codec = container.format.name.split(",")[0], stream.codec_context.codec.canonical_name
    rate = Fraction(stream.guessed_rate or 25)
    table, fragments = packets.read(container, stream), kind == "mov" and not stream.frames
    # Other containers promise no length, or FFmpeg only guesses it; of a cut AVI it believes the cut, but the header still counts frames.
    promised_s = float((container.duration or 0) / 1e6 if kind in ("matroska", "flv") else stream.frames / rate if kind == "avi" else 0)
    if table.reached_s < promised_s - 1:
        raise damaged(path, "its end is missing")
    clocked, shown, keys = None not in table.pts, np.array(table.shown, bool), np.array(table.keys, bool)
    tick_s = stream.time_base if clocked else 1 / rate
    order, stamps, said = _clock(container, table, float(tick_s)) if clocked else (np.arange(len(shown)), None, [])
    left = leftover.joined(path, kind, fragments, table.end_bytes)
    torn = ["it was not written to its end: what comes after the last whole frame is lost"] if table.lost or leftover.torn_at(path) else []
    pts, entries = np.unique(order[shown]), _entries(order, np.array(table.proven, bool))
    times_s = (pts - pts[0]) * tick_s.numerator / tick_s.denominator
    simple = (stamps is None and not fragments and len(pts) == len(order) and len(table.setups) <= 1
              and bool(np.array_equal(entries, np.flatnonzero(keys))) and _table_is_true(stream, kind, table))
    draft = Index(Info(path, len(pts), 0.0, 0, 0, 0.0), kind, codec, pts, times_s, order[entries] if stamps is None else pts[:0], bool(keys.any()),
                  clocked, stamps, stream.index, simple, bool(np.all(np.diff(order) > 0)), float(tick_s), UPRIGHT, None)
    held = table.duration[int(np.argmax(np.where(shown, order, order.min())))] if clocked else 0
    return _described(draft, container, stream, float(held * tick_s), float(rate), [*notes, *said, *([left] if left else []), *torn])


def _table_is_true(stream, kind: str, table: packets.Table) -> bool:
    """Whether seeks, which go by the file's own table, go to the key frames: of H.264 FFmpeg puts the packets' flags right, and not the table."""
    if kind not in {"mov", "avi"}:
        return True
    flags = [entry.is_keyframe for entry in stream.index_entries]
    return flags == table.keys if len(flags) == len(table.keys) else not flags


def _clock(container, table: packets.Table, tick_s: float) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """-> pts [packets] that agree with the order of the file; the same, or None where they are the file's own; what there is to say."""
    import av

    order, shown = np.array(table.pts, np.int64), np.array(table.shown, bool)
    if not shown.all():  # an edit list rearranges stamps, and FFmpeg has followed it
        stamps, said = timeline.apart(order, shown), []
    else:
        # Matroska has no dts, and those that FFmpeg makes up go astray where recordings are joined.
        unknown = None in table.dts or container.format.name.startswith("matroska")
        jumps = bool(container.format.flags & av.format.Flags.ts_discont.value)
        stamps, said = timeline.mend(order, None if unknown else np.array(table.dts, np.int64), np.array(table.keys, bool),
                                     np.array(table.sound), tick_s, jumps)
    return (order if stamps is None else stamps), stamps, said


def _entries(order: np.ndarray, proven: np.ndarray) -> np.ndarray:
    """Which packets decoding can start at: proven, and all that is stored before is shown before, all that follows after."""
    earlier = np.concatenate(([order.min() - 1], np.maximum.accumulate(order)[:-1]))
    later = np.minimum.accumulate(order[::-1])[::-1]
    return np.flatnonzero(proven & (earlier < order) & (later == order))


def _described(draft: Index, container, stream, held_s: float, rate: float, notes: list[str]) -> Index:
    """The same with what a first frame and the container's clock say."""
    import av

    try:
        frame = next(decode(draft))[1]
    except StopIteration:
        raise damaged(draft.info.path, "none of its frames can be decoded") from None
    turn = across, down, right = _turn(frame)
    first, times_s = rgb(frame, turn), draft.times_s
    height, width = first.shape[:2]
    wide = float(stream.sample_aspect_ratio or 1)
    if 0.1 < wide < 10 and wide != 1:  # what is displayed has square pixels: nothing gets lost, so one side grows
        if across:
            wide = 1 / wide
        height, width = (height, round(width * wide)) if wide > 1 else (round(height / wide), width)
    held_s = held_s or (float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / rate)
    fps = (len(times_s) - 1) / times_s[-1] if len(times_s) > 1 else rate
    late_s = 0.0
    if draft.clocked and container.start_time is not None:
        late_s = float(draft.pts[0] * draft.tick_s) - container.start_time / av.time_base
    mirrored = down * right * (-1 if across else 1) < 0
    info = Info(draft.info.path, len(times_s), float(times_s[-1]) + held_s, width, height, float(fps),
                round(late_s, 3) if late_s > LATE_S else 0.0, tuple(notes))
    return replace(draft, info=info, turn=turn, first=first, simple=draft.simple and not mirrored)


def decode(index: Index, start_pts: int | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
    """PyAV's frames in display order with their pts, from the first one or from about the key frame at `start_pts`."""
    import av

    count = fed = 0
    try:
        with _open(index.info.path) as container:
            stream = container.streams[index.stream]
            stream.codec_context.thread_count = 1
            if start_pts is not None:
                container.seek(int(start_pts), stream=stream)
            begun = not index.keyed
            for packet in container.demux(stream):
                if packet.size and packets.torn(packet, container):
                    continue
                # A recording may start between two key frames; FFmpeg calls what comes before the first one an error.
                begun = begun or packet.is_keyframe or not packet.size
                if index.stamps is not None and begun and packet.size:
                    packet.pts, packet.dts, fed = int(index.stamps[fed]), None, fed + 1
                for frame in packet.decode() if begun else ():
                    yield (count if not index.clocked else frame.dts if frame.pts is None else frame.pts), frame
                    count += 1
    except av.error.FFmpegError:
        after = f"{count} frames" + (f" from {(start_pts - index.pts[0]) * index.tick_s:.0f} s on" if start_pts is not None else "")
        raise damaged(index.info.path, f"it is damaged after {after}") from None


def rgb(frame: av.VideoFrame, turn: tuple[bool, int, int] = UPRIGHT, width: int | None = None, height: int | None = None) -> np.ndarray:
    """-> [H, W, C] uint8 as displayed, scaled where a size is given. `turn`: rows become columns, step down, step to the right. (Given, because a
    frame that was asked for its matrix refers to itself and is kept.)"""
    across, down, right = turn
    if width and across:
        width, height = height, width
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA", threads=1)  # its threads cost more than they save
    return np.ascontiguousarray((pixels.swapaxes(0, 1) if across else pixels)[::down, ::right])


def _turn(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """The display matrix as (rows become columns, step down, step to the right): the nearest of the eight that keep a picture's sides upright."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(float)  # x' = a x + c y, y' = b x + d y
    across = abs(a) + abs(d) < abs(b) + abs(c)
    down, right = (b, c) if across else (d, a)
    return bool(across), -1 if down < 0 else 1, -1 if right < 0 else 1


def check_rate(index: Index, fps: float) -> list[str]:
    """A line if more frames a second are asked for than there ever are: the model is then shown each several times, and nothing new."""
    if fps > 1.02 * index.peak_fps:  # 2 %: a short file's mean rate is not exact
        return [f"it shows {index.peak_fps:.3g} pictures a second at most and `video.fps` asks for {fps:.3g}: some are seen more than once"]
    return []
