"""Overlapped-chunk SFT: windows look like streaming, the loss sees the assistant only, and a killed run ends where an unkilled one does."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from conftest import CACHE, STREAM, TINY, VIDEO, chunk
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm import arena, config, dialogue, model, policy, sft
from streamingvlm.dialogue import Dialogue, ids_of
from streamingvlm.stream import Streamer

SFT = config.Sft(seed=0, window_s=4, stride_s=2, warmup_steps=3, warmup_batch=4, warmup_lr=1e-3, steps=4, batch=2, lr=1e-3, checkpoint_every=2)


def lesson(seconds: int = 12, seed: int = 3) -> sft.Lesson:
    match = arena.Match(seed, seconds)
    labels = [arena.EVENTS.index(second.event) for second in match.timeline]
    return sft.Lesson([chunk(k) for k in range(seconds)], [" ".join(s.words) for s in match.timeline], labels, match.previous_text, "Go")


def cfg(**changes) -> SimpleNamespace:
    return SimpleNamespace(sft=dataclasses.replace(SFT, **changes), cache=CACHE, video=VIDEO, model=TINY)


@given(chunks=st.integers(1, 200), window=st.integers(1, 30), stride=st.integers(1, 30))
def test_windows_reach_both_ends_and_overlap(chunks, window, stride):
    starts = sft.window_starts(chunks, window, min(stride, window))
    assert starts[0] == 0 and max(starts) + window >= chunks
    assert all(b - a <= min(stride, window) for a, b in itertools.pairwise(starts)), "no second is skipped"


def test_a_window_is_what_the_stream_holds_at_that_moment(vlm):
    """Stream the true words up to a round; the spans then kept, with one round per window, are the window's own, to the token."""
    talk, taught = Dialogue(vlm.tokenizer, 2), lesson(14)
    s = Streamer(vlm, policy.get("streaming"), CACHE, VIDEO, dataclasses.replace(STREAM, query=taught.query, max_new_tokens=30))
    s.start(taught.previous)
    for k in range(14):
        s._speak = lambda hidden, k=k: speak(s, talk.spoken(taught.words[k]))
        s.step("test", taught.chunks[k])
        first = max(0, k - CACHE.vision_rounds + 1)
        assert ids_of(s.spans) == ids_of(sft.window_spans(talk, taught, first, k + 1, CACHE))


def speak(s: Streamer, ids):
    """Put true words into the stream's mouth."""
    for token in ids:
        yield from s._feed([dialogue.Span(dialogue.SAID, s.round, (token,))], {})
    answer = s.dialogue.answer(s.round, ids)
    s.spans += answer
    s.tail = answer[-1:]
    return list(ids)


def test_the_loss_falls_on_the_assistant_only(vlm):
    talk, taught = Dialogue(vlm.tokenizer, 2), lesson()
    batch = sft.collate(talk, [(taught, sft.window_spans(talk, taught, a, a + 4, CACHE)) for a in (0, 6)])
    for b, start in enumerate((0, 6)):
        learned = batch.labels[b][batch.labels[b] != -100].tolist()
        assert learned == [token for words in taught.words[start : start + 4] for token in (*talk.spoken(words), talk.im_end)]
    assert not batch.is_vision[batch.labels != -100].any()


def test_padding_does_not_change_the_loss(vlm):
    talk, taught = Dialogue(vlm.tokenizer, 2), lesson()
    pair = [(taught, sft.window_spans(talk, taught, a, b, CACHE)) for a, b in ((0, 2), (4, 9))]
    with torch.no_grad():
        alone = [sft.collate(talk, [one]) for one in pair]
        counts = [int((batch.labels != -100).sum()) for batch in alone]
        expected = sum(sft.loss_of(vlm, batch) * n for batch, n in zip(alone, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(sft.loss_of(vlm, sft.collate(talk, pair)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("killed_after", [1, 2, 5, 6])
def test_resumed_equals_uninterrupted(words, tmp_path, killed_after):
    lessons = [lesson(), lesson(seed=4)]

    def trainer(where) -> sft.Trainer:
        return sft.Trainer(model.build(TINY, words), lessons, cfg(), sft.Checkpoint(where / "latest.pt", {"recipe": 1}))

    whole = trainer(tmp_path / "whole")
    rows = list(whole.run())
    broken = trainer(tmp_path / "broken").run()
    for _ in range(killed_after):
        next(broken)
    resumed = trainer(tmp_path / "broken")
    assert len(list(resumed.run())) <= len(rows) - killed_after // 2 * 2
    assert resumed.history == rows
    for a, b in zip(whole.vlm.hf.parameters(), resumed.vlm.hf.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_recipe_is_not_taken(tmp_path):
    sft.Checkpoint(tmp_path / "x.pt", {"lr": 1}).save({"step": 4})
    assert sft.Checkpoint(tmp_path / "x.pt", {"lr": 1}).load() == {"step": 4}
    assert sft.Checkpoint(tmp_path / "x.pt", {"lr": 2}).load() is None


def test_training_learns_something(words):
    trainer = sft.Trainer(model.build(TINY, words), [lesson()], cfg(warmup_steps=0, steps=30, lr=3e-3))
    losses = [row["loss"] for row in trainer.run()]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
