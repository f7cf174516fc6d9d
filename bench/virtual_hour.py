"""An hour of many streams in virtual time: how many seconds it takes, and whether memory grows. Measures; asserts nothing.

    python -m bench.virtual_hour                         # 32 streams at eight frames a second, some ten seconds
    python -m bench.virtual_hour --streams 64 --hours 2

Run times of a batch are drawn from those in data/live, which the real model took.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import psutil

from streamingvlm.base.machine import provenance
from streamingvlm.base.paths import repository_root
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Limits, Scheduler
from streamingvlm.serving.schedule.virtual import Cameras, cameras, drive
from streamingvlm.serving.trials import rehearsal


def hour(streams: int, hours: float) -> dict:
    run_ms, memory_mib, looks = rehearsal.run_times(repository_root() / "data" / "live" / "run_times.json", "model"), [], 0
    core = Scheduler(LatencyCurve(run_ms.curve(), 16), Limits(utilisation=None))

    def look(frames, now: float) -> None:
        nonlocal looks
        looks += 1
        if now * 60 / hours > 3600 * len(memory_mib):
            memory_mib.append(round(psutil.Process().memory_info().rss / 2**20, 1))

    begun = time.process_time()
    found = drive(core, cameras(Cameras(streams, 3600 * hours)), run_ms, look)
    return {"streams": streams, "hours": hours, "cpu_s": round(time.process_time() - begun, 1), "frames": found.counts.frames_in, "batches": looks,
            "decided": found.counts.decided, "balanced": found.counts.balanced, "p99_ms": round(found.covered.percentile(99), 1),
            "memory_mib": {"after a minute": memory_mib[1], "most": max(memory_mib), "at the end": memory_mib[-1]}}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--hours", type=float, default=1.0)
    wanted = parser.parse_args(argv)
    print(json.dumps(hour(wanted.streams, wanted.hours) | provenance({})))


if __name__ == "__main__":
    main()
