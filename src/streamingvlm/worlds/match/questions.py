"""What can be asked about a match at any moment, and what is true of it. Knows the arena; no model and no token.

    for question in questions(match, at_s=450): print(question.text, question.answer)      # what is the score? 2 - 1

Only what somebody who has watched since `since_s`, and knows who plays, can answer is asked: a score needs a kickoff, "who scored last" a goal. Every
word of a question, of its answer and of its options is one of the task's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from streamingvlm.worlds.match import game, scoring
from streamingvlm.worlds.match.game import NAMES, POINTS_A_GAME, SIDES, Match, Said
from streamingvlm.worlds.task import Question

TEXTS = {
    "side": "which side has the ball?",
    "last": "what happened last?",
    "who_scored": "who scored last?",
    "score": "what is the score?",
    "teams": "who plays?",
    "first_scorer": "who scored first?",
    "goals": "how many goals so far?",
}
# What an answer needs to remember: the newest seconds, the last minutes, the very start, or everything
REACHES = {"side": "now", "last": "now", "who_scored": "recent", "score": "recent", "teams": "start", "first_scorer": "start", "goals": "whole"}
WORDS = tuple(dict.fromkeys(word.strip("?") for text in TEXTS.values() for word in text.split()))  # of the questions
KICKOFF = "new game"
HAPPENED = (KICKOFF, *(f"{kind} {side}" for kind in game.KINDS for side in SIDES))
SCORES = tuple(f"{left} - {right}" for left in range(POINTS_A_GAME + 1) for right in range(POINTS_A_GAME + 1) if min(left, right) < POINTS_A_GAME)
PAIRS_OFFERED = 10  # of 132 pairs of teams


def questions(match: Match, at_s: float, since_s: float = 0.0) -> list[Question]:
    """All that can be asked when the seconds from `since_s` to `at_s` of a match have passed, one of a kind at most, in the order of TEXTS."""
    seconds = match.timeline[int(since_s) : int(at_s + 1e-9)]
    return of_seconds(match.teams, [(second.event, second.score) for second in seconds])


def row_questions(row: dict, at_s: float, since_s: float = 0.0) -> list[Question]:
    """The same of a match that is a stream row: the truth is what its words say."""
    left, right = row["title"].split(" - ")
    return of_seconds((left, right), carried(scoring.truth_of(row)[: int(at_s + 1e-9)])[int(since_s) :])


def carried(said: Iterable[Said]) -> list[tuple[str, tuple[int, int]]]:
    """Of each second of a match from its beginning, by what is said in it: the event, and the score behind it, carried on where none is said."""
    score, seconds = (0, 0), []
    for one in said:
        score = one.score or score
        seconds.append((one.event, score))
    return seconds


def of_seconds(teams: tuple[str, str], seconds: Sequence[tuple[str, tuple[int, int]]]) -> list[Question]:
    """`seconds`: the event and the score behind it of each that was watched."""
    answers = _answers(teams, seconds)
    return [Question(kind, TEXTS[kind], answers[kind], _options(kind, answers[kind], len(seconds))) for kind in TEXTS if kind in answers]


def _answers(teams: tuple[str, str], seconds: Sequence[tuple[str, tuple[int, int]]]) -> dict[str, str]:
    """Kind -> the truth, of the kinds that have one."""
    events = [event for event, _ in seconds]
    scorers = [teams[SIDES.index(event.split()[1])] for event in events if event.startswith("goal")]
    out = {"teams": " - ".join(teams), "goals": str(len(scorers))}
    if events and " " in events[-1]:
        out["side"] = events[-1].split()[1]
    if happened := [event for event in events if event != "none"]:
        out["last"] = KICKOFF if happened[-1] == "kickoff" else happened[-1]
    if scorers:
        out |= {"who_scored": scorers[-1], "first_scorer": scorers[0]}
    if "kickoff" in events:
        left, right = seconds[-1][1]
        out["score"] = f"{left} - {right}"
    return out


def _options(kind: str, answer: str, watched_s: int) -> tuple[str, ...]:
    """What is offered tells nothing of the answer: all there is of its kind; for a count the ten numbers that share its tens; of pairs, some."""
    if kind == "goals":
        tens = int(answer) // 10 * 10
        return tuple(str(n) for n in range(tens, tens + 10))
    if kind == "teams":
        pairs = [f"{a} - {b}" for a in NAMES for b in NAMES if a != b]
        rng = np.random.default_rng([pairs.index(answer), watched_s])
        pairs.remove(answer)
        return tuple(sorted((answer, *(str(pair) for pair in rng.choice(pairs, PAIRS_OFFERED - 1, replace=False)))))
    return {"side": SIDES, "last": HAPPENED, "score": SCORES, "who_scored": NAMES, "first_scorer": NAMES}[kind]
