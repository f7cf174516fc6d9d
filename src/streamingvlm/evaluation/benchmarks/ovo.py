"""OVO-Bench (JoeLeelyf/OVO-Bench, CC BY-NC-SA 4.0): twelve tasks in three groups, asked at a moment about what was seen until then.

Reads data/ovo_bench_new.json; videos below src_videos, or the clips of chunked_videos, each of which ends at its question. The published rule
(utils/OVOBenchScore.py): a choice is right where its letter is *anywhere* in the answer, so "ABCD" is always right; a count where all digits of the
answer, joined, are the number; yes or no where the right word is in the answer, so "Not yet: No, yes later" is both. A missing answer is wrong.
`rescore` reads the predictions that the repository ships (results/MODEL).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.harness import extract, reading
from streamingvlm.evaluation.harness.protocol import CHOICE, COUNT, LETTERS, YES_NO, Benchmark, Item, Mark, Templates, Turn, marked
from streamingvlm.evaluation.harness.reading import Entry

GROUPS = {"backward": ("EPM", "ASI", "HLD"), "realtime": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"), "forward": ("REC", "SSR", "CRR")}
GROUP = {task: group for group, tasks in GROUPS.items() for task in tasks}
FILES = ("ovo_bench_new.json", "data/ovo_bench_new.json")
MOST_OPTIONS = 5
TEMPLATES = {"REC": "REC_PROMPT_TEMPLATE", "SSR": "SSR_PROMPT_TEMPLATE", "CRR": "CRR_PROMPT_TEMPLATE"}  # of constant.py
CHOICE_TEMPLATE = "BR_PROMPT_TEMPLATE"


def read(folder: Path) -> list[Item]:
    """3,035 questions of 1,640 entries."""
    return [item for entry in reading.entries(folder, FILES) for item in _items(folder, entry)]


def _items(folder: Path, entry: Entry) -> Iterator[Item]:
    task, name, video = (entry.text(field) for field in ("task", "id", "video"))
    if task not in GROUP:
        raise entry.wrong("task", f"one of {', '.join(GROUP)}")
    if GROUP[task] != "forward":
        options = entry.options("options")
        right = LETTERS[entry.whole("gt", len(options))]
        place, at_s = _place(folder, video, name, entry.number_of("realtime"))
        yield Item(name, place, at_s, entry.text("question"), options, right, task, GROUP[task])
        return
    for k, asked in enumerate(entry.entries("test_info")):
        place, at_s = _place(folder, video, f"{name}_{k}", asked.number_of("realtime"))
        question, answer, kind = _forward(task, entry, asked)
        yield Item(f"{name}_{k}", place, at_s, question, (), answer, task, "forward", kind)


def _place(folder: Path, video: str, clip: str, at_s: float) -> tuple[str, float | None]:
    """The whole video and the second of the question; where only the clips are there, the clip, to its end."""
    whole = (f"src_videos/{video}", f"data/src_videos/{video}", video)
    place = reading.video(folder, (*whole, f"chunked_videos/{clip}.mp4", f"data/chunked_videos/{clip}.mp4"))
    return place, at_s if place in whole else None


def _forward(task: str, entry: Entry, asked: Entry) -> tuple[str, str, str]:
    """-> question in our words, answer, kind."""
    if task == "REC":
        return f"How often, counting everybody, was this done in the video so far: {entry.text('activity')}?", str(asked.whole("count")), COUNT
    answer = ("No", "Yes")[asked.whole("type", 2)]
    if task == "SSR":
        return f"Is this step of the instructions being carried out right now: {asked.text('step')}?", answer, YES_NO
    return f"Can this question be answered from what was seen so far: {entry.text('question')}", answer, YES_NO


def fill(item: Item, templates: Templates) -> str:
    """The benchmark's own text, from constant.py."""
    if item.task not in TEMPLATES:
        listed = "; ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=False)) + ";"
        return templates[CHOICE_TEMPLATE].format(item.question, listed)
    asked = item.question.partition(": ")[2]
    return templates[TEMPLATES[item.task]].format(f"How many times did they {asked}" if item.task == "REC" else
                                                  asked.removesuffix("?") if item.task == "SSR" else asked)


def mark(turns: Sequence[Turn]) -> list[Mark]:
    (turn,) = turns
    item, said = turn.item, turn.response
    found = {CHOICE: lambda: extract.letter(said, item.options or MOST_OPTIONS), COUNT: lambda: extract.number(said),
             YES_NO: lambda: extract.yes_no(said)}[item.kind]()
    return [marked(turn, own(item.kind, said, item.answer), found)]


def own(kind: str, said: str, answer: str) -> bool:
    """The published rule."""
    if kind == COUNT:
        return "".join(re.findall(r"\d+", said)) == answer
    return answer in said or (kind == YES_NO and said == answer[0])


def rescore(path: Path) -> list[Mark]:
    """Marks of the predictions in a file, or in all files of a folder, as the repository ships them."""
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"There is no JSON file in {path}: name results/MODEL of the benchmark's repository.")
    return [one for file in paths for turn in _shipped(file) for one in mark([turn])]


def _shipped(path: Path) -> Iterator[Turn]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for group in GROUPS for row in found[group]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} has no `backward`, `realtime` and `forward`: name results/MODEL of the benchmark's repository.") from None
    for number, row in enumerate(rows, 1):
        entry = Entry(path, number, row)
        task, name, video = (entry.text(field) for field in ("task", "id", "video"))
        if GROUP.get(task) != "forward":
            yield Turn(Item(name, video, None, "", (), entry.text("ground_truth"), task, GROUP[task]), _said(row))
            continue
        for k, asked in enumerate(entry.entries("test_info")):
            question, answer, kind = _forward(task, entry, asked)
            yield Turn(Item(f"{name}_{k}", video, None, question, (), answer, task, "forward", kind), _said(asked.data))


def _said(row: dict) -> str:
    """A missing answer is an empty one; two of the shipped models have each answer in a list of its own."""
    found = row.get("response")
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, str) else ""


BENCHMARKS = (Benchmark("ovo", "OVO-Bench: 3,035 questions at their moment, in the groups backward, realtime and forward",
                        "ovo_bench_new.json, and src_videos/ or chunked_videos/", "the letter, or Yes or No, anywhere in the answer; digits joined",
                        read, mark, "groups", fill, rescore=rescore),)
