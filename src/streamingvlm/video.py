"""file -> timestamped uint8 frames -> Qwen patches. The only module that knows decord.

It knows containers, clocks and pixels; it knows no model, no token and no text. PyAV is asked first: it says what is wrong with a file, and
its packet timestamps are the clock. decord then reads the frames, where it is installed and can read that file exactly, else PyAV does.
Neither is imported before a file is opened, so `to_patches` works where only torch is installed.

    for chunk in read_chunks("match.mp4", config.Video()):
        patches, grid_thw = to_patches(chunk.frames)      # [P, 1176] float32, (t, h, w)

Letters for shapes: F frames, H W pixels, C channels, P patches.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from .config import UserError, Video

if TYPE_CHECKING:
    import av

PATCH_PX, MERGE, TEMPORAL = 14, 2, 2
CELL_PX = PATCH_PX * MERGE
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Containers round timestamps to their own ticks, at worst Matroska's 1 ms. No round number, so that no sample falls exactly on the edge.
TOLERANCE_S = 0.00073
BATCH_BYTES, BATCH_FRAMES = 64 << 20, 16
# decord seeks before every group of pictures; where its demuxer has no exact index it lands on wrong frames (MPEG-TS: 30 frames off).
DECORD_FORMATS = ("mov", "matroska", "avi")


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
class Chunk:
    """`chunk_s` of video. `start_s`, `end_s` count from read_chunks' `start_s`; `times_s` is the file's clock, 0 = its first frame."""

    index: int
    start_s: float
    end_s: float
    frames: np.ndarray  # [F, H, W, C] uint8 RGB
    times_s: tuple[float, ...]


@dataclass(frozen=True)
class _Index:
    info: Info
    pts: np.ndarray  # [frames] int64, strictly rising
    times_s: np.ndarray  # [frames] float64, from 0
    key_pts: np.ndarray  # where decoding can start
    clocked: bool  # False: the file has no timestamps, pts counts frames
    stream: int
    exact_seeks: bool  # nothing known says that decord would seek to a wrong frame
    tick_s: float
    first: np.ndarray | None  # [H, W, C] the first frame, as displayed


def probe(path: str | Path) -> Info:
    """Reads the packet headers through to the end and decodes one frame. Raises `UserError` for a file that is not a whole video."""
    return _scan(path).info


def verify(path: str | Path) -> Info:
    """`probe`, and decodes every frame, one at a time: `UserError` unless the last one comes and the timestamps strictly rise."""
    index, before, count = _scan(path), -math.inf, 0
    for pts, _ in _decode(index):
        if pts <= before:
            raise UserError(f"{path} has timestamps that do not rise (frame {count}): re-encode it with a constant frame rate.")
        before, count = pts, count + 1
    if before < index.pts[-1]:
        raise _damaged(path, "its last frame cannot be decoded")
    return index.info


def select(times_s: np.ndarray, fps: float, chunk_s: float, start_s: float = 0.0, end_s: float | None = None,
           duration_s: float | None = None) -> np.ndarray:
    """Which frame is on display at each sample: the last one that starts at or before it.

    `times_s` [frames]: strictly rising, from 0. `duration_s`: when the last frame leaves (default: as it starts). -> [chunks, F] int64,
    F = round(fps * chunk_s); sample j of chunk k is at start_s + k * chunk_s + j / fps. Samples past the end repeat the last frame; a last
    partial chunk stays if a frame starts in it. A pure function; no chunk where nothing is on display.
    """
    samples = round(fps * chunk_s)
    duration_s = max(times_s[-1], duration_s or 0.0)
    end_s = duration_s if end_s is None else min(end_s, duration_s)
    # `left`, and only where the caller cuts: the cut belongs to what follows, but the last frame of the file may last for no time
    last = len(times_s) - 1 if end_s >= duration_s else int(np.searchsorted(times_s, end_s - TOLERANCE_S)) - 1
    if start_s > times_s[last] + TOLERANCE_S and start_s >= end_s:
        return np.empty((0, samples), np.int64)
    whole = math.floor((end_s - start_s + TOLERANCE_S) / chunk_s)
    partial = times_s[last] >= start_s + whole * chunk_s - TOLERANCE_S or whole == 0
    starts = start_s + np.arange(whole + bool(partial)) * chunk_s
    at = starts[:, None] + np.arange(samples) / fps  # [chunks, F]
    return np.clip(np.searchsorted(times_s, at + TOLERANCE_S, side="right") - 1, 0, last)


def read_chunks(path: str | Path, video: Video, start_s: float = 0.0, end_s: float | None = None,
                backend: str | None = None) -> Iterator[Chunk]:
    """The video between `start_s` and `end_s` (seconds after its first frame) in chunks of `video.chunk_s`, resized by `smart_size`.

    `backend`: "decord", "pyav", or None = decord where it is installed, exact for this file and lean (up to about 720p), else PyAV.
    Chunks count from 0 at `start_s`.
    Checks the file and the arguments at once, before the first chunk is asked for: `UserError`. Memory does not grow with the video.
    """
    index = _scan(path)
    if round(video.fps * video.chunk_s) < 1:
        raise UserError(f"fps {video.fps} x chunk_s {video.chunk_s} leaves no frame per chunk: raise `video.fps` or `video.chunk_s`.")
    end = index.info.duration_s if end_s is None else end_s
    if not 0 <= start_s < min(end, index.info.duration_s):
        raise UserError(f"{path} lasts {index.info.duration_s:.1f} s, so nothing lies between {start_s} and {end} s: choose another part.")
    chosen = select(index.times_s, video.fps, video.chunk_s, start_s, end_s, index.info.duration_s)
    size = smart_size(index.info.height, index.info.width, video.max_pixels)
    reader = _reader(index, backend)
    return _chunks(index, chosen, (_resize(frame, size) for frame in reader(np.unique(chosen))), video.chunk_s)


def smart_size(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """Qwen2-VL's smart_resize without its lower bound: (h, w), multiples of 28, nearest to the aspect, h * w <= max_pixels, >= 28 each.

    Where a side is clamped to 28 px, Qwen's rule exceeds `max_pixels`; here the other side gives way. `UserError` below 28 * 28.
    """
    if max_pixels < CELL_PX**2:
        raise UserError(f"video.max_pixels is {max_pixels}, but one vision token takes {CELL_PX**2}: raise it.")
    h, w = (max(1, round(side / CELL_PX)) * CELL_PX for side in (height, width))
    if h * w > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        h, w = (max(1, math.floor(side / beta / CELL_PX)) * CELL_PX for side in (height, width))
        widest = max_pixels // min(h, w) // CELL_PX * CELL_PX
        h, w = min(h, widest), min(w, widest)
    return h, w


def to_patches(frames: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """[F, H, W, C] uint8, H and W multiples of 28 -> [P, 1176] float32 and (t, h, w), P = t * h * w, in Qwen2-VL's order.

    The last of an odd number of frames is repeated. Stays on the tensor's device. `ValueError` for other sizes.
    """
    frames = torch.as_tensor(frames)
    if frames.ndim != 4 or frames.shape[1] % CELL_PX or frames.shape[2] % CELL_PX or frames.shape[3] != 3:
        raise ValueError(f"to_patches takes [F, H, W, 3] with H and W multiples of {CELL_PX}, not {tuple(frames.shape)}.")
    if len(frames) % TEMPORAL:
        frames = torch.cat([frames, frames[-1:]])
    t, h, w = len(frames) // TEMPORAL, frames.shape[1] // PATCH_PX, frames.shape[2] // PATCH_PX
    mean, std = (255 * torch.tensor(values, device=frames.device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (frames.permute(0, 3, 1, 2).float() - mean) / std  # [F, C, H, W]
    grid = pixels.reshape(t, TEMPORAL, 3, h // MERGE, MERGE, PATCH_PX, w // MERGE, MERGE, PATCH_PX)
    return grid.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, 3 * TEMPORAL * PATCH_PX**2), (t, h, w)  # [P, 1176]


def write_h264(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Frames [H, W, C] uint8, even sizes, -> an MP4 at a constant `fps`. The same frames give the same bytes. Appears when complete."""
    rate = Fraction(fps).limit_denominator(1001)
    with _appearing(path) as part:
        _encode(part, enumerate(frames), rate, 1 / rate)


