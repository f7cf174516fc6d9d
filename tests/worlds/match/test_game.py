"""The broadcaster: one seed, one world; every second is said in words that can be read back; evaluation never meets a training pair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.data import stream_rows
from streamingvlm.worlds.match import game, rendering, scoring
from streamingvlm.worlds.match.game import Match


@given(seed=st.integers(0, 10_000), seconds=st.integers(1, 90), evaluation=st.booleans(), plain=st.booleans(), lively=st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_words_say_what_happens_and_the_score_adds_up(seed, seconds, evaluation, plain, lively):
    match = Match(seed, seconds, evaluation, plain, lively)
    row = match.row("m", "m.mp4")
    assert [game.parse(words).event for words in stream_rows.words_by_chunk(row)] == [s.event for s in match.timeline]
    score = [0, 0]
    for second in match.timeline:
        said = game.parse(" ".join(second.words))
        if second.event == "kickoff":
            score = [0, 0]
        if second.event.startswith("goal"):
            score[second.event.endswith("right")] += 1
            assert said.who == match.teams[second.event.endswith("right")]
        assert second.event.startswith(("none", "hit")) or said.score == tuple(score)
        assert (second.words[-1:] == ("game",)) == (second.event.startswith("goal") and max(score) == game.POINTS_A_GAME)
    assert game.held_out(match.teams) == evaluation == game.held_out(match.teams[::-1])


def test_the_sport_can_be_made_harder_by_its_rules_and_without_them_is_what_it_was():
    easy, hard = Match(5, 90), Match(5, 90, rules=game.Rules(goals_a_game=2, reveal_s=0.8, noise=60))
    assert easy == Match(5, 90, rules=game.Rules()) and easy.teams == hard.teams
    assert max(max(second.score) for second in hard.timeline) == 2 < max(max(second.score) for second in easy.timeline)
    k = next(k for k, (a, b) in enumerate(zip(easy.timeline, hard.timeline, strict=True)) if a.event == b.event != "none")
    assert easy.shows(k + 0.5) == easy.timeline[k].event and hard.shows(k + 0.5) == "none" and hard.shows(k + 0.8) == hard.timeline[k].event
    spread = [float(np.ptp(next(iter(rendering.draw(match)))[:16, 60:90].astype(int), axis=(0, 1)).max()) for match in (easy, hard)]
    assert spread[0] <= 2 * 8 < spread[1]


def test_a_new_game_is_seen_to_start_at_once_and_only_then():
    match = Match(5, 400)
    over = [k for k, second in enumerate(match.timeline) if second.words[-1:] == ("game",)]
    assert [k for k, second in enumerate(match.timeline) if second.event == "kickoff"] == [0, *(k + 1 for k in over if k + 1 < 400)]
    assert len(over) >= 5


def test_everything_is_said_in_every_way_unless_said_plainly():
    seconds = [second for seed in range(4) for second in Match(seed, 400).timeline]
    for kind, ways in game.PHRASES.items():
        heads = {" ".join(second.words).split(" left")[0].split(" right")[0] for second in seconds if second.event.startswith(kind)}
        assert heads == {way.split(" {side}")[0] for way in ways}, kind
    assert {second.words[:1] for second in Match(0, 300, plain=True).timeline} == {(), ("new",), ("hit",), ("goal",), ("save",), ("out",)}


def test_a_match_is_the_same_however_long_it_is_watched_and_however_it_is_told():
    long, short, plain = Match(3, 90), Match(3, 40), Match(3, 90, plain=True)
    assert [s.event for s in plain.timeline] == [s.event for s in long.timeline] and plain.teams == long.teams
    assert len(short.timeline) == 40 and short.teams == long.teams


def test_evaluation_wears_colours_that_training_never_sees():
    for train, held in (rendering.FIELDS, rendering.TEAMS):
        assert not set(train) & set(held)
    for seed in range(6):
        for evaluation in (False, True):
            frame = next(rendering.draw(Match(seed, 2, evaluation)))
            paddles = {tuple(int(c) for c in colour) for colour in frame.reshape(-1, 3)} & {*rendering.TEAMS[0], *rendering.TEAMS[1]}
            assert paddles and paddles <= set(rendering.TEAMS[evaluation])


def test_the_camera_changes_and_the_box_follows_the_ball():
    match = Match(2, 60)
    cuts = [k for k in range(1, 60) if match.camera(k) != match.camera(k - 1)]
    assert 3 <= len(cuts) <= 10
    frames, labels = list(rendering.draw(match)), match.row("m", "m.mp4")["frames"]
    assert len(labels) == len(frames) == 600, "a label for every frame"
    for n in range(3, 600, 37):
        (x0, y0, x1, y1), yellow = labels[n]["boxes"][0], (np.abs(frames[n].astype(int) - rendering.BALL).sum(-1) < 3)
        inside = yellow[max(y0 - 1, 0) : y1 + 2, max(x0 - 1, 0) : x1 + 2].sum()
        assert yellow.sum() > 10 and inside > 0.8 * yellow.sum(), n


def test_same_seed_same_pixels_and_other_seed_other_pixels():
    a, b, c = (np.stack(list(rendering.draw(Match(seed, 3)))) for seed in (4, 4, 5))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert a.shape == (30, game.SIZE_PX, game.SIZE_PX, 3) and a.dtype == np.uint8


def test_what_happens_shows_only_late_in_its_second_and_the_labels_say_when():
    match = Match(11, 60)
    frames, labels = np.stack(list(rendering.draw(match))), match.row("m", "m.mp4")["frames"]
    marks = lambda frame: sum(int((frame == colour).all(-1).sum()) for colour in (rendering.LIT, rendering.BLUE, rendering.RED, rendering.WHITE))  # noqa: E731
    assert {second.event for second in match.timeline} == set(game.EVENTS)
    for n, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        event = match.timeline[n // game.FPS].event
        assert label["action"] == (event if n % game.FPS >= game.FPS * game.REVEAL_S else "none")
        assert (marks(frame) > 0) == (label["action"] != "none"), n


def test_the_score_and_the_names_are_never_drawn():
    """The pixels depend on the events and the seed alone: with other names and another score the picture is the same."""
    match, drawn = Match(3, 30), Match(3, 30)
    object.__setattr__(drawn, "timeline", [game.Second(s.event, ("otters",), (9, 9)) for s in match.timeline])
    object.__setattr__(drawn, "teams", ("otters", "ravens"))
    assert all(np.array_equal(x, y) for x, y in zip(rendering.draw(match), rendering.draw(drawn), strict=True))


def test_held_out_pairs_exist_and_every_name_is_also_trained():
    pairs = list(itertools.combinations(game.NAMES, 2))
    trained = [pair for pair in pairs if not game.held_out(pair)]
    assert 0.1 < 1 - len(trained) / len(pairs) < 0.3
    assert {name for pair in trained for name in pair} == set(game.NAMES)


@pytest.mark.parametrize(("text", "expected"), [
    ("", ("none", None, None)), ("nonsense hit", ("none", None, None)), ("hit left", ("hit left", None, None)),
    ("a touch right", ("hit right", None, None)), ("goal left lions 2 - 1", ("goal left", "lions", (2, 1))),
    ("goal left lions 5 - 3 game", ("goal left", "lions", (5, 3))), ("goal left lions 2 -", ("none", None, None)),
    ("what a goal right bears now 0 - 1", ("goal right", "bears", (0, 1))), ("goal left pigeons 2 - 1", ("none", None, None)),
    ("save left still 1 - 1", ("save left", None, (1, 1))), ("gone right it stays 3 - 4", ("out right", None, (3, 4))),
    ("new game 0 - 0", ("kickoff", None, (0, 0)))])
def test_commentary_is_read_back(text, expected):
    said = game.parse(text)
    assert (said.event, said.who, said.score) == expected


def said(*texts: str) -> list[game.Said]:
    return [game.parse(text) for text in texts]


TRUTH = said("", "hit left", "", "goal left lions 1 - 0", "scored right by bears 1 - 1", "", "hit right")


def test_the_truth_scores_full_marks_and_silence_none():
    assert scoring.score_all(TRUTH, TRUTH) == {"event_accuracy": 1, "event_f1": 1, "who": 1, "score": 1, "increment": 1}
    silent = scoring.score_all(said(*[""] * 7), TRUTH)
    assert silent == {"event_accuracy": pytest.approx(3 / 7), "event_f1": 0, "who": 0, "score": 0, "increment": None}
    assert scoring.event_f1(said("", ""), said("", ""), 1.0) == 1.0


def test_one_slip_of_the_score_costs_one_increment():
    slipped = said("", "hit left", "", "goal left lions 2 - 0", "goal right bears 2 - 1", "", "hit right")
    result = scoring.score_all(slipped, TRUTH)
    assert result["score"] == 0 and result["increment"] == 0.5 and result["who"] == 1


def test_a_restated_score_is_what_the_next_goal_adds_to_and_a_new_game_starts_from_nothing():
    starts, first = "new game 0 - 0", "goal left lions 1 - 0"
    true = said(starts, first, "save left still 1 - 0", "goal left lions 2 - 0", starts, first)
    wrong = said(starts, first, "save left still 3 - 0", "goal left lions 4 - 0", starts, first)
    assert scoring.score_all(true, true)["increment"] == 1
    assert scoring.score_all(wrong, true)["increment"] == 3 / 4 and scoring.score_all(wrong, true)["score"] == pytest.approx(2 / 3)
    lost = [*true[:4], said("")[0], true[5]]
    assert scoring.score_all(lost, true)["increment"] == 3 / 4, "2 - 0 and then 1 - 0: a game that started unsaid"


def test_f1_forgives_a_second_but_not_two_and_counts_no_truth_twice():
    truth = said("", "", "hit left", "", "", "")
    assert scoring.event_f1(said("", "hit left", "", "", "", ""), truth, 1.0) == 1
    assert scoring.event_f1(said("hit left", "", "", "", "", ""), truth, 1.0) == 0
    assert scoring.event_f1(said("", "hit left", "hit left", "", "", ""), truth, 1.0) == pytest.approx(2 / 3)
    assert scoring.event_f1(said("", "", "hit right", "", "", ""), truth, 1.0) == 0


def test_minutes_and_quarters_cover_the_stream():
    truth = TRUTH * 20
    minutes = scoring.per_minute(truth, truth)
    assert [m["minute"] for m in minutes] == [0, 1, 2] and all(m["event_f1"] == 1 for m in minutes)
    assert all(m[key] == 1 for m in minutes for key in ("who", "score"))
    match = [game.parse(" ".join(second.words)) for second in Match(3, 240).timeline]
    parts = [*scoring.per_minute(match, match), *scoring.quarters(match, match).values()]
    assert all(part["increment"] == 1 for part in parts), "a stretch goes on from the score said before it"
    half_wrong = truth[:70] + said(*[""] * 70)
    quarters = scoring.quarters(half_wrong, truth)
    assert quarters["first_quarter"]["event_f1"] == 1 and quarters["last_quarter"]["event_f1"] == 0


def test_rows_survive_parquet_and_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [Match(i, 5).row(f"m{i}", f"m{i}.mp4") | {"split": "train"} for i in range(3)]
    rows.append(rows[0] | {"id": "clip", "words": [], "frames": [], "split": "clip"})
    stream_rows.write(rows, tmp_path / "a.parquet")
    stream_rows.write(rows, tmp_path / "b.parquet")
    assert stream_rows.read(tmp_path / "a.parquet") == rows
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_word_belongs_to_the_chunk_in_which_it_ends():
    words = [{"start_s": a, "end_s": b, "text": t} for a, b, t in ((0.0, 0.5, "a"), (0.5, 1.0, "b"), (0.9, 1.1, "c"), (2.5, 9.0, "late"))]
    row = {"start_s": 0.0, "end_s": 3.0, "words": words}
    assert stream_rows.words_by_chunk(row) == ["a b", "c", "late"]
    assert stream_rows.words_by_chunk(row, 2.0) == ["a b c", "late"]
