"""Ask a stream something at any moment: before its first chunk, between two, after its last. The stream goes on as if nobody had asked.

    answer = streamer.ask("what is the score?")                                        # in its own words
    answer = streamer.ask("who scored last?", options=("lions", "bears"))              # whichever it thinks likelier
    answers = run_batched(vlm, [ask_round(streamer, Question("who plays?")) for streamer in streamers])

A question is one more user's turn behind all that is cached, laid out as any turn is, at the positions that follow; a space stands before its words
as before those of an answer. It is read and answered in the free slots of the stream's own cache (`KVCache.fork`), so nothing that is shared is
copied; behind the answer those slots are free again. Nothing is evicted for it. The words the stream said last, which have no keys and values yet,
are read along, and once more by the next chunk.
Knows no clock of a source and no file. Letters: N vision tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase as LETTERS
from typing import Protocol

import torch
from torch import Tensor

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Answer
from streamingvlm.base.timing import Stopwatch
from streamingvlm.context import dialogue
from streamingvlm.context.cache import KVCache
from streamingvlm.context.dialogue import Dialogue, Span
from streamingvlm.context.policy import Policy
from streamingvlm.models.qwen25.vlm import VLM, Pixels
from streamingvlm.streaming.batching import EncodeVision, Round, State
from streamingvlm.streaming.sampling import Sampler

CONSTRAINED = ("likelihood", "letter")


class Stream(Protocol):
    """What asking needs of a stream: `stream.Streamer`, between two chunks."""

    vlm: VLM
    policy: Policy
    settings: config.Stream
    dialogue: Dialogue
    forced_token: Callable[[int, int], int | None]
    sampler: Sampler
    kv: KVCache
    clock: Stopwatch
    spans: list[Span]
    pending: list[Span]
    stale: dict[int, int]
    pixels: dict[int, Pixels]
    next_position: int
    round: int
    recall_rounds: int
    chunk_s: float
    now_s: float

    def _feed(self, spans: list[Span], vision: dict[int, Tensor]) -> Round[State]: ...

    def _speak(self, state: State) -> Round[list[int]]: ...


@dataclass(frozen=True)
class Question:
    """What is asked. With `options` one of them is the answer: `constrained` by the likelihood of its own words, or by that of its letter, the
    options listed below the question. `max_tokens`: of a free answer. `reencode_frames`: so many of the last chunks are shown again with the
    question, encoded as one clip; the stream must have kept their pixels (`recall_rounds`)."""

    text: str
    options: tuple[str, ...] = ()
    max_tokens: int = 20
    constrained: str = "likelihood"
    reencode_frames: int = 0

    def check(self, streamer: Stream) -> None:
        """UserError for what cannot be asked, or not of this stream."""
        options = [option.strip() for option in self.options]
        if not self.text.strip():
            raise UserError("A question needs words.")
        if self.constrained not in CONSTRAINED:
            raise UserError(f"There is no way `{self.constrained}` to choose an answer: likelihood or letter.")
        if options and (len(set(options)) < max(2, len(options)) or not all(options)):
            raise UserError(f"Options must be at least two, all different and none empty, not {list(self.options)}.")
        if options and self.constrained == "letter" and len(options) > len(LETTERS):
            raise UserError(f"{len(options)} options are more than there are letters: choose by likelihood.")
        if self.max_tokens < 1:
            raise UserError(f"An answer has at least one token, not {self.max_tokens}.")
        if not 0 <= self.reencode_frames <= max(streamer.recall_rounds, 0):
            raise UserError(f"The pixels of the last {streamer.recall_rounds} chunks are kept, so {self.reencode_frames} cannot be encoded again: "
                            "begin the stream with a larger `recall_rounds`.")


def ask_round(streamer: Stream, question: Question, name: str = "") -> Round[Answer]:
    """Ask a stream that is between two chunks. Yields what is to be computed, so that many streams can be asked in shared passes; their times are
    then those of the group. UserError for a question that cannot be asked; whatever ends it, the stream is as it was."""
    question.check(streamer)
    fork = _fork(streamer, question)
    with fork.kv.fork():
        with fork.clock("encode"):
            vision = yield from _turn(fork, question)
        with fork.clock("prefill"):
            state = yield from fork._feed(fork.pending, vision)
            state.best()  # the first token is known: on a GPU, this waits for it
        with fork.clock("decode"):
            text, tokens, likelihoods = yield from _answer(fork, state, question)
        ms = fork.clock.read()
        ms |= {"ttft": round(ms["encode"] + ms["prefill"], 3)}
        return Answer(name, fork.policy.name, fork.now_s, question.text, text, tokens, fork.kv.length, ms, likelihoods)


def ask_behind(streamer: Stream, prompt: Sequence[Span], vision: dict[int, Tensor], question: Question) -> Round[str]:
    """What is answered behind `prompt` alone, which has the question's words in it and ends where the assistant speaks. `vision`: the tokens [N, E]
    of each round that it shows. No stream is asked: the one that `streamer` was is gone."""
    streamer.start()
    streamer.spans = list(prompt)
    state = yield from streamer._feed(streamer.spans, vision)
    text, _, _ = yield from _answer(streamer, state, question)
    return text


def _answer(fork: Stream, state: State, question: Question) -> Round[tuple[str, int, dict[str, float]]]:
    """The answer behind `state`, how many tokens were said for it, or compared, and how likely each option is."""
    if question.options:
        likelihoods, compared = yield from _weigh(fork, state, question)
        return max(likelihoods, key=likelihoods.__getitem__), compared, likelihoods
    said = yield from fork._speak(state)
    return fork.dialogue.decode(said).removesuffix(dialogue.SILENCE).strip(), len(said), {}


def _fork(streamer: Stream, question: Question) -> Stream:
    """The stream, to be added to: it shares the cache and everything that is only read. `KVCache.fork` undoes what it adds there."""
    fork = copy.copy(streamer)
    fork.spans, fork.pending, fork.stale = streamer.spans[:], streamer.pending[:], {}
    fork.clock, fork.forced_token, fork.sampler = Stopwatch(streamer.vlm.device), lambda round, step: None, streamer.sampler.fork()
    fork.settings = dataclasses.replace(streamer.settings, max_new_tokens=question.max_tokens)
    return fork


def _turn(fork: Stream, question: Question) -> Round[dict[int, Tensor]]:
    """Append the user's turn -> the vision tokens [N, E] of what is shown again with it."""
    text = f" {question.text.strip()}"
    if question.options and question.constrained == "letter":
        text += "".join(f"\n{letter}. {option.strip()}" for letter, option in zip(LETTERS, question.options, strict=False))
    first = fork.spans[-1].role != dialogue.END
    again = [fork.pixels[r] for r in sorted(fork.pixels)[-question.reencode_frames :]] if question.reencode_frames else []
    if again:
        shown = clip(again)
        start_s = max(0.0, fork.now_s - len(again) * fork.chunk_s)
        turn = fork.dialogue.question(fork.round, start_s, fork.now_s, shown[1], text, first)
        looked = yield EncodeVision([shown])
    else:
        turn, looked = fork.dialogue.aside(fork.round, text, first), []
    fork.spans += turn
    fork.pending += turn
    return dict.fromkeys([fork.round], looked[0]) if again else {}


