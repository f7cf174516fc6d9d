"""Frames as they come are decided as offline where nothing is late; who is late, absent or new changes nothing for the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.models.multicamera.memory import MemoryKnobs
from streamingvlm.models.multicamera.network import Knobs, Network
from streamingvlm.serving.live.analyst import Analyst, Gathering
from streamingvlm.worlds.alarms import Rule
from streamingvlm.worlds.city.world import ACTIONS, ANOMALIES, City

RULES = dict.fromkeys(ANOMALIES, Rule(0.5, 0.5))


@pytest.fixture(scope="module", params=["answer", "others"])
def network(request):
    """Both ways of holding a look until the next one."""
    return Network(Knobs(memory=MemoryKnobs(holds=request.param)))


@pytest.fixture(scope="module")
def pictures():
    """[F, B, H, W, C] of three cameras."""
    city = City(41, cameras=3, frames=24)
    return np.stack([city.render(camera) for camera in range(3)], 1)


def frame(pictures, k, b, epoch=0):
    return Frame(Stamp("abc"[b], k, epoch, k / 8, 1000 + k / 8, "sender", 1000 + k / 8, 8.0), pictures[k, b])


def scores(rows):
    return np.array([[row["anomalies"][kind] for kind in ANOMALIES] for row in rows])


def test_where_nothing_is_late_it_is_the_network_over_all_streams_at_once(network, pictures):
    analyst, state = Analyst(network, RULES), network.memory.start(3)
    for k in range(len(pictures)):
        rows = analyst.decide([frame(pictures, k, b) for b in range(3)], now=k / 8)
        with torch.inference_mode():
            told, things, state = network(torch.from_numpy(pictures[k : k + 1]), state)
        assert np.abs(scores(rows) - told.anomalies[0].sigmoid().numpy()).max() < 1e-4
        assert [row["action"] for row in rows] == [ACTIONS[a] for a in told.action[0].argmax(-1).tolist()]
        best = things.box[0, :, 0].numpy()
        assert all(not row["boxes"] or np.abs(np.array(row["boxes"][0]["box"]) - box).max() < 1e-4 for row, box in zip(rows, best, strict=True))
    assert analyst.looks == 2  # at 0 and 16


def test_what_it_spots_is_what_its_commentator_learned_from(network, pictures):
    analyst = Analyst(network, RULES)
    rows = [analyst.decide([frame(pictures, k, b) for b in range(3)], now=k / 8) for k in range(8)]
    told, _ = network.tell(torch.from_numpy(pictures[:8]), network.memory.start(3))
    for b in range(3):
        for live, row in zip((own[b]["spotted"] for own in rows), told[b], strict=True):
            assert live.keys() == row.keys() and (live["people"], live["walk"], live["action"]) == (row["people"], row["walk"], row["action"])
            assert (live["fall"], live["pavement"]) == pytest.approx((row["fall"], row["pavement"]), abs=1e-4)
            assert np.allclose(live["falls"], row["falls"], atol=1e-4) and np.allclose(live["cars"], row["cars"], atol=1e-4)


def test_a_batch_is_each_of_its_streams_alone(network, pictures):
    """Without looks across streams, how they are put into batches changes nothing."""
    together, alone = (Analyst(network, RULES, Gathering(1e18)) for _ in range(2))
    for analyst in (together, alone):
        analyst.gathering.next_at = 1e18
    for k in range(6):
        rows = together.decide([frame(pictures, k, b) for b in range(3)])
        apart = [alone.decide([frame(pictures, k, b)])[0] for b in (2, 0, 1)]
        assert np.abs(scores(rows) - scores([apart[1], apart[2], apart[0]])).max() < 1e-4


def test_a_stream_that_ends_holds_nobody_up(network, pictures):
    analyst = Analyst(network, RULES)
    for k in range(24):
        analyst.decide([frame(pictures, k, b) for b in range(3 if k < 5 else 2)], now=k / 8)
    assert analyst.looks == 2


def test_saved_and_restored_it_goes_on_as_if_nothing_had_been(network, pictures):
    first, second = (Analyst(network, RULES, Gathering(1e18)) for _ in range(2))
    for analyst in (first, second):
        analyst.gathering.next_at = 1e18
    for k in range(5):
        first.decide([frame(pictures, k, 0)])
    second.restore("a", first.save("a"), epoch=0)
    for k in range(5, 8):
        there, here = first.decide([frame(pictures, k, 0)]), second.decide([frame(pictures, k, 0)])
        assert np.array_equal(scores(there), scores(here))


def test_a_new_connection_begins_anew(network, pictures):
    analyst, fresh = (Analyst(network, RULES, Gathering(1e18)) for _ in range(2))
    for one in (analyst, fresh):
        one.gathering.next_at = 1e18
    for k in range(6):
        analyst.decide([frame(pictures, k, 0)])
    assert np.array_equal(scores(analyst.decide([frame(pictures, 6, 0, epoch=1)])), scores(fresh.decide([frame(pictures, 6, 0, epoch=1)])))


def test_two_frames_of_a_stream_are_no_batch(network, pictures):
    with pytest.raises(ValueError, match="one frame"):
        Analyst(network, RULES).decide([frame(pictures, 0, 0), frame(pictures, 1, 0)])


class TestGathering:
    def test_all_who_are_alive_come_once_a_period(self):
        gathering = Gathering(2.0)
        looks = []
        for k in range(48):
            for stream in "ab":
                gathering.bring(stream, k / 8 + 0.01 * (stream == "b"), now=k / 8)
            if gathering.ready(k / 8):
                looks.append((k, gathering.take()))
        assert looks == [(0, ["a", "b"]), (16, ["a", "b"]), (32, ["a", "b"])]

    def test_clocks_that_are_set_stop_no_look_for_good(self):
        gathering = Gathering(2.0)
        looks = 0
        for k in range(64):
            for stream, ahead_s in (("a", 0.0), ("b", 0.0), ("fast", 3600.0 if k < 32 else 0.0)):
                gathering.bring(stream, k / 8 + ahead_s, now=k / 8)
            if gathering.ready(k / 8):
                looks += "a" in gathering.take() and k > 40
        assert looks

    def test_who_does_not_come_is_waited_for_only_so_long(self):
        gathering = Gathering(2.0, longest_wait_s=0.25)
        gathering.bring("late", 0.0, now=0.0)
        gathering.take()
        gathering.bring("here", 2.0, now=2.0)
        assert not gathering.ready(2.2) and gathering.ready(2.25)
        assert gathering.take() == ["here"]

    def test_who_is_gone_for_a_period_and_a_half_is_not_waited_for_at_all(self):
        gathering, looks = Gathering(2.0, longest_wait_s=0.25), []
        for k in range(49):
            for stream in ("gone", "here")[k > 0 :]:
                gathering.bring(stream, k / 8, now=k / 8)
            if gathering.ready(k / 8):
                looks.append((k, gathering.take()))
        assert looks == [(0, ["gone", "here"]), (18, ["here"]), (32, ["here"]), (48, ["here"])]

    def test_a_moment_too_far_from_the_earliest_is_no_part_of_the_look(self):
        gathering = Gathering(2.0, tolerance_s=0.5)
        gathering.bring("a", 10.0, now=0.0)
        gathering.bring("b", 10.4, now=0.0)
        gathering.bring("c", 10.6, now=0.0)
        assert gathering.take() == ["a", "b"]
