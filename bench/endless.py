"""Whether an endless stream stays as fast and as small as its first full window, and whether its keys drift.

Streams for hours of simulated time under `streaming`, on random weights, and compares the last 500 chunks with chunks 500-1000: time, resident
memory, KV bytes. Then rotates all cached keys afresh: the working copy must be equal to the bit. Says nothing about quality. Small windows by
default, so that 10,000 chunks take minutes; every chunk says the same number of words.

    python bench/endless.py                                  # 10,000 chunks, float32
    python bench/endless.py --dtype bfloat16 --chunks 2000
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import energy
import numpy as np

from streamingvlm.base import progress
from streamingvlm.base.records import Comment
from streamingvlm.base.timing import percentiles
from streamingvlm.context.cache import rotate
from streamingvlm.streaming.stream import Streamer


def stretch(comments: Sequence[Comment]) -> dict[str, float]:
    """Milliseconds, resident MB and KV bytes of a stretch of stream."""
    slow = percentiles([c.ms["total"] for c in comments])
    memory, kv = (float(np.median([getattr(c, name) for c in comments])) for name in ("memory_mb", "kv_bytes"))
    return {"ms_p50": slow["p50"], "ms_p95": slow["p95"], "memory_mb": memory, "kv_bytes": kv}


def drift(streamer: Streamer) -> float:
    """Largest difference between the rotated keys at work and a fresh rotation of the raw ones."""
    kv = streamer.kv
    fresh = rotate(kv.store[0, :, :, : kv.length], *kv.rope.angles(kv.positions[:, : kv.length]))
    return float((kv.store[1, :, :, : kv.length].float() - fresh.float()).abs().max())


def main(argv: list[str] | None = None) -> dict:
    small = {"config": "tiny", "px": (84, 84), "rounds": 4, "sink": 8, "window": 32, "tokens": 3}
    args = common.arguments(__doc__, argv, chunks=10_000, **small)
    if args.chunks < 40:
        raise SystemExit("--chunks must be at least 40: four stretches of ten.")
    machine = common.machine(args.device, args.dtype)
    streamer = common.stream(common.build(args), args)
    seconds = [common.chunk(k, args) for k in range(64)]  # shown in turn
    chunks = progress.bar(range(args.chunks), args.chunks, "an endless stream")
    with energy.metered(device=args.device) as spent:
        comments = [streamer.step("noise", seconds[k % 64]) for k in chunks]
    edge = min(500, args.chunks // 4)
    first, last = stretch(comments[edge : 2 * edge]), stretch(comments[-edge:])
    rows = [{"": key, "first": first[key], "last": last[key], "ratio": round(last[key] / first[key], 4)} for key in first]
    common.table(rows)
    print(f"After {args.chunks} chunks the rotated keys differ from a fresh rotation by at most {drift(streamer):g}.")
    return common.finish("endless", args, {"machine": machine, "first": first, "last": last, "drift": drift(streamer),
                                           "energy": spent.of(args.chunks),
                                           "ratio": {row[""]: row["ratio"] for row in rows}})


if __name__ == "__main__":
    common.run(main)