def clip(chunks: Sequence[Pixels]) -> Pixels:
    """Chunks in a row as one video, the time slices one after another: those of the newest picture size, should it have changed."""
    size = chunks[-1][1][1:]
    same = [(patches, grid) for patches, grid in chunks if grid[1:] == size]
    return torch.cat([patches for patches, _ in same]), (sum(grid[0] for _, grid in same), *size)


def _weigh(fork: Stream, state: State, question: Question) -> Round[tuple[dict[str, float], int]]:
    """Behind a question, at `state` -> the log likelihood of each option, and how many tokens had to be compared. What is read for it stays in the
    cache of `fork`, which is to be thrown away."""
    talk, options = fork.dialogue, [option.strip() for option in question.options]
    if question.constrained == "letter":
        spelled = state.logits.log_softmax(-1)  # [V]
        ways = [{talk.encode(way)[0] for way in (letter, f" {letter}")} for letter in LETTERS[: len(options)]]
        return {option: float(spelled[list(way)].logsumexp(0)) for option, way in zip(options, ways, strict=True)}, 1
    branches = {option: talk.encode(f" {option}") for option in options}
    found = dict.fromkeys(options, 0.0)
    compared = yield from _descend(fork, state, branches, 0, found)
    return found, compared


def _descend(fork: Stream, state: State, branches: dict[str, tuple[int, ...]], depth: int, found: dict[str, float]) -> Round[int]:
    """Add to `found` how likely each of these options goes on from `state`, their common beginning of `depth` tokens. What several begin with is
    read once; the last token of an option is not read. An option that others go on from must also end here: in silence, or in the turn's end."""
    spelled, closings = state.logits.log_softmax(-1), [fork.dialogue.silence[0], *fork.dialogue.stops]  # [V]
    after: dict[int, dict[str, tuple[int, ...]]] = {}
    for option, ids in branches.items():
        if len(ids) == depth:
            found[option] += float(spelled[closings].logsumexp(0))
        else:
            after.setdefault(ids[depth], {})[option] = ids
    compared = len(after)
    for token, group in after.items():
        for option in group:
            found[option] += float(spelled[token])
        if len(group) > 1 or any(len(ids) > depth + 1 for ids in group.values()):
            length, position = fork.kv.length, fork.next_position
            deeper = yield from fork._feed([Span(dialogue.SAID, fork.round, (token,))], {})
            compared += yield from _descend(fork, deeper, group, depth + 1, found)
            fork.kv.length, fork.next_position = length, position
    return compared
