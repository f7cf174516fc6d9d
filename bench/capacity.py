"""How many cameras this machine's model serves within a budget, and what load costs in quality: run times measured here, schedules in virtual time.

    python -m bench.capacity                                   # one thread; some two minutes
    python -m bench.capacity --measured reports/bench/capacity.json --budget-ms 120 250 --no-quality
    python -m bench.capacity --baseline data/city-base         # the frame-based model beside it, same machine, same run

First the service's own analyst is timed on batches of 1 to 32 streams. Then cameras are put on that machine in virtual time, open loop: a frame's
clock starts when it was due, and a dropped one's runs until a newer frame of its stream is decided. Capacity: double, then bisect, p99 within the
budget with Wilson's bound. Quality: an evaluation city's cameras among others, the truth at a time against the newest decision at that time.
`--clock cpu` (the default) draws from this thread's own time, which is the machine's when nothing else runs; `wall` from what a clock on the wall
said. Not in it: sources, decoding and sending of results, which take other cores; `bench/soak.py` has a whole service. Writes
reports/bench/capacity.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from streamingvlm.base import files
from streamingvlm.base.machine import provenance
from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import city, city_watch
from streamingvlm.serving.live import analysis
from streamingvlm.serving.schedule.capacity import Measured, capacity
from streamingvlm.serving.schedule.events import MODES, Settings
from streamingvlm.serving.schedule.virtual import Cameras, RunTimes, cameras, drive, scheduler
from streamingvlm.serving.trials import load
from streamingvlm.serving.trials.under_load import quality
from streamingvlm.worlds.city.knobs import FPS

SIZES = (1, 2, 4, 8, 16, 32)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    root = repository_root()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=root / "data" / "city-base", help="the packaged model")
    parser.add_argument("--measured", type=Path, help="take the run times of an earlier run's file, measure none")
    parser.add_argument("--rounds", type=int, default=48, help="batches of each size that are timed")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--fps", type=float, default=FPS)
    parser.add_argument("--budget-ms", type=float, nargs="+", default=[60.0, 120.0, 250.0])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["auto"])
    parser.add_argument("--seconds", type=float, default=60.0, help="of a trial")
    parser.add_argument("--most", type=int, default=128, help="streams; look no higher")
    parser.add_argument("--quality", type=int, nargs="*", default=[8, 24, 32, 48, 64, 96], help="numbers of streams to look at the quality of")
    parser.add_argument("--no-quality", dest="quality", action="store_const", const=[])
    parser.add_argument("--frames", type=int, default=320, help="of the city whose quality is looked at")
    parser.add_argument("--baseline", action="store_true", help="the frame-based model beside it (half a minute)")
    parser.add_argument("--save", type=Path, default=root / "reports" / "bench" / "capacity.json", metavar="FILE.json")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict[str, dict[str, dict]]:
    """{"model": {"cpu_ms": {size: [ms]}, "wall_ms": ...}}, and the baseline's if it is asked for, JSON's keys."""
    if args.measured:
        return json.loads(args.measured.read_text())["measured"]
    here = city.city(city.SEEDS - 1, 64)
    pictures = np.stack([here.render(camera) for camera in range(here.cameras)])  # [B, F, H, W, 3]
    found = {"model": load.run_times(analysis.load(args.base), pictures, SIZES, args.rounds)}
    if args.baseline:
        per_frame = city_watch.timed_baseline(args.base)
        found["baseline"] = {kind: {int(size): [ms[kind] * int(size)] for size, ms in per_frame.items()} for kind in ("wall_ms", "cpu_ms")}
    return json.loads(json.dumps(found))


def capacities(args: argparse.Namespace, measured: dict) -> list[dict]:
    rows = []
    for name, by_clock in measured.items():
        times = {int(size): ms for size, ms in by_clock[f"{args.clock}_ms"].items()}
        for mode in args.modes:
            for budget_ms in args.budget_ms:
                settings = Settings(budget_ms=budget_ms, mode=mode, fps=args.fps)

                def one(streams: int, times=times, settings=settings, seeds=itertools.count()) -> Measured:  # noqa: B008
                    seed = next(seeds)  # a trial that is run again is another one
                    run_ms, made = RunTimes(times, seed), Cameras(streams, args.seconds, args.fps, seed=seed, settings=settings)
                    return Measured(drive(scheduler(run_ms, load.LARGEST), cameras(made), run_ms).covered, args.seconds)

                found = capacity(one, budget_ms, args.most)
                best = found.best
                rows.append({"what": name, "mode": mode, "budget_ms": budget_ms, "streams": found.streams, "trials": len(found.trials),
                             **({"p50_ms": best.p50_ms, "p99_ms": best.p99_ms, "share_over": [best.low, best.high], "goodput": best.goodput,
                                 "sure": best.sure} if best else {})})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def qualities(args: argparse.Namespace, measured: dict) -> list[dict]:
    """The model's decisions on an evaluation city, its cameras among more and more others."""
    times = {int(size): ms for size, ms in measured["model"][f"{args.clock}_ms"].items()}
    here, rows = city.city(city.SEEDS, args.frames), []
    for streams in args.quality:
        under = load.watch(analysis.load(args.base), here, streams, RunTimes(times, seed=streams), Settings(mode=args.modes[0]), args.fps)
        limits = city.memory(args.base, "model")[1]
        told = quality(under.decided, here.truth, limits, args.fps, under.phases_s)
        counts = under.outcome.counts
        rows.append({"streams": streams, "decided": counts.decided / counts.frames_in, "covered_p99_ms": under.outcome.covered.percentile(99),
                     "action": told["action"], "map50": told["map50"], "age_ms": told["age_ms"], "f1": told["f1"], "alarms": told["alarms"]})
        print(json.dumps({key: value for key, value in rows[-1].items() if key not in {"f1", "alarms"}}), flush=True)
    return rows


def main(argv: list[str] | None = None) -> dict:
    args = arguments(argv)
    torch.set_num_threads(1)
    measured = measure(args)
    asked = {key: value for key, value in vars(args).items() if not isinstance(value, Path)}
    times = RunTimes({int(size): ms for size, ms in measured["model"][f"{args.clock}_ms"].items()})
    print(json.dumps({"median_ms": times.curve()}), flush=True)
    settings = Settings(budget_ms=args.budget_ms[0], mode=args.modes[0], fps=args.fps)
    line = {"bench": "capacity", **asked, "capacity": capacities(args, measured),
            "curve": load.curve(times, load.spread(args.most), args.seconds, settings, args.fps), "quality": qualities(args, measured),
            "measured": measured, **provenance(asked)}
    files.write_json(line, args.save)
    return line


if __name__ == "__main__":
    main()
