"""Each benchmark's two scores on answers of our own making, those that its published rule misreads among them; the polls of StreamingBench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingvlm.evaluation import benchmarks
from streamingvlm.evaluation.benchmarks import streamingbench
from streamingvlm.evaluation.harness.protocol import YES_NO, Item, Turn

CASES = {path.stem: json.loads(path.read_text())["cases"] for path in sorted((Path(__file__).parent / "cases").glob("*.json"))}


@pytest.mark.parametrize(("name", "case"), [pytest.param(name, case, id=f"{name}-{case['response'] or 'nothing'}-{case['answer']}")
                                            for name, cases in CASES.items() for case in cases])
def test_an_answer_is_worth_what_the_published_rule_says_and_what_it_says_strictly(name, case):
    item = Item("q", "v.mp4", 1.0, "What?", tuple(case["options"]), case["answer"], "OCR", "g", case["kind"])
    (mark,) = benchmarks.get(name).mark([Turn(item, case["response"])])
    assert (mark.own, mark.strict, mark.state) == (case["own"], case["strict"], case["state"]), case["why"]


def test_every_benchmark_of_questions_has_cases():
    asked = {name for name, one in benchmarks.known().items() if one.mark is not None and not name.endswith(("-omni", "-sqa", "-proactive"))}
    assert asked - {"livesports-cc", "infstreams"} == set(CASES)


def test_an_empty_answer_is_never_right_strictly():
    for name, cases in CASES.items():
        for case in cases:
            item = Item("q", "v.mp4", 1.0, "What?", tuple(case["options"]), case["answer"], "OCR", "g", case["kind"])
            (mark,) = benchmarks.get(name).mark([Turn(item, " \n")])
            assert mark.strict == 0 and mark.state == "empty", name


# The polls: asked at second 0, the true moment at 4; polled from 1 to 8


def polled(*responses: str) -> list[Turn]:
    """Put the question and follow it up as long as there is an answer, and check that it wants no more."""
    item = Item("q", "v.mp4", 1.0, 'Is now the moment to say "3"?', (), "3", "PO", "proactive", YES_NO, context="When?", closes_s=8.0).at(1.0, "")
    turns = []
    for response in responses:
        turns.append(Turn(item, response))
        item = streamingbench.follow_up(turns[-1])
    assert item is None
    return turns


@pytest.mark.parametrize(("responses", "own", "strict"), [
    (["no", "No.", "No", "Yes", "3"], [1, 1], [1, 1]), (["no", "Yes", "It is 3."], [1, 1], [1, 0]), (["Yes", "3"], [0, 0], [0, 0]),
    (["no"] * 5 + ["Yes, now", "4"], [1, 0], [1, 0]), (["no"] * 8, [0, 0], [0, 0]), (["no"] * 3 + ["not yes", "3"], [1, 1], [0, 0])])
def test_a_poll_is_right_within_two_seconds_and_then_in_its_words(responses, own, strict):
    marks = benchmarks.get("streamingbench-proactive").mark(polled(*responses))
    assert [mark.own for mark in marks] == own and [mark.strict for mark in marks] == strict
    assert [mark.task for mark in marks] == ["PO: in time", "PO: in full"]
