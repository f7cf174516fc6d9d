"""Who commentates better, A or B? The protocol of Inf-Streams-Eval: a stream in segments of 100 s, each judged in both orders, a win rate.

    pairs = [(row, said["streaming"][row["id"]], said["full"][row["id"]]) for row in rows]     # texts, chunk by chunk
    win_rate(pairs, by_score(exact_score())).numbers()                                         # exact, for streams with labels
    win_rate(pairs, by_score(similarity_score()))                                              # offline, for any reference text
    win_rate(pairs, chat.from_environment("some-model", cache=folder), workers=8)              # an LLM behind an OpenAI-compatible server

What the paper says (section 2.3.3): games are split into segments of 100 s, those with at least 200 words of human commentary are kept, and
gpt-5, shown that commentary, votes between two outputs. What its released code does (streaming_vlm/eval/model_compete): a word belongs to the
segment in whose (start, end] it ends; a segment that one model did not reach is left out; both orders are asked, and the win rate is A's share of
all votes. Where the orders disagree that is one vote each, half a win: a tie here. Two of its habits are not followed: it reads every answer that
does not start with "A" as a vote for B, in both orders, so that a judge that fails pulls the rate towards one half (here a segment with such an
answer is counted apart; `Result.released` is the rate by that rule); and it starts every game at second 1000 (here: where the row starts).

A judge may prefer what it is shown first, and then a win rate says less than it seems to. So beside every win rate stand its flip rate (the two
orders name different winners) and A's share of votes when it was shown first and when second. In LiveCC's published verdicts the same model wins
65.3 % and 29.1 %: 640 of 1,702 pairs flip, 628 of them towards whoever came first.

**No verdict given here is one of the paper's judge.** The exact judge knows only the arena's grammar. The similarity judge counts runs of
letters in common: it knows no synonym, no negation and no tone, so it favours whoever shares the reference's vocabulary. Another LLM has other
preferences. Win rates of different judges, or against different opponents, do not compare. Knows texts and seconds, no model and no video.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from streamingvlm.base.errors import UserError
from streamingvlm.base.numbers import wilson
from streamingvlm.data.stream_rows import words_by_chunk

Verdict = Literal["A", "B", "tie", "unclear"]  # unclear: an answer that names neither; its segment is counted apart
MIRRORED = {"A": "B", "B": "A", "tie": "tie", "unclear": "unclear"}
VOTE = {"A": 1.0, "B": 0.0, "tie": 0.5}
PAPER_SEGMENT_S, PAPER_MIN_WORDS = 100.0, 200
Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Segment:
    """A stretch of one stream, chunk by chunk: what a human said, and what A and B said. Times are the video's."""

    stream: str
    start_s: float
    end_s: float
    reference: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]

    def swapped(self) -> Segment:
        return replace(self, a=self.b, b=self.a)


Judge = Callable[[Segment], Verdict]
Score = Callable[[Sequence[str], Sequence[str]], float]  # (said, reference), chunk by chunk -> the more the better


@dataclass(frozen=True)
class Judged:
    """One segment's two verdicts, both from A's and B's point of view, and what they come to."""

    stream: str
    start_s: float
    end_s: float
    first: Verdict
    second: Verdict

    @property
    def clear(self) -> bool:
        """Whether the judge gave an answer in both orders."""
        return "unclear" not in (self.first, self.second)

    @property
    def flips(self) -> bool:
        """Whether the two orders name different winners."""
        return {self.first, self.second} == {"A", "B"}

    @property
    def winner(self) -> Verdict:
        return self.first if self.first == self.second and self.first in ("A", "B") else "tie"


