"""Video-MME (MME-Benchmarks/Video-MME): four options, asked after the video; short, medium and long ones.

Reads videomme/test-00000-of-00001.parquet, or a JSON list with the same fields; videos below data (or videos) by `videoID`. The published rule (in
wide use, and copied into other repositories): strip a list of phrases such as "The answer is", then take the first of the letters A to D wherever it
stands; two missing commas keep "Best answer:" and "The best option is" from being stripped, so that "Best answer: C" is read as B. An answer without
any of the letters is left out of the mean, not counted as wrong. `rescore` reads LiveCC's shipped predictions (showlab/livecc,
evaluation/videomme/results): a list of videos with `questions`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.harness import extract, reading
from streamingvlm.evaluation.harness.protocol import Benchmark, Item, Mark, Turn
from streamingvlm.evaluation.harness.reading import Entry

FILES = ("videomme/test-00000-of-00001.parquet", "test-00000-of-00001.parquet", "videomme/*.parquet", "Video-MME.json", "videomme.json")
STRIPPED = ("The best answer is", "The correct answer is", "The answer is", "The answer", "The best option is" "The correct option is",
            "Best answer:" "Best option:", "Answer:", "Option:")  # the two missing commas are the published ones


def read(folder: Path) -> list[Item]:
    """2,700 questions on 900 videos."""
    return [_item(folder, entry) for entry in reading.entries(folder, FILES)]


def _item(folder: Path, entry: Entry) -> Item:
    name, options = entry.text("videoID"), entry.options("options")
    places = [f"{place}{name}.{kind}" for place in ("data/", "videos/", "video/", "") for kind in ("mp4", "MP4", "mkv")]
    return Item(entry.text("question_id"), reading.video(folder, places), None, entry.text("question"), options,
                entry.letter("answer", len(options)), entry.text("task_type"), entry.text("duration"))


def own(said: str, item: Item) -> bool | None:
    """The published rule; None where it finds no letter."""
    said = said.strip()
    for phrase in STRIPPED:
        said = said.replace(phrase, "")
    found = re.search("[ABCD]", said)
    return found[0] == item.answer if found else None


mark = extract.by_letter(own)


def rescore(path: Path) -> list[Mark]:
    """Marks of a file of LiveCC's."""
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))
        entries = [(Entry(path, number, video), one) for number, video in enumerate(videos, 1)
                   for one in Entry(path, number, video).entries("questions")]
    except (OSError, ValueError, TypeError, AttributeError):
        raise UserError(f"{path} is no list of videos with `questions`: name a file of evaluation/videomme/results of LiveCC's repository.") from None
    return [one for video, asked in entries for one in mark([Turn(Item(
        asked.text("question_id"), video.text("video_id"), None, asked.text("question"), asked.options("options"), asked.text("answer"),
        asked.text("task_type"), video.text("duration")), str(asked.data.get("response") or ""))])]


BENCHMARKS = (Benchmark("videomme", "Video-MME without subtitles: 2,700 questions, asked after the video",
                        "videomme/test-00000-of-00001.parquet, and data/",
                        "the first of the letters A to D in the answer, some phrases stripped; none: left out of the mean", read, mark,
                        rescore=rescore),)
