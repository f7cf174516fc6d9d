"""StreamingBench (THUNLP-MT/StreamingBench, MIT): questions at a time stamp of a stream; and outputs that are to come by themselves.

Reads src/data/questions_{real,omni,sqa,proactive}.json (the _stream files hold the same questions a video at a time); videos below videos. The
published rule (src/data/count.py): a choice is right where the *first character* of the answer is its letter: " C" and "(C)" are wrong. Of an empty
answer the published script can say nothing (it ends in an error for `real` and `omni`, and leaves the question out for `sqa`): here it is wrong.

Proactive: from one second after the question to four behind the true moment the model is asked every second whether the time has come; the first
"yes" anywhere in an answer counts, and then it is asked for the output. Right in time: within two seconds; right in full: and the output is in the
answer. Two tasks here. The question that is put each second names the very output that is waited for: the second score is not one of finding it.

`sqa` tells the questions before and their right answers. Its Qwen2-VL script reads the 4 of ".mp4" as a duration, so that it always looks at one
frame a second: a frame rate beside a published number is to be doubted. Options of 13 questions of `omni` were cut into pieces of their list, of
which its prompt shows the first four; here they are joined again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamingvlm.evaluation.harness import extract, reading
from streamingvlm.evaluation.harness.protocol import LETTERS, OPEN, YES_NO, Benchmark, Item, Mark, Templates, Turn, lettered, state
from streamingvlm.evaluation.harness.reading import Entry

BEFORE_S, AFTER_S, RIGHT_WITHIN_S = 1.0, 4.0, 2.0  # of the polling: its first second, its last behind the true moment, and what is in time
POLL, OUTPUT = "", "output"  # parts of a proactive question


def reader(name: str) -> Callable[[Path], list[Item]]:
    """The `read` of one of its files."""
    def read(folder: Path) -> list[Item]:
        names = [f"{place}questions_{name}{kind}.json" for kind in ("", "_stream") for place in ("", "src/data/", "data/")]
        path, found = reading.rows(folder, names)
        items: list[Item] = []
        for number, row in enumerate(found, 1):
            before = ""
            for one in row if isinstance(row, list) else [row]:  # those of `sqa` stand in lists, a video each
                asked = list(_items(folder, Entry(path, number, one if isinstance(one, dict) else {}), name, len(items), before))
                before = _told(asked[-1]) if asked and name == "sqa" else ""
                items += asked
        return items
    return read


def _items(folder: Path, entry: Entry, name: str, count: int, before: str) -> Iterator[Item]:
    place = entry.text("video_path").removeprefix("./")
    video = reading.video(folder, (place, Path(place).name, f"data/{place}", f"{name}/{Path(place).name}"))
    for k, asked in enumerate(entry.entries("questions"), count):
        task, at_s, question = asked.text("task_type"), asked.seconds("time_stamp"), asked.text("question")
        if name == "proactive":
            opens_s, output = at_s + BEFORE_S, asked.text("ground_truth_output")
            closes_s = asked.seconds("ground_truth_time_stamp") + AFTER_S
            yield Item(str(k), video, opens_s, f'Is now the moment to say "{output}"?', (), output, task, name, YES_NO, context=question,
                       closes_s=closes_s).at(opens_s, POLL)
            continue
        options = asked.options("options", rejoin=True)
        right = asked.letter("answer", len(options))
        item = Item(str(k), video, at_s, question, options, right, task, name, context=before)
        yield item
        before = _told(item) if name == "sqa" else ""


def _told(item: Item) -> str:
    """What the next question is told: those before it and this one, each with its right answer."""
    said = f"Asked before: {item.question} The right answer was: {item.options[LETTERS.index(item.answer)]}"
    return f"{item.context}\n{said}" if item.context else said


def fill(item: Item, templates: Templates) -> str:
    """The benchmark's own text, from src/benchmark/StreamingBench.py or StreamingBenchProactive.py."""
    if item.kind in (YES_NO, OPEN):
        return templates["PROMPT_TEMPLATE_PROACTIVE"].format(f"{item.context} {item.question}".strip())
    told = (item.context,) if item.group == "sqa" else ()
    return templates["PROMPT_TEMPLATE"].format(*told, item.question, *lettered(item.options).split("\n"))


def own(said: str, item: Item) -> bool:
    """The published rule of a choice."""
    return said[:1] == item.answer


def follow_up(turn: Turn) -> Item | None:
    """Behind a yes the output, behind anything else the next second, until the polling closes."""
    item = turn.item
    if item.part == OUTPUT:
        return None
    if says_yes(turn.response):
        return dataclasses.replace(item.at(item.ask_at_s, OUTPUT), question=item.context, context="", kind=OPEN)
    return item.at(item.ask_at_s + 1, POLL) if item.ask_at_s + 1 <= item.closes_s else None


def says_yes(said: str) -> bool:
    """The published rule of a poll."""
    return "yes" in said.strip().lower()


def mark_proactive(turns: Sequence[Turn]) -> list[Mark]:
    """Two marks: in time, and in full. Strictly the yes must be one (`extract.yes_no`), and the output the whole answer."""
    polls, outputs = ([turn for turn in turns if (turn.item.part == OUTPUT) == last] for last in (False, True))
    item, said = polls[-1].item, outputs[-1].response if outputs else ""
    in_time = bool(outputs) and abs(item.ask_at_s - (item.closes_s - AFTER_S)) <= RIGHT_WITHIN_S
    clear = extract.yes_no(polls[-1].response)
    clearly, name = in_time and clear == "Yes", item.id.partition("@")[0]
    return [Mark(name, item.video, f"{item.task}: in time", item.group, float(in_time), float(clearly), state(polls[-1].response, clear)),
            Mark(name, item.video, f"{item.task}: in full", item.group, float(in_time and item.answer in said),
                 float(clearly and extract.same_words(said, item.answer)), state(said, said) if outputs else "answered")]


FIRST = "the first character of the answer is the letter"
ABOUT = {"real": "real-time understanding, 2,500 questions in 10 tasks", "omni": "with sound, which is not heard here: 1,500 questions in 6 tasks",
         "sqa": "questions that hang on those before, 250"}
BENCHMARKS = (
    *(Benchmark("streamingbench" if name == "real" else f"streamingbench-{name}", f"StreamingBench, {about}", f"questions_{name}.json, and videos/",
                FIRST, reader(name), extract.by_letter(own), fill=fill) for name, about in ABOUT.items()),
    Benchmark("streamingbench-proactive", "StreamingBench, outputs that are to come by themselves: 250, polled every second",
              "questions_proactive.json, and videos/", "the first yes anywhere in an answer within 2 s; the output anywhere in the next answer",
              reader("proactive"), mark_proactive, fill=fill, follow_up=follow_up),
)
