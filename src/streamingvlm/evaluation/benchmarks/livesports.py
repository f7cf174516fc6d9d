"""LiveSports-3K (stdKonjac/LiveSports-3K): commentary of an event (CC), and four options asked after an event (QA).

CC reads LiveSports-3K-CC.json (or the older CSV) by `data.formats.live_sports_cc`: from `begin` to `end` a stream is commented, what was said before
as its previous text. The published rule (showlab/livecc, evaluation/livesports3kcc/llm_judge.py): a judge is shown our commentary, GPT-4o's and a
human's, in both orders; the share of votes for ours, an answer that names neither being nobody's vote. The StreamingVLM paper's own copy of that
script blanks *both* sides where a prediction is missing; here such an event is skipped and counted. `rescore` reads the verdicts that LiveCC's
repository ships (judges/GPT-4o_MODEL.jsonl).

QA reads the annotation file with `video_id, question_id, q_type, OCR, question, options, answer`; right where the first character is the letter.
"""

from __future__ import annotations

import json
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.data import formats
from streamingvlm.evaluation import judge
from streamingvlm.evaluation.harness import extract, reading
from streamingvlm.evaluation.harness.protocol import COMMENTARY, Benchmark, Item
from streamingvlm.evaluation.harness.reading import Entry

CC_FILES = ("LiveSports-3K-CC.json", "LiveSports-3K-CC*.json", "LiveSports-3K-CC*.csv")
QA_FILES = ("LiveSports-3K-QA.json", "LiveSports-3K-QA*.json*", "sports3k-qa.jsonl", "LiveSports-3K-QA*.parquet", "**/*QA*.parquet")
BASELINE = "GPT-4o"


def read_cc(folder: Path) -> list[Item]:
    """1,702 events."""
    path = reading.find(folder, CC_FILES)
    return [Item(row["id"], _video(folder, row["video"]), None, row["query"], (), "", "CC", "CC", COMMENTARY, row["start_s"], row=row)
            for row in formats.live_sports_cc(path, Path())]


def _video(folder: Path, name: str) -> str:
    return reading.video(folder, (f"videos/{name}", name, f"videos/{Path(name).name}"))


def read_qa(folder: Path) -> list[Item]:
    """The questions, asked at the end of their event, or of the video where none is given."""
    return [_question(folder, entry) for entry in reading.entries(folder, QA_FILES)]


def _question(folder: Path, entry: Entry) -> Item:
    options, name = entry.options("options"), str(entry.data.get("video") or f"{entry.text('video_id')}.mp4")
    start_s, end_s = (entry.number_of(key) if key in entry.data else None for key in ("video_start", "video_end"))
    return Item(f"{entry.text('video_id')}-{entry.text('question_id')}", _video(folder, name), end_s, entry.text("question"), options,
                entry.letter("answer", len(options)), entry.text("q_type"), "OCR" if entry.whole("OCR", 2) else "no OCR", start_s=start_s or 0.0)


def verdicts(path: Path) -> judge.Result:
    """Shipped verdicts, from the model's point of view: {video_event_id, ab_winner, ba_winner}, the model shown first in `ab`."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = [(row["video_event_id"], _verdict(row["ab_winner"]), _verdict(row["ba_winner"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} holds no verdicts: name a file of evaluation/livesports3kcc/judges of LiveCC's repository.") from None
    return judge.Result(tuple(judge.Judged(name, 0.0, 0.0, first, second) for name, first, second in pairs))


def _verdict(winner: str) -> judge.Verdict:
    return {BASELINE: "B", "tie": "unclear"}.get(winner, "A")


BENCHMARKS = (
    Benchmark("livesports-cc", "LiveSports-3K, commentary of 1,702 events, judged against another's", "LiveSports-3K-CC.json, and videos/",
              "the share of the judge's votes, both orders", read_cc, lambda turns: [], verdicts=verdicts),
    Benchmark("livesports-qa", "LiveSports-3K, questions with four options, asked after the event", "LiveSports-3K-QA.json, and videos/",
              "the first character of the answer is the letter", read_qa, extract.by_letter(lambda said, item: said[:1] == item.answer)),
)
