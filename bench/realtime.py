"""How much a real-time clock allows: the highest FPS of one stream, and the most streams at once at 2 FPS, found by bisection.

    python bench/realtime.py [--config tiny|mid|7b] [--chunks 20] [--max-fps 64] [--max-streams 64] [--tries 2] [--device cuda] [--int8]
                             [--decode auto|eager|graph|compile]

The clock is virtual: chunk k of a second has arrived with its last frame, at k + (F - 1) / F s; every chunk is really computed and timed, and the
clock adds the times up. A chunk that is late makes the next one wait. A chunk has fallen behind when its text comes after the next chunk has
arrived (latency > 1 s); a setting passes if no chunk of its `--chunks` does. A trial stops at the first chunk that fell behind, and is made again
up to `--tries` times: what else runs on a machine can only make it slower, and one such moment is no verdict. Chunk 0, which holds the header
and the text said before, comes before the clock starts. FPS go up by 2, as two frames make one slice of vision tokens. The search ends within
20 % (`--within 0`: exactly); `fails_at_...` is the least that failed above the most that passed, 0 if nothing did.

Several streams share each forward (`stream.together`), so a round of all of them is one job and all get their text when it is done; with
`--batch no` they are served one after another. Their chunks all arrive at the same moment, the worst case. p50/p95/p99: from the arrival of a
chunk's last frame to its whole text, over the chunks with a full vision window (`n` of them; with few, p99 is their maximum). Reading the video
is not included, packing pixels is. A setting that does not fit in memory does not pass. `--fps` has no say here: it is what is searched.
"""

from __future__ import annotations

import argparse
import gc

import common
import torch

from streamingvlm.base.timing import percentiles
from streamingvlm.serving.schedule.capacity import largest
from streamingvlm.streaming.batching import run_batched


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-fps", type=int, default=64, help="look no higher")
    parser.add_argument("--max-streams", type=int, default=64, help="look no higher")
    parser.add_argument("--tries", type=int, default=2, help="a setting fails when it failed so many times")
    parser.add_argument("--batch", choices=("yes", "no"), default="yes", help="many streams in one forward, or one after another")
    parser.add_argument("--within", type=float, default=0.2, help="stop searching when what fails is no more than this share above what passes")


class VirtualClock:
    """One server under a real-time clock: takes jobs in order, each no earlier than it has arrived and the one before is done."""

    def __init__(self):
        self.free_s = 0.0

    def serve(self, arrival_s: float, duration_s: float) -> float:
        """-> seconds from arrival to done."""
        self.free_s = max(self.free_s, arrival_s) + duration_s
        return self.free_s - arrival_s


def trial(args: argparse.Namespace, vlm, frames: int, count: int) -> dict:
    """Run `count` streams of `frames` FPS on the virtual clock -> {passed, p50, p95, p99, n, kv_tokens}."""
    row = {"fps": frames, "streams": count, "passed": False, "stopped_at": 0, "p50": None, "p95": None, "p99": None, "n": 0, "kv_tokens": 0}
    latencies = _tried(args, vlm, frames, count, row)
    if latencies is None:
        gc.collect()
        torch.cuda.empty_cache()
        return row | {"stopped_at": "no memory"}
    passed = all(latency <= common.CHUNK_S for _, latency in latencies)
    full = [latency * 1e3 for k, latency in latencies if k >= args.rounds]
    return row | {"passed": passed, "stopped_at": latencies[-1][0], "n": len(full)} | (percentiles(full) if full else {})


def _tried(args: argparse.Namespace, vlm, frames: int, count: int, row: dict) -> list[tuple[int, float]] | None:
    """What `_latencies` yields, or None without enough memory. The streams hang on the error's traceback: they are gone where it is."""
    try:
        return list(_latencies(args, vlm, frames, count, row))
    except torch.OutOfMemoryError:
        return None


def _latencies(args, vlm, frames: int, count: int, row: dict):
    """Yield (chunk, latency [s]) of every chunk of every stream, in order, up to the first that fell behind."""
    streamers = [common.stream(vlm, args, fps=frames) for _ in range(count)]
    clock = VirtualClock()
    for k in range(args.chunks):
        chunk = common.chunk(k, args, frames)
        for group in [streamers] if args.batch == "yes" else [[streamer] for streamer in streamers]:
            seconds, comments = common.timed(args.device, run_batched, vlm, [streamer.round_of("bench", chunk) for streamer in group])
            if k == 0:
                continue
            latency = clock.serve((k + (frames - 1) / frames) * common.CHUNK_S, seconds)
            row["kv_tokens"] = comments[0].kv_tokens
            yield from [(k, latency)] * len(group)
            if latency > common.CHUNK_S:
                return


def search(args: argparse.Namespace, vlm) -> list[dict]:
    """Every trial made, in order: first FPS, then streams."""
    trials: list[dict] = []

    def passes(frames: int, count: int) -> bool:
        made = [t["passed"] for t in trials if (t["fps"], t["streams"]) == (frames, count)]
        while not any(made) and len(made) < args.tries:
            trials.append(trial(args, vlm, frames, count))
            made.append(trials[-1]["passed"])
        return any(made)

    largest(lambda n: passes(2 * n, 1), args.max_fps // 2, args.within)
    largest(lambda n: passes(2, n), args.max_streams, args.within)
    return trials


def best(trials: list[dict], of: str) -> dict | None:
    """The passed trial with the most of `fps` (one stream) or `streams` (at 2 FPS); None if not even the least passed."""
    other, least = ("streams", 1) if of == "fps" else ("fps", 2)
    passed = (t for t in trials if t["passed"] and t[other] == least)
    return max(passed, key=lambda t: t[of], default=None)


def fails_at(trials: list[dict], of: str, passed: int) -> int:
    """The least setting above `passed` that was tried; 0 if none was."""
    other, least = ("streams", 1) if of == "fps" else ("fps", 2)
    return min((t[of] for t in trials if t[other] == least and t[of] > passed), default=0)


def main(argv: list[str] | None = None) -> dict:
    args = common.arguments(__doc__, argv, options, chunks=20)
    if args.chunks < 2:
        raise SystemExit("--chunks must be at least 2: the clock starts after chunk 0.")
    machine = common.machine(args.device, args.dtype)
    trials = search(args, common.build(args))
    common.table([{**t, "stopped_at": "" if t["passed"] else t["stopped_at"]} for t in trials])
    found = {of: best(trials, of) for of in ("fps", "streams")}
    results = {f"max_{of}": row[of] if row else 0 for of, row in found.items()}
    results |= {f"fails_at_{of}": fails_at(trials, of, results[f"max_{of}"]) for of in found}
    results |= {f"latency_ms_at_max_{of}": row and {q: row[q] for q in ("p50", "p95", "p99", "n")} for of, row in found.items()}
    how = "in one forward" if args.batch == "yes" else "one after another"
    print(f"Real time holds up to {results['max_fps']} FPS for one stream, and up to {results['max_streams']} streams at 2 FPS, {how}.")
    return common.finish("realtime", args, {"machine": machine, **results, "trials": trials})


if __name__ == "__main__":
    common.run(main)
