"""What is said of a frame can be read back, and nothing else can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.models.qwen25 import tokenizer
from streamingvlm.training.frame_vlm.grammar import LONGEST, MOST, STEPS, WORDS, Said, Thing, parse, say
from streamingvlm.training.frame_vlm.prompt import Prompt
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES

PAIR = st.lists(st.integers(0, STEPS), min_size=2, max_size=2, unique=True).map(sorted)
THING = st.builds(lambda label, x, y: Thing(label, (x[0], y[0], x[1], y[1])), st.integers(0, len(CLASSES) - 1), PAIR, PAIR)
SAID = st.builds(lambda action, kinds, things: Said(action, tuple(k for k in ANOMALIES if k in kinds), tuple(things)),
                 st.integers(0, len(ACTIONS) - 1), st.sets(st.sampled_from(ANOMALIES)), st.lists(THING, max_size=MOST))


@given(SAID)
def test_what_is_said_is_read_back(said):
    words = say(said)
    assert parse(words) == said and len(words) <= LONGEST and set(words) <= set(WORDS)


@given(st.lists(st.sampled_from(WORDS), max_size=14))
def test_what_is_read_is_what_would_be_said(words):
    said = parse(words)
    assert said is None or say(said) == words


@pytest.mark.parametrize("text", [
    "", "person 1 2 3 4", "walk person 1 2 3", "walk person 3 2 3 4", "walk person 1 4 3 2", "walk left fall", "walk bag", "walk fall fall", "fall",
    "walk person 1 2 3 49", "walk person 1 2 3 04", "walk walk", "walk person 1 2 3 4 fall"])
def test_no_answer(text):
    assert parse(text.split()) is None


def test_a_word_is_a_token():
    prompt = Prompt(tokenizer.build(WORDS))
    said = Said(5, ("fall", "bag"), (Thing(0, (0, 7, 12, 48)), Thing(2, (1, 1, 2, 3))))
    ids = prompt.answer(say(said))
    assert len(ids) == len(say(said)) + 1 and ids[-1] == prompt.end
    assert parse(prompt.talk.decode(ids).split()) == said
