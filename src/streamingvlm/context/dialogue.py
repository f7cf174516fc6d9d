"""The token layout: a stream as one endless chat, a list of spans. The only module that knows chat tokens; it knows no tensor and no policy.

    IS system\\nYou are a helpful assistant.IE\\n  IS previous text\\n{previous}IE\\n
    IS user\\nTime=0.0-1.0s{note} VS pad*N VE {query}IE\\nIS assistant\\n{words} ...IE        one round per chunk; a "\\n" joins two rounds

(no spaces between the parts; IS/IE = im_start/im_end, VS/VE = vision_start/vision_end). Source: the released StreamingVLM inference, which has no
notes: what another model says of a round's pictures, where there is one. A note stays in its round and leaves with it.
Letters: T tokens, N vision tokens of a chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from streamingvlm.base.patches import MERGE

SYSTEM_PROMPT = "You are a helpful assistant."
SILENCE = " ..."
HEADER = -1  # the round number of what comes before the first round

# roles, in the order in which they stand in a stream
SYSTEM, PREVIOUS_OPEN, PREVIOUS, PREVIOUS_CLOSE = "system", "previous_open", "previous", "previous_close"
USER_OPEN, TIME, NOTE, VISION, QUERY, WISH, USER_CLOSE, ANSWER_OPEN, SAID, DOTS, END, GAP = (
    "user_open", "time", "note", "vision", "query", "wish", "user_close", "answer_open", "said", "dots", "end", "gap")


@dataclass(frozen=True)
class Span:
    """A run of tokens with one job. `grid`: (time, rows, columns) of the vision tokens, for a vision span only."""

    role: str
    round: int
    ids: tuple[int, ...]
    grid: tuple[int, int, int] | None = None


def clock(seconds: float) -> str:
    """Seconds as the prompt writes them: one decimal, as the released code does."""
    return f"{seconds:.1f}"


class Dialogue:
    """Builds spans with one tokenizer. `time_step`: how far the temporal position moves from one time slice of a chunk to the next."""

    def __init__(self, tokenizer, time_step: float = 2):
        self.tokenizer, self.time_step = tokenizer, time_step
        names = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
        self.im_start, self.im_end, self.vision_start, self.vision_end, self.video_pad = tokenizer.convert_tokens_to_ids(list(names))
        self.silence, self.newline = self.encode(SILENCE), self.encode("\n")
        self.user, self.assistant = self.encode("user\n"), self.encode("assistant\n")
        end_of_text = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self.stops = frozenset({self.im_end, end_of_text} - {None})

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False)) if text else ()

    def decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def header(self, previous_ids: Sequence[int]) -> list[Span]:
        """What stands before the first round: the system prompt and the previous text."""
        return [
            Span(SYSTEM, HEADER, (self.im_start, *self.encode(f"system\n{SYSTEM_PROMPT}"), self.im_end, *self.newline)),
            Span(PREVIOUS_OPEN, HEADER, (self.im_start, *self.encode("previous text\n"))),
            Span(PREVIOUS, HEADER, tuple(previous_ids)),
            Span(PREVIOUS_CLOSE, HEADER, (self.im_end, *self.newline)),
        ]

    def question(self, round: int, start_s: float, end_s: float, grid: tuple[int, int, int], query: str, first: bool, wish: str = "",
                 note: str = "") -> list[Span]:
        """The user's turn of one round up to where the assistant speaks. `first`: no answer stands before it, so no newline parts the two. `wish`:
        what the viewer wants from now on, behind the query, with a space before it: it may be told in the middle of a stream, where no query is.
        `note`: what another model says of this round's pictures."""
        tokens = grid[0] * grid[1] * grid[2] // MERGE**2
        asked = [
            Span(TIME, round, self.encode(f"Time={clock(start_s)}-{clock(end_s)}s")),
            *([Span(NOTE, round, self.encode(f" {note}"))] if note else []),
            Span(VISION, round, (self.vision_start, *(self.video_pad,) * tokens, self.vision_end), grid),
            Span(QUERY, round, self.encode(query)),
        ]
        return self._turn(round, [*asked, Span(WISH, round, self.encode(f" {wish}"))] if wish else asked, first)

    def aside(self, round: int, text: str, first: bool) -> list[Span]:
        """A user's turn of words alone, up to where the assistant speaks."""
        return self._turn(round, [Span(QUERY, round, self.encode(text))], first)

    def _turn(self, round: int, asked: list[Span], first: bool) -> list[Span]:
        closing = [Span(USER_CLOSE, round, (self.im_end, *self.newline)), Span(ANSWER_OPEN, round, (self.im_start, *self.assistant))]
        turn = [Span(USER_OPEN, round, (self.im_start, *self.user)), *asked, *closing]
        return turn if first else [Span(GAP, round - 1, self.newline), *turn]

    def answer(self, round: int, ids: Sequence[int]) -> list[Span]:
        """The assistant's turn, from the ids it spoke without the end token. The closing ` ...` is a span of its own: it can be left behind."""
        ids, n = tuple(ids), len(self.silence)
        dots = n if ids[-n:] == self.silence else 0
        return [Span(SAID, round, ids[: len(ids) - dots]), Span(DOTS, round, ids[len(ids) - dots :]), Span(END, round, (self.im_end,))]

    def spoken(self, words: str) -> tuple[int, ...]:
        """What the assistant says in a round whose words are `words`: the words, then ` ...`."""
        return self.encode(f" {words}" if words else "") + self.silence

    def positions(self, spans: Iterable[Span], start: float = 0) -> np.ndarray:
        """Contiguous multimodal positions [3, T] (time, row, column) from `start` on.

        Text moves all three by one. A vision block at p has t = p (+ time_step a slice), h = p + row, w = p + column; what follows starts one
        behind the largest (Qwen2-VL's rule). Whole numbers wherever the time step is one, else float64 (the released code's are float32)."""
        spans = list(spans)
        out = np.empty((3, sum(len(span.ids) for span in spans)), np.result_type(np.asarray(start), np.asarray(self.time_step)))
        out[:] = start + np.arange(out.shape[1])
        at = 0
        for span in spans:
            stop = at + len(span.ids)
            if span.grid is not None:
                inside, extent = _block(span.grid, self.time_step)
                p = out[0, at]
                out[:, at + 1 : stop - 1] = inside + (p + 1)
                out[:, stop - 1 :] += p + 1 + extent - out[0, stop - 1]
            at = stop
        return out


