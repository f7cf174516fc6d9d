"""What the pipeline watches: real clips checked to their last frame, arena matches rendered to H.264, and both as stream rows in parquet.

A stream row is the contract between the stages: id, video (path from the repository root), title, query, previous_text, start_s, end_s, fps,
words [{start_s, end_s, text}], frames [{t_s, boxes, action, anomaly}], and the split it belongs to (train, clean, eval, long, clip).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from streamingvlm.base.errors import UserError


def words_by_chunk(row: dict, chunk_s: float = 1.0) -> list[str]:
    """What is said in each chunk of a row. A word belongs to the chunk in which it ends (as in the released code)."""
    said: list[list[str]] = [[] for _ in range(max(1, round((row["end_s"] - row["start_s"]) / chunk_s)))]
    for word in row["words"]:
        chunk = math.ceil((word["end_s"] - row["start_s"]) / chunk_s - 1e-6) - 1
        said[min(max(chunk, 0), len(said) - 1)].append(word["text"])
    return [" ".join(words) for words in said]


def features():
    """The contract as a `datasets` schema."""
    from datasets import Features, List, Value

    text, number = Value("string"), Value("float64")
    words = List({"start_s": number, "end_s": number, "text": text})
    frames = List({"t_s": number, "boxes": List(List(Value("int64"))), "action": text, "anomaly": Value("bool")})
    return Features({"id": text, "video": text, "title": text, "query": text, "previous_text": text, "start_s": number, "end_s": number,
                     "fps": number, "words": words, "frames": frames, "split": text})


def write(rows: Iterable[dict], path: Path) -> None:
    """Stream rows -> parquet, complete or not at all."""
    from datasets import Dataset

    part = path.with_suffix(".part")
    Dataset.from_list(list(rows), features=features()).to_parquet(part)
    os.replace(part, path)


def read(path: Path) -> list[dict]:
    """Parquet -> stream rows. (By the library that `datasets` reads with, which is there in a tenth of the time.)"""
    from pyarrow import parquet

    if not path.exists():
        raise UserError(f"There is no {path}; run the `subset` stage first (`dvc repro subset`).")
    return parquet.read_table(path, partitioning=None).to_pylist()
