"""Alarms against what was truly wrong: by frame, by event, and how long it took. Knows probabilities and truth, no model and no pixels.

An alarm is an event that is found when it *starts* within [start - EARLY_S, end + LATE_S] of the event, and finds one at most: by overlap, an
alarm that is always on would find nearly all. Thresholds and rules are for validation worlds to choose, never for those that are evaluated.

    limits = {kind: threshold(validation[..., k], truth[..., k]) for k, kind in enumerate(ANOMALIES)}
    rules = {kind: rule(validation[..., k], truth[..., k], fps=8) for k, kind in enumerate(ANOMALIES)}
    report(scores, true, limits, fps=8, rules=rules)["f1"]["clone"]

A score that flickers about its threshold would raise an alarm each time: a `Rule` wants it to stay up before an alarm, and to stay down after.
Letters for shapes: B streams, F frames, K kinds, R rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamingvlm.worlds.city.knobs import ANOMALIES, FAMILIES

EARLY_S, LATE_S = 1.0, 2.0
GAP_S = 0.5  # what is off for no longer than this goes on
STEPS = {"on": (-1.0, 0.0, 1.0, 2.0), "off": (0.0, 1.0, 2.0), "after": (1, 2, 4, 6), "until": (1, 4, 8, 16)}  # what `rule` tries: logits, frames
PATIENCE = 0.04  # the event F1 that a second of delay has to be worth


@dataclass(frozen=True)
class Rule:
    """An alarm starts with the `after`th frame in a row at `on` or above, and ends with the `until`th in a row below `off`."""

    on: float
    off: float
    after: int = 1
    until: int = 1


class Latch:
    """Alarms as they go on and off, frame by frame, of any number of scores side by side, each by a rule of its own."""

    def __init__(self, rules: Sequence[Rule], streams: int):
        self.on, self.off, self.after, self.until = (np.array([getattr(one, name) for one in rules]) for name in ("on", "off", "after", "until"))
        self.above, self.below = (np.zeros((streams, len(rules)), int) for _ in range(2))  # frames in a row
        self.alarm = np.zeros((streams, len(rules)), bool)

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """score [B, K] of the next frame -> which alarms are on [B, K] bool."""
        self.above = np.where(score >= self.on, self.above + 1, 0)
        self.below = np.where(score < self.off, self.below + 1, 0)
        self.alarm = np.where(self.alarm, self.below < self.until, self.above >= self.after)
        return self.alarm


def raised(score: np.ndarray, rules: Sequence[Rule]) -> np.ndarray:
    """score [B, F, K], or [B, F, 1] for any number of rules -> [B, F, K] bool."""
    latch = Latch(rules, len(score))
    return np.stack([latch(score[:, k]) for k in range(score.shape[1])], 1)


def f1(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Two masks of one shape -> {"f1", "precision", "recall"}; 0 where nothing was said, or nothing true."""
    hits = float((said & true).sum())
    return _f1(hits, float(said.sum()), float(true.sum()))


def events(mask: np.ndarray, fps: float, gap_s: float = GAP_S) -> list[tuple[int, int, int]]:
    """mask [B, F] bool -> (stream, first frame, last frame) of each time it is on, pauses of at most `gap_s` ignored."""
    out = []
    streams, at = np.nonzero(np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1))  # on, off, on, off, ...
    for stream, first, end in zip(streams[::2].tolist(), at[::2].tolist(), at[1::2].tolist(), strict=True):
        if out and out[-1][0] == stream and first - 1 - out[-1][2] <= gap_s * fps:
            out[-1] = (stream, out[-1][1], end - 1)
        else:
            out.append((stream, first, end - 1))
    return out


def by_event(said: np.ndarray, true: np.ndarray, fps: float, gap_s: float = GAP_S) -> dict[str, float | None]:
    """Masks [B, F] -> {"f1", "precision", "recall", "events", "alarms", "delay_s", "false_alarms_per_hour"}.

    delay_s: the median from an event's start to its alarm's, an early one counting as 0; None without any found. Hours are camera-hours.
    """
    alarms, wanted = events(said, fps, gap_s), events(true, fps, gap_s)
    delays, used = [], set()
    for stream, start, end in wanted:
        found = next((k for k, alarm in enumerate(alarms) if k not in used and alarm[0] == stream
                      and start - EARLY_S * fps <= alarm[1] <= end + LATE_S * fps), None)
        if found is not None:
            used.add(found)
            delays.append(max(0, alarms[found][1] - start) / fps)
    hours = said.size / fps / 3600
    return {**_f1(len(used), len(alarms), len(wanted)), "events": len(wanted), "alarms": len(alarms),
            "delay_s": float(np.median(delays)) if delays else None, "false_alarms_per_hour": (len(alarms) - len(used)) / hours}


