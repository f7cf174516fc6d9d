"""How much many streams cost together: the commentary engine and the article's model on batches of 1 to 32, each alone and both at once.

    python bench/streams.py [--sizes tiny mid] [--batches 1 4 8 16 32] [--rounds-timed 12] [--weights quick] [--save FILE.json]     # some ten minutes
    python bench/streams.py --measured reports/reference/streams.json                             # the table again, nothing measured

Three engines, one thread each: `tiny` and `mid`, random weights at the released code's windows (16 s of vision, 512 + 512 tokens of text, 20 words a
second, two frames of 224 x 224); `sentence`, the packaged city commentator as `serve` runs it; `frame`, the packaged city model, which decides on
one frame of each camera. A round is one second of every stream, or one frame of every camera, in shared passes. Streams of `tiny` and `mid` are
copies of one that has filled its windows, on frames of their own from there.

Times are this thread's own (CPU ms), which other programs stretch less than a wall's; the p99 of fewer than a hundred rounds is their largest.
`a second`: seconds of video commented, or frames decided, in a second of one core. Both at once is worked out from those times in virtual time:
every camera has eight frames a second, all due at the same moment, and one sentence a second, each kind in a process of its own; on one core the
two share it evenly while both have work. Latency runs from when a frame, or the last frame of a second, was due; nothing is dropped. `fits`: p99
of frames within --budget-ms and of sentences within a second. Not in it: sources, decoding video, sending results.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import common
import numpy as np

from streamingvlm.base import files
from streamingvlm.base.paths import repository_root
from streamingvlm.base.progress import bar
from streamingvlm.base.records import Chunk
from streamingvlm.base.timing import percentiles
from streamingvlm.evaluation import city
from streamingvlm.serving.live import analysis
from streamingvlm.serving.trials import load
from streamingvlm.streaming.batching import run_batched
from streamingvlm.streaming.commentator import Commentator
from streamingvlm.worlds.city.knobs import FPS

SENTENCE_MS = 1000.0  # between two sentences of a stream, and how late one may be
DATA = repository_root() / "data"


def own_ms(call: Callable[[], object]) -> float:
    """Milliseconds of this thread's own time."""
    start = time.thread_time()
    call()
    return (time.thread_time() - start) * 1e3


def engine(args: argparse.Namespace, size: str) -> dict[int, list[float]]:
    """Batch -> ms of each round of the commentary engine at one of common.SHAPES, the vision window full."""
    shape = argparse.Namespace(**{**vars(args), "config": size, "px": common.SHAPES[size]["px"]})
    vlm, out = common.build(shape), {}
    first = common.stream(vlm, shape)
    for k in bar(range(args.rounds + 1), args.rounds + 1, f"{size}: filling the windows"):
        first.step("0", common.chunk(k, shape))
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "stream")
        for batch in args.batches:
            streams = [common.stream(vlm, shape) for _ in range(batch)]
            for stream in streams:
                stream.load(Path(folder) / "stream")

            def one(k: int, streams=streams) -> None:
                chunks = [common.chunk(1000 * k + b, shape) for b in range(len(streams))]
                run_batched(vlm, [stream.round_of(str(b), chunk) for b, (stream, chunk) in enumerate(zip(streams, chunks, strict=True))])

            one(0)
            out[batch] = [own_ms(lambda k=k: one(k)) for k in bar(range(1, args.rounds_timed + 1), args.rounds_timed, f"{size}: {batch} streams")]
    return out


def pictures(frames: int = 64) -> np.ndarray:
    """[B, F, H, W, 3] of a city that nothing was trained or scored on."""
    here = city.city(city.SEEDS - 1, frames)
    return np.stack([here.render(camera) for camera in range(here.cameras)])


def sentences(args: argparse.Namespace, seen: np.ndarray) -> dict[int, list[float]]:
    """Batch -> ms of each round of the packaged commentator."""
    commentator, out = Commentator.load(DATA / "city-commentator"), {}
    second, apart = round(FPS), round(FPS / commentator.settings.video.fps)  # frames
    seconds = seen.shape[1] // second
    for batch in args.batches:
        def one(k: int, batch=batch) -> None:
            frames = seen[:, (k % seconds) * second : (k % seconds + 1) * second : apart]
            commentator.say({str(b): Chunk(k, k, k + 1.0, frames[(b + k) % len(seen)], (k, k + 0.5)) for b in range(batch)})

        for k in range(4):
            one(k)
        out[batch] = [own_ms(lambda k=k: one(k)) for k in range(4, 4 + 3 * args.rounds_timed)]
        for b in range(batch):
            commentator.leave(str(b))
    return out


