"""LongVideoBench (longvideobench/LongVideoBench, CC BY-NC-SA 4.0): up to five options, asked after a video of up to an hour.

Reads lvb_val.json (`candidates`) or the parquet of the hub (`option0` to `option4`, "N/A" where there is none); videos below videos by `video_path`.
Without subtitles. Its own repository has no scorer; the rule here is lmms-eval's, which says it follows the author: strip a list of phrases, take the
first of the letters A to E wherever it stands, and where there is none *guess at random*: here such an answer counts as much as a guess is worth, one
over the number of options, so that no run differs from another. (Another toolkit loads the subtitles exactly when they are switched off.)
"""

from __future__ import annotations

import re
from pathlib import Path

from streamingvlm.evaluation.harness import extract, reading
from streamingvlm.evaluation.harness.protocol import LETTERS, Benchmark, Item
from streamingvlm.evaluation.harness.reading import Entry

FILES = ("lvb_val.json", "validation-*.parquet", "data/validation-*.parquet", "**/validation-*.parquet")
STRIPPED = ("The best answer is", "The correct answer is", "The answer is", "The answer", "The best option is", "The correct option is",
            "Best answer:", "Best option:")


def read(folder: Path) -> list[Item]:
    """The validation questions: those of the test have no answers."""
    return [_item(folder, entry) for entry in reading.entries(folder, FILES)]


def _item(folder: Path, entry: Entry) -> Item:
    listed = "candidates" in entry.data or "option0" not in entry.data
    options = entry.options("candidates") if listed else tuple(
        str(entry.data[f"option{k}"]) for k in range(5) if entry.data.get(f"option{k}", "N/A") not in ("N/A", None))
    place = entry.text("video_path")
    return Item(entry.text("id"), reading.video(folder, (f"videos/{place}", place)), None, entry.text("question"), options,
                LETTERS[entry.whole("correct_choice", len(options))], entry.text("question_category"), f"{entry.whole('duration_group')} s")


def own(said: str, item: Item) -> float:
    """The published rule; of a guess, what it is worth."""
    said = said.strip()
    for phrase in STRIPPED:
        said = said.replace(phrase, "")
    found = re.search("[ABCDE]", said)
    return float(found[0] == item.answer) if found else 1 / len(item.options)


BENCHMARKS = (Benchmark("longvideobench", "LongVideoBench, validation, without subtitles: 1,337 questions, asked after the video",
                        "lvb_val.json, and videos/", "the first of the letters A to E in the answer, some phrases stripped; none: a guess", read,
                        extract.by_letter(own)),)
