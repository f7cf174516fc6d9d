"""Alarms: matched by when they start; thresholds from the middle of a tie; rules that flicker does not fool; a report of every kind and family."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.worlds import alarms
from streamingvlm.worlds.city.knobs import ANOMALIES, FAMILIES

CASES = json.loads((Path(__file__).parents[1] / "data/cases/alarms.json").read_text())


def mask(rows: list[str]) -> np.ndarray:
    return np.array([[letter == "x" for letter in row] for row in rows])


@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_events(case):
    said, true = mask(case["said"]), mask(case["true"])
    got = alarms.by_event(said, true, case["fps"])
    assert got["f1"] == pytest.approx(case["f1"]) and got["delay_s"] == case["delay_s"]
    assert got["false_alarms_per_hour"] * said.size / case["fps"] / 3600 == pytest.approx(case["false"])


@pytest.mark.parametrize(("said", "true", "expected"), [
    ("xx..", "xxxx", (2 / 3, 1.0, 0.5)), ("....", "xx..", (0.0, 0.0, 0.0)), ("xxxx", "x...", (0.4, 0.25, 1.0)), ("xx..", "xx..", (1.0, 1.0, 1.0))])
def test_frames(said, true, expected):
    got = alarms.f1(mask([said]), mask([true]))
    assert (got["f1"], got["precision"], got["recall"]) == pytest.approx(expected)


@pytest.mark.parametrize(("score", "true", "expected"), [
    ([0.1, 0.1, 0.9, 0.9], "..xx", 0.5), ([0.0, 0.2, 0.2, 1.0], "...x", 0.6), ([0.3, 0.6, 0.7], "xxx", 0.15), ([0.2, 0.4, 0.6, 0.8], ".x.x", 0.3)])
def test_a_threshold_is_the_middle_of_its_tie(score, true, expected):
    assert alarms.threshold(np.array(score), mask([true])[0]) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_threshold_is_better(pairs):
    score, true = np.array([p[0] / 20 for p in pairs]), np.array([p[1] for p in pairs])
    if not true.any():
        with pytest.raises(ValueError, match="more validation worlds"):
            alarms.threshold(score, true)
        return
    chosen = alarms.f1(score >= alarms.threshold(score, true), true)["f1"]
    assert chosen >= max(alarms.f1(score >= other, true)["f1"] for other in np.arange(-0.025, 1.1, 0.05)) - 1e-12


@pytest.mark.parametrize(("rule", "expected"), [
    (alarms.Rule(0.5, 0.5), ".x.xx..xxx...x"),
    (alarms.Rule(0.5, 0.5, after=2), "....x...xx...."),
    (alarms.Rule(0.5, 0.5, until=3), ".xxxxxxxxxxx.x"),
    (alarms.Rule(0.7, 0.3, after=1, until=1), "...xx...xxx..."),
])
def test_an_alarm_waits_for_its_frames_and_ends_after_its_frames(rule, expected):
    score = np.array([0.0, 0.6, 0.0, 0.8, 0.6, 0.2, 0.2, 0.6, 0.8, 0.6, 0.4, 0.1, 0.1, 0.6])
    assert "".join(".x"[int(on)] for on in alarms.raised(score[None, :, None], [rule])[0, :, 0]) == expected


@given(st.lists(st.integers(0, 10), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 5), st.integers(0, 10), st.integers(0, 10))
@settings(max_examples=60, deadline=None)
def test_no_alarm_without_its_reason_and_none_ends_without(scores, after, until, one, other):
    score, rule = np.array(scores) / 10, alarms.Rule(max(one, other) / 10, min(one, other) / 10, after, until)
    on = alarms.raised(score[None, :, None], [rule])[0, :, 0]
    for k in range(len(score)):
        before = bool(k and on[k - 1])
        enough = k + 1 >= after and (score[k + 1 - after: k + 1] >= rule.on).all()
        quiet = k + 1 >= until and (score[k + 1 - until: k + 1] < rule.off).all()
        assert on[k] == (not quiet if before else enough)


def test_a_rule_is_found_that_flicker_does_not_fool():
    rng = np.random.default_rng(1)
    true = np.repeat(rng.random((8, 12)) < 0.25, 24, 1)  # events of three seconds
    score = np.where(rng.random(true.shape) < 0.12, rng.random(true.shape), np.where(true, 0.9, 0.1))
    rule, plain = alarms.rule(score, true, fps=8), alarms.threshold(score, true)
    found = alarms.by_event(alarms.raised(score[..., None], [rule])[..., 0], true, 8)
    assert found["f1"] > 0.9 > alarms.by_event(score >= plain, true, 8)["f1"] and rule.on >= rule.off


def test_scores_side_by_side_have_rules_of_their_own():
    score, rules = np.random.default_rng(2).random((3, 40, 2)), [alarms.Rule(0.6, 0.4, 2, 2), alarms.Rule(0.8, 0.1, 1, 5)]
    both = alarms.raised(score, rules)
    for k, rule in enumerate(rules):
        assert np.array_equal(both[..., k], alarms.raised(score[..., k:k + 1], [rule])[..., 0])


def test_the_report_has_every_kind_and_family():
    rng = np.random.default_rng(0)
    true = np.repeat(rng.random((2, 20, 6)) < 0.2, 8, 1)
    limits = dict.fromkeys(ANOMALIES, 0.5)
    got = alarms.report(true.astype(float), true, limits, fps=8)
    assert all(set(column) == {*ANOMALIES, *FAMILIES} for column in got.values())
    assert set(got["f1"].values()) == {1.0} and set(got["event_f1"].values()) == {1.0} and set(got["false_alarms_per_hour"].values()) == {0.0}
    ruled = alarms.report(true.astype(float), true, limits, fps=8, rules=dict.fromkeys(ANOMALIES, alarms.Rule(0.5, 0.5)))
    assert ruled.pop("alarms") == ruled == got, "a rule without patience is a threshold"
    worse = true.astype(float)
    worse[..., ANOMALIES.index("clone")] = 0
    got = alarms.report(worse, true, limits, fps=8)["f1"]
    assert got["clone"] == 0 and 0 < got["cross"] < 1 and got["local"] == got["surge"] == 1