def measure(args: argparse.Namespace) -> dict[str, dict[int, list[float]]]:
    seen = pictures()
    found = {"frame": load.run_times(analysis.load(DATA / "city-base"), seen, args.batches, 4 * args.rounds_timed)["cpu_ms"],
             "sentence": sentences(args, seen)}
    return found | {size: engine(args, size) for size in args.sizes}


def shared(jobs: dict[str, Sequence[tuple[float, float]]], cores: int) -> dict[str, list[float]]:
    """Kinds of jobs (due, work), in ms and in order, each kind one after another in a process of its own -> when each was done after it was due.

    While more kinds have work than there are cores, they share the cores evenly."""
    waiting, late, now = {kind: deque(rows) for kind, rows in jobs.items()}, {kind: [] for kind in jobs}, 0.0
    left = {kind: rows[0][1] for kind, rows in waiting.items() if rows}
    while left:
        at_work = [kind for kind in left if waiting[kind][0][0] <= now]
        coming = min((waiting[kind][0][0] for kind in left if kind not in at_work), default=math.inf)
        speed = min(1.0, cores / max(1, len(at_work)))
        step = min([left[kind] / speed for kind in at_work] + [coming - now])
        now += step
        for kind in at_work:
            left[kind] -= step * speed
            if left[kind] <= 1e-9:
                late[kind].append(now - waiting[kind].popleft()[0])
                left |= {kind: waiting[kind][0][1]} if waiting[kind] else {}
                if not waiting[kind]:
                    del left[kind]
    return late


def at_once(found: dict[str, dict[int, list[float]]], budget_ms: float, seconds: int = 120) -> list[dict]:
    """Frames and sentences of the same streams on one core and on two, run times drawn from the measured ones."""
    rows, rng = [], np.random.default_rng(0)
    for cores in (1, 2):
        for batch in found["frame"]:
            jobs = {kind: [(k * every, float(ms)) for k, ms in enumerate(rng.choice(found[kind][batch], round(seconds * 1e3 / every)))]
                    for kind, every in (("frame", 1e3 / FPS), ("sentence", SENTENCE_MS))}
            late = {kind: percentiles(each) for kind, each in shared(jobs, cores).items()}
            busy = sum(ms for rows_ in jobs.values() for _, ms in rows_) / seconds / 1e3 / cores
            rows.append({"cores": cores, "streams": batch, "busy": round(busy, 3), "frame_p50_ms": late["frame"]["p50"],
                         "frame_p99_ms": late["frame"]["p99"], "sentence_p50_ms": late["sentence"]["p50"], "sentence_p99_ms": late["sentence"]["p99"],
                         "fits": late["frame"]["p99"] <= budget_ms and late["sentence"]["p99"] <= SENTENCE_MS})
    return rows


def alone(found: dict[str, dict[int, list[float]]]) -> list[dict]:
    return [{"engine": name, "streams": batch, "p50_ms": slow["p50"], "p99_ms": slow["p99"], "rounds": len(ms),
             "ms_per_stream": round(slow["p50"] / batch, 2), "a_second": round(batch * 1e3 / slow["p50"], 2)}
            for name, by_batch in found.items() for batch, ms in by_batch.items() for slow in (percentiles(ms),)]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", nargs="*", choices=("tiny", "mid"), default=["tiny", "mid"], help="of the commentary engine")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32], help="streams")
    parser.add_argument("--rounds-timed", type=int, default=12, help="of each batch; three times as many sentences and four times as many frames")
    parser.add_argument("--budget-ms", type=float, default=120.0, help="of a frame")
    parser.add_argument("--measured", type=Path, help="take the times of an earlier run's file, measure none")
    parser.add_argument("--save", type=Path, metavar="FILE")


def main(argv: list[str] | None = None) -> dict:
    args = common.arguments(__doc__, argv, options, threads=1, device="cpu")
    machine = common.machine(args.device, args.dtype)
    if args.measured:
        told = json.loads(args.measured.read_text())["measured_cpu_ms"]
        found = {name: {int(batch): ms for batch, ms in by_batch.items()} for name, by_batch in told.items()}
    else:
        found = {name: {batch: [round(ms, 2) for ms in each] for batch, each in by_batch.items()} for name, by_batch in measure(args).items()}
    rows, both = alone(found), at_once(found, args.budget_ms)
    common.table(rows)
    print(f"\nBoth at once: frames at {FPS:g} a second within {args.budget_ms:g} ms, and a sentence a second.")
    common.table(both)
    line = common.finish("streams", args, {"machine": machine, "alone": rows, "at_once": both, "measured_cpu_ms": found})
    if args.save:
        files.write_json(line, args.save)
    return line


if __name__ == "__main__":
    common.run(main)
