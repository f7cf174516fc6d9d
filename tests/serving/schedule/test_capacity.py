"""Capacity: exact where the machine is known, honest where chance decides, and no better for dropping what it can't do."""

from __future__ import annotations

import numpy as np
import pytest

from streamingvlm.serving.schedule.capacity import Measured, bounds, capacity
from streamingvlm.serving.schedule.events import Settings
from streamingvlm.serving.schedule.latencies import Latencies
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Limits, Scheduler
from streamingvlm.serving.schedule.virtual import Cameras, cameras, drive


def measured(values, seconds=20.0) -> Measured:
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    return Measured(latencies, seconds)


@pytest.mark.parametrize("edge", [0, 1, 5, 16, 37])
def test_it_finds_the_edge(edge):
    found = capacity(lambda n: measured([50.0] * 500 + [500.0] * (0 if n <= edge else 50)), budget_ms=120.0, limit=64)
    assert found.streams == edge and len(found.trials) <= 13
    if edge:
        assert found.best.goodput == 25.0 and found.best.p99_ms == pytest.approx(50, rel=0.01) and found.best.sure


def test_few_frames_are_run_again_until_it_is_sure():
    asked = []
    found = capacity(lambda n: asked.append(n) or measured([50.0] * 80), budget_ms=120.0, limit=1)
    assert len(asked) == 4 and found.streams == 1 and found.best.frames == 320 and found.best.sure
    close = capacity(lambda n: measured([50.0] * 495 + [200.0] * 5), budget_ms=120.0, limit=1)
    assert not close.best.sure and close.best.frames == 2000 and close.best.low < 0.01 < close.best.high
    with pytest.raises(ValueError, match="10 s"):
        capacity(lambda n: measured([1.0], seconds=3.0), budget_ms=120.0)


def test_bounds_hold_what_they_promise():
    rng = np.random.default_rng(1)
    for share in (0.005, 0.01, 0.05):
        seen = [bounds(int(over), 1000) for over in rng.binomial(1000, share, 2000)]
        assert min(np.mean([low <= share for low, _ in seen]), np.mean([high >= share for _, high in seen])) > 0.92
    assert bounds(0, 0) == (0.0, 1.0) and bounds(0, 300)[1] < 0.01 < bounds(0, 200)[1]


@pytest.mark.parametrize("mode", ["auto", "freshest"])
def test_dropping_frames_makes_no_capacity(mode):
    def one(streams: int) -> Measured:
        made = Cameras(streams, 12.0, settings=Settings(mode=mode))
        outcome = drive(Scheduler(LatencyCurve({1: 20.0, 2: 30.0}, 32), Limits(utilisation=None)), cameras(made), lambda size, now: 10 + 10.0 * size)
        return Measured(outcome.covered, outcome.seconds)

    found = capacity(one, budget_ms=120.0, limit=64)
    assert 4 <= found.streams <= 12, "at 10 ms a frame no more than 100 frames a second can be looked at"
    assert 0.9 * 8 * found.streams <= found.best.goodput <= 8 * found.streams + 1
