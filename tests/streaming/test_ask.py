"""A stream can be asked at any moment and goes on as if nobody had; what it is told, it keeps. On a tiny random model."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue, policy
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vlm import VLM, Prefill
from streamingvlm.streaming.ask import Question, ask_round
from streamingvlm.streaming.batching import run_batched
from streamingvlm.streaming.stream import Streamer

QUESTION = "what is the score?"
OPTIONS = ("lions", "bears", "1", "1 - 0", "goal left", "goal")  # some begin with others


def streamer(vlm: VLM, name: str = "streaming", cache=CACHE, recall: int = 0, stream=STREAM) -> Streamer:
    s = Streamer(vlm, policy.get(name), dataclasses.replace(cache, restart_rounds=4), VIDEO, stream, recall_rounds=recall)
    s.start("left lions right bears")
    return s


def cached(s: Streamer) -> tuple[torch.Tensor, torch.Tensor]:
    return s.kv.store[..., : s.kv.length, :].clone(), s.kv.positions[:, : s.kv.length].clone()


def state(s: Streamer) -> tuple:
    return s.spans[:], s.pending[:], s.next_position, s.round, s.stale, sorted(s.pixels), s.query, s.wish, s.now_s, s.kv.capacity


@pytest.mark.parametrize("name", sorted(policy.POLICIES))
def test_an_ask_changes_nothing(vlm, name):
    """Asked before the first chunk, after each, after the last: every word and every cached number is that of the stream nobody asks."""
    left_alone, asked = streamer(vlm, name, recall=2), streamer(vlm, name, recall=2)
    for k in range(6):
        before, held = state(asked), cached(asked)
        answer = asked.ask(QUESTION, options=OPTIONS[:4] if k % 3 == 2 else None, reencode_frames=min(k, 2) if k % 3 == 1 else 0, max_tokens=4)
        assert state(asked) == before and all(torch.equal(a, b) for a, b in zip(held, cached(asked), strict=True))
        assert answer.text in OPTIONS[:4] or k % 3 != 2
        assert asked.step("a", chunk(k)).line(timed=False) == left_alone.step("a", chunk(k)).line(timed=False)
        assert all(torch.equal(a, b) for a, b in zip(cached(left_alone), cached(asked), strict=True)), "bit for bit"


def test_a_store_that_grows_in_the_middle_shrinks_again(vlm):
    left_alone, asked = streamer(vlm, "full"), streamer(vlm, "full")
    for k in range(4):
        store, capacity = asked.kv.pool.store, asked.kv.capacity
        answer = asked.ask(f"{QUESTION} " * 90 if k % 2 else QUESTION)
        assert (answer.kv_tokens > capacity) == bool(k % 2) and asked.kv.pool.store is store
        assert asked.step("a", chunk(k)).line(timed=False) == left_alone.step("a", chunk(k)).line(timed=False)
        assert all(torch.equal(a, b) for a, b in zip(cached(left_alone), cached(asked), strict=True))


def cold(vlm: VLM, s: Streamer, ids: list[int]) -> torch.Tensor:
    """The logits behind all that `s` retains and then `ids`, every token computed afresh in one prefill."""
    spans = [*s.spans, dialogue.Span(dialogue.QUERY, s.round, tuple(ids))]
    flat, fresh = dialogue.ids_of(spans), vlm.new_cache()
    x = vlm.embed(flat)
    packed = [to_patches(chunk(span.round).frames) for span in s.spans if span.grid]
    if packed:
        mask = torch.tensor([span.grid is not None and 0 < i < len(span.ids) - 1 for span in spans for i in range(len(span.ids))])
        x[mask] = torch.cat(vlm.encode(packed))
    return vlm.logits(vlm.forward([Prefill(x, torch.from_numpy(s.dialogue.positions(spans)), fresh)])[0][-1])


@torch.inference_mode()
@pytest.mark.parametrize(("name", "chunks"), [("streaming", 0), ("streaming", 3), ("full", 5), ("overlap", 6)])
def test_an_answer_is_that_of_a_cold_prefill(vlm, name, chunks):
    """Before the first eviction, and after any of them where everything retained is computed again: the retained ids and the question, read at
    once, give the same words and the same likelihoods."""
    s = streamer(vlm, name)
    for k in range(chunks):
        s.step("a", chunk(k))
    talk = s.dialogue
    ids = [*(talk.newline if chunks else ()), talk.im_start, *talk.user, *talk.encode(f" {QUESTION}"), talk.im_end, *talk.newline,
           talk.im_start, *talk.assistant]
    said: list[int] = []
    while len(said) < 4 and (token := int(cold(vlm, s, ids + said).argmax())) not in s.dialogue.stops:
        said.append(token)
    answer = s.ask(QUESTION, max_tokens=4)
    assert answer.text == s.dialogue.decode(said).removesuffix(dialogue.SILENCE).strip() and answer.tokens == len(said)
    if chunks in {3, 6}:
        options = ("goal left", "goal right", "goal", "1 - 0", "1 - 2")
        for option, found in s.ask(QUESTION, options=options).options.items():
            words, expected = talk.encode(f" {option}"), 0.0
            for n, token in enumerate(words):
                expected += float(cold(vlm, s, [*ids, *words[:n]]).log_softmax(-1)[token])
            if option == "goal":  # others go on from it: here it must end
                expected += float(cold(vlm, s, [*ids, *words]).log_softmax(-1)[[talk.silence[0], *talk.stops]].logsumexp(0))
            assert found == pytest.approx(expected, abs=1e-3)


def test_what_is_constrained_is_one_of_the_options_and_probabilities_add_up(vlm):
    s = streamer(vlm)
    for k in range(5):
        s.step("a", chunk(k))
    for how, number in itertools.product(("likelihood", "letter"), (2, 6)):
        answer = s.ask(QUESTION, options=OPTIONS[:number], constrained=how)
        assert answer.text in OPTIONS[:number] and list(answer.options) == list(OPTIONS[:number])
        assert answer.options[answer.text] == max(answer.options.values())
        assert sum(torch.tensor(list(answer.options.values())).exp()) <= 1 + 1e-5, "no two options are the same event"
    free = s.ask(QUESTION, max_tokens=1)
    assert s.ask(QUESTION, options=(free.text or "...", "otters")).text in {free.text, "otters", "..."} and free.tokens == 1
    assert answer.ms["ttft"] == pytest.approx(answer.ms["encode"] + answer.ms["prefill"], abs=2e-3) and answer.ms["total"] >= answer.ms["ttft"] > 0


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_batched_streams_are_asked_together_and_one_of_them_alone(vlm, mode):
    """On streams that share a pool, also by the static decode step: each answers as it does alone, and none of them is changed."""
    shared = VLM(vlm.hf, vlm.tokenizer, mode)
    names = ["streaming", "full", "window"]
    alone, together, quiet = ([streamer(shared, name) for name in names] for _ in range(3))
    for k in range(3):
        for group in (together, quiet):
            run_batched(shared, [s.round_of("a", chunk(k + 10 * i)) for i, s in enumerate(group)])
        for i, s in enumerate(alone):
            s.step("a", chunk(k + 10 * i))
        answers = [a.text for a in run_batched(shared, [ask_round(s, Question(QUESTION, max_tokens=4)) for s in together])]
        assert answers == [s.ask(QUESTION, max_tokens=4).text for s in alone] and together[0].ask(QUESTION, max_tokens=4).text == answers[0]
        for a, b in zip(together, quiet, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(cached(a), cached(b), strict=True))


def test_frames_shown_again_stand_in_the_question_as_one_clip(vlm, monkeypatch):
    s = streamer(vlm, recall=2)
    for k in range(5):
        s.step("a", chunk(k))
    fed, plain = [], s.ask(QUESTION)
    monkeypatch.setattr(vlm, "forward", lambda feeds, call=vlm.forward: fed.append(feeds[0]) or call(feeds))
    again = s.ask(QUESTION, reencode_frames=2)
    assert again.kv_tokens - again.tokens > plain.kv_tokens - plain.tokens and sorted(s.pixels) == [3, 4]
    pads = int((fed[0].positions[0].diff() == 0).sum())
    assert pads == 2 * 6 - 2, "two slices of time, of six tokens each"
    with pytest.raises(UserError, match="last 2 chunks"):
        s.ask(QUESTION, reencode_frames=3)


def test_a_saved_stream_answers_and_wishes_the_same(vlm, tmp_path):
    s = streamer(vlm, recall=1)
    s.tell("only goals")
    for k in range(5):
        s.step("a", chunk(k))
    s.tell("no names")
    s.save(tmp_path / "s.pt")
    resumed = Streamer(vlm, policy.get("streaming"), s.retention, VIDEO, STREAM, recall_rounds=1)
    resumed.load(tmp_path / "s.pt")
    answers = [one.ask(QUESTION, reencode_frames=1).line(timed=False) for one in (s, resumed)]
    said = [one.step("a", chunk(5)).line(timed=False) for one in (s, resumed)]
    assert answers[0] == answers[1] and said[0] == said[1] and wishes(resumed) == [" only goals", " no names"]


def wishes(s: Streamer) -> list[str]:
    return [s.dialogue.decode(span.ids) for span in s.spans if span.role == dialogue.WISH]


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_newest_wish_stays_with_the_pinned_query(vlm, rounds):
    s = streamer(vlm, cache=dataclasses.replace(CACHE, vision_rounds=rounds))
    for k in range(12):
        if k == 2:
            s.tell("  from now on only goals ")
            assert wishes(s) == [], "it joins the next user's turn"
        if k == 6:
            s.tell("only saves")
        s.step("a", chunk(k))
        both = k == 6 and rounds == 3  # the older one leaves with its round
        assert wishes(s) == [" from now on only goals"] * (2 <= k < 6 or both) + [" only saves"] * (k >= 6)
        assert s.kv.positions[:, : s.kv.length].tolist() == s.dialogue.positions(s.spans)[:, : s.kv.length].tolist()
    assert wishes(s) == [" only saves"] and sum(span.role == dialogue.QUERY and bool(span.ids) for span in s.spans) == 1


def test_a_wish_leaves_with_its_round_unpinned_and_comes_again_where_a_stream_begins_again(vlm):
    released, window = streamer(vlm, "upstream"), streamer(vlm, "window")
    for k in range(6):
        for s in (released, window):
            if k == 1:
                s.tell("only goals")
            s.step("a", chunk(k))
    assert wishes(released) == [] and wishes(window) == [" only goals"] and window.spans[4].round == 4


def test_what_cannot_be_asked_is_said_in_a_sentence_and_changes_nothing(vlm):
    s = streamer(vlm)
    s.step("a", chunk(0))
    before = state(s)
    for text, more in ((" ", {}), ("who?", {"options": ["a"]}), ("who?", {"options": ["a", "a "]}), ("who?", {"options": ["a", ""]}),
                       ("who?", {"options": ["a", "b"], "constrained": "dice"}), ("who?", {"max_tokens": 0}), ("who?", {"reencode_frames": 1}),
                       ("who?", {"options": [str(n) for n in range(27)], "constrained": "letter"})):
        with pytest.raises(UserError):
            s.ask(text, **more)
    with pytest.raises(UserError, match="words"):
        s.tell(" ")
    steps = ask_round(s, Question("who?"))
    next(steps)
    steps.close()  # whoever asked went away in the middle
    assert state(s) == before
