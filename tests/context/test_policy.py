"""Planner invariants over any lengths: what a policy names is kept, in order, once; windows are exact; nothing else moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.base.config import Retention
from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue as d
from streamingvlm.context import policy
from streamingvlm.context.policy import Extent

ROUND = (d.USER_OPEN, d.TIME, d.VISION, d.QUERY, d.USER_CLOSE, d.ANSWER_OPEN, d.SAID, d.DOTS, d.END, d.GAP)


def run(name: str, cache: Retention, said: list[int], previous: int, query: int) -> tuple[list[list], list]:
    """Play rounds of lengths `said` through a policy with every token a distinct object -> (the sequence before each round, all tokens said)."""
    chosen = policy.get(name)
    header = [(d.SYSTEM, 5), (d.PREVIOUS_OPEN, 3), (d.PREVIOUS, previous), (d.PREVIOUS_CLOSE, 2)]
    spans = [(role, d.HEADER, [(role, -1, i) for i in range(n)]) for role, n in header]
    spoken, seen = [(d.PREVIOUS, -1, i) for i in range(previous)], []
    for r, n in enumerate(said):
        plan = chosen.plan(cache, [Extent(role, number, len(tokens)) for role, number, tokens in spans], r)
        if plan:
            spans = [(p.role, p.round, spans[p.span][2][p.start : p.stop]) for p in plan.pieces]
        seen.append(spans)
        lengths = {d.TIME: 4, d.VISION: 6, d.QUERY: query if r == 0 else 0, d.SAID: n, d.DOTS: 1}
        spans = spans + [(role, r, [(role, r, i) for i in range(lengths.get(role, 2))]) for role in ROUND]
        spoken += [(d.SAID, r, i) for i in range(n)]
    return seen, spoken


lengths = st.lists(st.integers(0, 9), min_size=1, max_size=25)
caches = st.builds(Retention, text_sink=st.integers(0, 12), text_window=st.integers(0, 20), vision_rounds=st.integers(1, 6), pin_query=st.booleans())


@given(said=lengths, cache=caches, previous=st.integers(0, 30), query=st.integers(0, 4))
def test_streaming_keeps_exactly_what_it_names(said, cache, previous, query):
    seen, spoken = run("streaming", cache, said, previous, query)
    for r, spans in enumerate(seen):
        tokens = [t for _, _, part in spans for t in part]
        assert len(tokens) == len(set(tokens)), "a token stands twice"
        kept = {number for _, number, _ in spans} - {d.HEADER}
        oldest = max(0, r - cache.vision_rounds + 1)
        assert kept == set(range(oldest, r)), "exactly the last rounds stay, whole"
        for role, n in ((d.SYSTEM, 5), (d.PREVIOUS_OPEN, 3), (d.PREVIOUS_CLOSE, 2)):
            assert sum(len(part) for name, _, part in spans if name == role) == n
        if oldest:
            said_before = [t for t in spoken if t[1] < oldest]
            text = [t for name, _, part in spans if name == d.PREVIOUS for t in part]
            if len(said_before) <= cache.text_sink + cache.text_window:
                assert text == said_before, "no word is lost while it fits"
            else:
                tail = said_before[len(said_before) - cache.text_window :]
                assert text == said_before[: cache.text_sink] + tail, "sink + window, to the token"
        pinned = [(name, number) for name, number, part in spans for t in part if t[0] == d.QUERY]
        if cache.pin_query and cache.vision_rounds > 1 and r:
            assert pinned == [(d.QUERY, oldest)] * query, "the pinned query stands in the oldest round"


@given(said=lengths, cache=caches, previous=st.integers(0, 30))
def test_order_is_the_layout_and_time_never_runs_back(said, cache, previous):
    for spans in run("streaming", cache, said, previous, 2)[0]:
        rounds = [number for _, number, _ in spans]
        assert rounds == sorted(rounds)
        text = [t for name, _, part in spans if name == d.PREVIOUS for t in part]
        assert [t[1] for t in text] == sorted(t[1] for t in text)


@given(said=lengths, cache=caches)
def test_full_never_plans_and_window_restarts_from_its_header(said, cache):
    assert all(policy.get("full").plan(cache, [], r) is None for r in range(5))
    cache = Retention(restart_rounds=4)
    for r, spans in enumerate(run("window", cache, said, 3, 2)[0]):
        assert {number for _, number, _ in spans} - {d.HEADER} == set(range(r - r % 4, r))


@given(said=lengths, cache=caches)
def test_overlap_keeps_what_streaming_keeps_and_growing_never_repositions(said, cache):
    flat = lambda seen: [[t for _, _, part in spans for t in part] for spans in seen]  # noqa: E731
    streaming = flat(run("streaming", cache, said, 5, 2)[0])
    assert flat(run("overlap", cache, said, 5, 2)[0]) == streaming == flat(run("growing", cache, said, 5, 2)[0])
    extents = [Extent(d.SYSTEM, d.HEADER, 5), Extent(d.VISION, 0, 6)]
    assert policy.get("growing").plan(Retention(vision_rounds=1), extents, 3).reposition is False
    assert policy.get("overlap").plan(Retention(vision_rounds=9), extents, 1).recompute is True


def test_an_unknown_policy_is_named_with_its_alternatives():
    with pytest.raises(UserError, match=r"no policy `fast`; choose one of streaming, full"):
        policy.get("fast")
