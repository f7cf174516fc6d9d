"""Quality under load: perfect and at once is perfect; late or seldom costs what changed meanwhile, and nothing more."""

from __future__ import annotations

import numpy as np
import pytest

from streamingvlm.serving.trials.under_load import Decided, quality
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES, FPS
from streamingvlm.worlds.city.world import City

CITY = City(11, cameras=3, frames=240)
LIMITS = dict.fromkeys(ANOMALIES, 0.5)
PHASES = [0.0, 0.05, 0.1]


def truths(camera: int) -> list[dict]:
    """What a model that is always right would say of each frame."""
    truth, (height, width) = CITY.truth, CITY.size_px
    out = []
    for frame in range(CITY.frames):
        kinds = {kind: float(truth.anomalies[camera, frame, k]) for k, kind in enumerate(ANOMALIES)}
        here = (truth.box_at == (camera, frame)).all(1)
        boxes = [{"box": (box / [width, height, width, height]).tolist(), "label": CLASSES[label], "score": 0.9}
                 for box, label in zip(truth.box[here], truth.box_class[here], strict=True)]
        alarms = [kind for kind, wrong in kinds.items() if wrong]
        out.append({"action": ACTIONS[truth.action[camera, frame]], "anomalies": kinds, "alarms": alarms, "boxes": boxes})
    return out


TRUTHS = [truths(camera) for camera in range(CITY.cameras)]


def served(late_s: float, every: int = 1, first: int = 0) -> dict:
    frames = np.arange(first, CITY.frames, every)
    streams = [Decided(PHASES[b] + frames / FPS + late_s, frames, [TRUTHS[b][frame] for frame in frames]) for b in range(CITY.cameras)]
    return quality(streams, CITY.truth, LIMITS, FPS, PHASES)


def test_right_and_at_once_is_perfect():
    told = served(0.0)
    assert told["action"] == told["held"] == 1.0 and told["map50"] == pytest.approx(1.0) and told["age_ms"] == pytest.approx(1000 / FPS * 3 / 8)
    present = [kind for k, kind in enumerate(ANOMALIES) if CITY.truth.anomalies[..., k].any()]
    assert present and all(told["f1"][kind] == told["alarms"]["event_f1"][kind] == 1.0 and told["delay_s"][kind] == 0 for kind in present)


def test_late_costs_and_seldom_costs_and_the_delay_of_an_alarm_is_what_it_was_late():
    late = [served(late_s) for late_s in (0.0, 0.5, 2.0)]
    seldom = [served(0.0, every) for every in (1, 4, 32)]
    for rows in (late, seldom):
        for name in ("action", "map50"):
            values = [row[name] for row in rows]
            assert values == sorted(values, reverse=True) and len(set(values)) == 3
        assert rows[2]["age_ms"] > rows[1]["age_ms"] > rows[0]["age_ms"]
    found = [kind for kind in ANOMALIES if late[1]["alarms"]["delay_s"][kind] is not None and late[0]["alarms"]["event_f1"][kind] == 1]
    assert found and all(late[1]["alarms"]["delay_s"][kind] == pytest.approx(0.5, abs=0.04) for kind in found)


def test_nothing_is_right_before_the_first_decision_or_without_one():
    told = served(0.0, first=120)
    assert told["held"] == pytest.approx(0.5, abs=0.01) and told["action"] == told["held"]
    nobody = quality([Decided(np.zeros(0), np.zeros(0, int), []) for _ in PHASES], CITY.truth, LIMITS, FPS, PHASES)
    assert nobody["action"] == nobody["held"] == nobody["map50"] == 0 and nobody["age_ms"] is None
