"""A labelled video in memory: frames, and for each chunk its words and its label. What training learns from. No token, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamingvlm.base import config
from streamingvlm.base.records import Chunk
from streamingvlm.data.stream_rows import words_by_chunk
from streamingvlm.media.reader import read_chunks


@dataclass(frozen=True)
class LabelledVideo:
    """One labelled video in memory: `chunks` of uint8 frames, the words and the label of each chunk, and what was said before."""

    chunks: list[Chunk]
    words: list[str]
    labels: list[int]
    previous: str
    query: str


def load(row: dict, video: config.Video, root: Path, events: Sequence[str]) -> LabelledVideo:
    """Decode a stream row: frames, words and, of every chunk, the label of its last frame."""
    chunks = list(read_chunks(root / row["video"], video, row["start_s"], row["end_s"]))
    actions = {int(frame["t_s"] / video.chunk_s + 1e-6): frame["action"] for frame in row["frames"]}  # the last of a chunk wins
    labels = [events.index(actions[k]) for k in range(len(chunks))]
    return LabelledVideo(chunks, words_by_chunk(row, video.chunk_s)[: len(chunks)], labels, row["previous_text"], row["query"])
