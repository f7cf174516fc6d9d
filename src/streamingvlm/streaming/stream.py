"""The timed loop: for each chunk evict, encode, prefill, decode; yield a Comment. Reads like the paper's Figure 1; knows no file format.

    streamer = Streamer(vlm, policy.get("streaming"), cfg.cache, cfg.video, cfg.stream)
    streamer.start(previous="left lions right bears")
    for comment in streamer.stream_chunks("match-7", read_chunks(path, cfg.video)): ...

Letters: T new tokens, S cached tokens, N vision tokens of a chunk.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Answer, Chunk, Comment
from streamingvlm.base.timing import Stopwatch, peak_gpu_mb, resident_mb
from streamingvlm.context import dialogue
from streamingvlm.context.dialogue import Dialogue, Span, ids_of, rearrange
from streamingvlm.context.policy import REFRESH, Extent, Plan, Policy
from streamingvlm.media.watchdog import fail_if_silent
from streamingvlm.models.qwen25.decode import DecodeToken
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vlm import VLM, Pixels, Prefill
from streamingvlm.streaming.ask import Question, ask_round
from streamingvlm.streaming.batching import EncodeVision, Reserve, Round, State, run_batched
from streamingvlm.streaming.sampling import Sampler


@dataclasses.dataclass(frozen=True)
class Eviction:
    """What a plan does to a stream: the spans that stay, the old index [S] of each of their tokens, and those to compute again: new index -> id."""

    plan: Plan
    spans: list[Span]
    index: np.ndarray
    again: dict[int, int]


Seen = Callable[[], tuple[Pixels, Tensor]]  # waits for a chunk's pixels and vision tokens


class Streamer:
    """One stream: its spans, its KV cache and the policy that keeps both short. `forced_token` (round, step) -> the id that is said there whatever
    the model wants, or None. `recall_rounds`: how many of the newest rounds keep their pixels, to be encoded again when somebody asks."""

    def __init__(self, vlm: VLM, policy: Policy, cache: config.Retention, video: config.Video, stream: config.Stream,
                 forced_token: Callable[[int, int], int | None] = lambda round, step: None, recall_rounds: int = 0):
        self.vlm, self.policy, self.settings, self.forced_token, self.recall_rounds = vlm, policy, stream, forced_token, recall_rounds
        self.retention = policy.effective_retention(cache)
        self.dialogue, self.chunk_s = Dialogue(vlm.tokenizer, vlm.time_step(video.fps)), video.chunk_s
        self.start()

    def start(self, previous: str = "", query: str | None = None) -> None:
        """Begin a stream. `previous`: what was said before it (a title, the teams); `query`: the viewer's wish, by default the configured one."""
        self.kv = self.vlm.new_cache()
        if self.vlm.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.vlm.device)
        self.query = self.settings.query if query is None else query
        self.wish, self.wish_told = "", True  # what the viewer wants since; whether a user's turn has it already
        self.now_s = 0.0  # of the stream: where what was seen ends
        self.spans: list[Span] = self.dialogue.header(self.dialogue.encode(previous))
        self.pending: list[Span] = self.spans[:]  # the end of `spans` that has no keys and values yet
        self.next_position = 0
        self.round = 0
        self.stale: dict[int, int] = {}  # cached tokens to compute again with the next prefill
        self.pixels: dict[int, Pixels] = {}  # of rounds that may be computed again
        self.sampler = Sampler(self.settings, self.vlm.device)
        self.clock = Stopwatch(self.vlm.device)

    def stream_chunks(self, name: str, chunks: Iterable[Chunk], ahead: bool = False) -> Iterator[Comment]:
        """Comment on each chunk as it comes. `ahead`: read the next chunk in a thread, and begin to encode it while text is decoded: on a GPU all
        three then overlap. Only for a source that has its next chunk at hand: with a live one, these words would wait for frames that have not
        arrived."""
        source, seen = iter(fail_if_silent(chunks, None) if ahead else chunks), None

        def look_ahead() -> None:
            nonlocal coming, seen
            coming = self._read(source)
            if coming is not None and not isinstance(coming, Exception):
                with self.clock("encode"):
                    seen = self.vlm.encode_aside(functools.partial(self.pack, coming))

        coming = self._read(source)
        while coming is not None:
            if isinstance(coming, Exception):  # it had to wait until what was said before it was out
                raise coming
            yield run_batched(self.vlm, [self.round_of(name, coming, seen, look_ahead if ahead else None)])[0]
            if not ahead:
                coming = self._read(source)

    def _read(self, source: Iterator[Chunk]) -> Chunk | Exception | None:
        """The next chunk, None behind the last, or what went wrong."""
        with self.clock("read"):
            try:
                return next(source, None)
            except Exception as error:
                return error

    def ask(self, question: str, *, options: Sequence[str] | None = None, max_tokens: int | None = None, constrained: str = "likelihood",
            reencode_frames: int = 0, name: str = "") -> Answer:
        """Answer a question now, between two chunks, before the first or after the last; the stream stays as it is. See `ask.ask_round`."""
        asked = Question(question, tuple(options or ()), self.settings.max_new_tokens if max_tokens is None else max_tokens,
                         constrained, reencode_frames)
        return run_batched(self.vlm, [ask_round(self, asked, name)])[0]

    def tell(self, wish: str) -> None:
        """From now on the viewer wants this; it joins the next user's turn, behind the query. A newer wish takes the place of an older one.

        What keeps it is what keeps the query: it is pinned with it (`pin_query`), and said again where a stream starts again from its header.
        Unpinned, as in the released code, it leaves with its round. UserError for an empty one."""
        if not wish.strip():
            raise UserError("A wish needs words: say what the commentator should do from now on.")
        self.wish, self.wish_told = wish.strip(), False

    def step(self, name: str, chunk: Chunk) -> Comment:
        """One round of this stream alone."""
        return run_batched(self.vlm, [self.round_of(name, chunk)])[0]

    def round_of(self, name: str, chunk: Chunk, seen: Seen | None = None, then: Callable[[], None] | None = None) -> Round[Comment]:
        """One round: forget, look, read, speak. Yields what is to be computed and is sent the result, so that many streams can share a forward.
        `seen`: the chunk's pixels and vision tokens, if its encoding was begun before; `then`: called while the GPU still reads the prompt."""
        with self.clock("evict"):
            yield from self._evict()
        with self.clock("encode"):
            vision = yield from self._look(chunk, seen)
        with self.clock("prefill"):
            state = yield from self._feed(self.pending, vision)
        yield Reserve(self.kv, self._room())  # between two stages: what is set up once is in none of them
        if then:
            then()
        with self.clock("decode"):
            said = yield from self._speak(state)
        self.round += 1
        self.now_s = chunk.end_s
        text = self.dialogue.decode(said).removesuffix(dialogue.SILENCE).strip()
        memory_mb = peak_gpu_mb(self.vlm.device) or resident_mb()
        return Comment(name, self.policy.name, chunk.index, chunk.start_s, chunk.end_s, text, len(said), self.kv.length, self.kv.bytes,
                       self.clock.read(), round(memory_mb, 1))

    def _room(self) -> int:
        """Tokens this stream is about to hold; in its first round, about as many as it will ever hold, so that room is made once."""
        now = self.kv.length + self.settings.max_new_tokens + 1
        if self.round or not self.policy.forgets:
            return now
        turn = sum(len(span.ids) for span in self.spans if span.round == self.round) + self.settings.max_new_tokens
        return now + self.retention.text_sink + self.retention.text_window + self.retention.vision_rounds * turn

    def next_eviction(self) -> Eviction | None:
        """What the next chunk's eviction will do, by the policy; None where everything stays as it is. Asking changes nothing."""
        if not self.policy.forgets:
            return None
        plan = self.policy.plan(self.retention, [Extent(s.role, s.round, len(s.ids)) for s in self.spans], self.round)
        if plan is None:
            return None
        spans, index = rearrange(self.spans, plan.pieces)
        tokens = [(span.role, token) for span in spans for token in span.ids]
        again = {i: token for i, (role, token) in enumerate(tokens) if plan.recompute or role in REFRESH[self.retention.refresh]}
        return Eviction(plan, spans, index, again)

    def _evict(self) -> Round[None]:
        """Make spans, keys, values and positions agree with what the policy keeps."""
        eviction = self.next_eviction()
        if eviction is None:
            return
        plan, spans, index = eviction.plan, eviction.spans, eviction.index
        if plan.recompute:
            self.kv.clear()
            self.pending, self.next_position = spans[:], 0
        else:
            if (np.diff((index >= self.kv.length).astype(int)) < 0).any():  # a word never fed is to move before one that was: feed it first
                yield from self._feed(self.pending, {})
            cached = index[index < self.kv.length]
            unfed = [ids_of(self.pending)[i - self.kv.length] for i in index[index >= self.kv.length]]
            positions = self.dialogue.positions(spans)[:, : len(cached)] if plan.reposition else None
            unmoved = int(np.cumprod(cached == np.arange(len(cached))).sum())  # the same tokens in front: the same positions too
            self.kv.keep(self._tensor(cached), None if positions is None else self._tensor(positions), unmoved)
            if positions is not None:
                self.next_position = positions.max(initial=-1).item() + 1
            self.pending = [Span(dialogue.END, self.round - 1, tuple(unfed))]
            self.stale = {i: token for i, token in eviction.again.items() if i < self.kv.length}
        self.spans = spans
        self.pixels = {r: self.pixels[r] for r in self.pixels if r > self.round - max(self.retention.vision_rounds, self.recall_rounds)}

    def pack(self, chunk: Chunk) -> Pixels:
        """Packed where the model is: a GPU packs a second of video a hundred times faster, and gets bytes instead of floats."""
        return to_patches(torch.as_tensor(chunk.frames).to(self.vlm.device))

    def _look(self, chunk: Chunk, seen: Seen | None = None) -> Round[dict[int, Tensor]]:
        """Append the user's turn -> vision tokens [N, E] of each round that is about to be fed."""
        pixels, tokens = seen() if seen else (self.pack(chunk), None)
        first = self.spans[-1].role != dialogue.END
        anew = first and (self.round == 0 or self.retention.pin_query)
        wish, self.wish_told = "" if self.wish_told and not anew else self.wish, True
        turn = self.dialogue.question(self.round, chunk.start_s, chunk.end_s, pixels[1], self.query if anew else "", first, wish, chunk.note)
        self.spans += turn
        self.pending += turn
        held = self.pixels if self.policy.needs_pixels else {r: self.pixels[r] for r in self.pixels if r > self.round - self.recall_rounds}
        self.pixels = held | {self.round: pixels}
        vision = {} if tokens is None else {self.round: tokens}
        unseen = [span.round for span in self.pending if span.grid and span.round not in vision]
        looked = (yield EncodeVision([self.pixels[r] for r in unseen])) if unseen else []
        return vision | dict(zip(unseen, looked, strict=True))

    def _feed(self, spans: list[Span], vision: dict[int, Tensor]) -> Round[State]:
        """Compute keys and values of `spans`, the tail, and in the same pass those of stale tokens -> the state behind the last token."""
        stale, self.stale, self.pending = self.stale, {}, []
        ids = ids_of(spans)
        if len(ids) == 1 and not stale:
            self.next_position += 1
            return (yield DecodeToken(ids[0], self.next_position - 1, self.kv))
        x = self.vlm.embed([*stale.values(), *ids])  # [T, E]
        at = len(stale)
        for span in spans:
            if span.grid:
                x[at + 1 : at + len(span.ids) - 1] = vision[span.round].to(x.dtype)
            at += len(span.ids)
        positions = self.dialogue.positions(spans, self.next_position)
        self.next_position = positions.max().item() + 1
        positions = self._tensor(positions)
        again = self._tensor(np.array(list(stale))) if stale else None
        if stale:
            positions = torch.cat((self.kv.positions[:, again], positions), dim=1)
        return (yield Prefill(x, positions, self.kv, again))

    def _speak(self, state: State) -> Round[list[int]]:
        """Words from the state behind the prompt until the model ends its turn or reaches its limit."""
        said: list[int] = []
        fed = 0
        before = self._tensor(np.array(ids_of(self.spans) if self.sampler.penalises else [], int))  # [S]
        while True:
            token = self.forced_token(self.round, len(said))
            if token is None:
                token = self.sampler(state, torch.cat((before, before.new_tensor(said))) if self.sampler.penalises else before)
            ends = token in self.dialogue.stops
            if not ends or (self.policy.verbatim and token != self.dialogue.im_end):
                said.append(token)
            if ends or len(said) == self.settings.max_new_tokens:
                break
            state = yield from self._feed([Span(dialogue.SAID, self.round, (token,))], {})
            fed += 1
        answer = self.dialogue.answer(self.round, said)
        self.spans += answer
        # As in the released code the last token has no keys and values yet: the next prefill feeds it, before the next turn.
        self.pending = [Span(dialogue.END, self.round, tuple(ids_of(answer)[fed:]))]
        return said

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.vlm.device)

    def save(self, path: Path) -> None:
        """Write all that this stream is, complete or not at all; `load` goes on from there, in this process or another, with the same output."""
        held = {name: getattr(self, name) for name in STATE}
        held |= {"spans": [dataclasses.astuple(span) for span in self.spans], "pending": [dataclasses.astuple(span) for span in self.pending]}
        held |= {"policy": self.policy.name, "chance": self.sampler.chance.get_state(), "store": self.kv.store[:, :, :, : self.kv.length].clone(),
                 "positions": self.kv.positions[:, : self.kv.length].clone()}
        part = path.with_name(path.name + ".part")
        torch.save(held, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Become the stream that `save` wrote. The model, the policy and the windows must be those it had."""
        try:
            held = torch.load(path, map_location=self.vlm.device, weights_only=True)
            if held["policy"] != self.policy.name or held["store"].shape[1:3] != self.kv.store.shape[1:3]:
                raise UserError(f"{path} is a stream of the policy `{held['policy']}` or of another model; load it with those it had.")
        except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} is no saved stream; name a file that `save` wrote.") from error
        for name in STATE:
            setattr(self, name, held[name])
        self.spans, self.pending = ([Span(*fields) for fields in held[name]] for name in ("spans", "pending"))
        self.sampler.chance.set_state(held["chance"].cpu())
        self.kv = self.vlm.new_cache()
        self.kv.extend(held["positions"])
        self.kv.store[:, :, :, : self.kv.length] = held["store"]


STATE = ("query", "wish", "wish_told", "now_s", "next_position", "round", "pixels", "stale")  # of a stream, besides its spans and its cache


def stream_side_by_side(streamers: Sequence[Streamer], name: str, chunks: Iterable[Chunk]) -> Iterator[list[Comment]]:
    """Streams of one model over one video, each under its policy, chunk by chunk in shared passes: a chunk is cut into patches and encoded once.

    Their times are those of the group, not of a stream alone."""
    vlm = streamers[0].vlm
    for chunk in chunks:
        pixels = streamers[0].pack(chunk)
        tokens = vlm.encode([pixels])[0]
        yield run_batched(vlm, [streamer.round_of(name, chunk, lambda seen=(pixels, tokens): seen) for streamer in streamers])
