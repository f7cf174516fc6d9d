"""A short run of the whole service on this machine, measured: how late, how many, in what order, in how much memory. Knows no page.

    python -m streamingvlm.serving.trials.trial --cameras 8 --seconds 15
    python -m streamingvlm.serving.trials.trial --record data/live/eight_cameras.jsonl.gz      # what `notebooks/09_live` replays

Open loop: each frame's clock starts when its jitter buffer released it, and a frame that was dropped waits for the next decision of its stream
(`virtual.Outcome.covered`). Nobody speaks in a trial: the commentator would take its share of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

from streamingvlm.base import files, machine
from streamingvlm.base.errors import UserError, exit_status
from streamingvlm.media.arrivals import Recorder, Row
from streamingvlm.serving import cameras as config
from streamingvlm.serving.intake import timing
from streamingvlm.serving.live import demo
from streamingvlm.serving.live.camera import Latency
from streamingvlm.serving.live.service import Service
from streamingvlm.serving.schedule.replay import measured

WARM_S = 3.0  # of a run, not measured: first batches, first connections
LONGEST_S = 900.0
PATTERN = "pattern:96x96@8"


class Rows(list):
    """A recorder that keeps a short run in memory."""

    add = list.append


class Order:
    """Listens to results: decisions of each stream, and those that came behind a newer one."""

    def __init__(self):
        self.decisions: Counter[str] = Counter()
        self.out_of_order, self.newest = 0, {}

    def __call__(self, record: dict, picture: bytes | None) -> None:
        if record["type"] == "decision":
            stream, frame = record["stream"], record["frame"]
            self.decisions[stream] += 1
            self.out_of_order += frame <= self.newest.get(stream, -1)
            self.newest[stream] = frame


async def trial(model: Path, count: int, seconds: float, budget_ms: float = 120.0, rtsp: bool = True, rows: Rows | None = None) -> dict:
    """Watch `count` cameras for so long: those of the made-up city over RTSP, or test patterns that no decoder sees. `rows` takes the trace.
    `release_ms` is open loop, see above; `decided_ms` of those decided alone. UserError where the service cannot start."""
    rows, order = Rows() if rows is None else rows, Order()
    service = Service(config.Service(budget_ms=budget_ms, max_cameras=256, utilisation=None), model, recorder=rows)
    service.results.listen(order)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(service.stop)
        begun = time.monotonic()
        if rtsp:
            cameras, _ = await asyncio.gather(stack.enter_async_context(demo.cameras(count)), service.start())
        else:
            cameras = [config.Camera(name=f"camera {k + 1}", url=PATTERN) for k in range(count)]
            await service.start()
        gc.freeze()  # as `serve` does
        ready = time.monotonic()
        service.begin(cameras)
        await asyncio.sleep(min(WARM_S, seconds))
        service.capture = Latency()
        order.decisions.clear()
        since = time.monotonic()
        await asyncio.sleep(seconds)
        until, memory, counts = time.monotonic(), _memory(service), service.decider.scheduler.totals()
        found = {"cameras": count, "seconds": round(until - since, 2), "ready_s": round(ready - begun, 2), "budget_ms": budget_ms}
        found |= {"capture_ms": service.capture.percentiles(), "out_of_order": order.out_of_order, "late": sum(service.results.late.values())}
        found |= {"frames": {"in": counts.frames_in, "decided": counts.decided, "in_flight": counts.in_flight, "balanced": int(counts.balanced),
                             **{cause: number for cause, number in counts.dropped.items() if number}}}
        per_stream = [order.decisions[camera.name] / (until - since) for camera in cameras]
    outcome = measured(rows, since, until)
    covered = outcome.covered
    return found | {"release_ms": _rounded(covered.summary()), "decided_ms": _rounded(outcome.decided.summary()), "over": outcome.over,
                    "measured": len(covered), "fps": {"least": round(min(per_stream), 2), "mean": round(sum(per_stream) / count, 2)},
                    "memory_mb": memory, "histogram": covered.encode().decode()}


def _memory(service: Service) -> dict[str, float]:
    """MB of the service's processes (the city's is not among them): what is shared counts in shares where the system tells."""
    def mb(*pids: int | None) -> float:
        told = []
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended, and is about to be started again
                told.append(psutil.Process(pid).memory_full_info())
        return round(sum(getattr(one, "pss", one.rss) for one in told) / 1e6, 1)

    out = {"main": mb(None), "analysis": mb(service.decider.worker.process.pid),
           "readers": mb(*(worker.process.pid for worker in service.readers.workers))}
    return out | {"all": round(sum(out.values()), 1)}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def apart(*words: str) -> dict:
    """The same in a process of its own, so that the memory is the service's alone. `words`: as typed. UserError with what it says."""
    done = subprocess.run([sys.executable, "-m", __name__, *words], capture_output=True, text=True, check=False, timeout=LONGEST_S)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["The trial of the service failed."])[-1])
    return json.loads(done.stdout)


def write(path: Path, rows: Sequence[Row]) -> None:
    """A trace as a file."""
    with Recorder(path) as recorder:
        for row in rows:
            recorder.add(row)


@exit_status
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m streamingvlm.serving.trials.trial", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("data/city-base"), help="a folder with a packaged model (default: data/city-base)")
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--budget-ms", type=float, default=120.0)
    parser.add_argument("--pattern", action="store_true", help="test patterns in place of the city over RTSP")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the trace of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON, as they are printed")
    args = parser.parse_args(argv)
    rows = Rows()
    found = asyncio.run(trial(args.model, args.cameras, args.seconds, args.budget_ms, not args.pattern, rows))
    found |= {"ingest_ms": timing.ingest(), "hardware": machine.hardware()["text"]}
    if args.record:
        write(args.record, rows)
    if args.out:
        files.write_json(found, args.out)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main())
