"""What a stream's cache holds, second by second, and what the model looked at when it spoke. Only watches: a recorded stream says what it
would have said unwatched. Knows no widget and no figure (`inside_view`, `film`).

    moments = trace.trace_stream(vlm, "streaming", cfg, row, chunks)
    [(cell.text, cell.group, cell.position) for cell in moments[9].cells]

Letters: S cached tokens, W words spoken in a chunk, L layers, H heads, K kv heads, T new tokens, D head dim.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamingvlm.base import config
from streamingvlm.base.records import Chunk, Comment
from streamingvlm.context import dialogue, policy
from streamingvlm.context.dialogue import ids_of
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.stream import Streamer

SYSTEM, SINK, WINDOW, VISION, WORDS, PROMPT = GROUPS = ("system", "text sink", "text window", "vision", "words", "prompt")
ABOUT = {SYSTEM: "the system prompt, and the marks around the previous text", SINK: "the first tokens of the previous text: never evicted",
         WINDOW: "the newest tokens of the previous text", VISION: "what was seen in the rounds kept",
         WORDS: "what was said in the rounds kept", PROMPT: "the rest of the rounds kept: the time, the query, chat marks"}
GROUP_OF = {dialogue.SYSTEM: SYSTEM, dialogue.PREVIOUS_OPEN: SYSTEM, dialogue.PREVIOUS_CLOSE: SYSTEM, dialogue.VISION: VISION,
            dialogue.SAID: WORDS, dialogue.DOTS: WORDS}  # PREVIOUS is sink or window by its place; all other roles are the prompt's


@dataclass(frozen=True)
class Cell:
    """One cached token at the end of a chunk. `number`: as it entered the stream, the token's name for life; `round`: of its span, so HEADER once
    it has joined the previous text; `position`: on RoPE's time, row and column axis; `entered`: the chunk in which it was first computed."""

    number: int
    text: str
    role: str
    group: str
    round: int
    position: tuple[float, float, float]
    entered: int


@dataclass(frozen=True)
class Moment:
    """The cache at the end of one chunk, in its order. `again`: numbers of the tokens kept that this chunk computed again; `leaves`: of those that
    the next chunk will evict. `spoken`: the W tokens decided on; `looks` [W, S]: what each was decided from, a mean over layers and heads."""

    comment: Comment
    cells: tuple[Cell, ...]
    again: frozenset[int]
    leaves: frozenset[int]
    spoken: tuple[str, ...]
    looks: np.ndarray

    def held(self) -> dict[str, int]:
        """Cached tokens of each group."""
        return {group: sum(cell.group == group for cell in self.cells) for group in GROUPS}

    def shares(self) -> dict[str, float]:
        """How much of the attention went to each group, a mean over the tokens spoken; they sum to 1."""
        mean = self.looks.mean(axis=0)  # [S]
        return {group: float(sum(look for look, cell in zip(mean, self.cells, strict=True) if cell.group == group)) for group in GROUPS}


class AttentionRecorder(VLM):
    """The same model, seen through: it keeps in `looks` where the last token of each forward looked, [H, S] a layer.

    The attention kernels keep no weights, so these are computed beside them, from the query and the cached keys."""

    def __init__(self, vlm: VLM):
        super().__init__(vlm.hf, vlm.tokenizer, "eager")
        self.looks: list[list[Tensor]] = []
        self.on_attention = self._note

    def _note(self, layer: int, q: Tensor, keys: Tensor) -> None:
        """q [H, D], keys [K, S, D]: nothing is hidden from the last token."""
        q = q.view(self.kv_heads, -1, self.head_dim)  # [K, H/K, D]
        weights = (q.float() @ keys.float().mT * self.head_dim**-0.5).softmax(-1).flatten(0, 1)  # [H, S]
        if layer == 0:
            self.looks.append([])
        self.looks[-1].append(weights)


def trace_stream(vlm: VLM, name: str, cfg: config.Config, row: dict, chunks: Iterable[Chunk]) -> list[Moment]:
    """Stream `chunks` of a row under the policy `name` -> what was cached at the end of each."""
    streamer = Streamer(AttentionRecorder(vlm), policy.get(name), cfg.cache, cfg.video, cfg.stream)
    streamer.start(row["previous_text"], row["query"])
    return list(trace_moments(streamer, row["id"], chunks))


