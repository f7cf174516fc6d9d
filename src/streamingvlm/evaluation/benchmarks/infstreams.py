"""Inf-Streams-Eval (mit-han-lab/streaming-vlm): whole games commented from second 1000 on, judged in segments of 100 s.

Reads eval_all_metadata.jsonl by `data.formats.inf_streams_eval`; videos below the folder. The published rule (streaming_vlm/eval/model_compete): a
segment counts where the human said at least 200 words in it and both models reached its end; a judge is shown both in both orders; the share of votes
for ours, every answer that does not begin with "A" being a vote for whoever was shown second. `evaluation.judge` says what of that is not followed.
"""

from __future__ import annotations

from pathlib import Path

from streamingvlm.data import formats
from streamingvlm.evaluation import judge
from streamingvlm.evaluation.harness import reading
from streamingvlm.evaluation.harness.protocol import COMMENTARY, Benchmark, Item

FILES = ("eval_all_metadata.jsonl", "*eval*metadata*.jsonl", "*eval*.jsonl")
START_S = 1000.0  # of the published runs


def read(folder: Path) -> list[Item]:
    """One stretch of commentary a game."""
    path = reading.find(folder, FILES)
    return [_item(folder, row) for row in formats.inf_streams_eval(path, Path(), START_S)]


def _item(folder: Path, row: dict) -> Item:
    video = reading.video(folder, (row["video"], f"videos/{row['video']}", f"videos/{Path(row['video']).name}"))
    return Item(row["id"], video, None, row["query"], (), "", "commentary", "commentary", COMMENTARY, row["start_s"], row=row)


BENCHMARKS = (Benchmark("infstreams", "Inf-Streams-Eval, commentary of whole games from second 1000 on, judged against another's",
                        "eval_all_metadata.jsonl, and the videos it names", "the share of the judge's votes in segments of 100 s, both orders", read,
                        lambda turns: [], segment_s=judge.PAPER_SEGMENT_S, min_words=judge.PAPER_MIN_WORDS),)
