"""What a chunk needs at least, what this machine could do, and what share of that is reached, stage by stage.

    python bench/roofline.py [--config tiny|mid|7b] [--chunks 24] [--streams 1] [--device cuda] [--dtype bfloat16] [--int8]

Needed, computed from the shape and the lengths that occurred: every weight read once per forward, the keys and values of all cached tokens read
once per forward, two operations per weight and token, four per query and cached key. Not counted: activations, norms, softmax, logits, the
vision tower's attention over more than a layer needs. Eviction reads and writes raw keys and values once and writes the rotated keys.

The machine: a copy (read + written bytes) and a square matmul, measured in the same run with the same threads and dtype. The bound of a stage is
the larger of bytes / bandwidth and operations / rate; `share` is bound / measured. It says how far a stage is from this simple model of the
machine, not from what is possible: reading alone can be faster than copying, and weights that stay in a large cache from one token to the next
are not read from memory at all, so a share above 1 can happen (tiny). With --int8 weights count one byte each, but the rate is still that of the
float matmul: torch offers no plain int8 one to measure on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import common
import torch

from streamingvlm.base.patches import MERGE, PATCH_PX, TEMPORAL
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vlm import Prefill

PATCH_VALUES = 3 * TEMPORAL * PATCH_PX**2
STAGES = ("encode", "evict", "prefill", "decode")


@dataclass(frozen=True)
class Lengths:
    """Of one chunk. `forwards`: (new tokens, cached tokens with them) of each pass through the decoder, the prefill first; `kept`: tokens that
    stayed at the eviction; `slices`, `rows`, `columns`: the grid of patches."""

    forwards: tuple[tuple[int, int], ...]
    kept: int
    slices: int
    rows: int
    columns: int
    words: int


def weights(text: dict, vision: dict) -> dict[str, int]:
    """Number of weights in the matrices of each part."""
    E, heads, kv, inner = (text[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"))
    layer = 2 * E * E + 2 * E * (E // heads * kv) + 3 * E * inner
    h, merged = vision["hidden_size"], vision["hidden_size"] * MERGE**2
    block = 4 * h * h + 3 * h * vision["intermediate_size"]
    return {"decoder": text["num_hidden_layers"] * layer, "head": text["vocab_size"] * E,
            "vision": PATCH_VALUES * h + vision["depth"] * block, "merger": merged * merged + merged * vision["out_hidden_size"]}


def needs(text: dict, vision: dict, lengths: Lengths, weight_bytes: int, kv_bytes: int) -> dict[str, tuple[float, float]]:
    """(bytes, operations) of each stage."""
    count, layers, E = weights(text, vision), text["num_hidden_layers"], text["hidden_size"]
    row = layers * E // text["num_attention_heads"] * text["num_key_value_heads"] * kv_bytes  # one token's keys, or its values

    def passes(forwards):
        read = sum(count["decoder"] * weight_bytes + 2 * row * cached for _, cached in forwards)
        pairs = sum(new * (cached - new) + new * (new + 1) / 2 for new, cached in forwards)  # causal: each sees what came before and itself
        return read, 2 * count["decoder"] * sum(new for new, _ in forwards) + 4 * layers * E * pairs

    patches = lengths.slices * lengths.rows * lengths.columns
    whole = lengths.rows * lengths.columns  # a full layer attends within one time slice, a window layer within 8 x 8 patches of it
    window = (vision["window_size"] // PATCH_PX) ** 2
    seen = sum(whole if i in vision["fullatt_block_indexes"] else min(window, whole) for i in range(vision["depth"]))
    encode = 2 * count["vision"] * patches + 2 * count["merger"] * patches / MERGE**2 + 4 * vision["hidden_size"] * patches * seen
    decode = passes(lengths.forwards[1:])
    return {"encode": ((count["vision"] + count["merger"]) * weight_bytes, encode), "evict": (5 * row * lengths.kept, 0.0),
            "prefill": passes(lengths.forwards[:1]),
            "decode": (decode[0] + lengths.words * count["head"] * weight_bytes, decode[1] + 2 * count["head"] * lengths.words)}


def bound_ms(needed: tuple[float, float], gb_s: float, gflops: float) -> tuple[float, str]:
    """(the least time, what sets it)."""
    memory, compute = needed[0] / gb_s / 1e6, needed[1] / gflops / 1e6
    return max(memory, compute), "memory" if memory >= compute else "compute"


def vision_fps(args, vlm) -> float:
    """Frames packed and encoded in a second, the chunks of `--streams` streams in one pass; the median of five, after one."""
    chunks = [common.chunk(k, args) for k in range(args.streams)]

    def look():
        vlm.encode([to_patches(torch.as_tensor(chunk.frames).to(args.device)) for chunk in chunks])

    look()
    return args.streams * args.fps / median(common.timed(args.device, look)[0] for _ in range(5))


def observe(args, vlm) -> tuple[dict[str, float], Lengths]:
    """Stream until the vision window is full -> (median ms of each stage from then on, the lengths of the last chunk)."""
    streamer, passes, ms = common.stream(vlm, args), [], []
    forward = vlm.forward
    vlm.forward = lambda feeds: passes.append(len(feeds[0].positions[0]) if isinstance(feeds[0], Prefill) else 1) or forward(feeds)
    for k in range(args.chunks):
        passes.clear()
        comment = streamer.step("bench", common.chunk(k, args))
        if k >= args.rounds:
            ms.append(comment.ms)
    read = comment.kv_tokens - (comment.tokens - 1)  # cached after the prefill; each word but the last then adds one
    forwards = ((passes[0], read), *((1, read + i) for i in range(1, comment.tokens)))
    grid = (-(-args.fps // TEMPORAL), args.px[0] // PATCH_PX, args.px[1] // PATCH_PX)
    return {stage: median(row[stage] for row in ms) for stage in STAGES}, Lengths(forwards, read - passes[0], *grid, comment.tokens)


def options(parser) -> None:
    parser.add_argument("--streams", type=int, default=1, help="whose frames the vision tower is given at once")


def main(argv: list[str] | None = None) -> dict:
    args = common.arguments(__doc__, argv, options, chunks=24)
    if args.chunks <= args.rounds:
        raise SystemExit(f"--chunks must be more than --rounds ({args.rounds}): nothing is measured before the vision window is full.")
    machine = common.machine(args.device, args.dtype)
    gb_s, gflops = machine["copy_gb_s"], machine[f"matmul_{args.dtype}_gflops"]
    vlm = common.build(args)
    ms, lengths = observe(args, vlm)
    seen = round(vision_fps(args, vlm), 1)
    width = {"float32": 4, "bfloat16": 2}[args.dtype]
    needed = needs(*common.shape(args.config), lengths, 1 if args.int8 else width, width)
    rows = []
    for stage, need in needed.items():
        least, by = bound_ms(need, gb_s, gflops)
        rows.append({"stage": stage, "GB": round(need[0] / 1e9, 4), "GFLOP": round(need[1] / 1e9, 4), "bound_ms": round(least, 2), "by": by,
                     "measured_ms": round(ms[stage], 2), "share": round(least / max(ms[stage], 1e-3), 3)})
    common.table(rows)
    print(f"Machine: {gb_s} GB/s copied, {gflops} GFLOP/s in {args.dtype}. Chunk: {lengths.forwards[0][0]} tokens prefilled onto {lengths.kept}, "
          f"{lengths.words} words. Medians of {args.chunks - args.rounds} chunks.")
    print(f"Vision: {seen} frames a second, packed and encoded {args.streams * args.fps} at a time.")
    total = sum(row["bound_ms"] for row in rows) / sum(row["measured_ms"] for row in rows)
    return common.finish("roofline", args, {"machine": machine, "stages": rows, "share": round(total, 3), "vision_fps": seen,
                                            "prefilled": lengths.forwards[0][0], "cached": lengths.kept})


if __name__ == "__main__":
    common.run(main)
