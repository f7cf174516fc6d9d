"""The base model's school: what is told equals what is drawn, labels become vision tokens, and its phases run as one resumable sequence."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import TINY

from streamingvlm.base import config
from streamingvlm.context.dialogue import Dialogue
from streamingvlm.data import labelled
from streamingvlm.training import loop, pretrain, windowing
from streamingvlm.worlds.match import dataset, game, practice

VIDEO = config.Video(fps=2.0, chunk_s=1.0, max_pixels=56 * 56)
SCHOOL = config.Pretrain(seed=0, document_s=12, documents=1, shortest_s=2, longest_s=4, clips=2, asked=1, reading_steps=2, moment_steps=1,
                         clip_steps=2, language_lr=1e-3, matches=3, match_s=12, vision_steps=3, vision_batch=4, vision_lr=1e-3, both_steps=2,
                         both_lr=1e-3)


def cfg(**changes) -> SimpleNamespace:
    return SimpleNamespace(pretrain=dataclasses.replace(SCHOOL, **changes), model=TINY, video=VIDEO, run=config.Run())


def test_a_drawn_lesson_is_the_one_its_file_gives(tmp_path):
    match = game.Match(3, 8)
    dataset.render(match, tmp_path / "m.mp4")
    drawn = practice.drawn_video(match, VIDEO, game.EVENTS)
    loaded = labelled.load(match.row("m", str(tmp_path / "m.mp4")), VIDEO, tmp_path, game.EVENTS)
    told = practice.blind_video(match, VIDEO, game.EVENTS)
    assert drawn.words == loaded.words == told.words and drawn.labels == loaded.labels == told.labels
    assert (drawn.previous, drawn.query) == (loaded.previous, loaded.query)
    for a, b, c in zip(drawn.chunks, loaded.chunks, told.chunks, strict=True):
        assert (a.start_s, a.end_s, a.frames.shape) == (b.start_s, b.end_s, b.frames.shape) == (c.start_s, c.end_s, c.frames.shape)
        assert np.abs(a.frames.astype(int) - b.frames).mean() < 8 and not c.frames.any()


def test_told_labels_stand_where_vision_tokens_will(words):
    vlm, school = pretrain.trainer(cfg(), None)
    talk, lesson = Dialogue(vlm.tokenizer, 2), practice.blind_video(game.Match(3, 6), VIDEO, game.EVENTS)
    batch = windowing.collate(talk, [(lesson, windowing.window_spans(talk, lesson, 0, 6, None))], look=False)
    told = school.student._told(batch)
    assert len(told) == int(batch.is_vision.sum()) == 6 * 4
    for k, label in enumerate(lesson.labels):
        assert torch.equal(told[4 * k : 4 * k + 4], school.student.labels.weight[label].expand(4, -1))


def test_a_tower_that_hits_its_aim_is_told_apart_from_one_that_does_not(words):
    """`name`: vision tokens that are the label's embedding have no loss to speak of and full accuracy; those of another label have neither."""
    _, school = pretrain.trainer(cfg(), None)
    student, drawn = school.student, school.phases[3].draw(np.random.default_rng(0))
    right = student.labels.weight[drawn.events.repeat_interleave(drawn.sizes)]
    student._seen = lambda batch: right
    assert student(drawn, loop.NAME)[0] < 0.7 and student(drawn, loop.NAME)[1]["accuracy"] == 1
    student._seen = lambda batch: right.roll(1, 0) * -3
    assert student(drawn, loop.NAME)[0] > 3


def test_each_phase_teaches_its_part(words):
    _, school = pretrain.trainer(cfg(), None)
    seen = {}
    before = {name: p.clone() for name, p in school.student.named_parameters()}
    for row in school.run():
        now = {name: p.clone() for name, p in school.student.named_parameters()}
        seen.setdefault(row["phase"], set()).update(name for name in now if not torch.equal(now[name], before[name]))
        before = now
    assert list(seen) == ["reading", "moments", "clips", "vision", "both"]
    assert not any("visual" in name for name in seen["reading"] | seen["moments"] | seen["clips"]) and "labels.weight" in seen["moments"]
    assert seen["vision"] and all("visual" in name for name in seen["vision"])
    assert any("visual" in name for name in seen["both"]) and any("language_model" in name for name in seen["both"])


def test_the_base_never_meets_a_stream(words):
    """No row of any phase has a second video, a clock, a previous text or a ` ...`: words and pictures never alternate."""
    vlm, school = pretrain.trainer(cfg(), None)
    talk = Dialogue(vlm.tokenizer, 2)
    for phase in school.phases:
        for seed in range(3):
            for row in phase.draw(np.random.default_rng(seed)).ids.tolist():
                text = vlm.tokenizer.decode(row)
                assert row.count(talk.vision_start) <= 1 and "Time=" not in text and "previous" not in text and "..." not in text


def trainer(checkpoint) -> loop.Trainer:
    made = pretrain.trainer(cfg(), checkpoint)[1]
    made.every = 1
    return made


@pytest.fixture(scope="module")
def never_killed() -> tuple[loop.Trainer, list[dict]]:
    whole = trainer(None)
    return whole, list(whole.run())


@pytest.mark.parametrize("killed_after", [2, 6, 9])
def test_resumed_equals_uninterrupted(words, tmp_path, killed_after, never_killed):
    whole, rows = never_killed
    broken = trainer(tmp_path / "broken").run()
    for _ in range(killed_after):
        next(broken)
    resumed = trainer(tmp_path / "broken")
    assert len(list(resumed.run())) == len(rows) - killed_after and resumed.history == rows
    assert all(torch.equal(a, b) for a, b in zip(whole.student.parameters(), resumed.student.parameters(), strict=True))


def test_the_base_never_meets_a_match_of_the_pipelines_nor_a_held_out_pair():
    data = config.load().data
    own = {match.seed for _, _, match in dataset.matches(data)}
    assert max(own) < pretrain.SEEDS
    assert not any(game.held_out(game.Match(pretrain.SEEDS + i, 5).teams) for i in range(50))
