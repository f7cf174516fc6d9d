"""The frames of a file by decord, for the files in which it is proven to be right. The only module that knows decord.

decord counts packets as frames, trusts the container's key-frame flags and seeks to them before every group of pictures. So it is let in only where
each flag is true by the packet's own bytes, nothing is hidden or rearranged by an edit list, its table of times is PyAV's, and the frames around a
seek are PyAV's too. Everything else PyAV reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np

from streamingvlm.media.file_index import Index

BATCH_BYTES, BATCH_FRAMES = 64 << 20, 16
# Where its demuxer has no exact index decord lands on wrong frames (MPEG-TS: 30 frames off).
FORMATS, CODECS = ("mov", "matroska", "avi"), ("h264", "mpeg4", "msmpeg4v3")
ALIKE = 2.0  # mean difference of a value: FFmpeg releases differ by 0.0003, other frames by 5 and more
SAME_S = 0.002  # decord gives times as float32
PROOF_FRAMES = 300  # a group of pictures longer than this is not decoded twice for the proof

Frames = Callable[[Index, np.ndarray], Iterator[np.ndarray]]  # (index, wanted [n] int, rising) -> n frames [H, W, C]


def lean(index: Index) -> bool:
    """Whether decord reads frames this large well: of larger ones it keeps hundreds of megabytes, more by the minute, and PyAV is faster."""
    return index.first.nbytes * BATCH_FRAMES <= BATCH_BYTES


def open_proven(index: Index, truth: Frames):
    """A reader whose frames are those of `truth`, PyAV's, or None."""
    if not _simple(index):
        return None
    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(os.path.abspath(index.info.path), num_threads=1)
        return reader if _agrees(index, reader, truth) else None
    except (decord.DECORDError, UnicodeEncodeError):
        return None


def _simple(index: Index) -> bool:
    """Whether nothing known of the file says that decord would go wrong."""
    # Of an open group of pictures it counts the frames that precede the key frame on screen as if they followed it.
    return (index.clocked and index.simple and index.kind in FORMATS and index.codec in CODECS and (index.forward or index.kind != "avi")
            and not (index.kind == "mov" and _rearranged(index)))


def _rearranged(index: Index) -> bool:
    """Whether an edit list does more than to move the whole film: releases of FFmpeg read such lists differently."""
    import av

    tables = []
    for ignored in ("0", "1"):
        with av.open(os.path.abspath(index.info.path), options={"ignore_editlist": ignored}) as container:
            tables.append(np.array([(e.pos, e.timestamp) for e in container.streams[index.stream].index_entries], np.int64).reshape(-1, 2))
    if tables[0].shape != tables[1].shape:
        return True
    return not (np.array_equal(tables[0][:, 0], tables[1][:, 0]) and np.array_equal(np.diff(tables[0][:, 1]), np.diff(tables[1][:, 1])))


def _agrees(index: Index, reader, truth: Frames) -> bool:
    """Whether count, times, the first frame and those around a seek are the same."""
    if len(reader) != index.info.frames:
        return False
    times_s = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
    if np.abs(times_s - times_s[0] - index.times_s).max() > SAME_S + 1e-6 * index.times_s[-1]:
        return False
    places = _places(index)
    theirs = reader.get_batch(places.tolist()).asnumpy()  # [n, H, W, C]
    reader.seek(0)
    if theirs.shape[1:] != index.first.shape:
        return False
    ours = [index.first, *truth(index, places[1:])] if len(places) > 1 else [index.first]
    return all(np.abs(a.astype(np.int16) - b).mean() < ALIKE for a, b in zip(ours, theirs, strict=True))


def _places(index: Index) -> np.ndarray:
    """The first frame, and those before, at and behind the key frame that closes the shortest group of pictures, or some way into the only one."""
    keys = np.searchsorted(index.pts, index.key_pts)
    last = index.info.frames - 1
    if len(keys) < 2 or np.diff(keys).min() > PROOF_FRAMES:
        return np.unique([0, min(BATCH_FRAMES, last)])
    key = int(keys[1:][np.argmin(np.diff(keys))])
    return np.unique([0, key - 1, key, min(key + 1, last)])


def read(index: Index, reader, wanted: np.ndarray, otherwise: Frames) -> Iterator[np.ndarray]:
    """decord's frames; from where it fails on, those of `otherwise`."""
    import decord

    step = max(1, min(BATCH_FRAMES, BATCH_BYTES // index.first.nbytes))
    for begin in range(0, len(wanted), step):
        try:
            batch = reader.get_batch(wanted[begin : begin + step].tolist()).asnumpy()  # [step, H, W, C]
            reader.seek(0)  # else decord goes on decoding into memory: gigabytes in a long file
        except decord.DECORDError:
            # The rest through PyAV: it reads on where decord alone is at fault, and else says where the damage is.
            yield from otherwise(index, wanted[begin:])
            return
        yield from batch
        del batch  # before the next one is made
