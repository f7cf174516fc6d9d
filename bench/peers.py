"""Our decoder against what people would use instead, on the same work with the same weights, in turn: transformers' `DynamicCache`, llama.cpp.

    python bench/peers.py [--config tiny|mid] [--turns 16] [--cached 2700] [--feed 84] [--tokens 20] [--evict-after 612] [--clock cpu|wall]
    pip install llama-cpp-python gguf                    # optional: then llama.cpp too, in F32, F16 and Q8_0

A turn is what a chunk asks of the decoder in the middle of a stream: with `--cached` tokens held, forget the oldest behind the sink
(`--evict-after`), move what is behind to its new positions, feed `--feed` tokens and the last word said, say `--tokens` words greedily. Text alone:
a token has one position. Whether a whole Qwen2.5-VL could stream on llama.cpp hangs on its version: 0.3.16 of the package says that it shifts the
cache of an M-RoPE model, newer sources refuse; the bench asks the one at hand (`mrope_shifts`). `engine.py` compares whole chunks with frames,
against transformers.

  ours            float32, as `run.weights: whole` has it; `ours quick`: int8 output layer, its best words by the whole weights; `ours int8`: all int8
  ours half       the quick output layer, and float16 weights in the decoder
  transformers    its own forward and `DynamicCache`; an eviction indexes keys and values and turns the keys by the difference of positions
  llama.cpp KIND  the GGUF that this bench writes of the same weights; keys and values in float32 beside F32, in half precision beside F16 and Q8_0

Float32 sides (ours, quick, transformers, llama.cpp F32) must say the same words in every turn; another word ends the bench with an error. The
others' share of equal words is printed, turn by turn from the same context: each is fed the words of `ours`.
Sides take turns, the first one changing. A ratio is the median over turns of ours / theirs, with a bootstrap interval of 95 % over the turns. The
clock of choice on one thread is this process's own time (`cpu`), which other programs stretch less; with more threads it is the wall's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Protocol

import common
import llama
import numpy as np
import torch
from engine import Loop

from streamingvlm.base.errors import UserError
from streamingvlm.base.progress import bar
from streamingvlm.models.qwen25.decode import DecodeToken
from streamingvlm.models.qwen25.vlm import VLM, Prefill

EXACT = ("ours", "ours quick", "transformers", "llama.cpp F32")  # float32: the same words, or one of them is wrong
BLOCK = 512  # tokens of the context that are fed at once before anything is measured


class Side(Protocol):
    """One stream of text. `forward` feeds ids behind what is cached -> the likeliest next id; `evict` forgets `count` tokens from `first` on."""

    def forward(self, ids: Sequence[int]) -> int: ...

    def evict(self, first: int, count: int) -> None: ...


class Ours:
    def __init__(self, vlm: VLM):
        self.vlm, self.kv = vlm, vlm.new_cache()

    def forward(self, ids: Sequence[int]) -> int:
        if len(ids) == 1:
            feed = DecodeToken(ids[0], self.kv.length, self.kv)
        else:
            feed = Prefill(self.vlm.embed(list(ids)), line(self.kv.length, len(ids), self.vlm), self.kv)
        return int(self.vlm.logits(self.vlm.forward([feed])[0][-1:]).argmax())

    def evict(self, first: int, count: int) -> None:
        stay = torch.tensor([*range(first), *range(first + count, self.kv.length)], device=self.vlm.device)  # [S]
        self.kv.keep(stay, line(0, len(stay), self.vlm).float(), unmoved=first)


class Transformers:
    def __init__(self, vlm: VLM):
        self.vlm, self.loop = vlm, Loop(vlm)

    def forward(self, ids: Sequence[int]) -> int:
        held = self.loop.positions.shape[1]
        return int(self.loop.forward(torch.tensor([list(ids)], device=self.vlm.device), line(held, len(ids), self.vlm)))

    def evict(self, first: int, count: int) -> None:
        held = self.loop.positions.shape[1]
        stay = torch.tensor([*range(first), *range(first + count, held)], device=self.vlm.device)  # [S]
        self.loop.keep(stay, line(0, len(stay), self.vlm))


def line(start: int, tokens: int, vlm: VLM) -> torch.Tensor:
    """Positions [3, T] of text: one after another, on all three axes alike."""
    return torch.arange(start, start + tokens, device=vlm.device).expand(3, -1)


def our_sides(args: argparse.Namespace) -> dict[str, Side]:
    whole = common.build(args)
    quick = VLM(whole.hf, whole.tokenizer, args.decode)
    quick.lighten("quick")
    int8 = common.build(argparse.Namespace(**{**vars(args), "int8": True}))
    half = common.build(argparse.Namespace(**{**vars(args), "weights": "half"}))
    return {"ours": Ours(whole), "ours quick": Ours(quick), "ours half": Ours(half), "ours int8": Ours(int8), "transformers": Transformers(whole)}


def llama_sides(args: argparse.Namespace, hf: torch.nn.Module, folder: Path) -> dict[str, llama.Llama]:
    """llama.cpp in each kind of file, and none where it is not installed."""
    llama.library()  # before gigabytes are written
    text, tensors = hf.config.text_config, llama.weights(hf)
    room = args.cached + args.feed + args.tokens + BLOCK
    sides = {}
    for kind in llama.KINDS:
        path = folder / f"{kind}.gguf"
        llama.write(path, text, tensors, kind)
        sides[f"llama.cpp {kind}"] = llama.Llama(path, kind, room, args.threads)
    return sides


def mrope_shifts(args: argparse.Namespace, folder: Path) -> bool:
    """Whether llama.cpp would shift the cache of a model with three positions per token: asked of it, on the tiny shape."""
    hf = common.build(argparse.Namespace(**{**vars(args), "config": "tiny"})).hf
    llama.write(folder / "mrope.gguf", hf.config.text_config, llama.weights(hf), "F32", "qwen2vl")
    return llama.Llama(folder / "mrope.gguf", "F32", BLOCK, 1).can_shift


def turn(side: Side, args: argparse.Namespace, fed: list[int], words: list[int] | None, clock) -> tuple[dict[str, float], list[int]]:
    """One chunk's work -> (seconds of reading, eviction with it, and of saying; the words). `words`: fed in place of the side's own."""
    start = clock()
    side.evict(args.evict_after, len(fed) + args.tokens - 1)
    said = [side.forward(fed)]
    read = clock()
    while len(said) < args.tokens:
        said.append(side.forward([(words or said)[len(said) - 1]]))
    done = clock()
    return {"read": read - start, "say": done - read, "total": done - start}, said


@torch.inference_mode()
def race(args: argparse.Namespace, sides: dict[str, Side]) -> tuple[dict[str, list[dict]], dict[str, float]]:
    """(side -> its seconds in each turn, side -> share of its words that are those of `ours`). The first turn sets things up: not measured."""
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    rng = np.random.default_rng(0)
    vocabulary = common.shape(args.config)[0]["vocab_size"]
    context = rng.integers(0, vocabulary, args.cached).tolist()
    for side in sides.values():
        for at in range(0, args.cached, BLOCK):
            side.forward(context[at : at + BLOCK])
    seconds, same, names, last = {name: [] for name in sides}, dict.fromkeys(sides, 0), list(sides)[1:], 0
    for k in bar(range(args.turns + 1), args.turns + 1, "turns"):
        fed = [last, *rng.integers(0, vocabulary, args.feed).tolist()]
        order = ["ours", *names[k % len(names) :], *names[: k % len(names)]]
        words = None
        for name in order:
            took, said = turn(sides[name], args, fed, words, clock)
            words = words or said
            equal = sum(map(int.__eq__, said, words))
            if name in EXACT and args.dtype == "float32" and equal < len(words):
                sys.exit(f"`{name}` says another word than `ours` in turn {k}: one of the two is wrong.")
            if k:
                seconds[name].append(took)
                same[name] += equal
        last = words[-1]
    return seconds, {name: round(count / (args.turns * args.tokens), 4) for name, count in same.items()}


def ratio(ours: Sequence[float], theirs: Sequence[float], draws: int = 2000) -> list[float]:
    """Median over turns of ours / theirs, and its 95 % interval: turns drawn again and again, with replacement."""
    each = np.asarray(ours) / np.asarray(theirs)
    drawn = np.median(np.random.default_rng(0).choice(each, (draws, len(each))), axis=1)
    return [round(float(value), 3) for value in (np.median(each), *np.percentile(drawn, (2.5, 97.5)))]


def compare(seconds: dict[str, list[dict]]) -> list[dict]:
    """Each of ours against each of the others, by stage and in total."""
    ours = [name for name in seconds if name.startswith("ours")]
    return [{"ours": mine, "theirs": theirs, **{stage: ratio(*([row[stage] for row in seconds[name]] for name in (mine, theirs)))
                                                for stage in ("read", "say", "total")}}
            for theirs in seconds if theirs != "ours" for mine in ours if mine != theirs and (theirs not in ours or mine == "ours int8")]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=16, help="measured, behind one that is not")
    parser.add_argument("--cached", type=int, default=2700, help="tokens held when a turn begins")
    parser.add_argument("--feed", type=int, default=84, help="new tokens of a turn, beside the last word")
    parser.add_argument("--evict-after", type=int, default=612, help="tokens in front that stay where they are")
    parser.add_argument("--clock", choices=("cpu", "wall"), help="default: cpu with one thread, else wall")


def main(argv: list[str] | None = None) -> dict:
    args = common.arguments(__doc__, argv, options)
    if args.device != "cpu" or args.int8:
        sys.exit("This bench compares on a CPU and brings its own int8 side; leave --device and --int8 away.")
    if args.cached < args.evict_after + args.feed + args.tokens or args.turns < 2:
        sys.exit("--cached must hold --evict-after, --feed and --tokens together, and --turns be at least 2.")
    args.clock = args.clock or ("cpu" if args.threads == 1 else "wall")
    machine = common.machine(args.device, args.dtype)
    sides, shifts = our_sides(args), None
    with tempfile.TemporaryDirectory() as folder:
        try:
            sides |= llama_sides(args, sides["ours"].vlm.hf, Path(folder))
            shifts = mrope_shifts(args, Path(folder))
            print(f"llama.cpp {'shifts' if shifts else 'refuses to shift'} the cache of an M-RoPE model, which Qwen2.5-VL is.")
        except UserError as error:
            print(f"Without llama.cpp: {error}")
        seconds, same = race(args, sides)
    ms = {name: {stage: round(median(row[stage] for row in rows) * 1e3, 2) for stage in rows[0]} for name, rows in seconds.items()}
    common.table([{"side": name, **{f"{stage}_ms": value for stage, value in its.items()}, "same_words": same[name]} for name, its in ms.items()])
    rows = compare(seconds)
    common.table([{key: value if isinstance(value, str) else "{:.2f} [{:.2f}, {:.2f}]".format(*value) for key, value in row.items()} for row in rows])
    return common.finish("peers", args, {"machine": machine, "ratios": rows, f"{args.clock}_ms": ms, "same_words": same, "mrope_shifts": shifts})


if __name__ == "__main__":
    common.run(main)