def loop(source: str | Path, target: str | Path, loop_s: float, max_pixels: int = 384 * 288) -> None:
    """Write an MP4 that shows `source` again and again for `loop_s` seconds, at most `max_pixels` large, its timestamps always rising."""
    index = _scan(source)
    scale = min(1.0, math.sqrt(max_pixels / (index.info.width * index.info.height)))
    width, height = (max(2, int(side * scale) // 2 * 2) for side in (index.info.width, index.info.height))
    ticks = np.round(index.times_s * 90000).astype(int)
    with _appearing(target) as part, _appearing(f"{target}.once", keep=False) as once:
        shown = ((int(ticks[np.searchsorted(index.pts, pts)]), _rgb(frame, width, height)) for pts, frame in _decode(index))
        kept = ((tick, frame) for tick, frame in shown if tick < loop_s * 90000)
        _encode(once, kept, Fraction(index.info.fps).limit_denominator(1001), Fraction(1, 90000))
        _repeat(once, part, loop_s, index.info.duration_s)


def _scan(path: str | Path) -> _Index:
    file = Path(path)
    if not file.exists():
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
                raise _damaged(path, "its end is missing")
            if container.format.name == "tty":
                raise _damaged(path, "it is text, not a video")
            return _index(str(path), container, pictures[0])
    except (av.error.FFmpegError, IndexError, StopIteration):
        raise _damaged(path, "it is not a video, or it was not written to its end") from None


def _damaged(path: str | Path, why: str) -> UserError:
    return UserError(f"{path} cannot be read, because {why}: copy it again, or export it anew as MP4 (H.264).")


def _index(path: str, container, stream) -> _Index:
    kind = container.format.name.split(",")[0]
    rate = Fraction(stream.guessed_rate or 25)
    stamps, keys, held, reached_s = _packets(container, stream)
    # Other containers promise no length, or FFmpeg only guesses it; of a cut AVI it believes the cut, but the header still counts frames.
    promised_s = float((container.duration or 0) / 1e6 if kind in ("matroska", "flv") else stream.frames / rate if kind == "avi" else 0)
    if reached_s < promised_s - 1:
        raise _damaged(path, "its end is missing")
    clocked = None not in stamps
    order = np.array(stamps if clocked else range(len(stamps)), np.int64)
    pts, tick_s = np.unique(order), stream.time_base if clocked else 1 / rate
    times_s = (pts - pts[0]) * tick_s.numerator / tick_s.denominator
    gap_s = float(held * tick_s) if clocked and held else float(np.median(np.diff(times_s))) if len(pts) > 1 else float(1 / rate)
    # Open groups of pictures: frames that follow a key frame in the file but precede it on screen. decord counts them as if they followed.
    at = np.flatnonzero(keys)
    closed = len(pts) == len(order) and bool(np.all(order[at] == pts[at]) and np.all(np.maximum.accumulate(order)[at] == order[at]))
    forward = bool(np.all(np.diff(order) > 0))
    draft = _Index(Info(path, len(pts), 0.0, 0, 0, 0.0), pts, times_s, order[at], clocked, stream.index, False, float(tick_s), None)
    first = _rgb(next(_decode(draft))[1])
    fps = (len(pts) - 1) / times_s[-1] if len(pts) > 1 else float(rate)
    info = Info(path, len(pts), float(times_s[-1]) + gap_s, first.shape[1], first.shape[0], float(fps))
    exact = clocked and closed and kind in DECORD_FORMATS and (forward or kind != "avi")
    return replace(draft, info=info, exact_seeks=exact, first=first)


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


def _decode(index: _Index, start_pts: int | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
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
        raise _damaged(index.info.path, f"it is damaged after {after}") from None


def _rgb(frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> np.ndarray:
    """-> [H, W, C] uint8 as displayed: turned as the file says, and scaled where a size is given."""
    turns = round(frame.rotation / 90) % 4
    if width and turns % 2:
        width, height = height, width
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA"), turns))


def _reader(index: _Index, backend: str | None):
    """The function (wanted [n] int, rising) -> n frames [H, W, C] that `backend` stands for."""
    if backend not in (None, "decord", "pyav"):
        raise UserError(f"There is no video backend {backend!r}: choose decord or pyav.")
    # Of large frames decord keeps hundreds of megabytes, more by the minute, and PyAV reads them faster: decord only where it is asked for.
    small = index.first.nbytes * BATCH_FRAMES <= BATCH_BYTES
    if index.exact_seeks and (backend == "decord" or (backend is None and small)):
        reader = _open_decord(index)
        if reader is not None:
            return lambda wanted: _read_decord(index, reader, wanted)
    if backend == "decord":
        raise UserError(f"{index.info.path}: decord is not installed or does not read this file exactly; leave the backend open.")
    return lambda wanted: _read_pyav(index, wanted)


def _read_pyav(index: _Index, wanted: np.ndarray, seek: bool = True) -> Iterator[np.ndarray]:
    targets, n, before = index.pts[wanted], 0, None
    start = max(index.key_pts[index.key_pts <= targets[0]], default=None) if seek and index.clocked else None
    for pts, frame in _decode(index, start):
        if start is not None and before is None and pts > targets[0]:
            break
        while n < len(targets) and pts >= targets[n]:
            # Where a packet gave no frame, what was on display stays.
            yield _rgb(frame if pts == targets[n] or before is None else before)
            n += 1
        if n == len(targets):
            return
        before = frame
    if start is not None and before is None:  # MPEG-TS and its like have no index and seek too far
        yield from _read_pyav(index, wanted, seek=False)
        return
    raise _damaged(index.info.path, f"no frame comes after {index.times_s[wanted[n - 1]] if n else 0:.0f} s")


def _open_decord(index: _Index):
    """A reader whose count of frames and first frame are right, or None: decord refuses some good files and misreads others."""
    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(index.info.path, num_threads=1)
        first = reader.get_batch([0]).asnumpy()[0]
        same = len(reader) == index.info.frames and first.shape == index.first.shape
        reader.seek(0)
    except decord.DECORDError:
        return None
    return reader if same and np.abs(first.astype(np.int16) - index.first).mean() < 2 else None


def _read_decord(index: _Index, reader, wanted: np.ndarray) -> Iterator[np.ndarray]:
    import decord

    step = max(1, min(BATCH_FRAMES, BATCH_BYTES // index.first.nbytes))
    for begin in range(0, len(wanted), step):
        try:
            batch = reader.get_batch(wanted[begin : begin + step].tolist()).asnumpy()  # [step, H, W, C]
            reader.seek(0)  # else decord goes on decoding into memory: gigabytes in a long file
        except decord.DECORDError:
            # The rest through PyAV: it reads on where decord alone is at fault, and else says where the damage is.
            yield from _read_pyav(index, wanted[begin:])
            return
        yield from batch
        del batch  # before the next one is made


def _resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frame.shape[:2] == size:
        return frame
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()  # [1, C, H, W]
    pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).round().clamp(0, 255)
    return pixels[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def _chunks(index: _Index, chosen: np.ndarray, pictures: Iterator[np.ndarray], chunk_s: float) -> Iterator[Chunk]:
    shown, picture = -1, None
    for k, row in enumerate(chosen):
        frames = []
        for number in row:
            if number != shown:
                picture, shown = next(pictures), number
            frames.append(picture)
        yield Chunk(k, k * chunk_s, (k + 1) * chunk_s, np.stack(frames), tuple(index.times_s[row].tolist()))


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
        options = {"preset": "veryfast", "crf": "20", "bf": "0", "g": str(round(2 * rate)), "threads": "1"}
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt, stream.codec_context.time_base, stream.width = "yuv420p", tick_s, 0
        for tick, pixels in ticked:
            if not stream.width:
                stream.width, stream.height = pixels.shape[1], pixels.shape[0]
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
