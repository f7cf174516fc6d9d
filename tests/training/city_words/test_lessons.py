"""What the commentator learns from: a lesson is a moment of streaming, its words and its cells say the same, in any clothes and mirrored."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
from helpers import TINY

from streamingvlm.context import policy
from streamingvlm.context.dialogue import Dialogue, ids_of
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.evaluation import city_words
from streamingvlm.streaming.stream import Streamer
from streamingvlm.training import windowing
from streamingvlm.training.city_words import lessons, train
from streamingvlm.training.city_words.lessons import ACTIONS, Known, Lessons
from streamingvlm.training.city_words.towns import Repainted, town
from streamingvlm.worlds.city import scene, sentences
from streamingvlm.worlds.city.people import CAR, LIE
from streamingvlm.worlds.city.world import City

TOLD = train.STREAMED


@pytest.fixture(scope="module")
def vlm():
    return train.build(TINY)


@pytest.fixture(scope="module")
def taught(vlm) -> Lessons:
    return Lessons([town(seed, cameras=2) for seed in (601, 603)], Dialogue(vlm.tokenizer, vlm.time_step(2.0)), TOLD.video, TOLD.cache)


def test_a_lesson_is_a_round_of_a_stream_token_for_token(vlm):
    """Streamed for twelve seconds and made to say the truth, a stream holds just what a lesson of that second holds."""
    city, talk = town(603, cameras=2), Dialogue(vlm.tokenizer, vlm.time_step(2.0))
    chunks = list(city_words.chunks(city, 0, 2.0, range(12)))
    small = [dataclasses.replace(c, frames=np.zeros((2, 84, 84, 3), np.uint8), note="empty" if c.index % 3 else "") for c in chunks]
    words = [" ".join(sentences.say(sentences.second(city.truth, 0, k))) for k in range(12)]
    said = [(*talk.spoken(own), talk.im_end) for own in words]
    streamer = Streamer(vlm, policy.get(TOLD.policy), TOLD.cache, TOLD.video, TOLD.stream, lambda round, step: said[round][step])
    lesson = LabelledVideo(small, words, [0] * 12, "", sentences.QUERY)
    for k, chunk in enumerate(small):
        assert streamer.step("a", chunk).text == words[k]
        assert ids_of(streamer.spans) == ids_of(windowing.window_spans(talk, lesson, k, k + 1, TOLD.cache))


def test_cells_hold_what_the_words_say(taught):
    """As many who lie, as many cars on the pavement, as many people; each in its third."""
    found = 0
    for i, camera, k in itertools.product(range(2), range(2), range(12)):
        said, cells = taught._facts(i, camera, k)
        kinds = [wrong.kind for wrong in said.wrongs]
        assert kinds.count("fall") >= cells.fall.sum() >= min(1, kinds.count("fall")) and cells.pavement.any() == ("pavement" in kinds)
        assert ACTIONS[cells.action] == said.action and abs(cells.people.sum() - said.people) <= 2
        places = {(wrong.kind, where) for wrong in said.wrongs for where in (wrong.where, wrong.or_where)}
        for kind, cell in [("fall", cell) for cell in np.flatnonzero(cells.fall)] + [("pavement", cell) for cell in np.flatnonzero(cells.pavement)]:
            assert (kind, sentences.WHERE[cell % 3]) in places
        found += len(kinds)
    assert found > 10


def test_words_follow_clothes_and_mirrors(taught):
    talk = taught.talk
    batch = taught.draw(np.random.default_rng(3), 40)
    rows = [talk.decode(ids[ids >= 0].tolist()).removesuffix(" ...") for ids in batch.told.labels]
    said = [sentences.parse(row.replace(" ...", "").replace("<|im_end|>", "")) for row in rows]
    for row, one in enumerate(said):
        falls = {wrong.look for wrong in one.wrongs if wrong.kind == "fall"}
        cells = batch.known.look[row][batch.known.fall[row]]
        worn = batch.known.worn[row][batch.known.fall[row]]
        assert all(seen[shirt] and seen[8 + trousers] for (shirt, trousers), seen in zip(cells.tolist(), worn, strict=True))
        assert {(sentences.SHIRTS[a], sentences.TROUSERS[b]) for a, b in cells.tolist()} <= falls
        where = {(wrong.kind, sentences.WHERE.index(wrong.where)) for wrong in one.wrongs}
        columns = {("pavement", cell % 3) for cell in batch.known.pavement[row].nonzero().flatten().tolist()}
        assert {kind for kind, _ in columns} <= {kind for kind, _ in where} and batch.known.action[row] == ACTIONS.index(one.action)
    said = sentences.Said(2, "walk", (sentences.Wrong("fall", "left", ("red", "blue"), "middle"), sentences.Wrong("pavement", "right")))
    assert lessons._mirrored(lessons._mirrored(said)) == said and lessons._mirrored(said).wrongs[0].or_where == "middle"


def test_a_note_is_of_the_second_as_it_is_drawn(taught):
    """Clothes are changed, pictures mirrored, and the note with them; of some seconds there is none, of some a part."""
    def row(truth, camera, frame):
        mine = truth.boxes(camera, frame)
        x, wrong = truth.box[mine][:, [0, 2]].mean(1) / 96, truth.box_wrong[mine]
        falls = [(x[at], 1.0, *truth.box_look[mine][at]) for at in np.flatnonzero(truth.box_pose[mine] == LIE)]
        cars = [(x[at], 1.0) for at in np.flatnonzero(wrong & (truth.box_class[mine] == CAR))]
        return {"falls": falls, "cars": cars, "people": 0, "walk": 0, "action": 0, "fall": 0.0, "pavement": 0.0}

    spotted = [[[row(city.truth, camera, frame) for frame in range(city.frames)] for camera in range(2)] for city in taught.cities]
    noted = Lessons(taught.cities, taught.talk, taught.video, taught.cache, spotted)
    rows, agree, without = noted.draw(np.random.default_rng(5), 60, look=False).told, 0, 0
    for ids, labels in zip(rows.ids, rows.labels, strict=True):
        text, said = taught.talk.decode(ids.tolist()), taught.talk.decode(labels[labels >= 0].tolist())
        note = re.search(r"Time=[\d.]+-[\d.]+s(.*?)(?: ?Watch|user|assistant)", text.replace("<|vision_start|>", "")).group(1)
        without += not note.strip()
        claims = {" ".join(claim.split()[1:]) for claim in note.split(" and ") if "falls" in claim or "car" in claim}
        agree += claims == {claim for claim in said.removesuffix(" ...").strip().split(" and ") if "falls" in claim or "car" in claim}
    assert 3 < without < 20 and agree > 42


def test_codes_keep_apart_what_words_keep_apart(taught):
    known = taught.draw(np.random.default_rng(4), 24, look=False).known
    codes = known.codes()
    assert codes.shape == (24, 9, lessons.CODE)
    assert torch.equal(codes[..., 0], known.fall.float()) and torch.equal(codes[..., 1:15].sum(-1), (known.look >= 0).sum(-1).float())
    empty = Known(*(torch.zeros_like(part) for part in (known.fall, known.look - 1, known.pavement, known.people, known.action, known.worn)))
    assert torch.equal(dataclasses.replace(empty, look=empty.look - 1).codes().sum(-1), torch.ones(24, 9)), "the action alone"


def test_towns_are_in_colours_of_their_own_and_half_of_them_lively():
    plain, painted = City(601, 2, 8), town(601, 2, 8)
    assert isinstance(painted, Repainted) and [one.pavement for one in plain.scenes] == [one.pavement for one in painted.scenes]
    assert plain.scenes[0].parts != painted.scenes[0].parts
    known = {colour for palettes in scene.PALETTES.values() for palette in palettes for colour in palette}
    assert not known & {part[-1] for part in painted.scenes[0].parts[:2]}
    assert town(600).knobs != town(601).knobs
