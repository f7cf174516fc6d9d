"""A step of load on replicas, 2 -> 8 -> 2 streams: on a real cluster of Ray Serve on this machine, and in virtual time. Measures; asserts nothing.

    python -m bench.replicas --save reports/reference/replicas.json          # four minutes, and `pip install -r requirements-ray.txt` before
    python -m bench.replicas --virtual                                       # no Ray, no model: seconds

Real: the whole service over test patterns at eight frames a second, its fleet, the policy's own knobs. Virtual: the scheduler and the same policy, a
look a second; a batch takes as long as the longest of its parts, drawn from what this machine took (data/live), and a new replica the time that Ray
took here. `slower`: the same on cores so many times as slow, where being late decides. Draws the figure beside the JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from streamingvlm.base import files, machine
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.reporting import live_figures
from streamingvlm.serving import cameras as config
from streamingvlm.serving.replicas.fleet import RECENT_S, Fleet, shared
from streamingvlm.serving.replicas.policy import Knobs, Load, Memory, step
from streamingvlm.serving.schedule.events import CurveChanged, FrameArrived, Settings, StreamAdded, StreamRemoved
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Limits, Scheduler
from streamingvlm.serving.schedule.virtual import Cameras, RunTimes, Told, cameras, drive, names

FPS, LARGEST = 8.0, 16
PATTERN = "pattern:96x96@8"


@dataclass(frozen=True)
class Plan:
    """`few` streams all the time, `many` from `up_s` to `down_s`, end at `end_s`."""

    few: int = 2
    many: int = 8
    up_s: float = 40.0
    down_s: float = 130.0
    end_s: float = 200.0


def stepped(plan: Plan, budget_ms: float, seed: int = 0) -> Iterator[Told]:
    """What the scheduler is told of such cameras."""
    made = Cameras(plan.many, plan.end_s, FPS, seed=seed, settings=Settings(budget_ms, fps=FPS))
    some = names(made)[plan.few:]
    marks = [*((plan.up_s, StreamAdded(name, made.settings)) for name in some), *((plan.down_s, StreamRemoved(name)) for name in some)]
    for at, event in cameras(made):
        while marks and marks[0][0] <= at:
            yield marks.pop(0)
        if event.stream not in some or (type(event) is FrameArrived and plan.up_s <= event.released_at and at < plan.down_s):
            yield at, event


class Imagined:
    """A fleet in virtual time: `run_ms(size, now)` of a batch over all its replicas. The policy sees each second that passes."""

    def __init__(self, knobs: Knobs, run_ms: RunTimes, start_s: float):
        self.knobs, self.run_ms, self.start_s = knobs, run_ms, start_s
        self.wanted, self.memory = knobs.minimum, Memory()
        self.come_s = [-math.inf] * knobs.minimum  # when each replica is there
        self.curve_of = knobs.minimum
        self.streams: set[str] = set()
        self.came, self.gone, self.looks = 0, 0, 0
        self.late: list[tuple[float, float]] = []  # (decided at, ms)
        self.dropped_s: list[float] = []
        self.rows: list[dict] = []

    def told(self, told: Iterator[Told]) -> Iterator[Told]:
        """Hand through, and note who is there and what comes."""
        for at, event in told:
            self._until(at)
            if self.running(at) != self.curve_of:
                self.curve_of = self.running(at)
                yield at, CurveChanged(tuple(shared(self.run_ms.curve(), self.curve_of).items()))
            match event:
                case StreamAdded(stream, _):
                    self.streams.add(stream)
                case StreamRemoved(stream):
                    self.streams.discard(stream)
                case FrameArrived():
                    self.came += 1
            yield at, event

    def running(self, now: float) -> int:
        return sum(at <= now for at in self.come_s)

    def __call__(self, size: int, now: float) -> float:
        running = self.running(now)
        parts = [size // running + (k < size % running) for k in range(running)]
        return max(self.run_ms(part, now) for part in parts if part)

    def decided(self, frames: Sequence[FrameArrived], now: float) -> None:
        self.gone += len(frames)
        self.late += [(now, (now - frame.released_at) * 1e3) for frame in frames]

    def dropped(self, frame: FrameArrived, cause: str) -> None:
        self.gone += 1
        self.dropped_s.append(frame.released_at)

    def _until(self, now: float) -> None:
        while self.looks + 1 <= now:
            self.looks += 1
            self._look(float(self.looks))

    def _look(self, now: float) -> None:
        recent = [ms for at, ms in self.late if at > now - RECENT_S]
        load = Load(len(self.streams), self.came - self.gone, _p95(recent) or 0.0, self.running(now))
        self.wanted, self.memory = step(self.knobs, load, self.wanted, self.memory, now)
        self.come_s += [now + self.start_s] * (self.wanted - len(self.come_s))
        self.come_s = sorted(self.come_s)[: self.wanted]
        second = [ms for at, ms in self.late if at > now - 1]
        self.rows.append({"t_s": now, "streams": len(self.streams), "replicas": self.running(now), "wanted": self.wanted,
                          "late_p95_ms": _p95(second), "decided": len(second), "dropped": sum(now - 1 < at <= now for at in self.dropped_s)})


def virtual(plan: Plan, knobs: Knobs, measured: dict[int, list[float]], start_s: float, slower: float = 1.0) -> dict:
    run_ms = RunTimes({size: [ms * slower for ms in row] for size, row in measured.items()})
    fleet = Imagined(knobs, run_ms, start_s)
    scheduler = Scheduler(LatencyCurve(run_ms.curve(), LARGEST), Limits(utilisation=None))
    outcome = drive(scheduler, fleet.told(stepped(plan, knobs.budget_ms)), fleet, fleet.decided, fleet.dropped)
    return {"slower": slower, "start_s": start_s, "rows": fleet.rows, **_counted(outcome.counts)}


async def real(plan: Plan, knobs: Knobs) -> dict:
    """The service on Ray Serve, on this machine."""
    from streamingvlm.serving.live.service import Service
    from streamingvlm.serving.replicas.on_ray import Cluster, ReplicaOf

    model = repository_root() / "data" / "city-base"
    async with contextlib.AsyncExitStack() as stack:
        begun = time.monotonic()
        cluster = await asyncio.to_thread(Cluster, ReplicaOf(model))
        stack.push_async_callback(asyncio.to_thread, cluster.close)
        started, took_s = time.monotonic(), []

        async def make(name: str):
            at = time.monotonic()
            made = await cluster(name)
            took_s.append(round(time.monotonic() - at, 1))
            return made

        knobs = Knobs(**asdict(knobs) | {"maximum": min(knobs.maximum, cluster.most())})
        told = config.Service(budget_ms=knobs.budget_ms, commentary=False, utilisation=None)
        service = Service(told, model, engine=partial(Fleet, make, knobs=knobs))
        stack.push_async_callback(service.stop)
        await service.start()
        ready = time.monotonic()
        rows = await _watched(service, plan)
        return {"cluster_s": round(started - begun, 1), "ready_s": round(ready - begun, 1), "replica_s": took_s, "most": knobs.maximum, "rows": rows,
                **_counted(service.decider.scheduler.totals()), "fleet": service.decider.worker.counts()}


async def _watched(service, plan: Plan) -> list[dict]:
    """The step, a row a second."""
    cameras_ = [{"name": f"camera {k + 1}", "url": PATTERN} for k in range(plan.many)]
    service.begin([config.parse_camera(one) for one in cameras_[: plan.few]])
    late: list[float] = []
    service.results.listen(lambda record, picture: late.append(record["ms"]["release"]) if record["type"] == "decision" else None)
    before, begun, rows, due = service.decider.scheduler.totals(), time.monotonic(), [], [plan.up_s, plan.down_s]
    while (now := time.monotonic() - begun) < plan.end_s:
        if due and now >= due[0]:
            up = due.pop(0) == plan.up_s
            for one in cameras_[plan.few:]:
                await (service.add(one) if up else service.remove(one["name"]))
        await asyncio.sleep(1 - (time.monotonic() - begun) % 1)
        counts, fleet = service.decider.scheduler.totals(), service.decider.worker.counts()
        rows.append({"t_s": round(time.monotonic() - begun, 2), "streams": len(service.watched), "replicas": fleet["running"],
                     "wanted": fleet["wanted"], "late_p95_ms": _p95(late), "decided": counts.decided - before.decided,
                     "dropped": sum(counts.dropped.values()) - sum(before.dropped.values()), "balanced": int(counts.balanced)})
        before = counts
        late.clear()
    return rows


def _counted(counts) -> dict:
    return {"frames": {"in": counts.frames_in, "decided": counts.decided, "in_flight": counts.in_flight, "balanced": int(counts.balanced),
                       "dropped": {cause: count for cause, count in counts.dropped.items() if count}}}


def _p95(ms: Sequence[float]) -> float | None:
    return round(float(np.percentile(ms, 95)), 1) if len(ms) else None


def told(row: dict) -> dict:
    """A run in a line."""
    frames = row["frames"]
    late = [second["late_p95_ms"] for second in row["rows"] if second["late_p95_ms"]]
    return {"replicas": live_figures.steps([second["replicas"] for second in row["rows"]]),
            "dropped_share": round(sum(frames["dropped"].values()) / frames["in"], 4),
            "late_p95_ms": {"median": float(np.median(late)), "most": max(late)},
            **{key: value for key, value in row.items() if key != "rows"}}


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--virtual", action="store_true", help="in virtual time alone")
    parser.add_argument("--slower", type=float, nargs="*", default=[4.0], help="in virtual time: cores so many times as slow, besides")
    parser.add_argument("--budget-ms", type=float, default=Knobs.budget_ms)
    parser.add_argument("--save", type=Path, default=repository_root() / "reports" / "bench" / "replicas.json", metavar="FILE.json")
    args = parser.parse_args(argv)
    plan, knobs, out, load = Plan(), Knobs(budget_ms=args.budget_ms), {}, [os.getloadavg()[0]]
    if not args.virtual:
        out["ray"] = asyncio.run(real(plan, knobs))
        print(json.dumps({"ray": told(out["ray"])}), flush=True)
    load.append(os.getloadavg()[0])
    recorded = json.loads((repository_root() / "data" / "live" / "run_times.json").read_text())
    measured = {int(size): ms for size, ms in recorded["cpu_ms"]["model"].items()}
    start_s = float(np.median(out["ray"]["replica_s"])) if "ray" in out else 15.0
    for slower in (1.0, *args.slower):
        name = "virtual" if slower == 1 else f"virtual, {slower:g} x slower"
        out[name] = virtual(plan, knobs, measured, start_s, slower)
        print(json.dumps({name: told(out[name])}), flush=True)
    line = {"bench": "replicas", "date": datetime.date.today().isoformat(), "command": " ".join(["python -m bench.replicas", *sys.argv[1:]]),
            "load": load, "plan": asdict(plan), "knobs": asdict(knobs), "runs": out,
            **machine.provenance({"plan": asdict(plan), "knobs": asdict(knobs)})}
    files.write_json(line, args.save)
    drawn = live_figures.replicas({name: run["rows"] for name, run in out.items()}, knobs.budget_ms, repository_root() / "reports" / "bench")
    if drawn != args.save.with_suffix(".png"):
        shutil.copy(drawn, args.save.with_suffix(".png"))
    return line


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