def threshold(score: np.ndarray, true: np.ndarray) -> float:
    """The threshold (score >= it) of the best F1 by frame; where many are as good, the middle of the widest range of them.

    ValueError where `true` is never true: take more validation worlds.
    """
    score, true = np.ravel(score).astype(float), np.ravel(true)
    if not true.any():
        raise ValueError("nothing is true here, so no threshold is better than another: take more validation worlds")
    values, inverse = np.unique(score, return_inverse=True)
    hits = np.bincount(inverse, true, len(values))[::-1].cumsum()[::-1]  # of score >= values[k]
    said = np.bincount(inverse, minlength=len(values))[::-1].cumsum()[::-1]
    quality = 2 * hits / (said + true.sum())
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    below = np.concatenate([[min(0.0, values[0])], values[:-1]])  # any threshold in (below[k], values[k]] says the same
    runs = np.split(best, 1 + np.flatnonzero(np.diff(best) > 1))
    low, high = max(((below[run[0]], values[run[-1]]) for run in runs), key=lambda ends: ends[1] - ends[0])
    return float((low + high) / 2)


def rule(score: np.ndarray, true: np.ndarray, fps: float) -> Rule:
    """Of score [B, F] and true [B, F]: the rule of the best event F1, less PATIENCE for its delay, among STEPS around the frames' own threshold.

    There are few events, so a rule is judged by the mean of those around it, of which a lucky one is none. ValueError as of `threshold`.
    """
    middle = np.clip(threshold(score, true), 1e-4, 1 - 1e-4)
    logit = np.log(middle / (1 - middle))
    chosen = [Rule(*(float(1 / (1 + np.exp(-level))) for level in (logit + on, logit + on - off)), after, until)
              for on, off, after, until in itertools.product(*STEPS.values())]
    alarms = raised(score[..., None], chosen)  # [B, F, R]
    found = [by_event(alarms[..., k], true, fps) for k in range(len(chosen))]
    quality = np.array([one["f1"] - PATIENCE * (one["delay_s"] or 0) for one in found])
    smooth = _smooth(quality.reshape([len(steps) for steps in STEPS.values()])).ravel()
    return chosen[int((smooth + 1e-3 * quality).argmax())]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Each value's mean with its neighbours along all axes, as far as there are any."""
    padded = np.pad(values, 1, constant_values=np.nan)
    return np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, [3] * values.ndim), axis=tuple(range(values.ndim, 2 * values.ndim)))


def report(score: np.ndarray, true: np.ndarray, limits: Mapping[str, float], fps: float, rules: Mapping[str, Rule] | None = None) -> dict[str, dict]:
    """score [B, F, 6] and true [B, F, 6] bool, in the order of ANOMALIES -> {"f1", "event_f1", "delay_s", "false_alarms_per_hour"}.

    Each holds every kind and every family (`local`, `temporal`, `cross`: any of its kinds). `limits` are thresholds by kind; with `rules` there is
    the same once more by them, as `alarms`.
    """
    plain = _scored(np.stack([score[..., k] >= limits[kind] for k, kind in enumerate(ANOMALIES)], -1), true, fps)
    return plain | ({"alarms": _scored(raised(score, [rules[kind] for kind in ANOMALIES]), true, fps)} if rules else {})


def _scored(said: np.ndarray, true: np.ndarray, fps: float) -> dict[str, dict[str, float | None]]:
    groups = {**{kind: (kind,) for kind in ANOMALIES}, **FAMILIES}
    out: dict[str, dict] = {"f1": {}, "event_f1": {}, "delay_s": {}, "false_alarms_per_hour": {}}
    for name, kinds in groups.items():
        columns = [ANOMALIES.index(kind) for kind in kinds]
        mine, right = said[..., columns].any(-1), true[..., columns].any(-1)
        found = by_event(mine, right, fps)
        out["f1"][name], out["event_f1"][name] = f1(mine, right)["f1"], found["f1"]
        out["delay_s"][name], out["false_alarms_per_hour"][name] = found["delay_s"], found["false_alarms_per_hour"]
    return out


def _f1(hits: float, said: float, true: float) -> dict[str, float]:
    return {"f1": 2 * hits / (said + true) if said + true else 0.0, "precision": hits / said if said else 0.0, "recall": hits / true if true else 0.0}
