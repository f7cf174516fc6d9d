"""A benchmark, a model that watches, and a file of answers: look for the videos, watch each once, ask at the right seconds, mark, count.

    found = check(items, folder)                                        # which videos are there
    for item in ask(benchmark, found.good, "stream", answerer, answers, folder, found.lost): ...
    marks(benchmark, found.good, answers, "stream")

What cannot be asked is never silently left out: it is in `lost`, with its reason. Knows no model: who answers is an `Answerer`, who comments a
`Commentator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Protocol

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.harness.answers import Answers
from streamingvlm.evaluation.harness.protocol import ANSWERS, COMMENTARY, YES_NO, Benchmark, Item, Mark, Turn
from streamingvlm.media import integrity

SLACK_S = 2.0  # that a video may end before its question: annotators' clocks round


class Answerer(Protocol):
    """Who watches and answers. Questions of one video come in order of time, those at the same second one after another."""

    def answer(self, video: Path, start_s: float, ask_at_s: float | None, prompt: str, options: Sequence[str]) -> str:
        """What it says to `prompt` after the video from `start_s` to `ask_at_s` (None: to its end), and nothing behind that."""
        ...


class Commentator(Protocol):
    """Who says something of its own as it watches."""

    def commentary(self, video: Path, row: dict) -> str:
        """JSON of [[start_s, end_s, text], ...]: what it says of the stretch of video that is a stream row."""
        ...


@dataclass(frozen=True)
class Found:
    """The questions whose videos are there, and why the others cannot be asked: (question, reason)."""

    good: list[Item]
    lost: list[tuple[Item, str]] = field(default_factory=list)


def check(items: Sequence[Item], folder: Path, follow: Callable[[Iterable[dict]], Iterable[dict]] = iter) -> Found:
    """Look for every question's video, each file once, and whether it lasts until the question. `follow` may show how far this is."""
    rows = [{"id": item.id, "video": item.video, "start_s": max(item.start_s, (item.ask_at_s or 0.0) - SLACK_S, 0.0)} for item in items]
    reasons = {fault.id: f"{fault.kind}: {fault.reason}" for fault in integrity.check(follow(rows), folder).faults}
    return Found([item for item in items if item.id not in reasons], [(item, reasons[item.id]) for item in items if item.id in reasons])


def in_order(items: Sequence[Item]) -> list[Item]:
    """So that each video is watched once."""
    return sorted(items, key=lambda item: (item.video, item.start_s, math.inf if item.ask_at_s is None else item.ask_at_s))


def ask(benchmark: Benchmark, items: Sequence[Item], way: str, answerer: Answerer | Commentator, answers: Answers, folder: Path,
        lost: list[tuple[Item, str]], prompt: Callable[[Item], str]) -> Iterator[Item]:
    """Ask what `answers` does not have yet, and yield each question of `items` when it is done with. A video that fails on the way is left, and its
    other questions are added to `lost`."""
    for _, watched in groupby(in_order(items), key=lambda item: (item.video, item.start_s)):
        queue, failure = list(watched), ""
        while queue:
            item = queue.pop(0)
            try:
                if not failure and not answers.has(way, item.id):
                    answers.add(way, item, _said(answerer, item, folder, prompt))
            except UserError as error:
                failure = f"failed: {error}"
            if failure:
                lost.append((item, failure))
            following = benchmark.follow_up(Turn(item, answers.said[way, item.id])) if benchmark.follow_up and not failure else None
            if following:
                queue = in_order([following, *queue])
            else:
                yield item


def _said(answerer: Answerer | Commentator, item: Item, folder: Path, prompt: Callable[[Item], str]) -> str:
    if item.kind == COMMENTARY:
        return answerer.commentary(folder / item.video, item.row)
    return answerer.answer(folder / item.video, item.start_s, item.ask_at_s, prompt(item), ANSWERS if item.kind == YES_NO else item.options)


def turns(benchmark: Benchmark, item: Item, answers: Answers, way: str) -> list[Turn]:
    """One question's turns, those that hang on its answers too; empty where it was not asked to its end."""
    found: list[Turn] = []
    asked: Item | None = item
    while asked is not None:
        if not answers.has(way, asked.id):
            return []
        found.append(Turn(asked, answers.said[way, asked.id]))
        asked = benchmark.follow_up(found[-1]) if benchmark.follow_up else None
    return found


def marks(benchmark: Benchmark, items: Sequence[Item], answers: Answers, way: str) -> list[Mark]:
    """Of all questions that were asked."""
    return [mark for item in items if (asked := turns(benchmark, item, answers, way)) for mark in benchmark.mark(asked)]
