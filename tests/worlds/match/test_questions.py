"""What is asked about a match has one true answer, which can be known, in words the task has."""

from __future__ import annotations

from streamingvlm.worlds.match import questions
from streamingvlm.worlds.match.game import Match
from streamingvlm.worlds.match.task import MATCH


def by_kind(match: Match, at_s: float, since_s: float = 0.0) -> dict[str, questions.Question]:
    return {question.kind: question for question in questions.questions(match, at_s, since_s)}


def test_truths_follow_the_timeline():
    match = Match(5, 120)
    goals, first = 0, None
    for k, second in enumerate(match.timeline):
        asked = by_kind(match, k + 1)
        if second.event.startswith("goal"):
            goals, scorer = goals + 1, match.teams[("left", "right").index(second.event.split()[1])]
            first = first or scorer
            assert asked["who_scored"].answer == scorer and scorer in second.words
        assert asked["score"].answer == " - ".join(map(str, second.score)) and asked["goals"].answer == str(goals)
        assert ("first_scorer" in asked) == (first is not None) and (first is None or asked["first_scorer"].answer == first)
        assert ("side" in asked) == (second.event not in {"none", "kickoff"})
        if second.event != "none":
            assert asked["last"].answer == ("new game" if second.event == "kickoff" else second.event)


def test_only_what_was_watched_is_asked():
    match = Match(5, 120)
    start = next(k for k, s in enumerate(match.timeline) if s.event.startswith("goal"))
    clip = by_kind(match, start + 1, start)
    assert clip["goals"].answer == "1" and clip["first_scorer"].answer == clip["who_scored"].answer and "score" not in clip
    assert set(by_kind(match, 0)) == {"teams", "goals"}, "before the match"


def test_a_row_is_asked_what_its_match_is_asked():
    match = Match(5, 60)
    for at_s, since_s in ((0, 0), (1, 0), (33, 0), (60, 0), (40, 25)):
        assert questions.row_questions(match.row("a", "a.mp4"), at_s, since_s) == questions.questions(match, at_s, since_s)


def test_the_answer_is_an_option_and_all_is_said_in_the_tasks_words(words):
    from streamingvlm.models.qwen25 import tokenizer

    known = tokenizer.build(MATCH.words)
    for seed in range(3):
        for at_s in range(0, 200, 7):
            for question in questions.questions(Match(seed, 200), at_s):
                assert question.options.count(question.answer) == 1 and len(set(question.options)) == len(question.options)
                for text in (question.text.rstrip("?"), *(f" {option}" for option in question.options)):
                    digits = sum(letter.isdigit() for letter in text)
                    assert len(known.encode(text, add_special_tokens=False)) <= len(text.split()) + digits, text
    assert len(words) < len(known)
