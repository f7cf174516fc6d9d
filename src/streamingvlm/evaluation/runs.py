"""A stream row, a model and a policy -> comments, files and scores: the one way in which every stage watches a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamingvlm.base import config
from streamingvlm.base.records import Comment
from streamingvlm.context import policy
from streamingvlm.media.reader import read_chunks
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming import captions
from streamingvlm.streaming.stream import Streamer
from streamingvlm.worlds.match import game, scoring
from streamingvlm.worlds.match.dataset import LONG

STUDENTS = {"overlapped": "model", "tiled": "tiled", "base": "base"}  # who watches, and its folder below artifacts/sft
WARM_CHUNKS = 5  # the first chunks of a stream pay for what is set up once; timings leave them out


def stream_row(vlm: VLM, row: dict, name: str, cfg: config.Config, root: Path) -> Iterator[Comment]:
    """Stream one row's video through the model under the policy `name`."""
    streamer = Streamer(vlm, policy.get(name), cfg.cache, cfg.video, cfg.stream)
    streamer.start(row["previous_text"], row["query"])
    chunks = read_chunks(root / row["video"], cfg.video, row["start_s"], row["end_s"])
    return streamer.stream_chunks(row["id"], chunks, ahead=vlm.device.type == "cuda")


def score(texts: Sequence[str], row: dict, tolerance_s: float = 1.0) -> dict:
    """Score what was said, chunk by chunk, against what happened."""
    said = [game.parse(text) for text in texts]
    return scoring.score_all(said, scoring.truth_of(row)[: len(said)], tolerance_s)


def held_out(vlm: VLM, rows: Sequence[dict], cfg: config.Config, root: Path) -> tuple[dict, list[float]]:
    """Stream every row with the `streaming` policy -> (scores, the mean of the matches'; milliseconds of every chunk, reading left out)."""
    results, ms = [], []
    for row in rows:
        comments = list(stream_row(vlm, row, "streaming", cfg, root))
        results.append(score([c.text for c in comments], row))
        ms += [c.ms["total"] - c.ms["read"] for c in comments[WARM_CHUNKS:]]
    mean = {key: [r[key] for r in results if r[key] is not None] for key in results[0]}
    return {key: round(float(np.mean(values)), 4) if values else None for key, values in mean.items()}, ms


def jobs(rows: Sequence[dict], stream: config.Stream) -> list[tuple[str, dict, str]]:
    """(student, row, policy) of all that is to be watched: every row under `policies`, the long match under `ablations` and by the controls too."""
    long = [row for row in rows if row["split"] == LONG]
    return [*(("overlapped", row, name) for row in rows for name in stream.policies),
            *(("overlapped", row, name) for row in long for name in stream.ablations),
            *((student, row, name) for student in STUDENTS if student != "overlapped" for row in long for name in stream.controls)]


def stream_to_files(vlm: VLM, row: dict, name: str, cfg: config.Config, root: Path, folder: Path) -> Iterator[Comment]:
    """Stream one row and leave <id>.<policy>.vtt and .jsonl (without timings: those bytes must not change) in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{row['id']}.{name}"
    return captions.write_captions(stream_row(vlm, row, name, cfg, root), folder / f"{stem}.vtt", folder / f"{stem}.jsonl", timed=False)