@functools.cache
def _block(grid: tuple[int, int, int], time_step: float) -> tuple[np.ndarray, float]:
    """Positions [3, N] within a vision block from its first token on, and the position behind the largest."""
    axes = np.arange(grid[0]) * time_step, np.arange(grid[1] // MERGE), np.arange(grid[2] // MERGE)
    block = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    return block, block.max() + 1


def ids_of(spans: Iterable[Span]) -> list[int]:
    return [token for span in spans for token in span.ids]


def rearrange(spans: Sequence[Span], pieces: Sequence) -> tuple[list[Span], np.ndarray]:
    """Carry out a plan's pieces -> (the spans that stay, in their new order; the index [S] of each kept token in the old sequence).

    Neighbouring pieces of the same role and round become one span."""
    starts = np.cumsum([0] + [len(span.ids) for span in spans])
    kept: list[Span] = []
    index = [np.zeros(0, np.int64)]
    for piece in pieces:
        span = spans[piece.span]
        cut = Span(piece.role, piece.round, span.ids[piece.start : piece.stop], span.grid)
        index.append(np.arange(starts[piece.span] + piece.start, starts[piece.span] + piece.stop))
        if kept and (kept[-1].role, kept[-1].round) == (cut.role, cut.round):
            kept[-1] = Span(cut.role, cut.round, kept[-1].ids + cut.ids, kept[-1].grid)
        else:
            kept.append(cut)
    return kept, np.concatenate(index)