@dataclass(frozen=True)
class Result:
    """Every judged segment, and how many one of the two did not reach (`skipped`). Rates are of those judged clearly in both orders; None where
    there is none."""

    judged: tuple[Judged, ...]
    skipped: int = 0

    @property
    def clear(self) -> tuple[Judged, ...]:
        return tuple(j for j in self.judged if j.clear)

    def count(self, winner: Verdict) -> int:
        return sum(j.winner == winner for j in self.clear)

    @property
    def win_rate(self) -> float | None:
        """A's: wins, and half of the ties."""
        return _share(self.count("A") + self.count("tie") / 2, len(self.clear))

    @property
    def released(self) -> float | None:
        """The win rate as the released code counts it: A's share of all votes, where what does not name A is a vote for whoever was shown second."""
        return _share(sum((j.first == "A") + (j.second in ("A", "tie", "unclear")) for j in self.judged), 2 * len(self.judged))

    @property
    def flip_rate(self) -> float | None:
        return _share(sum(j.flips for j in self.clear), len(self.clear))

    @property
    def won_first(self) -> float | None:
        """A's share of the votes when A was shown first, a tie counting half."""
        return _share(sum(VOTE[j.first] for j in self.clear), len(self.clear))

    @property
    def won_second(self) -> float | None:
        return _share(sum(VOTE[j.second] for j in self.clear), len(self.clear))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval over segments. It takes them for independent, which segments of one stream are not: read it as too narrow."""
        if self.win_rate is None:
            return None
        return wilson(self.win_rate, len(self.clear), Z)

    def numbers(self) -> dict[str, float | None]:
        """For metrics.json."""
        low, high = self.interval or (None, None)
        return {"win_rate": self.win_rate, "low": low, "high": high, "wins": self.count("A"), "losses": self.count("B"), "ties": self.count("tie"),
                "flip_rate": self.flip_rate, "won_first": self.won_first, "won_second": self.won_second,
                "segments": len(self.judged), "skipped": self.skipped, "unclear": len(self.judged) - len(self.clear)}


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def segments(row: dict, a: Sequence[str], b: Sequence[str], segment_s: float = PAPER_SEGMENT_S, chunk_s: float = 1.0, min_words: int = 1
             ) -> tuple[list[Segment], int]:
    """Cut a stream row and two commentaries on it, texts chunk by chunk, into segments -> (those both reach the end of, how many others).

    A shorter one at the end of the stream counts too. Where the reference has fewer than `min_words` (the paper: 200) there is no segment.
    """
    n = round(segment_s / chunk_s)
    if n < 1 or abs(segment_s / chunk_s - n) > 1e-6:
        raise UserError(f"A segment of {segment_s:g} s is not a whole number of chunks of {chunk_s:g} s: choose another length.")
    reference, found, skipped = words_by_chunk(row, chunk_s), [], 0
    for k in range(0, len(reference), n):
        human = tuple(reference[k : k + n])
        end = k + len(human)
        if sum(len(text.split()) for text in human) < min_words:
            continue
        if min(len(a), len(b)) < end:
            skipped += 1
            continue
        start_s, end_s = (row["start_s"] + chunk * chunk_s for chunk in (k, end))
        found.append(Segment(row["id"], start_s, end_s, human, tuple(a[k:end]), tuple(b[k:end])))
    return found, skipped


def win_rate(pairs: Iterable[tuple[dict, Sequence[str], Sequence[str]]], judge: Judge, segment_s: float = PAPER_SEGMENT_S, chunk_s: float = 1.0,
             min_words: int = 1, workers: int = 1) -> Result:
    """A against B on many streams: (row, A's texts, B's texts). `workers`: segments judged at once, for a judge that mostly waits."""
    cut = [segments(row, a, b, segment_s, chunk_s, min_words) for row, a, b in pairs]
    ask, asked = partial(both_orders, judge), [segment for found, _ in cut for segment in found]
    if workers == 1:
        judged = tuple(map(ask, asked))
    else:
        with ThreadPoolExecutor(workers) as pool:
            judged = tuple(pool.map(ask, asked))  # after an error it drops the rest
    return Result(judged, sum(skipped for _, skipped in cut))


def both_orders(judge: Judge, segment: Segment) -> Judged:
    """Ask A against B, then B against A."""
    verdicts = judge(segment), judge(segment.swapped())
    if not set(verdicts) <= set(MIRRORED):
        raise ValueError(f"A judge answers {', '.join(MIRRORED)}, not {verdicts}.")
    return Judged(segment.stream, segment.start_s, segment.end_s, verdicts[0], MIRRORED[verdicts[1]])


def by_score(score: Score, margin: float = 0.0) -> Judge:
    """The judge that scores both and prefers the higher one; a tie within `margin`."""
    def judge(segment: Segment) -> Verdict:
        a, b = score(segment.a, segment.reference), score(segment.b, segment.reference)
        if not (math.isfinite(a) and math.isfinite(b)):
            raise ValueError(f"A score must be a number, not {a} and {b} ({segment.stream}, from {segment.start_s:g} s).")
        if abs(a - b) <= margin + 1e-9:
            return "tie"
        return "A" if a > b else "B"
    return judge


def similarity_score(window: int = 10, gram: int = 3) -> Score:
    """Likeness to the reference without any model: the cosine of letter n-gram counts, in windows of `window` chunks, half overlapping.

    The mean over all windows in which anybody said anything. In one where only one of the two spoke it is 0: silence and babble both cost.
    """
    def score(said: Sequence[str], reference: Sequence[str]) -> float:
        likeness = []
        for k in range(0, max(1, len(reference) - window // 2), max(1, window // 2)):
            ours, theirs = (_grams(texts[k : k + window], gram) for texts in (said, reference))
            if ours or theirs:
                likeness.append(_cosine(ours, theirs))
        return sum(likeness) / len(likeness) if likeness else 1.0
    return score


def _grams(texts: Sequence[str], n: int) -> Counter[str]:
    words = re.findall(r"\w+", " ".join(texts).lower())
    padded = [f" {word} " for word in words]  # a short word is a gram of its own, and the edges of words count
    return Counter(word[i : i + n] for word in padded for i in range(max(1, len(word) - n + 1)))


def _cosine(x: Counter[str], y: Counter[str]) -> float:
    lengths = math.sqrt(sum(v * v for v in x.values()) * sum(v * v for v in y.values()))
    return sum(count * y[key] for key, count in x.items()) / lengths if lengths else 0.0
