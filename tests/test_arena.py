"""The broadcaster: one seed, one world; every second is said in words that can be read back; evaluation never meets a training pair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm import arena, metrics, subset
from streamingvlm.arena import Match


@given(seed=st.integers(0, 10_000), seconds=st.integers(1, 90), evaluation=st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_words_say_what_happens_and_the_score_adds_up(seed, seconds, evaluation):
    match = Match(seed, seconds, evaluation)
    row = match.row("m", "m.mp4")
    assert [arena.parse(words).event for words in subset.words_by_chunk(row)] == [s.event for s in match.timeline]
    score = [0, 0]
    for second in match.timeline:
        said = arena.parse(" ".join(second.words))
        if second.event.startswith("goal"):
            score[second.event.endswith("right")] += 1
            assert said.score == tuple(score) and said.who == match.teams[second.event.endswith("right")]
        if max(score) == arena.POINTS_A_GAME:
            assert second.words[-1] == "game"
            score = [0, 0]
    assert arena.held_out(match.teams) == evaluation == arena.held_out(match.teams[::-1])


def test_same_seed_same_pixels_and_other_seed_other_pixels():
    a, b, c = (np.stack(list(Match(seed, 3).frames())) for seed in (4, 4, 5))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert a.shape == (30, arena.SIZE_PX, arena.SIZE_PX, 3) and a.dtype == np.uint8


def test_what_happens_shows_only_late_in_its_second():
    """Two matches that differ in their events alone cannot be told apart from the first frames of a second by the marks of an event."""
    match = Match(11, 40)
    frames = np.stack(list(match.frames()))
    for k, second in enumerate(match.timeline):
        early, late = frames[k * arena.FPS], frames[k * arena.FPS + arena.FPS // 2]
        marks = lambda frame: int((frame == 255).all(-1).sum() + (frame == (250, 250, 210)).all(-1).sum())  # noqa: E731
        assert marks(early) == 0
        assert (marks(late) > 0) == (second.event != "none")


def test_the_score_is_never_drawn():
    """The pixels depend on the events and the seed, not on the score: halves of a match with equal events have no trace of it."""
    match = Match(3, 30)
    assert {len(s.words) for s in match.timeline if s.event.startswith("goal")} <= {6, 7}
    drawn = Match(3, 30)
    object.__setattr__(drawn, "timeline", [arena.Second(s.event, s.words, (9, 9)) for s in match.timeline])
    assert all(np.array_equal(x, y) for x, y in zip(match.frames(), drawn.frames(), strict=True))


def test_held_out_pairs_exist_and_every_name_is_also_trained():
    pairs = list(itertools.combinations(arena.NAMES, 2))
    trained = [pair for pair in pairs if not arena.held_out(pair)]
    assert 0.1 < 1 - len(trained) / len(pairs) < 0.3
    assert {name for pair in trained for name in pair} == set(arena.NAMES)


@pytest.mark.parametrize(("text", "expected"), [
    ("", ("none", None, None)), ("nonsense hit", ("none", None, None)), ("hit left", ("hit left", None, None)),
    ("hit right bears", ("hit right", "bears", None)), ("goal left lions 2 - 1", ("goal left", "lions", (2, 1))),
    ("goal left lions 5 - 3 game", ("goal left", "lions", (5, 3))), ("goal left lions 2 -", ("goal left", "lions", None))])
def test_commentary_is_read_back(text, expected):
    said = arena.parse(text)
    assert (said.event, said.who, said.score) == expected


def said(*texts: str) -> list[arena.Said]:
    return [arena.parse(text) for text in texts]


TRUTH = said("", "hit left lions", "", "goal left lions 1 - 0", "goal right bears 1 - 1", "", "hit right bears")


def test_the_truth_scores_full_marks_and_silence_none():
    assert metrics.score(TRUTH, TRUTH) == {"event_accuracy": 1, "event_f1": 1, "who": 1, "score": 1, "increment": 1}
    silent = metrics.score(said(*[""] * 7), TRUTH)
    assert silent == {"event_accuracy": pytest.approx(3 / 7), "event_f1": 0, "who": 0, "score": 0, "increment": None}
    assert metrics.event_f1(said("", ""), said("", ""), 1.0) == 1.0


def test_one_slip_of_the_score_costs_one_increment():
    slipped = said("", "hit left lions", "", "goal left lions 2 - 0", "goal right bears 2 - 1", "", "hit right bears")
    result = metrics.score(slipped, TRUTH)
    assert result["score"] == 0 and result["increment"] == 0.5 and result["who"] == 1


def test_f1_forgives_a_second_but_not_two_and_counts_no_truth_twice():
    truth = said("", "", "hit left", "", "", "")
    assert metrics.event_f1(said("", "hit left", "", "", "", ""), truth, 1.0) == 1
    assert metrics.event_f1(said("hit left", "", "", "", "", ""), truth, 1.0) == 0
    assert metrics.event_f1(said("", "hit left", "hit left", "", "", ""), truth, 1.0) == pytest.approx(2 / 3)
    assert metrics.event_f1(said("", "", "hit right", "", "", ""), truth, 1.0) == 0


def test_minutes_and_quarters_cover_the_stream():
    truth = TRUTH * 20
    minutes = metrics.per_minute(truth, truth)
    assert [m["minute"] for m in minutes] == [0, 1, 2] and all(m["event_f1"] == 1 for m in minutes)
    assert all(m[key] == 1 for m in minutes for key in ("who", "score"))
    match = [arena.parse(" ".join(second.words)) for second in Match(3, 240).timeline]
    parts = [*metrics.per_minute(match, match), *metrics.quarters(match, match).values()]
    assert all(part["increment"] == 1 for part in parts), "a stretch goes on from the score said before it"
    half_wrong = truth[:70] + said(*[""] * 70)
    quarters = metrics.quarters(half_wrong, truth)
    assert quarters["first_quarter"]["event_f1"] == 1 and quarters["last_quarter"]["event_f1"] == 0


def test_rows_survive_parquet_and_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [Match(i, 5).row(f"m{i}", f"m{i}.mp4") | {"split": "train"} for i in range(3)]
    rows.append(rows[0] | {"id": "clip", "words": [], "frames": [], "split": "clip"})
    subset.write(rows, tmp_path / "a.parquet")
    subset.write(rows, tmp_path / "b.parquet")
    assert subset.read(tmp_path / "a.parquet") == rows
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_word_belongs_to_the_chunk_in_which_it_ends():
    words = [{"start_s": a, "end_s": b, "text": t} for a, b, t in ((0.0, 0.5, "a"), (0.5, 1.0, "b"), (0.9, 1.1, "c"), (2.5, 9.0, "late"))]
    row = {"start_s": 0.0, "end_s": 3.0, "words": words}
    assert subset.words_by_chunk(row) == ["a b", "c", "late"]
    assert subset.words_by_chunk(row, 2.0) == ["a b c", "late"]
