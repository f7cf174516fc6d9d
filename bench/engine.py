"""Our engine against a straightforward loop on transformers: its own forward and `DynamicCache`. Same stream, in turn, as a ratio of medians.

    python bench/engine.py [--config tiny|mid|7b] [--chunks 26] [--device cuda] [--dtype bfloat16] [--int8]
                           [--decode auto|eager|graph|compile] [--cudnn]

Both do the same work with the same weights, frames and prompt: keep what the policy `streaming` keeps, prefill the new round onto it, say
`--tokens` words greedily, one forward each; the last word waits for the next prefill.

  ours    `Streamer`, as the command line uses it.
  theirs  `Plain` below: `hf(input_ids, pixel_values_videos, video_grid_thw, position_ids, past_key_values, logits_to_keep=1)` for the new round and
          `hf(input_ids, position_ids, past_key_values, logits_to_keep=1)` for each word, with SDPA attention and masks as transformers makes them.
          Eviction indexes each layer's keys and values and turns the keys by the difference between new and old position: simple, and cheap, but
          rounding errors add up from chunk to chunk. Positions of a new round come from the layout of all that is kept.

Before the first eviction the two must say the same words (`same_before_eviction`; in float32 a difference ends the bench with an error), and at
the end hold equally many tokens. After an eviction they may part: the keys of `theirs` drift. The ratio is over the chunks with a full vision
window. `Plain` avoids what makes the released code slow (turning every key again for every token, logits of the whole prompt, positions from
scratch for every token), so this ratio is not a speed-up over the released code. On a GPU ours replays a graph and theirs is eager.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median
from types import SimpleNamespace

import common
import torch
from torch import Tensor
from transformers import DynamicCache

from streamingvlm.base.timing import Stopwatch
from streamingvlm.context import dialogue
from streamingvlm.context.cache import rotate
from streamingvlm.context.dialogue import ids_of, rearrange
from streamingvlm.context.policy import Extent
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.stream import Streamer

STAGES = {"evict": ("evict",), "encode + prefill": ("encode", "prefill"), "decode": ("decode",)}


class Loop:
    """transformers' own forward of one model onto a `DynamicCache`. `positions` [3, S] of what it holds."""

    def __init__(self, vlm: VLM):
        self.hf, self.rope = vlm.hf, vlm.rope
        self.cache, self.positions = DynamicCache(), torch.zeros(3, 0, dtype=torch.long, device=vlm.device)

    def forward(self, ids: Tensor, positions: Tensor, **pixels: Tensor) -> Tensor:
        """New ids [1, T] at positions [3, T] -> the likeliest next id."""
        self.positions = torch.cat((self.positions, positions), dim=1)
        out = self.hf(input_ids=ids, position_ids=positions[:, None], past_key_values=self.cache, use_cache=True, logits_to_keep=1, **pixels)
        return out.logits[0, -1].argmax()

    def keep(self, index: Tensor, positions: Tensor) -> None:
        """Keep the tokens at `index` [S], their keys turned to where they now stand, `positions` [3, S]."""
        cos, sin = self.rope.angles(positions - self.positions[:, index])
        for layer in self.cache.layers:
            layer.keys = rotate(layer.keys[:, :, index], cos, sin)
            layer.values = layer.values[:, :, index]
        self.positions = positions


