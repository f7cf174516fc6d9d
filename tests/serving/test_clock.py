"""Clocks that are set: what was shown so long ago, and latencies that do not jump with them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.paths import repository_root
from streamingvlm.serving.clock import Clock
from streamingvlm.serving.live.decider import Decider

MOVES = st.lists(st.tuples(st.floats(0.1, 500), st.one_of(st.just(0.0), st.floats(1, 5000), st.floats(-5000, -1))), min_size=1, max_size=20)


@settings(max_examples=100)
@given(MOVES, st.floats(1, 2000))
def test_nothing_that_was_written_down_within_a_time_is_older_than_it(moves, kept_s):
    now = {"wall": 1e9, "steady": 5.0}
    clock, written = Clock(lambda: now["wall"], lambda: now["steady"]), []
    for passes, set_by in moves:
        written.append((now["steady"], now["wall"]))
        now["steady"] += passes
        now["wall"] += passes + set_by
        clock.look()
    young = [wall for steady, wall in written if now["steady"] - steady < kept_s - 1e-3]
    assert min(young, default=1e12) >= clock.ago(kept_s) - 1e-3
    if not any(set_by < 0 for _, set_by in moves):
        old = [wall for steady, wall in written if now["steady"] - steady > kept_s + 1e-3]
        assert max(old, default=0.0) <= clock.ago(kept_s) + 1e-3, "and where it was only set forward, nothing stays longer"


@pytest.mark.parametrize("set_by", [3600.0, -3600.0, 60.0])
def test_no_latency_jumps_with_the_clock(set_by):
    now = {"wall": 1e9, "steady": 5.0}
    decider = Decider(repository_root() / "data" / "city-base", [], None)
    decider.clock = Clock(lambda: now["wall"], lambda: now["steady"])
    late, captured = [], []
    for frame in range(200):  # ten a second, captured 0.3 s before their release, decided 0.1 s behind it
        captured.append((now["steady"], now["wall"]))
        now["steady"] += 0.1
        now["wall"] += 0.1 + (set_by if frame == 100 else 0.0)
        if frame >= 4:
            at, shown = captured[frame - 3]
            late.append(decider._late_ms(now["steady"], at + 0.3, shown))
    assert all(ms["release"] == pytest.approx(100) and ms["release"] - 1 <= ms["capture"] <= 401 for ms in late)
    assert sum(ms["capture"] > 399 for ms in late) > 150, "and it is told again soon"