def trace_moments(streamer: Streamer, name: str, chunks: Iterable[Chunk]) -> Iterator[Moment]:
    """Step a stream that has just started, on an `AttentionRecorder`, through `chunks`. A plan is a pure function of the spans, so asking for it
    tells what the next eviction will do, and who is who behind it, while the stream itself stays as it is."""
    count = itertools.count()
    numbers = list(itertools.islice(count, len(ids_of(streamer.spans))))  # of all tokens of the spans, cached yet or not
    entered: dict[int, int] = {}
    kept, stale = _eviction(streamer)
    for chunk in chunks:
        streamer.vlm.looks.clear()
        comment = streamer.step(name, chunk)
        again = frozenset(numbers[kept[i]] for i in stale if numbers[kept[i]] in entered)
        numbers = [numbers[i] for i in kept]
        numbers += itertools.islice(count, len(ids_of(streamer.spans)) - len(numbers))
        cached = numbers[: streamer.kv.length]
        for number in cached:
            entered.setdefault(number, comment.chunk)
        kept, stale = _eviction(streamer)
        leaves = frozenset(cached) - {numbers[i] for i in kept}
        yield Moment(comment, _cells(streamer, cached, entered), again, leaves, *_looks(streamer))


def lives(moments: Sequence[Moment]) -> dict[int, tuple[int, int | None]]:
    """Number -> (the chunk in which the token entered, the one whose eviction dropped it, or None if it is still there)."""
    left = {number: moment.comment.chunk + 1 for moment in moments[:-1] for number in moment.leaves}
    return {cell.number: (cell.entered, left.get(cell.number)) for moment in moments for cell in moment.cells}


def one_life(moments: Sequence[Moment]) -> list[tuple[int, int, Cell]]:
    """The way of one word through the cache: (second, place, cell) while it is there. Of the words that became previous text and then left, the one
    that stayed longest; nothing if there is none."""
    ways: dict[int, list[tuple[int, int, Cell]]] = {}
    for moment in moments:
        for place, cell in enumerate(moment.cells):
            ways.setdefault(cell.number, []).append((moment.comment.chunk, place, cell))
    forgotten = [ways[number] for number, (_, left) in lives(moments).items() if left is not None]
    return max((way for way in forgotten if way[0][2].group == WORDS and way[-1][2].role == dialogue.PREVIOUS), key=len, default=[])


def table(moments: Sequence[Moment]) -> list[dict]:
    """A row per chunk: what was said, how many tokens came in and left before it, and how many of each group there are."""
    gone = [0, *(len(moment.leaves) for moment in moments)]
    return [{"second": moment.comment.chunk, "said": moment.comment.text, "left": left,
             "new": sum(cell.entered == moment.comment.chunk for cell in moment.cells), "cached": moment.comment.kv_tokens, **moment.held()}
            for moment, left in zip(moments, gone, strict=False)]


def _eviction(streamer: Streamer) -> tuple[list[int], list[int]]:
    """What the next chunk's eviction will do -> the index of each token that stays, in its new order; which of these it will compute again."""
    eviction = streamer.next_eviction()
    return (list(range(len(ids_of(streamer.spans)))), []) if eviction is None else (eviction.index.tolist(), list(eviction.again))


def _cells(streamer: Streamer, cached: Sequence[int], entered: dict[int, int]) -> tuple[Cell, ...]:
    """The first S tokens of the spans are the cached ones, in the cache's order."""
    tokens = [(span, id) for span in streamer.spans for id in span.ids]
    positions = [[int(p) if p.is_integer() else p for p in place] for place in streamer.kv.positions[:, : len(cached)].T.tolist()]  # [S, 3]
    previous, cells = 0, []
    for (span, id), number, place in zip(tokens, cached, positions, strict=False):
        group = GROUP_OF.get(span.role, PROMPT)
        if span.role == dialogue.PREVIOUS:
            group, previous = SINK if previous < streamer.retention.text_sink else WINDOW, previous + 1
        text = streamer.vlm.tokenizer.decode([id])
        cells.append(Cell(number, text, span.role, group, span.round, tuple(place), entered[number]))
    return tuple(cells)


def _looks(streamer: Streamer) -> tuple[tuple[str, ...], np.ndarray]:
    """-> the tokens the chunk decided on, one by one, and [W, S] from what. The prompt's last token decided on the first of them, each of those
    that were fed on the next one."""
    at, answer, fed = 0, [], 0
    for span in streamer.spans:
        if span.round == streamer.round - 1 and span.role in {dialogue.SAID, dialogue.DOTS, dialogue.END}:
            answer += span.ids
            fed += max(0, min(len(span.ids), streamer.kv.length - at))
        at += len(span.ids)
    looks = np.zeros((fed + 1, streamer.kv.length), np.float32)
    for row, layers in zip(looks, streamer.vlm.looks[-fed - 1 :], strict=True):
        mean = torch.stack(layers).mean((0, 1)).cpu()  # [L, H, S] -> [S]
        row[: len(mean)] = mean
    return tuple(streamer.vlm.tokenizer.decode([id]) for id in answer[: fed + 1]), looks
