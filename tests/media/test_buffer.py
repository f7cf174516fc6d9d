"""The jitter buffer: in order, when due, nothing lost uncounted, whatever comes; and the pace, exact at any rate."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.media.buffer import JitterBuffer, Pace


def drain(buffer: JitterBuffer, arrivals: list[tuple[float, int, float]], step_s: float = 0.001) -> list[tuple[float, float, float]]:
    """(arrival, epoch, pts), sorted -> (pts, released_at, when it was handed out), with somebody who looks when told to."""
    out, now = [], 0.0

    def look(until: float) -> None:
        while buffer.next_at is not None and buffer.next_at <= until:
            at = buffer.next_at
            out.extend((item, released, at) for item, released in buffer.pop(at))

    for now, epoch, pts in arrivals:
        look(now)
        buffer.push(pts, epoch, pts, now)
        out.extend((item, released, now) for item, released in buffer.pop(now))
    look(now + 100)
    return out


def test_jitter_within_the_delay_leaves_evenly_and_in_order():
    rng = random.Random(1)
    arrivals = sorted((100 + k / 10 + rng.uniform(0, 0.18), 0, 7000 + k / 10) for k in range(300))
    assert [pts for _, _, pts in arrivals] != sorted(pts for _, _, pts in arrivals), "some overtake others"
    out = drain(buffer := JitterBuffer(0.2), arrivals)
    assert [pts for pts, _, _ in out] == [7000 + k / 10 for k in range(300)]
    gaps = [b[1] - a[1] for a, b in pairwise(out[50:])]
    assert max(abs(gap - 0.1) for gap in gaps) < 0.02, "the offset moves by little once the quickest of ten seconds is known"
    assert buffer.counts.lost == 0 and buffer.counts.overdue == 0


@pytest.mark.parametrize("first_late_s", [0.9, -0.5])
def test_first_frames_late_or_early_do_not_decide_for_good(first_late_s):
    arrivals = sorted((100 + k / 10 + 0.5 + (first_late_s if k < 8 else 0.0), 0, k / 10) for k in range(300))
    if first_late_s > 0:
        arrivals = sorted((max(at, 101.4) if pts < 0.8 else at, e, pts) for at, e, pts in arrivals)
    out = drain(buffer := JitterBuffer(0.2), arrivals)
    assert [pts for pts, _, _ in out] == sorted(pts for pts, _, _ in out) and len(out) + buffer.counts.lost == 300
    assert all(abs(released - (100 + pts + 0.5 + 0.2)) < 1e-6 for pts, released, _ in out[150:]), "pts + the usual way + delay"


def test_a_new_connection_begins_anew_and_a_jump_of_the_timestamps_too():
    first = [(k / 10, 0, 5000 + k / 10) for k in range(20)]
    second = [(3 + k / 10, 1, k / 10) for k in range(20)]
    jumped = [(6 + k / 10, 1, 90000 + k / 10) for k in range(20)]
    back = [(9 + k / 10, 1, 12 + k / 10) for k in range(20)]
    arrivals = [*first, *second, *jumped, *back]
    out = drain(buffer := JitterBuffer(0.5), arrivals)
    assert [pts for pts, _, _ in out] == [pts for _, _, pts in arrivals] and buffer.counts.overdue == 0
    assert all(abs(released - at - 0.5) < 1e-6 for (_, released, _), (at, _, _) in zip(out, arrivals, strict=True))
    assert buffer.push("x", 0, 5003.0, 12.0) == [("x", "reconnect_gap")]


def test_too_late_too_many_and_no_delay():
    buffer = JitterBuffer(0.0, limit=3)
    assert buffer.push("b", 0, 1.0, 10.0) == [] and buffer.pop(10.0) == [("b", 10.0)]
    assert buffer.push("a", 0, 0.9, 10.05) == [("a", "stale")]
    held = JitterBuffer(2.0, limit=3)
    lost = [held.push(k, 0, k / 10, k / 10) for k in range(5)]
    assert lost == [[], [], [], [(0, "buffer_full")], [(1, "buffer_full")]] and len(held) == 3
    for wrong in (-0.1, 11.0, float("nan")):
        with pytest.raises(ValueError):
            JitterBuffer(wrong)


def test_who_fetches_late_does_not_move_the_release():
    buffer = JitterBuffer(0.1)
    for k in range(3):
        buffer.push(k, 0, k / 10, 5 + k / 10)
    assert [round(at, 6) for _, at in buffer.pop(9.0)] == [5.1, 5.2, 5.3]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.3, 4.0, -1.0]), st.sampled_from([0, 0, 0, 1, -1]), st.floats(-1e6, 1e6) | st.floats(0, 3),
                          st.booleans()), max_size=60), st.sampled_from([0.0, 0.1, 2.0]), st.integers(1, 8))
def test_whatever_comes_is_released_once_or_lost_with_a_cause(steps, delay_s, limit):
    buffer, now, epoch, out, lost, last = JitterBuffer(delay_s, limit), 0.0, 0, [], Counter(), -1e9
    for number, (passed, change, pts, fetch) in enumerate(steps):
        now, epoch = now + passed, epoch + change
        for _, cause in buffer.push((number, epoch, pts), epoch, pts, now):
            lost[cause] += 1
        for item, released in buffer.pop(now) if fetch else ():
            assert last <= released <= max(now, buffer._now)
            last = released
            out.append(item)
        assert len(buffer) <= limit and buffer.counts.pushed == number + 1 == len(out) + lost.total() + len(buffer)
    while buffer.next_at is not None:
        out += [item for item, _ in buffer.pop(buffer.next_at)]
    assert len({item[0] for item in out}) == len(out) == buffer.counts.released and buffer.counts.lost == lost.total()
    assert [item[1] for item in out] == sorted(item[1] for item in out), "a connection's frames before those of the next"


@pytest.mark.parametrize("source, kept", [(30, 8), (25, 8), (10, 8), (30000 / 1001, 8), (60, 8), (8, 8), (5, 5)])
def test_a_pace_is_exact_at_any_rate_with_timestamps_rounded_to_a_clock(source, kept):
    rng = random.Random(3)
    pace, seconds = Pace(8.0), 600
    stamps = [round(90000 * (77 + k / source) + rng.randint(-2, 2)) / 90000 for k in range(int(seconds * source))]
    taken = [pts for pts in stamps if pace.keeps(pts)]
    assert abs(len(taken) - seconds * kept) <= 1
    if source > 8:
        assert max(abs(pts - 77 - k / 8) for k, pts in enumerate(taken)) <= 1 / source + 0.016, "no drift"


def test_a_pace_goes_on_over_a_gap_and_begins_anew_when_time_goes_back():
    pace = Pace(2.0)
    stamps = (0.0, 0.1, 0.5, 100.3, 100.4, 100.5, 3.0, 3.1, 3.5)
    assert [pts for pts in stamps if pace.keeps(pts)] == [0.0, 0.5, 100.3, 100.5, 3.0, 3.5]
