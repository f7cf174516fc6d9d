"""Whether an endless stream stays as fast and as small as its first full window, and whether its keys drift.

Streams for hours of simulated time under `streaming`, on random weights, and compares the last 500 chunks with chunks 500-1000: time, resident
memory, KV bytes. Then rotates all cached keys afresh: the working copy must be equal to the bit. Says nothing about quality. Small windows by
default, so that 10,000 chunks take minutes; every chunk says the same number of words.

    python bench/endless.py                                  # 10,000 chunks, float32
    python bench/endless.py --chunks 36000                   # ten hours of one second a chunk
    python bench/endless.py --chunks 3600 --streams 32       # an hour of 32 streams, all in each pass
    python bench/endless.py --dtype bfloat16 --chunks 2000
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import energy
import numpy as np

from streamingvlm.base import progress
from streamingvlm.base.timing import percentiles
from streamingvlm.context.cache import rotate
from streamingvlm.streaming.batching import run_batched
from streamingvlm.streaming.stream import Streamer

Pass = tuple[float, float, int]  # of one chunk of every stream: seconds, resident MB, KV bytes of the first stream; all that is kept of it


def stretch(passes: Sequence[Pass]) -> dict[str, float]:
    """Milliseconds of a pass, resident MB, and KV bytes of one stream, over a stretch of the stream."""
    seconds, memory, kv = np.array(passes).T
    slow = percentiles(list(seconds * 1e3))
    return {"ms_p50": slow["p50"], "ms_p95": slow["p95"], "memory_mb": float(np.median(memory)), "kv_bytes": float(np.median(kv))}


def drift(streamer: Streamer) -> float:
    """Largest difference between the rotated keys at work and a fresh rotation of the raw ones."""
    kv = streamer.kv
    fresh = rotate(kv.store[0, :, :, : kv.length], *kv.rope.angles(kv.positions[:, : kv.length]))
    return float((kv.store[1, :, :, : kv.length].float() - fresh.float()).abs().max())


def main(argv: list[str] | None = None) -> dict:
    small = {"config": "tiny", "px": (84, 84), "rounds": 4, "sink": 8, "window": 32, "tokens": 3}
    args = common.arguments(__doc__, argv, lambda parser: parser.add_argument("--streams", type=int, default=1, help="side by side"), chunks=10_000,
                            **small)
    if args.chunks < 40:
        raise SystemExit("--chunks must be at least 40: four stretches of ten.")
    machine = common.machine(args.device, args.dtype)
    vlm = common.build(args)
    streamers = [common.stream(vlm, args) for _ in range(args.streams)]
    seconds = [common.chunk(k, args) for k in range(64)]  # shown in turn
    passes: list[Pass] = []
    with energy.metered(device=args.device) as spent:
        for k in progress.bar(range(args.chunks), args.chunks, "an endless stream"):
            spent_s, comments = common.timed(args.device, run_batched, vlm, [streamer.round_of("noise", seconds[k % 64]) for streamer in streamers])
            passes.append((spent_s, comments[0].memory_mb, comments[0].kv_bytes))
    edge = min(500, args.chunks // 4)
    first, last = stretch(passes[edge : 2 * edge]), stretch(passes[-edge:])
    rows = [{"": key, "first": first[key], "last": last[key], "ratio": round(last[key] / first[key], 4)} for key in first]
    common.table(rows)
    turned = max(map(drift, streamers))
    print(f"After {args.chunks} chunks the rotated keys differ from a fresh rotation by at most {turned:g}.")
    return common.finish("endless", args, {"machine": machine, "first": first, "last": last, "drift": turned,
                                           "energy": spent.of(args.chunks * args.streams),
                                           "ratio": {row[""]: row["ratio"] for row in rows}})


if __name__ == "__main__":
    common.run(main)
