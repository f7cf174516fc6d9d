"""A stream row, a model and a policy -> comments, files and scores: the one way in which every stage watches a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from streamingvlm.base import config
from streamingvlm.base.paths import STUDENTS
from streamingvlm.base.records import Chunk, Comment
from streamingvlm.context import policy
from streamingvlm.data import labelled
from streamingvlm.media.reader import read_chunks
from streamingvlm.models.qwen25 import loading
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming import captions
from streamingvlm.streaming.batching import run_batched
from streamingvlm.streaming.stream import Streamer, stream_side_by_side
from streamingvlm.worlds.match.dataset import LONG
from streamingvlm.worlds.match.task import MATCH
from streamingvlm.worlds.task import Task

GROUP = 5  # streams of one model that share their passes; fixed, so that no number of cores changes a bit
TURNS = 80  # chunks of each stream that is timed in turn with the others


def begin(vlm: VLM, row: dict, name: str, cfg: config.Config) -> Streamer:
    """A stream of this row that has just started, under the policy `name`."""
    streamer = Streamer(vlm, policy.get(name), cfg.cache, cfg.video, cfg.stream)
    streamer.start(row["previous_text"], row["query"])
    return streamer


def chunks_of(row: dict, cfg: config.Config, root: Path) -> Iterator[Chunk]:
    return read_chunks(root / row["video"], cfg.video, row["start_s"], row["end_s"])


def stream_row(vlm: VLM, row: dict, name: str, cfg: config.Config, root: Path) -> Iterator[Comment]:
    """Stream one row's video through the model under the policy `name`."""
    return begin(vlm, row, name, cfg).stream_chunks(row["id"], chunks_of(row, cfg, root), ahead=vlm.device.type == "cuda")


def held_out(vlm: VLM, rows: Sequence[dict], cfg: config.Config, root: Path, task: Task = MATCH) -> dict:
    """Stream every row with the `streaming` policy, GROUP of them in shared passes -> its scores, the mean of the rows'."""
    results = []
    for start in range(0, len(rows), GROUP):
        group = rows[start : start + GROUP]
        said: list[list[str]] = [[] for _ in group]
        for i, comment in _together(vlm, group, cfg, root):
            said[i].append(comment.text)
        results += [task.score(texts, row) for texts, row in zip(said, group, strict=True)]
    mean = {key: [r[key] for r in results if r[key] is not None] for key in results[0]}
    return {key: round(float(np.mean(values)), 4) if values else None for key, values in mean.items()}


def _together(vlm: VLM, rows: Sequence[dict], cfg: config.Config, root: Path) -> Iterator[tuple[int, Comment]]:
    """(number of the row, its comment) of rows that each have a video of their own, chunk by chunk, until the last has ended."""
    streamers, videos = [begin(vlm, row, "streaming", cfg) for row in rows], [chunks_of(row, cfg, root) for row in rows]
    for chunks in zip_longest(*videos):
        left = [i for i, chunk in enumerate(chunks) if chunk is not None]
        yield from zip(left, run_batched(vlm, [streamers[i].round_of(rows[i]["id"], chunks[i]) for i in left]), strict=True)


def held_out_of(folder: Path, rows: Sequence[dict], cfg: config.Config, root: Path) -> dict:
    """`held_out` of the model in a folder: a job for `base.workers`."""
    return held_out(loading.load(folder, loading.pick_device(cfg.run.device), decode=cfg.run.decode, weights=cfg.run.weights), rows, cfg, root)


def jobs(rows: Sequence[dict], stream: config.Stream) -> list[tuple[str, dict, str]]:
    """(student, row, policy) of all that is to be watched: every row under `policies`, the long match under `ablations` and by the controls too."""
    long = [row for row in rows if row["split"] == LONG]
    return [*(("overlapped", row, name) for row in rows for name in stream.policies),
            *(("overlapped", row, name) for row in long for name in stream.ablations),
            *((student, row, name) for student in STUDENTS if student != "overlapped" for row in long for name in stream.controls)]


def grouped(wanted: Sequence[tuple[str, dict, str]]) -> list[tuple[str, dict, list[str]]]:
    """(student, row, policies): jobs of one student and one row, up to GROUP of them together, the longest first."""
    together: dict[tuple[str, str], tuple[str, dict, list[str]]] = {}
    for student, row, name in wanted:
        together.setdefault((student, row["id"]), (student, row, []))[2].append(name)
    groups = [(student, row, names[i : i + GROUP]) for student, row, names in together.values() for i in range(0, len(names), GROUP)]
    return sorted(groups, key=lambda group: -len(group[2]) * (group[1]["end_s"] - group[1]["start_s"]))


def stream_group(model: Path, row: dict, names: Sequence[str], cfg: config.Config, frames: Path, folder: Path) -> Iterator[list[Comment]]:
    """Stream one row, decoded into `frames`, under several policies in shared passes, leaving each one's words in `folder`: a job for
    `base.workers`."""
    vlm = loading.load(model, loading.pick_device(cfg.run.device), decode=cfg.run.decode, weights=cfg.run.weights)
    groups = stream_side_by_side([begin(vlm, row, name, cfg) for name in names], row["id"], labelled.decoded(row["id"], frames))
    said: list[list[Comment]] = []
    for comments in groups:
        said.append(comments)
        yield comments
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in zip(names, zip(*said, strict=True), strict=True):
        stem = f"{row['id']}.{name}"  # without timings: those bytes must not change
        for _ in captions.write_captions(own, folder / f"{stem}.vtt", folder / f"{stem}.jsonl", timed=False):
            pass


def interleaved(streams: Sequence[tuple[str, Streamer, int]], name: str, chunks: Iterable[Chunk]) -> Iterator[tuple[str, Comment]]:
    """Step streams of one video chunk by chunk in turn, each alone, so that what slows the machine slows all of them: (label, its comment).

    (label, streamer, for how many chunks). The one that begins changes from chunk to chunk."""
    for k, chunk in enumerate(chunks):
        left = [(label, streamer) for label, streamer, limit in streams if k < limit]
        if not left:
            return
        for label, streamer in left[k % len(left) :] + left[: k % len(left)]:
            yield label, streamer.step(name, chunk)


def timed(models: dict[str, VLM], row: dict, cfg: config.Config, frames: Path) -> Iterator[dict]:
    """Contract lines with timings of the row that everybody watches, decoded into `frames`, nothing else running: first `in turns`, every
    (student, policy) chunk by chunk for TURNS chunks; then `alone`, the trained student under each of `policies`, one after another, for `timed_s`
    seconds."""
    chunks = labelled.decoded(row["id"], frames)[: round(cfg.stream.timed_s / cfg.video.chunk_s)]
    wanted = dict.fromkeys((student, name) for student, _, name in jobs([row], cfg.stream))
    streams = [(each, begin(models[each[0]], row, each[1], cfg), TURNS) for each in wanted]
    for (student, _), comment in interleaved(streams, row["id"], chunks):
        yield {"student": student, "pass": "in turns", **comment.line()}
    del streams
    for name in cfg.stream.policies:
        for comment in begin(models["overlapped"], row, name, cfg).stream_chunks(row["id"], chunks):
            yield {"student": "overlapped", "pass": "alone", **comment.line()}
