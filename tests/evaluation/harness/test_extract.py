"""What an answer says, strictly: never a guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.evaluation.harness import extract

OPTIONS = ("a red car", "Between the trees", "no car", "a tree")


@pytest.mark.parametrize(("said", "letter"), [
    ("B", "B"), (" b\n", "B"), ("(B)", "B"), ("B.", "B"), ("**B**", "B"), ("B. Between the trees", "B"), ("B. something else", "B"),
    ("B Between the trees", "B"), ("Best answer: C", "C"), ("The best option is C.", "C"), ("The answer is: (C)", "C"), ("answer: C", "C"),
    ("Option D", "D"), ("between the trees.", "B"), ("<think>A or B?</think>\nB", "B"), ("B, because of A. B. Trees", None), ("D. a tree B.", None),
    ("A red car", "A"), ("A tree", "D"), ("A man", None), ("Best", None), ("E", None), ("A or B", None), ("AB", None), ("", None),
    ("The answer is", None), ("I would say it is B", None), ("5", None)])
def test_a_letter(said, letter):
    assert extract.letter(said, OPTIONS) == letter


def test_a_letter_that_is_no_option_is_none():
    assert extract.letter("C", 2) is None and extract.letter("C", 3) == "C"
    assert extract.letter("yes", ("yes", "Yes.")) is None, "two options of the same words"


@given(st.text(max_size=40), st.integers(2, 8))
def test_whatever_is_said_the_letter_is_an_option_or_none(said, options):
    found = extract.letter(said, options)
    assert found is None or found in "ABCDEFGH"[:options]


@pytest.mark.parametrize(("said", "number"), [
    ("3", 3), ("three", 3), ("There are 12 of them.", 12), ("1 or 2", None), ("2.5", None), ("none", None), ("", None),
                                              ("zero", 0), ("attend", None), ("007", 7)])
def test_a_number(said, number):
    assert extract.number(said) == number


@pytest.mark.parametrize(("said", "word"), [
    ("Yes", "Yes"), ("no.", "No"), ("Yes, it is", "Yes"), ("y", "Yes"), ("N", "No"), ("Yes and no", None), ("It is: yes", None),
                                            ("Not yet", None), ("", None), ("Nothing", None)])
def test_yes_or_no(said, word):
    assert extract.yes_no(said) == word
