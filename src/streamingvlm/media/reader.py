"""A file -> timestamped uint8 frames in chunks.

It knows samples, chunks and pixels; it knows no model, no token and no text. `file_index` is asked first: it says what is wrong with a file, and the
packets' timestamps are the clock. PyAV then reads the frames one after another. Where few of them are asked for, decord skips to each, if it is
proven right for that file (`decord_reader`): correct before fast. Neither is imported before a file is opened.

    for chunk in read_chunks("match.mp4", config.Video()): ...

Letters for shapes: F frames, H W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from streamingvlm.base.config import Video
from streamingvlm.base.errors import UserError
from streamingvlm.base.patches import smart_size
from streamingvlm.base.records import Chunk
from streamingvlm.media import decord_reader, file_index
from streamingvlm.media.file_index import Index, Info

# Containers round timestamps to their own ticks, at worst Matroska's 1 ms. No round number, so that no sample falls exactly on the edge.
TOLERANCE_S = 0.00073


def probe(path: str | Path) -> Info:
    """Reads the packet headers through to the end and decodes one frame. Raises `UserError` for a file that is not a whole video."""
    return file_index.scan(path).info


def verify(path: str | Path) -> Info:
    """`probe`, and decodes every frame, one at a time: `UserError` unless the last one comes and the timestamps strictly rise."""
    index, before, count = file_index.scan(path), -math.inf, 0
    for pts, _ in file_index.decode(index):
        if pts <= before:
            raise UserError(f"{path} has timestamps that do not rise (frame {count}): re-encode it with a constant frame rate.")
        before, count = pts, count + 1
    if before < index.pts[-1]:
        raise file_index.damaged(path, "its last frame cannot be decoded")
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

    `backend`: "decord", "pyav", or None = decord where samples are farther apart than key frames and it is installed, proven for this file and lean
    (up to about 720p), else PyAV, which takes half the time where most groups of pictures are decoded anyway.
    Chunks count from 0 at `start_s`; their times do too, but that a picture which begins after the sound begins there (`Info.start_s`).
    Checks the file and the arguments at once, before the first chunk is asked for: `UserError`. Memory does not grow with the video.
    """
    index = file_index.scan(path)
    if not (0 < video.fps < math.inf and 0 < video.chunk_s < math.inf):
        raise UserError(f"`video.fps` and `video.chunk_s` must be numbers above 0, not {video.fps} and {video.chunk_s}: change them.")
    if round(video.fps * video.chunk_s) < 1:
        raise UserError(f"fps {video.fps} x chunk_s {video.chunk_s} leaves no frame per chunk: raise `video.fps` or `video.chunk_s`.")
    end = index.info.duration_s if end_s is None else end_s
    if not 0 <= start_s < min(end, index.info.duration_s):
        raise UserError(f"{path} lasts {index.info.duration_s:.1f} s, so nothing lies between {start_s} and {end} s: choose another part.")
    chosen = select(index.times_s, video.fps, video.chunk_s, start_s, end_s, index.info.duration_s)
    size = smart_size(index.info.height, index.info.width, video.max_pixels, video.min_pixels)
    wanted = np.unique(chosen)
    reader = _reader(index, backend, wanted)
    return _chunks(index, chosen, (resize(frame, size) for frame in reader(wanted)), video.chunk_s)


def _reader(index: Index, backend: str | None, wanted: np.ndarray):
    """The function (wanted [n] int, rising) -> n frames [H, W, C] that `backend` stands for."""
    if backend not in (None, "decord", "pyav"):
        raise UserError(f"There is no video backend {backend!r}: choose decord or pyav.")
    begin, end = index.pts[wanted[[0, -1]]] if len(wanted) else (0, 0)
    sparse = len(wanted) < np.count_nonzero((index.key_pts > begin) & (index.key_pts <= end))
    # Of large frames decord keeps hundreds of megabytes, more by the minute: only where it is asked for.
    if backend == "decord" or (backend is None and sparse and decord_reader.lean(index)):
        reader = decord_reader.open_proven(index, _read_pyav)
        if reader is not None:
            return lambda wanted: decord_reader.read(index, reader, wanted, _read_pyav)
    if backend == "decord":
        raise UserError(f"{index.info.path}: decord is not installed or does not read this file exactly; leave the backend open.")
    return lambda wanted: _read_pyav(index, wanted)


def _read_pyav(index: Index, wanted: np.ndarray, seek: bool = True) -> Iterator[np.ndarray]:
    targets, n, before = index.pts[wanted], 0, None
    start = max(index.key_pts[index.key_pts <= targets[0]], default=None) if seek and index.clocked else None
    for pts, frame in file_index.decode(index, start):
        if start is not None and before is None and pts > targets[0]:
            break
        while n < len(targets) and pts >= targets[n]:
            # Where a packet gave no frame, what was on display stays.
            yield file_index.rgb(frame if pts == targets[n] or before is None else before, index.turn)
            n += 1
        if n == len(targets):
            return
        before = frame
    if start is not None and before is None:  # MPEG-TS and its like have no index and seek too far
        yield from _read_pyav(index, wanted, seek=False)
        return
    raise file_index.damaged(index.info.path, f"no frame comes after {index.times_s[wanted[n - 1]] if n else 0:.0f} s")


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame [H, W, C] uint8 at another `size` (height, width), antialiased; as it is where it has that size."""
    if frame.shape[:2] == size:
        return frame
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()  # [1, C, H, W]
    pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).round().clamp(0, 255)
    return pixels[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def _chunks(index: Index, chosen: np.ndarray, pictures: Iterator[np.ndarray], chunk_s: float) -> Iterator[Chunk]:
    shown, picture = -1, None
    for k, row in enumerate(chosen):
        frames = []
        for number in row:
            if number != shown:
                picture, shown = next(pictures), number
            frames.append(picture)
        at_s = index.info.start_s + k * chunk_s
        yield Chunk(k, at_s, index.info.start_s + (k + 1) * chunk_s, np.stack(frames), tuple(index.times_s[row].tolist()))
