"""What a question about a video is, what a benchmark has to say of itself, and what an answer is worth. Plain data; opens no file, knows no model."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamingvlm.evaluation import judge

LETTERS = string.ascii_uppercase
CHOICE, COUNT, YES_NO, OPEN, COMMENTARY = "choice", "count", "yes_no", "open", "commentary"
ANSWERS = ("Yes", "No")
Templates = Mapping[str, str]  # a benchmark's own texts by name, from the user's copy; one without a name stands under ""


@dataclass(frozen=True)
class Item:
    """One question. `video`: below the data folder; `start_s`, `ask_at_s`: seconds of it, None = at its end; `answer`: a letter, a number, Yes or No,
    or words, by `kind`. `context`: what is told before the question. `row`: of a commentary, its stream row. `closes_s`: of a question that
    is put again every second, until when; `part`: which of its questions this is."""

    id: str
    video: str
    ask_at_s: float | None
    question: str
    options: tuple[str, ...]
    answer: str
    task: str
    group: str
    kind: str = CHOICE
    start_s: float = 0.0
    context: str = ""
    row: dict | None = None
    closes_s: float | None = None
    part: str = ""

    def at(self, ask_at_s: float, part: str) -> Item:
        """The same question at another time, or another part of it."""
        return dataclasses.replace(self, ask_at_s=ask_at_s, part=part, id=f"{self.id.partition('@')[0]}@{ask_at_s:g}{part}")


@dataclass(frozen=True)
class Turn:
    """A question and what was answered."""

    item: Item
    response: str


@dataclass(frozen=True)
class Mark:
    """What the answers to one question are worth, 0 to 1: by the benchmark's own rule (None: the rule leaves the question out) and strictly.
    `state`: answered, empty, or unparsed (the strict reading found no answer in it)."""

    id: str
    video: str
    task: str
    group: str
    own: float | None
    strict: float
    state: str = "answered"


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark. Each function is small; adding one is described in `evaluation.benchmarks`.

    `read(folder)`: its items, in the published order; UserError for a file that is not the published one. `mark(turns)`: one question's turns, most
    often one, -> marks. `overall`: of what the overall number is the mean: items, tasks, or groups (of tasks). `rule`: the published rule in words.
    `fill(item, templates)`: the prompt in the benchmark's own text. `follow_up(turn)`: what is asked next because of an answer, or None.
    `rescore(path)`: marks of predictions that a repository ships; `verdicts(path)`: of a judge's. Of commentary: it is cut into
    segments of `segment_s` (None: each stretch is one), and where a human says less than `min_words` in one, that is left out.
    """

    name: str
    about: str
    needs: str
    rule: str
    read: Callable[[Path], list[Item]]
    mark: Callable[[Sequence[Turn]], list[Mark]]
    overall: str = "items"
    fill: Callable[[Item, Templates], str] | None = None
    follow_up: Callable[[Turn], Item | None] | None = None
    rescore: Callable[[Path], list[Mark]] | None = None
    verdicts: Callable[[Path], judge.Result] | None = None
    segment_s: float | None = None
    min_words: int = 1


def marked(turn: Turn, own: float | None, read: str | int | None) -> Mark:
    """The mark of one answer: `own` by the benchmark's rule, and strictly by what the strict reading made of it (`read`)."""
    item = turn.item
    return Mark(item.id, item.video, item.task, item.group, None if own is None else float(own), float(read is not None and str(read) == item.answer),
                state(turn.response, read))


def state(response: str, read: object) -> str:
    """answered, empty or unparsed; `read`: what the strict reading made of it."""
    return "empty" if not response.strip() else "unparsed" if read is None else "answered"


def lettered(options: Sequence[str]) -> str:
    """A line an option: "A. red"."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


HOW = {CHOICE: "Answer with the letter of the right option, and nothing else.", COUNT: "Answer with a number, and nothing else.",
       YES_NO: "Answer with Yes or No, and nothing else.", OPEN: "Answer in as few words as you can.", COMMENTARY: ""}


def prompt(item: Item) -> str:
    """The question in our own words: context, question, options, and how to answer."""
    return "\n".join(filter(None, (item.context, item.question, lettered(item.options), HOW[item.kind])))


def question(item: Item) -> str:
    """Context and question alone, for whoever lists the options himself."""
    return "\n".join(filter(None, (item.context, item.question, "" if item.kind in (CHOICE, YES_NO) else HOW[item.kind])))


def fill_plain(item: Item, templates: Templates) -> str:
    """One text for every question, with {question} and {options} in it; braces that name neither stay."""
    return templates[""].replace("{question}", item.question).replace("{options}", lettered(item.options))
