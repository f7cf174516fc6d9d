"""How many cameras each profile sustains: run times of the packaged model measured before (data/live), schedules in virtual time. Asserts nothing.

    python -m bench.profiles --save reports/reference/profiles.json       # half a minute

One core decides, as in `bench.capacity`, whose machinery this is: a profile's budget, batch and rate of frames; p99 within the budget, a dropped
frame counting until a newer one is decided. `slower`: the same on a core so many times as slow, which is an assumption about an edge box and no
measurement of one. Not in it: reading and decoding cameras.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
from pathlib import Path

from streamingvlm.base import files, machine
from streamingvlm.base.paths import repository_root
from streamingvlm.serving import profiles
from streamingvlm.serving.cameras import parse
from streamingvlm.serving.schedule.capacity import Measured, capacity
from streamingvlm.serving.schedule.events import Settings
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Limits, Scheduler
from streamingvlm.serving.schedule.virtual import Cameras, RunTimes, cameras, drive

NAMES = ("edge", "workstation", "cloud")
SLOWER = (1, 4)
MOST = 128


def sustained(name: str, measured: dict[int, list[float]], slower: float, seconds: float) -> dict:
    """What a profile's machine keeps up with."""
    told = parse(profiles.under({"cameras": [{"name": "one", "url": "push:"}]}, profiles.named(name)))
    service, camera = told.service, told.cameras[0]
    settings = Settings(budget_ms=service.budget_ms, fps=camera.fps)
    times, seeds = {size: [ms * slower for ms in row] for size, row in measured.items()}, itertools.count()

    def one(streams: int) -> Measured:
        seed = next(seeds)
        run_ms, made = RunTimes(times, seed), Cameras(streams, seconds, camera.fps, seed=seed, settings=settings)
        scheduler = Scheduler(LatencyCurve(run_ms.curve(), service.batch), Limits(utilisation=None))
        return Measured(drive(scheduler, cameras(made), run_ms).covered, seconds)

    found = capacity(one, service.budget_ms, MOST)
    taken = min(found.streams, service.max_cameras)
    return {"profile": name, "slower": slower, "streams": found.streams, "allowed": service.max_cameras, "taken": taken,
            "budget_ms": service.budget_ms, "fps": camera.fps, "batch": service.batch, "p99_ms": found.best.p99_ms if found.best else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of a trial")
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    source = repository_root() / "data" / "live" / "run_times.json"
    recorded = json.loads(source.read_text())
    measured = {int(size): ms for size, ms in recorded["cpu_ms"]["model"].items()}
    rows = []
    for name, slower in itertools.product(NAMES, SLOWER):
        rows.append(sustained(name, measured, slower, args.seconds))
        print(json.dumps(rows[-1]), flush=True)
    if args.save:
        files.write_json({"date": datetime.date.today().isoformat(), "command": "python -m bench.profiles", "rows": rows,
                          "timed_on": recorded["hardware"]} | machine.provenance({}), args.save)


if __name__ == "__main__":
    main()
