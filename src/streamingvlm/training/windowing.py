"""What is learned from: labelled videos cut into windows that look exactly like a moment of streaming (paper, section 2.2). No model, no loss.

A window of some seconds stands behind the previous text, cut to sink + window as the `streaming` policy will cut it; only the assistant's tokens
are learned. `collate` pads windows, or packs several into one row where each sees only itself.
Letters: B rows of a batch, W windows, T tokens, E hidden size, N vision tokens of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamingvlm.base import config
from streamingvlm.base.patches import MERGE, PATCH_PX, TEMPORAL
from streamingvlm.base.records import Chunk
from streamingvlm.context import dialogue
from streamingvlm.context.dialogue import Dialogue, Span, ids_of
from streamingvlm.context.policy import Piece, sink_and_window
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.models.qwen25.pixels import to_patches

LEARNED = {dialogue.SAID, dialogue.DOTS, dialogue.END}


Window = tuple[LabelledVideo, list[Span]]


def window_starts(chunks: int, window: int, stride: int) -> list[int]:
    """First chunk of every window, overlapping by window - stride; the last one ends with the video."""
    return sorted({*range(0, max(chunks - window, 0) + 1, stride), max(chunks - window, 0)})


def window_spans(talk: Dialogue, lesson: LabelledVideo, start: int, stop: int, cache: config.Retention | None, clock_s: float = 0.0) -> list[Span]:
    """The spans of chunks [start, stop), as the cache would hold them if it had been streaming up to `start`; with no `cache`, nothing was cut.

    `clock_s` is added to the clock."""
    before = [talk.encode(lesson.previous)] + [talk.spoken(words)[: -len(talk.silence)] for words in lesson.words[:start]]
    previous = [token for ids in before for token in ids]
    if cache:
        whole = Piece(0, 0, len(previous), dialogue.PREVIOUS, dialogue.HEADER)
        previous = [token for part in sink_and_window([whole], cache.text_sink, cache.text_window) for token in previous[part.start : part.stop]]
    spans = talk.header(previous)
    for k in range(start, stop):
        chunk = lesson.chunks[k]
        grid = (slices(chunk), chunk.frames.shape[1] // PATCH_PX, chunk.frames.shape[2] // PATCH_PX)
        query = lesson.query if k == start else ""
        spans += talk.question(k, chunk.start_s + clock_s, chunk.end_s + clock_s, grid, query, first=k == start, note=chunk.note)
        spans += talk.answer(k, talk.spoken(lesson.words[k]))
    return spans


@dataclass(frozen=True)
class Batch:
    """ids, labels [B, T] (labels -100 where nothing is learned), positions [3, B, T], is_vision [B, T]; of the W windows' chunks in order: events
    [chunks], sizes [chunks] (vision tokens), patches [P, 1176] and grids [chunks, 3] (None without pictures), or `seen` [chunks * N, E], their vision
    tokens. `mask` [B, 1, T, T]: True where a token may look; None where causal order says it all."""

    ids: Tensor
    labels: Tensor
    positions: Tensor
    is_vision: Tensor
    events: Tensor
    sizes: Tensor
    patches: Tensor | None
    grids: Tensor | None
    mask: Tensor | None = None
    seen: Tensor | None = None


def slices(chunk: Chunk) -> int:
    """Time slices of a chunk in the grid of its vision tokens."""
    return math.ceil(len(chunk.frames) / TEMPORAL)


def collate(talk: Dialogue, windows: Sequence[Window], look: bool = True, packed: bool = False) -> Batch:
    """Windows side by side, padded on the right (causal attention needs no mask then), or all in one row. `look`: with their pictures, or with
    what was seen in them where every lesson has it."""
    flat = [torch.tensor(ids_of(spans)) for _, spans in windows]
    rows = [list(range(len(windows)))] if packed else [[w] for w in range(len(windows))]
    length = max(sum(len(flat[w]) for w in row) for row in rows)
    ids = torch.full((len(rows), length), talk.im_end)
    labels, positions = torch.full_like(ids, -100), torch.zeros(3, *ids.shape)
    owner = torch.full_like(ids, -1)
    for b, row in enumerate(rows):
        at = 0
        for w in row:
            here, spans = slice(at, at + len(flat[w])), windows[w][1]
            learned = torch.tensor([span.role in LEARNED for span in spans for _ in span.ids])
            ids[b, here], labels[b, here] = flat[w], torch.where(learned, flat[w], -100)
            positions[:, b, here] = torch.from_numpy(talk.positions(spans))
            owner[b, here], at = w, here.stop
    seen = [chunk for lesson, spans in windows for span in spans if span.grid for chunk in _chunks(lesson, span)]  # (lesson, number, its tokens)
    known = look and all(lesson.seen is not None for lesson, _ in windows)
    vision = torch.cat([torch.from_numpy(lesson.seen[k]) for lesson, k, _ in seen]) if known and seen else None  # [chunks * N, E]
    pixels = [to_patches(lesson.chunks[k].frames) for lesson, k, _ in seen] if look and not known else []
    patches, grids = (torch.cat([patches for patches, _ in pixels]), torch.tensor([grid for _, grid in pixels])) if pixels else (None, None)
    mask = ((owner[:, :, None] == owner[:, None]) & torch.ones(length, length, dtype=torch.bool).tril())[:, None] if packed else None
    events = torch.tensor([lesson.labels[k] for lesson, k, _ in seen], dtype=torch.long)
    sizes = torch.tensor([size for _, _, size in seen], dtype=torch.long)
    return Batch(ids, labels, positions, ids == talk.video_pad, events, sizes, patches, grids, mask, vision)


def _chunks(lesson: LabelledVideo, span: Span) -> list[tuple[LabelledVideo, int, int]]:
    """(lesson, number, vision tokens) of each chunk that a vision span shows: one in a stream, several in a clip."""
    found, left = [], span.grid[0]
    while left > 0:
        k = span.round + len(found)
        time = slices(lesson.chunks[k])
        found.append((lesson, k, time * span.grid[1] * span.grid[2] // MERGE**2))
        left -= time
    return found
