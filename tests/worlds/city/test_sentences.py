"""Sentences: what is said can be read back and is what the labels say; a place near a border may be said either way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamingvlm.worlds.city import sentences
from streamingvlm.worlds.city.sentences import Said, Wrong
from streamingvlm.worlds.city.world import ANOMALIES, City


@pytest.mark.parametrize("evaluation", [False, True])
def test_every_second_can_be_said_and_read_back(evaluation):
    city, falls = City(seed=3, cameras=8, frames=384, evaluation=evaluation), 0
    for camera in range(8):
        for k in range(48):
            said = sentences.second(city.truth, camera, k, sentences.CLAUSES)
            words = sentences.say(said)
            assert {word for word in words if not word.isdigit()} <= set(sentences.WORDS)
            assert sentences.parse(" ".join(words)) == said.plain
            assert sentences.score(said.plain, said).exact
            share = city.truth.anomalies[camera, k * 8:(k + 1) * 8].mean(0)
            for kind in sentences.CLAUSES:
                told = any(wrong.kind == kind for wrong in said.wrongs)
                assert not told or share[ANOMALIES.index(kind)] >= 0.5
            falls += any(wrong.kind == "fall" for wrong in said.wrongs)
    assert falls > 5 and len(sentences.WORDS) <= 45


@pytest.mark.parametrize(("text", "said"), [
    ("empty", Said()), ("", Said()), ("nonsense and 2 people", Said()), ("1 person walks", Said(1, "walk")), ("3 people meet", Said(3, "meet")),
    ("red blue falls left and 2 people walk", Said(2, "walk", (Wrong("fall", "left", ("red", "blue")),))),
    ("car on pavement middle and bag alone right", Said(0, "empty", (Wrong("pavement", "middle"), Wrong("bag", "right"))))])
def test_reading(text, said):
    assert sentences.parse(text) == said


@pytest.mark.parametrize(("text", "expected"), [
    ("red blue falls left and 2 people walk", (True, True, True)), ("2 people walk and red blue falls left", (True, True, True)),
    ("red blue falls middle and 2 people walk", (True, True, True)), ("red blue falls right and 2 people walk", (False, False, True)),
    ("red red falls left and 2 people walk", (False, False, True)), ("2 people walk", (False, False, True)),
    ("red blue falls left and red blue falls left and 2 people walk", (False, False, True)), ("red blue falls left", (False, True, False))])
def test_scoring(text, expected):
    true = Said(2, "walk", (Wrong("fall", "left", ("red", "blue"), or_where="middle"),))
    got = sentences.score(sentences.parse(text), true)
    assert (got.exact, got.wrongs, got.who) == expected


def spotted(falls=(), cars=(), people=0, walk=0, action=0, fall=0.0, pavement=0.0):
    return {"falls": falls, "cars": cars, "people": people, "walk": walk, "action": action, "fall": fall, "pavement": pavement}


@pytest.mark.parametrize(("rows", "text"), [
    ([], ""), ([spotted()] * 3, "empty"), ([spotted(people=2, walk=1, action=2)] * 4 + [spotted(people=9)] * 3, "2 people walk"),
    ([spotted([(0.1, 0.2, 0, 2)], fall=0.75)] * 8, "6 red blue falls left"),  # as likely as the whole model thinks
    ([spotted([(0.1, 0.9, 0, 2)]), spotted()], "4 red blue falls left"),  # of any number of frames, in eighths
    ([spotted([(0.5, 0.9, 0, 2), (0.9, 0.5, 1, 1)])] * 8, "7 red blue falls middle and 4 orange white falls right"),
    ([spotted([(0.5, 0.9, 0, 2)])] * 4 + [spotted([(0.52, 0.3, 1, 2)])] * 4, "5 red blue falls middle"),  # clothes by how well they were seen
    ([spotted(cars=[(x / 8, 1.0)]) for x in (0.4, 1.0, 1.6, 2.2)], "8 car on pavement left"),  # it drives
    ([spotted(cars=[(0.5, 0.1)], people=1, action=5)] * 8, "1 person stands"), ([spotted(people=1, walk=1, action=5)], "1 person walks")])
def test_a_note_says_what_was_spotted(rows, text):
    assert sentences.note(rows) == text


@pytest.mark.parametrize(("note", "said"), [
    ("", Said()), ("empty", Said()),
    ("3 red blue falls left and 4 car on pavement right and 4 people walk", Said(4, "walk", (Wrong("pavement", "right"),))),
    ("8 red blue falls left", Said(0, "empty", (Wrong("fall", "left", ("red", "blue")),)))])
def test_a_note_taken_at_its_word(note, said):
    assert sentences.heard(note) == said


def test_who_misses_two_alike_has_missed_them():
    car = sentences.Wrong("pavement", "left")
    twice = sentences.Said(wrongs=(car, replace(car)))
    assert sentences.score(twice, twice).exact and not sentences.score(sentences.Said(), twice).wrongs
    assert not sentences.score(sentences.Said(wrongs=(car,)), twice).wrongs
