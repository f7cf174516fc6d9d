"""What load does to quality: the truth at a time against the newest decision at that time. Knows neither scheduler nor model.

    streams = [Decided(at_s, frame, rows), ...]            # when it was decided, which frame it was, what was said; one of each camera of a city
    quality(streams, city.truth, limits, fps=8.0, phase_s=phases)["action"]

A late decision is not wrong in itself: what it says holds until the next one, and is wrong where the world has gone on meanwhile. So a server that
drops frames pays for what changed between those that are left, and one that is late for what changed while it computed, in the same currency.
Letters: N decisions, F frames, B streams, T moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamingvlm.evaluation.detection import Boxes, average_precision
from streamingvlm.worlds import alarms
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES
from streamingvlm.worlds.city.truth import Truth

MOMENTS = 4  # looked at in the time of one frame
BOX_STEP = 6  # boxes are compared at every so many-th moment


@dataclass(frozen=True)
class Decided:
    """One stream's decisions: at_s [N], rising; frame [N], whose index it was, rising too; rows: what was said, as the service publishes it."""

    at_s: np.ndarray
    frame: np.ndarray
    rows: Sequence[dict]

    @classmethod
    def of(cls, told: Sequence[tuple[float, int, dict]]) -> Decided:
        """(when it was decided, its frame, what was said) of each decision."""
        return cls(np.array([at for at, *_ in told]), np.array([frame for _, frame, _ in told], int), [row for *_, row in told])

    def held(self, at_s: np.ndarray) -> np.ndarray:
        """at_s [T] -> which decision [T] was the newest at each of these times; -1 before the first."""
        return np.searchsorted(self.at_s, at_s, side="right") - 1

    def actions(self, newest: np.ndarray) -> np.ndarray:
        """newest [T], as `held` has it -> which action [T] was said; -1 before the first decision."""
        return np.array([*(ACTIONS.index(row["action"]) for row in self.rows), -1])[newest]

    def alarms(self, newest: np.ndarray) -> np.ndarray:
        """newest [T], as `held` has it -> which alarms [T, 6] were on; none before the first decision."""
        return np.array([*([kind in row["alarms"] for kind in ANOMALIES] for row in self.rows), [False] * len(ANOMALIES)])[newest]


def quality(streams: Sequence[Decided], truth: Truth, limits: Mapping[str, float], fps: float, phase_s: Sequence[float]) -> dict:
    """`phase_s`: when each stream's frame 0 was taken, on the clock of the decisions. Nothing is right before a stream's first decision.

    -> action (share of moments when it was right), map50 and map of the boxes, `alarms.report`'s f1, event_f1, delay_s and false_alarms_per_hour of
    the scores at `limits`, the same of the `alarms` that were raised, `age_ms` (mean age of the picture that the held decision is of) and `held`
    (share of moments when there was one).
    """
    moment = np.arange(truth.action.shape[1] * MOMENTS)
    true = moment // MOMENTS  # [T] the newest frame that was taken
    kinds = np.array([limits[kind] for kind in ANOMALIES])
    over, raised = (np.zeros((len(streams), len(moment), len(ANOMALIES)), bool) for _ in range(2))
    right, age_s, held = [], [], []
    for b, stream in enumerate(streams):
        at_s = phase_s[b] + moment / (MOMENTS * fps)
        newest = stream.held(at_s)
        known = newest >= 0
        scores = np.array([*([row["anomalies"][kind] for kind in ANOMALIES] for row in stream.rows), [-1.0] * len(ANOMALIES)])
        over[b], raised[b] = scores[newest] >= kinds, stream.alarms(newest)
        right.append(stream.actions(newest) == truth.action[b, true])
        held.append(known)
        age_s.append((at_s - phase_s[b])[known] - stream.frame[newest[known]] / fps)
    truly, half = truth.anomalies[: len(streams), true], dict.fromkeys(ANOMALIES, 0.5)
    told, rules = (alarms.report(mask.astype(float), truly, half, fps * MOMENTS) for mask in (over, raised))
    return {"action": float(np.mean(right)), **_boxes(streams, truth, moment[::BOX_STEP], fps, phase_s), **told, "alarms": rules,
            "age_ms": float(np.concatenate(age_s).mean() * 1e3) if np.any(held) else None, "held": float(np.mean(held))}


def _boxes(streams: Sequence[Decided], truth: Truth, moment: np.ndarray, fps: float, phase_s: Sequence[float]) -> dict:
    """Mean average precision of the boxes that are held at these moments [T]; each stream and moment is a picture."""
    (height, width), frames = truth.size_px, truth.action.shape[1]
    place = truth.box_at[:, 0] * frames + truth.box_at[:, 1]  # [N], rising
    scale = np.array([width, height, width, height])
    true, found = [], []
    for b, stream in enumerate(streams):
        newest = stream.held(phase_s[b] + moment / (MOMENTS * fps))
        for k, (frame, decision) in enumerate(zip(moment // MOMENTS, newest, strict=True)):
            image = b * len(moment) + k
            first, last = np.searchsorted(place, b * frames + frame + np.arange(2))
            true += [(image, box, label, 1.0) for box, label in zip(truth.box[first:last], truth.box_class[first:last], strict=True)]
            boxes = stream.rows[decision]["boxes"] if decision >= 0 else ()
            found += [(image, np.array(one["box"]) * scale, CLASSES.index(one["label"]), one["score"]) for one in boxes]
    if not true:
        return {"map50": None, "map": None}
    if not found:
        return {"map50": 0.0, "map": 0.0}
    both = [Boxes(*(np.array(part) for part in zip(*some, strict=True))) for some in (true, found)]
    told = average_precision(*both, len(streams) * len(moment), CLASSES)
    return {"map50": told["map50"], "map": told["map"]}
