"""What is recorded of a cache is what is in it: who enters, stays, moves and leaves, where it stands, and where the model looked."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue, policy
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.reporting import cache_figures, explorer
from streamingvlm.streaming import trace
from streamingvlm.streaming.stream import Streamer
from streamingvlm.streaming.trace import GROUPS, SINK, VISION, WINDOW, WORDS, AttentionRecorder
from streamingvlm.workbench import cache_explorer

ROW = {"id": "test", "previous_text": "left lions right bears", "query": "Commentate on this match", "start_s": 0.0, "end_s": 12.0, "words": []}
CFG = config.Config({"cache": CACHE, "video": VIDEO, "stream": STREAM})
CHUNKS = 12


@functools.cache
def _recorded(vlm, name: str, rounds: int) -> tuple[trace.Moment, ...]:
    return tuple(trace.trace_stream(vlm, name, CFG.having("cache", vision_rounds=rounds), ROW, [chunk(k) for k in range(CHUNKS)]))


def record(vlm, name: str, rounds: int = CACHE.vision_rounds) -> list[trace.Moment]:
    """Twelve seconds under a policy, recorded once for all tests. With a single round kept, tokens leave that were never cached, and a word that has
    no keys yet is fed before it moves."""
    return list(_recorded(vlm, name, rounds))


def positions(moment: trace.Moment) -> np.ndarray:
    return np.array([cell.position for cell in moment.cells]).T  # [3, S]


@pytest.mark.parametrize(("name", "rounds"), [*((name, 3) for name in sorted(policy.POLICIES)), ("streaming", 1), ("growing", 1)])
def test_each_token_enters_once_stays_and_leaves_once(vlm, name, rounds):
    moments = record(vlm, name, rounds)
    for before, now in zip([None, *moments], moments, strict=False):
        here = [cell.number for cell in now.cells]
        assert len(set(here)) == len(here) == now.comment.kv_tokens
        was = {cell.number for cell in before.cells} if before else set()
        leaves = before.leaves if before else set()
        assert leaves <= was and set(here) & was == was - leaves, "who is said to leave leaves, and nobody else"
        assert {cell.number for cell in now.cells if cell.entered == now.comment.chunk} == set(here) - was
    for number, (entered, left) in trace.lives(moments).items():
        there = [moment.comment.chunk for moment in moments if number in {cell.number for cell in moment.cells}]
        assert there == list(range(entered, CHUNKS if left is None else left)), "once gone, nobody comes back"


@pytest.mark.parametrize("name", sorted(policy.POLICIES))
def test_a_token_keeps_its_name_and_its_word(vlm, name):
    words: dict[int, str] = {}
    for moment in record(vlm, name):
        for cell in moment.cells:
            assert words.setdefault(cell.number, cell.text) == cell.text


@pytest.mark.parametrize("name", sorted(policy.POLICIES))
def test_watching_changes_nothing(vlm, name):
    streamer = Streamer(vlm, policy.get(name), CACHE, VIDEO, STREAM)
    streamer.start(ROW["previous_text"], ROW["query"])
    unwatched = [streamer.step("test", chunk(k)) for k in range(CHUNKS)]
    moments = record(vlm, name)
    assert [moment.comment.line(timed=False) for moment in moments] == [comment.line(timed=False) for comment in unwatched]
    assert positions(moments[-1]).tolist() == streamer.kv.positions[:, : streamer.kv.length].tolist()
    assert [cell.text for cell in moments[-1].cells] == [vlm.tokenizer.decode([id]) for id in dialogue.ids_of(streamer.spans)[: streamer.kv.length]]


def test_the_groups_part_the_cache_and_streaming_keeps_its_windows(vlm):
    moments = record(vlm, "streaming")
    for moment in moments:
        held = moment.held()
        assert set(held) == set(GROUPS) and sum(held.values()) == moment.comment.kv_tokens
        assert held[SINK] <= CACHE.text_sink and held[WINDOW] <= CACHE.text_window
        rounds = {cell.round for cell in moment.cells if cell.group == VISION}
        assert rounds == set(range(max(0, moment.comment.chunk - CACHE.vision_rounds + 1), moment.comment.chunk + 1))
    held = moments[-1].held()
    assert (held[SINK], held[WINDOW]) == (CACHE.text_sink, CACHE.text_window), "the random model talks enough to fill both"
    sinks = [[cell.number for cell in moment.cells if cell.group == SINK] for moment in moments[CACHE.vision_rounds + 2 :]]
    assert sinks == [sinks[0]] * len(sinks)


def test_words_of_a_round_that_leaves_join_the_previous_text(vlm):
    before, after = record(vlm, "streaming")[5:7]
    words = [cell.number for cell in before.cells if cell.group == WORDS and cell.round == 3 and cell.role == dialogue.SAID]
    moved = [cell.number for cell in after.cells if cell.group == WINDOW]
    assert words and moved[-len(words) :] == words and not before.leaves & set(words)


def test_full_forgets_nothing_and_one_life_is_of_what_was_forgotten(vlm):
    moments = record(vlm, "full")
    assert not any(moment.leaves or moment.again for moment in moments) and trace.one_life(moments) == []
    way = trace.one_life(record(vlm, "streaming"))
    assert way[0][2].group == WORDS and way[-1][2].group == WINDOW and len({cell.number for _, _, cell in way}) == 1
    assert [second for second, _, _ in way] == list(range(way[0][0], way[0][0] + len(way)))


def test_positions_are_contiguous_under_streaming_and_grow_under_growing(vlm):
    for moment in record(vlm, "streaming"):
        taken = np.unique(positions(moment))
        assert taken.tolist() == list(range(taken[-1] + 1))
    moments = record(vlm, "growing")
    furthest = [int(positions(moment).max()) for moment in moments]
    assert furthest == sorted(set(furthest))
    for before, now in itertools.pairwise(moments):
        places = {cell.number: cell.position for cell in now.cells}
        assert all(places.get(cell.number, cell.position) == cell.position for cell in before.cells)
        joined = places.keys() - {cell.number for cell in before.cells}
        assert min(min(places[number]) for number in joined) == positions(before).max() + 1, "they go on behind the largest"
    assert len(np.unique(positions(moments[-1]))) < furthest[-1], "and what left has left holes"


def test_what_is_computed_again(vlm):
    assert not any(moment.again for moment in record(vlm, "streaming"))
    for before, now in itertools.pairwise(record(vlm, "overlap")):
        assert now.again == {cell.number for cell in before.cells} - before.leaves
    text = {cell.role for moment in record(vlm, "streaming_text") for cell in moment.cells if cell.number in moment.again}
    assert text == {dialogue.PREVIOUS, dialogue.PREVIOUS_CLOSE}


@pytest.mark.parametrize("name", ["streaming", "full", "overlap", "growing", "streaming_all_text"])
def test_attention_sums_to_one_and_groups_share_it(vlm, name):
    for moment in record(vlm, name):
        assert moment.looks.shape == (len(moment.spoken), len(moment.cells)) and len(moment.spoken) >= moment.comment.tokens
        np.testing.assert_allclose(moment.looks.sum(axis=1), 1, atol=1e-5)
        assert set(moment.shares()) == set(GROUPS) and sum(moment.shares().values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("name", "rounds"), [("full", 10), ("overlap", 3)])
def test_attention_is_that_of_transformers(vlm, name, rounds):
    """Each spoken token's weights over the cache, against transformers' eager attention over the same tokens at once: before any eviction, and
    after many of them where every chunk is computed again."""
    s = Streamer(AttentionRecorder(vlm), policy.get(name), dataclasses.replace(CACHE, vision_rounds=rounds), VIDEO, STREAM)
    s.start(ROW["previous_text"], ROW["query"])
    moment = list(trace.trace_moments(s, "test", [chunk(k) for k in range(7)]))[-1]
    S, W = moment.looks.shape[1], moment.looks.shape[0]
    tokens = [(span, i) for span in s.spans for i in range(len(span.ids))][:S]
    with torch.inference_mode():
        x = vlm.embed(dialogue.ids_of(s.spans)[:S])
        seen = torch.cat(vlm.encode([to_patches(chunk(span.round).frames) for span in s.spans if span.grid]))
        x[[span.grid is not None and 0 < i < len(span.ids) - 1 for span, i in tokens]] = seen
        vlm.hf.set_attn_implementation("eager")
        try:
            weights = vlm.hf.model.language_model(inputs_embeds=x[None], position_ids=s.kv.positions[:, None, :S], output_attentions=True).attentions
        finally:
            vlm.hf.set_attn_implementation("sdpa")
    reference = torch.stack(weights)[:, 0].mean((0, 1))[S - W :]  # [L, 1, H, S, S] -> [W, S]: the W tokens fed last decided
    np.testing.assert_allclose(moment.looks, reference.numpy(), atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 3])
def test_each_spoken_token_is_decided_one_token_behind_the_last(vlm, rounds):
    """The w-th look sees all that was cached before the w-th spoken token, which is the next cell; the last one spoken has no cell yet."""
    for moment in record(vlm, "streaming", rounds):
        W, S = moment.looks.shape
        assert (moment.looks > 0).sum(axis=1).tolist() == list(range(S - W + 1, S + 1))
        assert [cell.text for cell in moment.cells[S - W + 1 :]] == list(moment.spoken[:-1])
        assert min(moment.comment.tokens + 1, STREAM.max_new_tokens) == W


def test_the_page_of_a_second_shows_every_token_and_escapes_what_was_said(vlm):
    moments = record(vlm, "streaming")
    evil = dataclasses.replace(moments[-1].cells[0], text="<script>alert(1)</script>")
    moments[-1] = dataclasses.replace(moments[-1], cells=(evil, *moments[-1].cells[1:]),
                                      comment=dataclasses.replace(moments[-1].comment, text="<img src=x>"))
    html = cache_explorer.page(moments, CHUNKS - 1, chunk(0).frames[-1], "<b>true</b>")
    assert html.count("<b class=\"") == moments[-1].comment.kv_tokens + len(moments[-2].leaves)
    assert "<script" not in html and "<img src=x" not in html and "<b>true" not in html and "http" not in html


def test_the_explorer_follows_its_switches(vlm):
    view = cache_explorer.Explorer(vlm, CFG, ROW, [chunk(k) for k in range(CHUNKS)])
    first = view.view.value
    view.chunk.value = CHUNKS - 1
    assert view.view.value != first and len(view.word.options) == len(view.moments[-1].spoken) + 1
    view.policy.value, view.windows["vision_rounds"].value = "no_sink", 2
    assert view.moments[-1].held()[SINK] == 0
    assert len({cell.round for cell in view.moments[-1].cells if cell.group == VISION}) == 2
    assert len(view.films) == 3, "each setting is recorded once"
    view.windows["vision_rounds"].value = CACHE.vision_rounds
    assert len(view.films) == 3


@pytest.mark.filterwarnings("ignore:Glyph")  # a random model speaks characters that no font has
def test_the_films_are_the_same_bytes_twice(vlm, tmp_path: Path):
    films = {name: record(vlm, name) for name in ("streaming", "full")}
    for draw in (cache_figures.cache, cache_figures.attention, cache_figures.positions):
        once, again = draw(films, tmp_path / "a"), draw(films, tmp_path / "b")
        assert once.read_bytes() == again.read_bytes() and once.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="two recorded streams"):
        cache_figures.cache({"streaming": films["streaming"]}, tmp_path)


def test_the_page_without_a_kernel_holds_every_cell_of_every_second(vlm, tmp_path: Path):
    films, frames, truth = {"growing": record(vlm, "growing")}, [chunk(k).frames[-1] for k in range(CHUNKS)], ["</script>"] * CHUNKS
    explorer.write(tmp_path / "page.html", "left < right", films, {"growing": "holes stay"}, frames, truth)
    text = (tmp_path / "page.html").read_text()
    assert "<title>left &lt; right</title>" in text and text.count("</script>") == 2 and "http" not in text.replace("http-equiv", "")
    facts = json.loads(text.partition('id="facts">')[2].partition("</script>")[0])
    assert facts["truth"] == truth and len(facts["frames"]) == CHUNKS
    for moment, shown in zip(films["growing"], facts["films"]["growing"], strict=True):
        assert [(cell[0], GROUPS[cell[1]], cell[3]) for cell in shown["cells"]] == [(c.text, c.group, max(c.position)) for c in moment.cells]
        assert {i for i, cell in enumerate(shown["cells"]) if cell[5]} == {i for i, c in enumerate(moment.cells) if c.number in moment.leaves}
    with pytest.raises(UserError, match="as many frames"):
        explorer.page("", films, {}, frames[1:], truth)
