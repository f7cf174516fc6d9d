"""The `upstream` planner against a slow reading of the same rules that searches plain lists of ids, and the engine's part in it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from helpers import CACHE, STREAM, VIDEO, chunk
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from golden import Vocabulary, forced_end

from streamingvlm.base.config import Retention, from_dict
from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue as d
from streamingvlm.context import policy
from streamingvlm.context.dialogue import Dialogue, Span, ids_of, rearrange
from streamingvlm.context.policy import Extent
from streamingvlm.streaming.batching import State
from streamingvlm.streaming.stream import Streamer

IS, IE, VS, VE, PAD, NEWLINE, USER, ASSISTANT, TIME, DOTS = 151644, 151645, 151652, 151653, 151656, 198, 872, 77091, 1462, 2503
PREVIOUS, QUERY = tuple(range(3000, 3030)), (4000, 4001, 4002)


# The slow reference. A token is (id, serial number, position at which it was fed); a conversation is a list of them.

def first(tokens: list, *ids: int, after: int = 0) -> int:
    """Where `ids` stand for the first time from `after` on."""
    return next(k for k in range(after, len(tokens)) if tuple(t[0] for t in tokens[k : k + len(ids)]) == ids)


def without(tokens: list, start: int, stop: int) -> list:
    """`tokens` less [start, stop) and, if a turn ends there, the newline behind it."""
    ends_turn = tokens[stop - 1][0] == IE and [t[0] for t in tokens[stop : stop + 1]] == [NEWLINE]
    return tokens[:start] + tokens[stop + ends_turn :]


def forget(tokens: list, i: int, v: int, t: int, sink: int | None, window: int | None) -> list:
    """What is left before chunk i, rule by rule."""
    if i >= t:  # the oldest text moves in front of the end of the previous text, less its last token; then its turn goes
        turn = first(tokens, IS, ASSISTANT)
        end = first(tokens, IE, after=turn)
        words = tokens[turn + 3 : end]
        if v > t:
            time = next(k for k in range(turn, 0, -1) if tokens[k][0] == TIME)
            vision = first(tokens, VS, after=time)
        tokens = without(tokens, turn, end + 1)
        if v > t:
            tokens = without(tokens, time, vision)
        close = first(tokens, IE, after=first(tokens, IS, 19702, 1467))
        tokens = tokens[:close] + (words[:-1] if len(words) > 1 else []) + tokens[close:]
    if i >= v and v < t:  # its video goes before its text
        tokens = without(tokens, first(tokens, VS), first(tokens, VE) + 1)
    if i >= max(v, t):
        user = first(tokens, IS, USER)
        tokens = without(tokens, user, first(tokens, IE, after=user) + 1)
    if i > 0 and sink is not None:
        start = first(tokens, IS, 19702, 1467) + 4
        text = tokens[start : first(tokens, IE, after=start)]
        tail = window - 1
        kept = text if len(text) <= sink + tail else text[:sink] + (text[-tail:] if tail else [])
        tokens = tokens[:start] + kept + tokens[start + len(text) :]
    return tokens


def places(ids: list[int], grid: tuple[int, int, int], start: int) -> list[tuple[int, int, int]]:
    """Positions of `ids` from `start` on, token by token."""
    out, p, seen = [], start, 0
    t, h, w = grid[0], grid[1] // 2, grid[2] // 2
    for token in ids:
        if token != PAD:
            out.append((p, p, p))
            p += 1
            continue
        out.append((p + 2 * (seen // (h * w)), p + seen // w % h, p + seen % w))
        seen += 1
        if seen == t * h * w:
            p, seen = max(max(place) for place in out[-seen:]) + 1, 0
    return out


@st.composite
def stories(draw):
    """A run: windows, texts and what is said in each round, as ids. Many texts of none or one token, many that hit the limit, some forced."""
    nothing_cut = draw(st.booleans()) and draw(st.booleans())
    sink, window = (None, None) if nothing_cut else (draw(st.integers(0, 12)), draw(st.integers(1, 12)))
    lengths = draw(st.lists(st.sampled_from((0, 1, 2, 3, 7, 13, 20, 20)), min_size=1, max_size=16))
    if draw(st.booleans()):
        lengths = [next(s for s in range(20) if forced_end(i, s) == IE) for i in range(len(lengths))]
    said = [[DOTS if k == n - 1 and (i % 2 or n == 7) else 5000 + 100 * i + k for k in range(n)] for i, n in enumerate(lengths)]
    return {"v": draw(st.integers(1, 6)), "t": draw(st.integers(1, 6)), "sink": sink, "window": window, "said": said,
            "previous": PREVIOUS[: draw(st.integers(0, 30))], "query": QUERY[: draw(st.integers(0, 3))],
            "grid": (draw(st.integers(1, 2)), draw(st.sampled_from((2, 4))), 4)}


@given(stories())
def test_the_plan_keeps_what_the_rules_keep(story):
    """Same ids in the same order, and the same tokens among equal ids (their keys move with them), before every chunk; positions of both kinds."""
    v, t, said, grid = story["v"], story["t"], story["said"], story["grid"]
    talk = Dialogue(Vocabulary({"previous": story["previous"], "query": story["query"]}))
    window = 10**9 if story["window"] is None else story["window"]
    cache = Retention(text_sink=story["sink"] or 0, text_window=window, vision_rounds=v, text_rounds=t)
    spans, ours = talk.header(story["previous"]), []  # ours: serial numbers and positions of the tokens that have keys
    reference: list = []
    fed = 0  # tokens fed so far: their serial numbers; positions only grow
    next_place = 0
    for i, words in enumerate(said):
        plan = policy.get("upstream").plan(cache, [Extent(s.role, s.round, len(s.ids)) for s in spans], i)
        if plan:
            assert plan.reposition and not plan.recompute
            spans, index = rearrange(spans, plan.pieces)
            ours = [ours[k] for k in index if k < len(ours)]
        if i:
            reference = forget(reference, i, v, t, story["sink"], story["window"])
            assert ids_of(spans) == [token[0] for token in reference]
            assert ours == [token[1:] for token in reference if token[1] is not None], "keys stay with their tokens"
            contiguous = list(zip(*talk.positions(spans).tolist(), strict=True))
            assert contiguous == places(ids_of(spans), grid, 0)
        turn = talk.question(i, float(i), i + 1.0, grid, "query" if i == 0 and story["query"] else "", spans[-1].role != d.END)
        asked = ids_of(turn) if i else ids_of(spans + turn)
        if i:  # rule 1: a newline joins two turns, except where one stands already
            assert asked[0] == (IS if reference[-1][0] == NEWLINE else NEWLINE)
        spans = spans + turn + talk.answer(i, words)
        reference += [(token, None) for token in [*asked, *words, IE]]
        held = 2 if len(words) == 20 else 1  # rule 2: the last token said, or the end, is fed with the next turn
        new = [token[0] for token in reference if token[1] is None][:-held]
        fresh = list(zip(range(fed, fed + len(new)), places(new, grid, next_place), strict=True))
        fed, next_place = fed + len(new), max(fresh[-1][1]) + 1
        ours += fresh
        keys = iter(fresh)
        kept = len(reference) - held
        reference = [token if token[1] is not None else (token[0], *next(keys)) for token in reference[:kept]] + [
            (token[0], None, None) for token in reference[kept:]]


@pytest.mark.parametrize(("name", "reposition", "recompute"), [("upstream_growing", False, False), ("upstream_recompute", True, True)])
def test_its_variants_keep_the_same(name, reposition, recompute):
    extents = [Extent(d.PREVIOUS, d.HEADER, 30), Extent(d.PREVIOUS_CLOSE, d.HEADER, 2), Extent(d.SAID, 0, 5), Extent(d.END, 0, 1)]
    base = policy.get("upstream").plan(Retention(vision_rounds=1), extents, 1)
    assert policy.get(name).plan(Retention(vision_rounds=1), extents, 1) == dataclasses.replace(base, reposition=reposition, recompute=recompute)
    nothing = policy.get(name).plan(Retention(text_window=90), extents, 1)
    assert (nothing is not None and len(nothing.pieces) == 4) if recompute else nothing is None


def test_forced_ends_are_where_the_formula_puts_them():
    assert [next(s for s in range(20) if forced_end(i, s) == IE) for i in range(6)] == [2, 7, 12, 4, 9, 1]
    assert forced_end(1, 6) == forced_end(5, 0) == DOTS and forced_end(0, 1) is None and forced_end(23, 0) == IE


# The engine

def play(vlm, name: str, forced_token=None, **stream) -> Streamer:
    s = Streamer(vlm, policy.get(name), CACHE, VIDEO, dataclasses.replace(STREAM, **stream),
                  **({"forced_token": forced_token} if forced_token else {}))
    s.start("left lions right bears")
    return s


def test_the_repetition_penalty_is_that_of_transformers(vlm):
    """On everything in the context, pads and specials included, and on what was said in this turn."""
    s = play(vlm, "upstream", repetition_penalty=1.3)
    s.step("test", chunk(0))
    seen, said = ids_of(s.spans[:-3]), ids_of(s.spans[-3:-1])
    assert {s.dialogue.video_pad, s.dialogue.im_end} <= set(seen)
    theirs = RepetitionPenaltyLogitsProcessor(1.3)
    free = []
    with torch.inference_mode():
        for hidden in torch.randn(200, vlm.text.hidden_size, generator=torch.Generator().manual_seed(1)):
            logits = vlm.logits(hidden)[None]
            free.append(int(logits.argmax()))
            state, context = State(hidden, logits[0].clone(), lambda: -1), torch.tensor(seen + said)
            assert s.sampler(state, context) == int(theirs(context[None], logits.clone()).argmax())
    assert {*free} & {*seen} and {*free} - {*seen}, "both kinds were on top"


def test_what_is_dictated_is_said_and_a_foreign_end_stays_only_upstream(vlm):
    foreign, word = vlm.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "lions"])
    for name, said in (("upstream", [word, word, foreign]), ("streaming", [word, word])):
        s = play(vlm, name, lambda round, step: word if step < 2 else foreign)
        s.step("test", chunk(0))
        end = s.dialogue.im_end
        assert ids_of(s.spans)[-len(said) - 1 :] == [*said, end]
        unfed = ids_of(s.pending)
        assert unfed == ([foreign, end] if name == "upstream" else [end]), "rule 2: the last token said waits for the next prefill"


def test_the_query_goes_with_its_round_and_comes_only_once(vlm):
    s = play(vlm, "upstream", max_new_tokens=2)
    held = [s.step("test", chunk(k)) and any(span.role == d.QUERY and span.ids for span in s.spans) for k in range(6)]
    assert held == [True, True, True, False, False, False]


def test_a_silent_round_moves_nothing_but_leaves(vlm):
    s = play(vlm, "upstream", lambda round, step: vlm.tokenizer.convert_tokens_to_ids("<|im_end|>"))
    for k in range(6):
        s.step("test", chunk(k))
    assert [span for span in s.spans if span.role == d.PREVIOUS] == [Span(d.PREVIOUS, d.HEADER, s.dialogue.encode("left lions right bears"))]


def test_odd_values_are_named():
    for section, key, value, sentence in (("cache", "text_rounds", -1, "at least 0"), ("stream", "repetition_penalty", 0.0, "above 0")):
        with pytest.raises(UserError, match=f"`{section}.{key}` must be {sentence}"):
            from_dict({section: ({"policies": []} if section == "stream" else {}) | {key: value}})
