"""Scoring commentary against what happened: event, who, score; for a whole stream and per minute. Knows the arena's grammar, no model.

A second is right about the *event* if it names the event that happened, or is silent when none did. *who* and *score* are the
shares of all goals that were named with the right team or score: a missed one counts as wrong. `event_f1` counts events, each matched to one of
the same kind and side within `tolerance_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from streamingvlm.data.stream_rows import words_by_chunk
from streamingvlm.worlds.match import game
from streamingvlm.worlds.match.game import Said

METRICS = ("score", "who", "increment", "event_f1", "event_accuracy")  # what `score_all` gives, the hardest first


def truth_of(row: dict, chunk_s: float = 1.0) -> list[Said]:
    """What a stream row says happened, chunk by chunk."""
    return [game.parse(words) for words in words_by_chunk(row, chunk_s)]


def event_f1(said: Sequence[Said], truth: Sequence[Said], tolerance_s: float, chunk_s: float = 1.0) -> float:
    """F1 of named events, each truth matched at most once, nearest first in time order."""
    reach = int(tolerance_s / chunk_s)
    open_ = {k: t.event for k, t in enumerate(truth) if t.event != "none"}
    named = [(k, s.event) for k, s in enumerate(said) if s.event != "none"]
    events, hits = len(open_), 0
    for k, event in named:
        near = [j for j in sorted(range(k - reach, k + reach + 1), key=lambda j: (abs(j - k), j)) if open_.get(j) == event]
        if near:
            hits += 1
            del open_[near[0]]
    return 2 * hits / (len(named) + events) if named or events else 1.0


def score_all(said: Sequence[Said], truth: Sequence[Said], tolerance_s: float = 1.0, chunk_s: float = 1.0, before: Sequence[Said] = ()
          ) -> dict[str, float | None]:
    """event_accuracy, event_f1, who, score, increment of a stretch of stream; None where nothing happened to be right or wrong about.

    `increment`: of all scores said, with a goal or restated, the share that follows from the one said last, so that one slip is counted once.
    `before`: what was said before this stretch."""
    goals = [(s, t) for s, t in zip(said, truth, strict=True) if t.event.startswith("goal")]
    return {
        "event_accuracy": _share(s.event == t.event for s, t in zip(said, truth, strict=True)),
        "event_f1": event_f1(said, truth, tolerance_s, chunk_s),
        "who": _share(s.event == t.event and s.who == t.who for s, t in goals),
        "score": _share(s.event == t.event and s.score == t.score for s, t in goals),
        "increment": _share(_increments(said, next((s.score for s in reversed(before) if s.score), (0, 0)))),
    }


def _increments(said: Iterable[Said], last: tuple[int, int]) -> Iterable[bool]:
    for s in said:
        if s.score and s.event != "kickoff":
            goal, left = s.event.startswith("goal"), s.event.endswith("left")
            yield s.score == (last[0] + (goal and left), last[1] + (goal and not left))
        last = s.score or last


def _share(answers: Iterable[bool]) -> float | None:
    answers = list(answers)
    return float(np.mean(answers)) if answers else None


def per_minute(said: Sequence[Said], truth: Sequence[Said], tolerance_s: float = 1.0, chunk_s: float = 1.0) -> list[dict]:
    """`score_all` of every started minute of the stream."""
    n = round(60 / chunk_s)
    return [{"minute": k // n, **score_all(said[k : k + n], truth[k : k + n], tolerance_s, chunk_s, said[:k])} for k in range(0, len(truth), n)]


def quarters(said: Sequence[Said], truth: Sequence[Said], tolerance_s: float = 1.0, chunk_s: float = 1.0) -> dict[str, dict]:
    """`score_all` of the first and of the last quarter: what decays over a stream differs between them."""
    n = max(1, len(truth) // 4)
    last = score_all(said[-n:], truth[-n:], tolerance_s, chunk_s, said[:-n])
    return {"first_quarter": score_all(said[:n], truth[:n], tolerance_s, chunk_s), "last_quarter": last}


def exact_score(tolerance_s: float = 1.0, chunk_s: float = 1.0) -> Callable[[Sequence[str], Sequence[str]], float]:
    """The arena's exact score of a segment: the mean of event F1, `who` and `score`, those of them that anything happened for.

    Not `increment`: its denominator is what was said, so whoever names no score would be spared it.
    """
    def exact(said: Sequence[str], reference: Sequence[str]) -> float:
        result = score_all([game.parse(text) for text in said], [game.parse(text) for text in reference], tolerance_s, chunk_s)
        known = [value for value in (result[key] for key in ("event_f1", "who", "score")) if value is not None]
        return sum(known) / len(known)
    return exact
