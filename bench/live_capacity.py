"""How many live cameras this machine takes: the whole service over real sources, more and more of them, beside the frame-based VLM behind the same
scheduler. Measures; asserts nothing. Some five minutes a model; whatever else runs on this machine spoils the numbers.

    python -m bench.live_capacity --save reports/reference/capacity.json     # what the ledger's claims A2 and A7 read
    python -m bench.live_capacity --record data/live                         # what lesson 9 reads, and nothing else; half a minute
    python -m bench.live_capacity --rtsp --seconds 20                        # the city over RTSP; this machine then draws and encodes it too

Doubles, then bisects (`schedule.capacity`): p99 from release to decision within the budget, a dropped frame counting until a newer one is decided,
over 10 s at least after a warm-up, frames added up until chance is ruled out. Cameras are test patterns that no decoder sees, at eight frames a
second, or the city's over RTSP. `bench/capacity.py` has the same in virtual time.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from pathlib import Path

import numpy as np
import torch

from streamingvlm.base import files, machine
from streamingvlm.base.errors import UserError, exit_status
from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import city
from streamingvlm.serving.live import analysis
from streamingvlm.serving.schedule.capacity import SHORTEST_S, Measured, capacity
from streamingvlm.serving.schedule.latencies import Latencies
from streamingvlm.serving.schedule.virtual import RunTimes
from streamingvlm.serving.trials import load, trial

MODELS = {"model": "city-base", "baseline_vlm": "city-base/frame-vlm"}
SIZES = {"model": (1, 2, 4, 8, 16), "baseline_vlm": (1, 2, 4, 8)}
ROUNDS = {"model": 32, "baseline_vlm": 12}
TRACE, TIMES = "eight_cameras.jsonl.gz", "run_times.json"


def measure(folder: Path, args: argparse.Namespace) -> dict:
    """The most cameras of one model, the trial of each number, and memory at the most."""
    found: dict[int, dict] = {}

    def run(streams: int) -> Measured:
        told = trial.apart("--model", str(folder), "--cameras", str(streams), "--seconds", str(args.seconds), "--budget-ms", str(args.budget_ms),
                           *([] if args.rtsp else ["--pattern"]))
        found[streams] = told
        print(json.dumps({key: told[key] for key in ("cameras", "release_ms", "over", "measured", "fps", "memory_mb")}), flush=True)
        return Measured(Latencies.decode(told["histogram"]), told["seconds"])

    taken = capacity(run, args.budget_ms, args.most, tries=args.tries)
    at = max(1, taken.streams)  # who takes none has the memory of the one that it was too late for
    best = found.get(at)
    out = {"streams": taken.streams, "trials": [dataclasses.asdict(one) for one in taken.trials], "rows": list(found.values())}
    if best:
        mb = best["memory_mb"]["all"]
        out |= {"memory_mb": mb, "mb_per_stream": round(mb / at, 1), "p99_ms": best["release_ms"]["p99"], "fps": best["fps"]["least"]}
    return out


def record(data: Path, folder: Path, seconds: float, parts: set[str]) -> None:
    """A run of eight cameras, and run times of both models on batches of each size, by this thread's own clock."""
    if TRACE in parts:
        told = trial.apart("--model", str(data / MODELS["model"]), "--seconds", str(seconds), "--record", str(folder / TRACE))
        print(TRACE, json.dumps({key: told[key] for key in ("cameras", "release_ms", "frames", "fps", "hardware")}), flush=True)
    if TIMES in parts:
        torch.set_num_threads(1)
        here = city.city(city.SEEDS - 1, 64)
        pictures = np.stack([here.render(camera) for camera in range(here.cameras)])  # [B, F, H, W, C]
        found = {name: load.run_times(analysis.load(data / path), pictures, SIZES[name], ROUNDS[name]) for name, path in MODELS.items()}
        out = {clock: {name: found[name][clock] for name in MODELS} for clock in ("cpu_ms", "wall_ms")}
        files.write_json(out | machine.provenance({}), folder / TIMES)
        print(TIMES, json.dumps({name: RunTimes(ms).curve() for name, ms in out["cpu_ms"].items()}), flush=True)


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="measured of each trial, after its warm-up")
    parser.add_argument("--budget-ms", type=float, default=120.0)
    parser.add_argument("--most", type=int, default=64, help="cameras to try at most")
    parser.add_argument("--tries", type=int, default=2, help="runs of one number of cameras at most, while chance is not ruled out")
    parser.add_argument("--rtsp", action="store_true", help="the made-up city over RTSP in place of test patterns")
    parser.add_argument("--only", choices=MODELS, help="one of the two")
    parser.add_argument("--save", type=Path, metavar="FILE")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="write what lesson 9 reads and end")
    parser.add_argument("--parts", nargs="+", choices=(TRACE, TIMES), default=[TRACE, TIMES], help="with --record: what to write")
    args = parser.parse_args()
    data = repository_root() / "data"
    if args.seconds < SHORTEST_S:
        raise UserError(f"A trial takes {SHORTEST_S:g} s at least.")
    if args.record:
        record(data, args.record, args.seconds, set(args.parts))
        return
    out = {name: measure(data / folder, args) for name, folder in MODELS.items() if args.only in (None, name)}
    out |= {"date": datetime.date.today().isoformat(), "command": " ".join(["python -m bench.live_capacity", *sys.argv[1:]]), "rtsp": args.rtsp}
    out |= machine.provenance(vars(args))
    if args.save:
        files.write_json(out, args.save)
    print(json.dumps({name: {key: value for key, value in out[name].items() if key not in {"rows", "trials"}} for name in MODELS if name in out}))


if __name__ == "__main__":
    sys.exit(main())
