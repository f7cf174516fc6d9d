"""Timestamps in the order of the file -> a clock that rises with them, and in a sentence where the file's own does not.

Recordings that were joined, encoders that were restarted and single bad stamps leave clocks that contradict the order of the packets. Frames sorted
by such a clock are lost, mixed or held for hours. Here the parts follow one another as they lie in the file. Arrays in, arrays out; knows no file.
"""

from __future__ import annotations

import numpy as np

JOINED_S = 10.0  # FFmpeg's own limit for containers whose clock may jump (`dts_delta_threshold`)
ENDLESS_S = 30 * 3600.0  # and for all others (`dts_error_threshold`)
STILL_S = 60.0  # a picture that stands still for longer is worth a line
SOUND_PER_S = 3  # packets of sound a second: with fewer, nothing went on while the picture stood still
REORDER = 32  # packets: no codec stores a frame further from where it is shown
SLACK = 3  # frames: programme streams and AVI give few stamps, and FFmpeg makes up the others about as exactly


def mend(pts: np.ndarray, dts: np.ndarray | None, keys: np.ndarray, sound: np.ndarray, tick_s: float,
         jumps: bool) -> tuple[np.ndarray | None, list[str]]:
    """-> (pts [packets] that rise with the file, or None where they do already; sentences without a subject).

    `pts`, `dts` [packets] int64, in the order of the file; dts None where the container has none. `keys` [packets] bool. `sound` [packets]: how many
    packets of sound lie before each since the one before it. `jumps`: whether a clock that leaps is usual in this container."""
    if len(pts) < 2:
        return None, []
    step = _step(pts if dts is None else dts)
    single, bad = _single_stamps(pts, dts, step)
    clock = None if dts is None else dts + (single - pts)
    at = _breaks(single, clock, keys, step, _leap(sound, tick_s, ENDLESS_S))
    if jumps or len(at):  # whoever contradicts himself once is not believed a long silence either
        at = _breaks(single, clock, keys, step, _leap(sound, tick_s, max(1.0, 5 * step * tick_s) if len(at) else JOINED_S))
    mended, said = _joined(single, at, step, tick_s)
    if bad:
        said.append(f"{bad} of its timestamps contradict their neighbours and are taken to lie between them")
    return (mended if said else None), said + _still(mended, sound, step, tick_s, jumps)


def _step(stamps: np.ndarray) -> int:
    """The usual time between two frames, from few packets at a time: nearly all of those lie on one clock."""
    gaps = [np.diff(np.unique(stamps[at : at + REORDER])) for at in range(0, len(stamps), REORDER)]
    gaps = np.concatenate(gaps)
    return max(1, int(np.median(gaps))) if len(gaps) else 1


def apart(pts: np.ndarray, shown: np.ndarray) -> np.ndarray | None:
    """Where an edit list shows two frames [packets] at the same time, the one that comes later in the file a tick later; None where it does not."""
    at = np.flatnonzero(shown)
    by_time = at[np.argsort(pts[at], kind="stable")]
    same = 1 + np.flatnonzero(np.diff(pts[by_time]) == 0)
    if not len(same):
        return None
    moved = pts.copy()
    moved[by_time[same]] += 1
    return moved


def _single_stamps(pts: np.ndarray, dts: np.ndarray | None, step: int) -> tuple[np.ndarray, int]:
    """Stamps between two that agree with each other, and not with them, -> the middle."""
    mended = pts.copy()
    if dts is not None and len(dts) > 2:
        before, here, after = dts[:-2], dts[1:-1], dts[2:]
        agree = (after > before) & (after - before <= 8 * step)
        off = 1 + np.flatnonzero(agree & ((here < before - SLACK * step) | (here > after + SLACK * step)))
        mended[off] += (dts[off - 1] + dts[off + 1]) // 2 - dts[off]
        steady = dts + (mended - pts)
        rank = np.argsort(np.argsort(mended, kind="stable"), kind="stable")
        if bool(np.all(np.diff(steady) >= -SLACK * step)):  # the order of decoding is sound, that of display is not
            off = np.flatnonzero(np.abs(rank - np.arange(len(rank))) > REORDER)
            lag = int(np.median(mended - steady))
            off = off[np.abs(mended[off] - steady[off] - lag) > REORDER * step]
            mended[off] = steady[off] + lag
    return mended, int(np.count_nonzero(mended != pts))


def _leap(sound: np.ndarray, tick_s: float, far_s: float) -> np.ndarray:
    """[packets] ticks beyond which a step forward is none of the film's. Where sound goes on meanwhile, every step is."""
    heard_s = sound / SOUND_PER_S
    return np.maximum(far_s, heard_s) / tick_s


def _breaks(pts: np.ndarray, dts: np.ndarray | None, keys: np.ndarray, step: int, leap: np.ndarray) -> np.ndarray:
    """Where in the file another clock begins."""
    if dts is not None:
        steps = np.diff(dts)
        return 1 + np.flatnonzero((steps < -SLACK * step) | (steps > leap[1:]))
    found, begun = [], 0
    for previous, key in zip([0, *np.flatnonzero(keys)], np.flatnonzero(keys), strict=False):
        latest = int(pts[begun : max(key, 1)].max())  # a key frame is shown after all that is stored before it
        if key > previous and (pts[key] < latest - SLACK * step or pts[key] - latest > leap[key]):
            found.append(int(key))
            begun = key
    return np.array(found, np.int64)


def _joined(pts: np.ndarray, at: np.ndarray, step: int, tick_s: float) -> tuple[np.ndarray, list[str]]:
    """Every part a step after the last frame of the one before it."""
    mended, leaps = pts.copy(), []
    if not len(at):
        return mended, []
    for begin, end in zip(at, [*at[1:], len(pts)], strict=True):
        shift = int(mended[:begin].max()) + step - int(pts[begin:end].min())
        mended[begin:end] = pts[begin:end] + shift
        by = int(pts[begin:end].min()) - int(pts[begin - 1]) - step
        leaps.append((float(mended[begin:end].min() - mended[: at[0]].min()) * tick_s, by * tick_s))
    where_s, by_s = leaps[0]
    more = f", and {len(leaps) - 1} more time{'s' if len(leaps) > 2 else ''}" if len(leaps) > 1 else ""
    return mended, [f"its clock jumps by {by_s:+.1f} s at {where_s:.1f} s{more}; the parts are watched one after the other, as they lie in the file"]


def _still(pts: np.ndarray, sound: np.ndarray, step: int, tick_s: float, jumps: bool) -> list[str]:
    """Long stretches without a new picture, in which nothing is heard: they may be the film's, or its clock's."""
    shown = np.unique(pts)
    gaps_s = np.diff(shown) * tick_s
    quiet = gaps_s > (max(2.0, 20 * step * tick_s) if jumps else STILL_S)
    if jumps and len(sound) == len(pts):  # sound tells, where there is any
        quiet &= sound.sum() == 0
    if not quiet.any():
        return []
    longest = int(np.argmax(np.where(quiet, gaps_s, 0)))
    begin_s = (shown[longest] - shown[0]) * tick_s
    count = int(quiet.sum())
    return [f"its picture stands still from {begin_s:.0f} to {begin_s + gaps_s[longest]:.0f} s, as its clock says"
            + (f", and {count - 1} more time{'s' if count > 2 else ''}" if count > 1 else "")]
