"""A labelled video in memory: frames, and for each chunk its words and its label. What training learns from. No token, no model.

Decoded once, by every core, frames lie in files that processes map: several students then learn from the same pages.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streamingvlm.base import config, workers
from streamingvlm.base.records import Chunk
from streamingvlm.data.stream_rows import words_by_chunk
from streamingvlm.media.reader import read_chunks


@dataclass(frozen=True)
class LabelledVideo:
    """One labelled video in memory: `chunks` of uint8 frames, the words and the label of each chunk, and what was said before. `seen` [chunks, N, E]:
    what a tower that does not learn makes of the frames, float32, where somebody has computed it once for all."""

    chunks: list[Chunk]
    words: list[str]
    labels: list[int]
    previous: str
    query: str
    seen: np.ndarray | None = None


def load(row: dict, video: config.Video, root: Path, events: Sequence[str] = ()) -> LabelledVideo:
    """Decode a stream row: frames, words and, of every chunk, the label of its last frame (0 where there are no `events` to count by)."""
    return _labelled(row, list(read_chunks(root / row["video"], video, row["start_s"], row["end_s"])), video, events)


def _labelled(row: dict, chunks: list[Chunk], video: config.Video, events: Sequence[str]) -> LabelledVideo:
    actions = {int(frame["t_s"] / video.chunk_s + 1e-6): frame["action"] for frame in row["frames"]}  # the last of a chunk wins
    labels = [events.index(actions[k]) if events else 0 for k in range(len(chunks))]
    return LabelledVideo(chunks, words_by_chunk(row, video.chunk_s)[: len(chunks)], labels, row["previous_text"], row["query"])


def decode(rows: Sequence[dict], video: config.Video, root: Path, folder: Path) -> Iterator[str]:
    """Decode the videos of these rows into `folder`, which holds nothing else then, yielding the id of each that is done. `mapped` opens them."""
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left may be of other rows and another model
    folder.mkdir(parents=True)
    return workers.ordered(_decode, [(_bare(row), video, root, folder) for row in rows])


def _bare(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in {"words", "frames"}}  # labels of every frame need not travel


def _decode(row: dict, video: config.Video, root: Path, folder: Path) -> str:
    chunks = list(read_chunks(root / row["video"], video, row["start_s"], row["end_s"]))
    np.save(folder / f"{row['id']}.times.npy", np.array([[chunk.start_s, chunk.end_s, *chunk.times_s] for chunk in chunks]))
    np.save(folder / f"{row['id']}.frames.npy", np.stack([chunk.frames for chunk in chunks]))
    return row["id"]


def seen_file(name: str, folder: Path) -> Path:
    """Where `seen` of a row with this id lies in a folder, for who computes it and for `mapped`."""
    return folder / f"{name}.seen.npy"


def mapped(row: dict, video: config.Video, folder: Path, events: Sequence[str] = ()) -> LabelledVideo:
    """What `load` gives of a row that `decode` has put into `folder`, `seen` too if it lies there; both are read when they are looked at."""
    seen = seen_file(row["id"], folder)
    taught = _labelled(row, decoded(row["id"], folder), video, events)
    return replace(taught, seen=np.load(seen, mmap_mode="c") if seen.is_file() else None)


def decoded(name: str, folder: Path) -> list[Chunk]:
    """The chunks of a row with this id that `decode` has put into `folder`; frames are read when they are looked at."""
    frames = np.load(folder / f"{name}.frames.npy", mmap_mode="c")  # [chunks, F, H, W, C]
    times = np.load(folder / f"{name}.times.npy").tolist()
    return [Chunk(k, at[0], at[1], frames[k], tuple(at[2:])) for k, at in enumerate(times)]

