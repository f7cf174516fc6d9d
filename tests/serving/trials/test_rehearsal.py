"""The model on a machine that is made slower: unhurried it decides every frame as offline, hurried it skips, and every frame is accounted for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.network import Knobs, Network
from streamingvlm.serving.schedule.virtual import RunTimes
from streamingvlm.serving.trials import rehearsal
from streamingvlm.serving.trials.under_load import Decided
from streamingvlm.training.city.features import record
from streamingvlm.worlds.alarms import Rule
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES
from streamingvlm.worlds.city.world import City

RULES = dict.fromkeys(ANOMALIES, Rule(0.5, 0.5))
TIMES = {1: [10.0], 8: [24.0]}


@pytest.fixture(scope="module")
def watched():
    torch.manual_seed(0)
    network = Network(Knobs())
    return network, record(network, City(3, cameras=4, frames=48))


def test_an_unhurried_machine_decides_every_frame_and_a_slow_one_skips(watched):
    network, city = watched
    calm, slow = (rehearsal.rehearse(network, RULES, city, RunTimes(TIMES), slower=slower) for slower in (1.0, 8.0))
    assert calm["skipped"] == calm["over"] == 0 and calm["p99_ms"] < 60
    assert 0.2 < slow["skipped"] < 1 and calm["events"] == slow["events"] and slow["over"] > 0
    queued = rehearsal.rehearse(network, RULES, city, RunTimes(TIMES), slower=8.0, mode="every_frame")
    assert queued["over"] > slow["over"] and queued["p99_ms"] > slow["p99_ms"]


def test_what_is_known_at_a_moment_is_the_newest_decision():
    row = {"action": ACTIONS[2], "alarms": ["fall"]}
    truth = np.zeros((1, 4, len(ANOMALIES)), bool)
    truth[0, 1:, ANOMALIES.index("fall")] = True
    due = np.array([[0.0, 0.125, 0.25, 0.375]])
    told = rehearsal.score([Decided(np.array([0.2]), np.array([1]), [row])], due, np.full((1, 4), 2), truth)
    assert told["action"] == 0.5 and told["events"] == told["event_recall"] == 1 and told["delay_s"] == 0.125
    late = rehearsal.score([Decided(np.array([9.0]), np.array([1]), [row])], due, np.full((1, 4), 2), truth)
    assert late["action"] == late["event_recall"] == 0 and late["delay_s"] is None


def test_run_times_come_from_a_file_and_a_file_without_them_is_said(tmp_path):
    file = tmp_path / "run_times.json"
    file.write_text(json.dumps({"cpu_ms": {"model": {"1": [12.0, 13.0, 14.0], "8": [20.0]}}}))
    assert rehearsal.run_times(file).curve() == {1: 13.0, 8: 20.0}
    with pytest.raises(UserError, match="baseline_vlm"):
        rehearsal.run_times(file, "baseline_vlm")
