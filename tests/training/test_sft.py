"""Overlapped-chunk SFT: windows look like streaming, the loss sees the assistant only, and a killed run ends where an unkilled one does."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import CACHE, STREAM, TINY, VIDEO, chunk
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue, policy
from streamingvlm.context.dialogue import Dialogue, ids_of
from streamingvlm.data import labelled
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.models.qwen25 import loading
from streamingvlm.streaming.stream import Streamer
from streamingvlm.training import loop, sft, windowing
from streamingvlm.worlds.match import game
from streamingvlm.worlds.match.task import MATCH

SFT = config.Sft(seed=0, base="", window_s=4, stride_s=2, starts="grid", questions=0.0, steps=4, lr=1e-3, anneal_steps=3,
                 anneal_lr=1e-4, batch=2, accumulate=1, packed=False, tune="full", lora_rank=2, tune_vision=True, dtype="float32", checkpoint_every=2)


def lesson(seconds: int = 12, seed: int = 3) -> LabelledVideo:
    match = game.Match(seed, seconds)
    labels = [game.EVENTS.index(second.event) for second in match.timeline]
    return LabelledVideo([chunk(k) for k in range(seconds)], [" ".join(s.words) for s in match.timeline], labels, match.previous_text, "Go")


def cfg(**changes) -> SimpleNamespace:
    return SimpleNamespace(sft=dataclasses.replace(SFT, **changes), cache=CACHE, video=VIDEO, model=TINY)


def taught(words, where=None, recipe=1, **changes) -> loop.Trainer:
    """A trainer on two short matches and one clean one."""
    vlm = loading.build(TINY, words)
    checkpoint = where and loop.Checkpoint(where / "latest.pt", {"recipe": recipe})
    return sft.trainer(vlm, [lesson(), lesson(seed=4)], [lesson(seed=5)], cfg(**changes), checkpoint)


def loss_of(vlm, batch) -> torch.Tensor:
    return loop.CommentaryLoss(vlm.hf, len(game.EVENTS))(batch)[0]


@given(chunks=st.integers(1, 200), window=st.integers(1, 30), stride=st.integers(1, 30))
def test_windows_reach_both_ends_and_overlap(chunks, window, stride):
    starts = windowing.window_starts(chunks, window, min(stride, window))
    assert starts[0] == 0 and max(starts) + window >= chunks
    assert all(b - a <= min(stride, window) for a, b in itertools.pairwise(starts)), "no second is skipped"


def test_a_window_is_what_the_stream_holds_at_that_moment(vlm):
    """Stream the true words up to a round; the spans then kept, with one round per window, are the window's own, to the token."""
    talk, told = Dialogue(vlm.tokenizer, 2), lesson(14)
    s = Streamer(vlm, policy.get("streaming"), CACHE, VIDEO, dataclasses.replace(STREAM, query=told.query, max_new_tokens=30))
    s.start(told.previous)
    for k in range(14):
        s._speak = lambda hidden, k=k: speak(s, talk.spoken(told.words[k]))
        s.step("test", told.chunks[k])
        first = max(0, k - CACHE.vision_rounds + 1)
        assert ids_of(s.spans) == ids_of(windowing.window_spans(talk, told, first, k + 1, CACHE))


def speak(s: Streamer, ids):
    """Put true words into the stream's mouth."""
    for token in ids:
        yield from s._feed([dialogue.Span(dialogue.SAID, s.round, (token,))], {})
    answer = s.dialogue.answer(s.round, ids)
    s.spans += answer
    s.pending = answer[-1:]
    return list(ids)


def test_a_question_in_a_window_stands_where_an_ask_puts_it_and_its_answer_is_true(vlm, monkeypatch):
    talk, told, rng = Dialogue(vlm.tokenizer, 2), lesson(14), np.random.default_rng(0)
    drawn = [sft.Windows(talk, [told], cfg(questions=1.0))._asked(rng, told, 6, 10, 0.0) for _ in range(20)]
    clips = [spans for spans in drawn if not any(span.role == dialogue.TIME for span in spans)]
    assert 0 < len(clips) < 20
    spans = next(spans for spans in drawn if spans not in clips and spans[-1].round > 7)
    end = spans[-1].round
    at = next(i for i, span in enumerate(spans) if span.role == dialogue.ANSWER_OPEN and span.round == end)
    question, answer = (talk.decode(spans[i].ids).strip() for i in (at - 2, at + 1))
    assert (question, answer) in MATCH.told(told, 0, end)[1]
    kept, settings = dataclasses.replace(CACHE, vision_rounds=end - 6), dataclasses.replace(STREAM, query=told.query, max_new_tokens=30)
    s = Streamer(vlm, policy.get("streaming"), kept, VIDEO, settings)
    s.start(told.previous)
    for k in range(end):
        s._speak = lambda hidden, k=k: speak(s, talk.spoken(told.words[k]))
        s.step("test", told.chunks[k])
    before, asked = ids_of(s.spans), []
    monkeypatch.setattr(Streamer, "_feed", lambda self, fed, vision, feed=Streamer._feed: asked.append(ids_of(fed)) or feed(self, fed, vision))
    del s._speak
    s.ask(question)
    assert before[: -1] + asked[0] == ids_of(spans[: at + 1]), "the last token said is read along with the question"


