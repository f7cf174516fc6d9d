"""Means as the benchmarks form them, and standard errors clustered by video."""

from __future__ import annotations

import dataclasses
import random

import pytest

from streamingvlm.evaluation import benchmarks
from streamingvlm.evaluation.harness import summary
from streamingvlm.evaluation.harness.protocol import Item, Mark


def mark(own: float | None, video: str = "v", task: str = "t", group: str = "g", strict: float = 0.0, state: str = "answered") -> Mark:
    return Mark("q", video, task, group, own, strict, state)


def own(one: Mark) -> float | None:
    return one.own


MIXED = [mark(1, "a", "EPM", "backward"), mark(0, "a", "EPM", "backward"), mark(1, "b", "HLD", "backward"), mark(1, "b", "OCR", "realtime"),
         mark(0, "c", "OCR", "realtime"), mark(0, "c", "OCR", "realtime"), mark(0, "d", "OCR", "realtime")]


@pytest.mark.parametrize(("over", "expected"), [("items", 300 / 7), ("tasks", 100 * (0.5 + 1 + 0.25) / 3), ("groups", 100 * (0.75 + 0.25) / 2)])
def test_an_overall_number_is_the_mean_of_what_the_benchmark_means(over, expected):
    assert summary.mean(MIXED, own, over)[0] == pytest.approx(expected)
    shuffled = random.Random(0).sample(MIXED, len(MIXED))
    assert summary.mean(shuffled, own, over) == pytest.approx(summary.mean(MIXED, own, over))


def test_with_a_question_a_video_the_error_is_the_usual_one():
    values = [1, 0, 1, 1, 0, 1]
    error = summary.mean([mark(value, str(k)) for k, value in enumerate(values)], own)[1]
    mean = sum(values) / 6
    assert error == pytest.approx(100 * (sum((value - mean) ** 2 for value in values) / 5 / 6) ** 0.5)


def test_a_question_asked_ten_times_of_one_video_teaches_no_more_than_once():
    once = [mark(k % 3 == 0, str(k)) for k in range(9)]
    assert summary.mean(once * 10, own)[1] == pytest.approx(summary.mean(once, own)[1])


def test_one_video_has_no_error():
    assert summary.mean([mark(1), mark(0)], own) == (50, None) and summary.mean([mark(None)], own) == (None, None)


def test_what_the_own_rule_leaves_out_is_in_the_strict_mean_and_counted():
    found = summary.numbers([mark(None, "a", strict=0.0, state="empty"), mark(1.0, "b", strict=1.0), mark(0, "b", state="unparsed")])
    assert (found["own"], found["strict"]) == (50, pytest.approx(33.3333))
    assert (found["questions"], found["videos"], found["empty"], found["unparsed"], found["left_out_by_own_rule"]) == (3, 2, 1, 1, 1)


def test_a_summary_and_its_table_name_every_task_and_group():
    ovo = benchmarks.get("ovo")
    found = summary.summarise(ovo, MIXED)
    assert found["overall"]["own"] == pytest.approx(50) and found["groups"]["backward"]["own"] == 75 and found["tasks"]["EPM"]["own"] == 50
    other = summary.summarise(ovo, [dataclasses.replace(one, own=0.0) for one in MIXED if one.task != "HLD"])
    table = summary.table({"stream": found, "last 4 frames": other})
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["EPM", "HLD", "OCR", "backward", "realtime", "overall"]
    assert "last 4 frames" in lines[0] and len({len(line) for line in lines[1:]}) == 1, "columns stand below each other"


def test_what_could_not_be_asked_can_count_as_wrong():
    lost = [Item("x", "e", 1.0, "q", (), "A", "HLD", "backward")]
    assert summary.with_lost(benchmarks.get("ovo"), MIXED, lost)["own"] == pytest.approx(100 * ((0.5 + 0.5) / 2 + 0.25) / 2)