class Plain(Loop):
    """One stream on transformers' own forward. `like`: a Streamer at its start, for its prompt, policy and windows."""

    def __init__(self, like: Streamer, tokens: int):
        super().__init__(like.vlm)
        self.like, self.device, self.tokens = like, like.vlm.device, tokens
        self.spans, self.round, self.query = like.spans[:], 0, like.query
        self.clock = Stopwatch(self.device)

    @torch.inference_mode()
    def step(self, name: str, chunk) -> SimpleNamespace:
        """One round, like `Streamer.step` -> ms per stage."""
        with self.clock("evict"):
            self._evict()
        with self.clock("prefill"):
            word = self._read(chunk)
        said = []
        with self.clock("decode"):
            while True:
                said.append(word.item())
                if len(said) == self.tokens:
                    break
                word = self.forward(word.view(1, 1), self.positions[:, -1:] + 1)
        self.spans += self.like.dialogue.answer(self.round, said)
        self.round += 1
        return SimpleNamespace(ms=self.clock.read())

    def _evict(self) -> None:
        plan = self.like.policy.plan(self.like.retention, [Extent(s.role, s.round, len(s.ids)) for s in self.spans], self.round)
        if plan is None:
            return
        self.spans, index = rearrange(self.spans, plan.pieces)
        index = torch.from_numpy(index[index < self.positions.shape[1]]).to(self.device)  # the last word has no keys yet
        new = torch.from_numpy(self.like.dialogue.positions(self.spans)[:, : len(index)]).to(self.device)
        self.keep(index, new)

    def _read(self, chunk):
        """The frames and the user's turn -> the first word."""
        patches, grid = to_patches(chunk.frames)
        first = self.spans[-1].round == dialogue.HEADER
        self.spans += self.like.dialogue.question(self.round, chunk.start_s, chunk.end_s, grid, self.query if first else "", first)
        cached = self.positions.shape[1]
        ids = torch.tensor([ids_of(self.spans)[cached:]], device=self.device)
        positions = torch.from_numpy(self.like.dialogue.positions(self.spans)[:, cached:]).to(self.device)
        return self.forward(ids, positions, pixel_values_videos=patches.to(self.device, self.like.vlm.dtype),
                             video_grid_thw=torch.tensor([grid], device=self.device))


def said(side: Streamer | Plain) -> list[int]:
    """The ids spoken in the last round."""
    spoken = (dialogue.SAID, dialogue.DOTS)
    return [token for span in side.spans if span.round == side.round - 1 and span.role in spoken for token in span.ids]


def race(args, vlm) -> tuple[dict[str, list[dict]], int]:
    """Step both through the same chunks in turn -> (side -> its ms per chunk, number of chunks from the start in which both said the same)."""
    ours, theirs = common.stream(vlm, args), Plain(common.stream(vlm, args), args.tokens)
    sides, ms, same = {"ours": ours, "theirs": theirs}, {"ours": [], "theirs": []}, 0
    for k in range(args.chunks):
        chunk = common.chunk(k, args)
        for name in sorted(sides, reverse=bool(k % 2)):  # who goes first changes, so that neither always finds the machine warm
            seconds, comment = common.timed(args.device, sides[name].step, "bench", chunk)
            ms[name].append(comment.ms | {"total": seconds * 1e3})
        same += same == k and said(ours) == said(theirs)
    if ours.kv.length != theirs.cache.get_seq_length():
        sys.exit("The two sides hold different numbers of tokens: they did not do the same work.")
    return ms, same


def compare(ms: dict[str, list[dict]]) -> list[dict]:
    """Medians and their ratio, by stage and in total."""
    rows = []
    for label, parts in {**STAGES, "total": ("total",)}.items():
        ours, theirs = (median(sum(row[part] for part in parts) for row in ms[name]) for name in ("ours", "theirs"))
        rows.append({"stage": label, "ours_ms": round(ours, 2), "theirs_ms": round(theirs, 2), "ratio": round(theirs / max(ours, 1e-3), 2)})
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cudnn", action="store_true", help="with torch's cuDNN attention on, which a model turns off: what that would cost")


def main(argv: list[str] | None = None) -> dict:
    args = common.arguments(__doc__, argv, options, chunks=26)
    if args.chunks <= args.rounds or args.rounds < 2:
        sys.exit(f"--chunks must be more than --rounds ({args.rounds}), and those at least 2: measured is what comes after the first eviction.")
    machine = common.machine(args.device, args.dtype)
    vlm = common.build(args)
    torch.backends.cuda.enable_cudnn_sdp(args.cudnn)  # for both sides: with it, each new length of a cache is planned for first
    ms, same = race(args, vlm)
    rows = compare({name: rows[args.rounds:] for name, rows in ms.items()})
    common.table(rows)
    print(f"The same words in the first {same} of {args.chunks} chunks; the first eviction is before chunk {args.rounds}. "
          f"Medians of {args.chunks - args.rounds} chunks.")
    total = {key: rows[-1][key] for key in ("ours_ms", "theirs_ms", "ratio")}
    line = common.finish("engine", args, {"machine": machine, **total, "stages": rows[:-1], "measured_chunks": args.chunks - args.rounds,
                                          "same_chunks": same, "same_before_eviction": same >= args.rounds})
    if args.dtype == "float32" and not args.int8 and same < args.rounds:
        sys.exit(f"The two sides differ in chunk {same}, before the first eviction: one of them is wrong.")
    return line


if __name__ == "__main__":
    common.run(main)
