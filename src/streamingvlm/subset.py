"""What the pipeline watches: real clips checked to their last frame, arena matches rendered to H.264, and both as stream rows in parquet.

A stream row is the contract between the stages: id, video (path from the repository root), title, query, previous_text, start_s, end_s, fps,
words [{start_s, end_s, text}], frames [{t_s, boxes, action, anomaly}], and the split it belongs to (train, clean, eval, long, clip).
"""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from streamingvlm import config, encode, pitch, video
from streamingvlm.arena import FPS, Match

LONG = "long"
SPLITS = ("train", "clean", "eval", LONG)  # of matches; real clips are a split of their own


def matches(data: config.Data) -> list[tuple[str, str, Match]]:
    """(split, name, match) of every match the params ask for; evaluation plays with team pairs that training never sees."""
    train = [("train", f"match-{i:03d}", Match(data.seed * 10_000 + i, data.train_s)) for i in range(data.train_matches)]
    clean = [("clean", f"clean-{i:03d}", Match(data.seed * 10_000 + 3_000 + i, data.train_s, plain=True)) for i in range(data.clean_matches)]
    held = [("eval", f"eval-{i:03d}", Match(data.seed * 10_000 + i, data.eval_s, True)) for i in range(data.eval_matches)]
    met = {frozenset(match.teams) for _, _, match in held}
    longs = [Match(data.seed * 10_000 + 5_000 + i, data.long_s, True) for i in range(100)]
    fresh = next((match for match in longs if frozenset(match.teams) not in met), longs[0])  # a pair of its own while there is one
    return [*train, *clean, *held, (LONG, LONG, fresh)]


def render(match: Match, path: Path) -> None:
    """Write a match as a real H.264 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encode.write_h264(path, pitch.draw(match), FPS)


def match_rows(data: config.Data, folder: Path, root: Path, splits: Container[str] = SPLITS) -> Iterator[dict]:
    """Render every match of these splits below `folder`, yielding its row."""
    for split, name, match in matches(data):
        if split not in splits:
            continue
        path = folder / f"{name}.mp4"
        render(match, path)
        yield match.row(name, str(path.relative_to(root))) | {"split": split}


def clip_rows(data: config.Data, folder: Path, root: Path) -> Iterator[dict]:
    """Check every real clip to its last frame, loop the one that is to be long, and yield their rows. Nobody commented on them: no words."""
    for name in data.clips:
        path = root / "data" / name
        info = video.verify(path)
        if name == data.loop_clip:
            path = folder / f"{path.stem}-loop.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode.loop(root / "data" / name, path, data.loop_s)
            info = video.verify(path)
        yield {"id": path.stem, "video": str(path.relative_to(root)), "title": path.stem, "query": "Commentate on this match", "previous_text": "",
               "start_s": 0.0, "end_s": float(info.duration_s), "fps": float(info.fps), "words": [], "frames": [], "split": "clip"}


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
    """Parquet -> stream rows."""
    from datasets import Dataset

    if not path.exists():
        raise config.UserError(f"There is no {path}; run the `subset` stage first (`dvc repro subset`).")
    return list(Dataset.from_parquet(str(path), keep_in_memory=True))
