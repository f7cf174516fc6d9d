"""Answers of students: what counts as right, and that nothing they type ends in a traceback or gives the answer away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.exercise import check

SECRET = 271_828


def said(capsys, *args, **options) -> str:
    capsys.readouterr()
    check(*args, **options)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    return line.strip()


@pytest.mark.parametrize(("answer", "right"), [
    (9, 9), (9.0, 9), (np.int64(9), 9), (torch.tensor(9), 9), (0.333, 1 / 3), (np.float32(0.5), 0.5), (0.0, 0.0), (True, np.bool_(True)),
    (" Goal  LEFT ", "goal left"), ((1, 2), [1, 2]), (np.arange(3), [0, 1, 2]), (torch.tensor([[1.0], [2.0]]), [[1], [2]]), (range(2), (0, 1)),
    ({"full", "window"}, {"window", "full"}), (["window", "full", "full"], {"window", "full"}), ({"a": 1.004}, {"a": 1.0}), ({1: 2}.keys(), {1}),
    ([{"a": [1]}], [{"a": (1,)}]), (4, lambda: 2 + 2),
])
def test_right(capsys, answer, right):
    assert said(capsys, answer, right, "a hint") == "right"


@pytest.mark.parametrize(("answer", "right"), [
    (8, 9), (9.01, 9), (0.34, 1 / 3), (float("nan"), 1.0), (10**400, 1.0), (1e-3, 0.0), (False, True), ("goal", "hit"), ([1, 2], [2, 1]),
    ([1], [1, 2]), ({"full"}, {"full", "window"}), ({"full", "window", "none"}, {"full", "window"}), ({"a": 2}, {"a": 1}), ({"b": 1}, {"a": 1}),
    ([[1], 2], [1, 2]),
    ([[]], {"full"}), (4, lambda: 5), (["1"], [1]),
])
def test_wrong_gives_the_hint(capsys, answer, right):
    assert said(capsys, answer, right, "a hint") == "not yet: a hint"
    assert said(capsys, answer, right) == "not yet"


@pytest.mark.parametrize(("answer", "right", "sentence"), [
    ("9", 9, "this asks for a number, not text in quotes"), (True, 1, "this asks for a number, not True or False"),
    (1, True, "this asks for True or False, not a number"), (9, "nine", "this asks for text in quotes, not a number"),
    ({1, 2}, [1, 2], "this asks for a list, not a set"), ("full", {"full"}, "this asks for a set, not text in quotes"),
    ([1], {"a": 1}, "this asks for a dict, not a list"), (len, 9, "this asks for a number, not a value of type builtin_function_or_method"),
    (1j, 9, "this asks for a number, not a value of type complex"), (..., 9, "this asks for a number, not a value of type ellipsis"),
])
def test_a_wrong_kind_is_a_sentence(capsys, answer, right, sentence):
    assert said(capsys, answer, right, "a hint") == f"not yet: {sentence}"


def test_no_answer_asks_for_nothing(capsys):
    assert said(capsys, None, lambda: 1 / 0) == "not answered yet"


anything = st.recursive(st.none() | st.booleans() | st.integers(0, 99) | st.floats() | st.text(max_size=3) | st.binary(max_size=2) | st.just(object),
                        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=2), inner, max_size=2))


@given(anything, st.sampled_from([SECRET, float(SECRET), str(SECRET), [SECRET], {SECRET}, {"a": SECRET}]))
def test_whatever_is_typed_gives_one_line_without_the_answer(answer, right):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        check(answer, right, "a hint")
    assert out.getvalue().count("\n") == 1 and str(SECRET) not in out.getvalue() and not out.getvalue().startswith("right")
