"""One stream cannot decide CROSS; told what the other cameras show, the same learner can. Floors are what always saying yes scores."""

from __future__ import annotations

import numpy as np
import pytest

from streamingvlm.worlds.city import oracle
from streamingvlm.worlds.city.world import ANOMALIES, City


@pytest.fixture(scope="module")
def truths():
    return [City(seed, 8, 384).truth for seed in range(700, 724)]


@pytest.mark.parametrize("kind", ["clone", "surge"])
def test_only_the_other_cameras_tell(truths, kind):
    alone, told = (oracle.ask(kind, truths[:14], truths[14:], others, steps=150) for others in (False, True))
    assert alone["auc"] < 0.66  # 0.55 with 40 worlds; fewer scatter more
    assert told["auc"] > 0.9 and told["f1"] > alone["f1"] + 0.2


def test_floors(truths):
    got = oracle.floors(truths)
    for k, kind in enumerate(ANOMALIES):
        true = np.concatenate([truth.anomalies[..., k].ravel() for truth in truths])
        assert got[kind]["yes"] == pytest.approx(2 * true.sum() / (true.size + true.sum()))
    assert got["surge"]["given_yes"] > got["surge"]["yes"] and got["fall"]["given_yes"] == got["fall"]["yes"]


@pytest.mark.parametrize(("score", "true", "expected"), [
    ([1, 2, 3, 4], [0, 0, 1, 1], 1.0), ([1, 1, 1, 1], [0, 1, 0, 1], 0.5), ([4, 3, 2, 1], [0, 1, 1, 1], 0.0)])
def test_area(score, true, expected):
    assert oracle.area(np.array(score), np.array(true, bool)) == expected


def test_the_observer_knows_nothing_of_later_frames():
    long, short = City(3, 4, 160).truth, City(3, 4, 90).truth
    assert np.allclose(oracle.observed(long)[:, :90], oracle.observed(short))