def test_the_loss_falls_on_the_assistant_only(vlm):
    talk, told = Dialogue(vlm.tokenizer, 2), lesson()
    batch = windowing.collate(talk, [(told, windowing.window_spans(talk, told, a, a + 4, CACHE)) for a in (0, 6)])
    for b, start in enumerate((0, 6)):
        learned = batch.labels[b][batch.labels[b] != -100].tolist()
        assert learned == [token for words in told.words[start : start + 4] for token in (*talk.spoken(words), talk.im_end)]
    assert not batch.is_vision[batch.labels != -100].any()


def test_padding_does_not_change_the_loss(vlm):
    talk, told = Dialogue(vlm.tokenizer, 2), lesson()
    pair = [(told, windowing.window_spans(talk, told, a, b, CACHE)) for a, b in ((0, 2), (4, 9))]
    with torch.no_grad():
        alone = [windowing.collate(talk, [one]) for one in pair]
        counts = [int((batch.labels != -100).sum()) for batch in alone]
        expected = sum(loss_of(vlm, batch) * n for batch, n in zip(alone, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(loss_of(vlm, windowing.collate(talk, pair)), expected, rtol=1e-5, atol=1e-5)


def test_what_was_seen_once_gives_the_same_loss_to_the_bit_and_only_where_the_tower_does_not_learn(tmp_path, words):
    told = lesson()
    row = {"id": "m", "words": [], "frames": [], "previous_text": "", "query": "", "start_s": 0.0, "end_s": 12.0}
    np.save(tmp_path / "m.frames.npy", np.stack([one.frames for one in told.chunks]))
    np.save(tmp_path / "m.times.npy", np.array([[one.start_s, one.end_s, *one.times_s] for one in told.chunks]))
    loading.build(TINY, words).save(tmp_path / "base")
    for learns, there in ((True, False), (False, True)):
        sft.look_once(["m"], SimpleNamespace(run=config.Run(device="cpu"), **vars(cfg(base="base", tune_vision=learns))), tmp_path, tmp_path)
        seen = labelled.mapped(row, VIDEO, tmp_path).seen
        assert (seen is not None) == there
    vlm = loading.load(tmp_path / "base", torch.device("cpu"))
    talk = Dialogue(vlm.tokenizer, 2)
    batches = [windowing.collate(talk, [(one, windowing.window_spans(talk, one, a, a + 4, CACHE)) for a in (0, 6)])
               for one in (told, dataclasses.replace(told, seen=seen))]
    assert batches[1].patches is None
    with torch.no_grad():
        assert torch.equal(*(loss_of(vlm, batch) for batch in batches))


def test_packed_windows_see_only_themselves(vlm):
    talk, told = Dialogue(vlm.tokenizer, 2), lesson()
    windows = [(told, windowing.window_spans(talk, told, a, b, CACHE)) for a, b in ((0, 3), (4, 9), (2, 4))]
    with torch.no_grad():
        padded, packed = (loss_of(vlm, windowing.collate(talk, windows, packed=p)) for p in (False, True))
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=["full", "lora"])
def never_killed(request, words, tmp_path_factory) -> tuple[str, loop.Trainer, list[dict]]:
    """What learns, its trainer behind the last step, and the rows that came."""
    whole = taught(words, tmp_path_factory.mktemp("whole"), tune=request.param)
    return request.param, whole, list(whole.run())


@pytest.mark.parametrize("killed_after", [1, 2, 4, 5])
def test_resumed_equals_uninterrupted(words, tmp_path, killed_after, never_killed):
    """Before the first checkpoint, at one, where a phase ends, and between two."""
    tune, whole, rows = never_killed
    assert [row["phase"] for row in rows] == ["windows"] * 4 + ["annealing"] * 3
    broken = taught(words, tmp_path / "broken", tune=tune).run()
    for _ in range(killed_after):
        next(broken)
    resumed = taught(words, tmp_path / "broken", tune=tune)
    assert len(list(resumed.run())) <= len(rows) - killed_after // 2 * 2
    assert resumed.history == rows
    for a, b in zip(whole.student.parameters(), resumed.student.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_recipe_is_not_taken(tmp_path):
    loop.Checkpoint(tmp_path / "x.pt", {"lr": 1}).save({"step": 4})
    assert loop.Checkpoint(tmp_path / "x.pt", {"lr": 1}).load() == {"step": 4}
    assert loop.Checkpoint(tmp_path / "x.pt", {"lr": 2}).load() is None


def test_training_learns_something(words):
    losses = [row["loss"] for row in taught(words, steps=30, lr=3e-3).run()]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def changed(trainer: loop.Trainer) -> set[str]:
    """Names of the weights that training changed."""
    before = {name: p.clone() for name, p in trainer.student.hf.named_parameters()}
    trainer.finish = lambda: None  # merged, LoRA layers would be gone
    list(trainer.run())
    return {name for name, p in trainer.student.hf.named_parameters() if not torch.equal(p, before[name])}


def test_only_what_the_params_name_learns(words):
    frozen, whole, lora = (changed(taught(words, **how)) for how in ({"tune_vision": False}, {"tune_vision": True}, {"tune": "lora"}))
    assert not any("visual" in name for name in frozen) and any("layers.0.mlp" in name for name in frozen)
    assert any("visual" in name for name in whole)
    assert lora and all("lora_" in name for name in lora)


def test_lora_is_merged_into_a_plain_model_that_computes_the_same(words, tmp_path):
    vlm = loading.build(TINY, words)
    names = set(vlm.hf.state_dict())
    school = sft.trainer(vlm, [lesson()], [lesson(seed=5)], cfg(tune="lora", lr=1e-2))
    merge, school.finish = school.finish, lambda: None
    list(school.run())
    talk = Dialogue(vlm.tokenizer, 2)
    batch = windowing.collate(talk, [(lesson(), windowing.window_spans(talk, lesson(), 0, 4, CACHE))])
    with torch.no_grad():
        before = loss_of(vlm, batch)
        merge()
        torch.testing.assert_close(loss_of(vlm, batch), before, rtol=1e-4, atol=1e-4)
    assert set(vlm.hf.state_dict()) == names
    vlm.save(tmp_path)
    assert torch.equal(loading.load(tmp_path, vlm.device).hf.lm_head.weight, vlm.hf.lm_head.weight)


def test_accumulated_steps_are_the_mean_of_their_parts(words):
    """Two micro batches of one step have the gradient of both: the first loss logged is their mean."""
    parts = taught(words, accumulate=2)
    phase = parts.phases[0]
    with torch.no_grad():
        losses = [float(parts.student(phase.draw(np.random.default_rng([0, 0, micro, 0])))[0]) for micro in (0, 1)]
    assert next(parts.run())["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_without_overlap_every_second_is_in_one_window_and_random_starts_leave_the_grid(words):
    talk = Dialogue(loading.build(TINY, words).tokenizer, 2)
    tiled = sft.Windows(talk, [lesson(12)], cfg(stride_s=4))
    assert tiled.at == [(0, 0), (0, 4), (0, 8)]
    ids = lambda starts: {tuple(sft.Windows(talk, [lesson(12)], cfg(stride_s=4, starts=starts, batch=1)).draw(  # noqa: E731
        np.random.default_rng(i)).events.tolist()) for i in range(40)}
    assert len(ids("random")) > len(ids("grid")) == 3


def test_annealing_without_clean_matches_is_one_clear_sentence(words):
    with pytest.raises(UserError, match="clean_matches"):
        sft.trainer(loading.build(TINY, words), [lesson()], [], cfg())


def test_mixed_precision_keeps_float32_weights_and_learns(words):
    mixed = taught(words, dtype="bfloat16", steps=10, lr=5e-3)
    losses = [row["loss"] for row in mixed.run()]
    assert all(p.dtype == torch.float32 for p in mixed.student.parameters())
    assert sum(losses[-8:-3]) < 0.8 * sum(losses[:5])
    full = next(taught(words, steps=10, lr=5e-3).run())["loss"]
    assert losses[0] != full and losses[0] == pytest.approx(full, rel=0.02), "the same loss, computed more roughly"
