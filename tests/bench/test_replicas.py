"""The step of load in virtual time: as many replicas as the streams need or as being late teaches, and back, with every frame accounted for."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import replicas

from streamingvlm.reporting import live_figures
from streamingvlm.serving.replicas.policy import Knobs

PLAN = replicas.Plan(up_s=10.0, down_s=50.0, end_s=90.0)


@pytest.mark.parametrize(("ms", "most"), [(10.0, 2), (50.0, 3)])  # of a frame; a replica takes 4 streams until it is seen to be late
def test_up_and_down_with_the_load(ms, most):
    found = replicas.virtual(PLAN, Knobs(), {1: [ms], 4: [ms * 1.6], 16: [ms * 5]}, start_s=5.0)
    counts = [row["replicas"] for row in found["rows"]]
    assert counts[0] == counts[-1] == 1 and 2 <= max(counts) <= most and (max(counts) > 2) == (ms > 10)
    turns = [b - a for a, b in itertools.pairwise(live_figures.steps(counts))]
    assert sum(a * b < 0 for a, b in itertools.pairwise(turns)) == 1, "up, then down, and no more"
    frames = found["frames"]
    assert frames["balanced"] and frames["in"] == frames["decided"] + sum(frames["dropped"].values()) == 8 * (2 * 90 + 6 * 40)
