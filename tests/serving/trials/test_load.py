"""The real model among made-up cameras: what is left of the schedule is decided as the service would, and a loaded machine shows older answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm.models.multicamera.network import Knobs, Network
from streamingvlm.serving.live.analyst import Analyst
from streamingvlm.serving.schedule.events import Settings
from streamingvlm.serving.schedule.virtual import RunTimes
from streamingvlm.serving.trials import load
from streamingvlm.serving.trials.under_load import quality
from streamingvlm.worlds.alarms import Rule
from streamingvlm.worlds.city.knobs import ANOMALIES
from streamingvlm.worlds.city.world import City

CITY = City(5, cameras=2, frames=40)


def analyst() -> Analyst:
    torch.manual_seed(0)
    return Analyst(Network(Knobs()), dict.fromkeys(ANOMALIES, Rule(0.5, 0.4)))


@pytest.fixture(scope="module")
def calm():
    return load.watch(analyst(), CITY, 2, RunTimes({1: [8.0], 8: [20.0]}))


def test_a_calm_machine_decides_every_frame_as_a_service_would(calm):
    assert [line.frame.tolist() for line in calm.decided] == [list(range(40))] * 2 and calm.outcome.counts.decided == 80
    for line, phase_s in zip(calm.decided, calm.phases_s, strict=True):
        late = line.at_s - phase_s - line.frame / 8
        assert (late >= 0.008).all() and (late < 0.1).all() and line.rows[0].keys() >= {"action", "anomalies", "alarms", "boxes"}


def test_a_loaded_one_leaves_frames_out_and_what_it_says_is_older(calm):
    loaded = load.watch(analyst(), CITY, 24, RunTimes({1: [30.0], 8: [200.0]}), Settings(mode="auto"))
    assert loaded.outcome.counts.balanced and sum(loaded.outcome.counts.dropped.values()) > 300
    told = [quality(one.decided, CITY.truth, dict.fromkeys(ANOMALIES, 0.5), 8.0, one.phases_s) for one in (calm, loaded)]
    assert told[1]["age_ms"] > 2 * told[0]["age_ms"]
    assert [len(line.frame) for line in loaded.decided] < [40, 40] and all((np.diff(line.frame) > 0).all() for line in loaded.decided)


def test_run_times_are_one_number_a_batch_and_leave_the_analyst_empty():
    one = analyst()
    told = load.run_times(one, np.zeros((2, 3, 96, 96, 3), np.uint8), sizes=(1, 3), rounds=2)
    assert {kind: {size: len(ms) for size, ms in sizes.items()} for kind, sizes in told.items()} == {"wall_ms": {1: 2, 3: 2}, "cpu_ms": {1: 2, 3: 2}}
    assert one.streams == {}


def test_the_curve_says_what_more_streams_cost():
    rows = load.curve(RunTimes({1: [10.0], 8: [30.0]}), [2, 8, 60], 8.0, Settings())
    assert [row["busy"] for row in rows] == sorted(row["busy"] for row in rows) and rows[0]["dropped"] == {} != rows[2]["dropped"]
    assert rows[0]["covered_ms"]["p99"] < rows[1]["covered_ms"]["p99"] < rows[2]["covered_ms"]["p99"]
    assert load.spread(12) == [1, 2, 3, 4, 6, 8, 12]
