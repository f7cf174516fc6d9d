"""kill -9 of every process of a running service, one after the other, the last of them the service itself: is each frame accounted for, are
results in order, does it go on? Measures; asserts nothing.

    python bench/kills.py --cameras 3 --out reports/bench/kills.json

The service is `streamingvlm serve` over the made-up city, with a store, and is looked at from outside: its own API, its WebSocket, the processes
below it. What a process was is told by who is missing in `/api/stats`. Behind the service's own end its workers must be gone, and a second service
on the same store must go on behind the first one's numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import websockets

from streamingvlm.base import files, machine

START_S, BACK_S = 300.0, 120.0
GONE_S = 90.0  # a fork server that has just begun imports before it sees that it may end
ENOUGH = 3  # new decisions of each camera that count as "it goes on"
ROOT = Path(__file__).resolve().parents[1]


class Served:
    """One run of the service, until it is killed. `more`: keys of `service:`; `arguments`: of the command; `token`: who asks it."""

    def __init__(self, folder: Path, cameras: Sequence[dict], more: Mapping[str, object], arguments: tuple[str, ...] = (), token: str = "",
                 budget_ms: float = 2000.0):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        service = {"port": self.port, "budget_ms": budget_ms, "utilisation": None, **more}
        (folder / "cameras.yaml").write_text(json.dumps({"service": service, "cameras": list(cameras)}))  # JSON is YAML
        self.log = (folder / "log.txt").open("a")
        command = [sys.executable, "-m", "streamingvlm.cli", "serve", str(folder / "cameras.yaml"), "--no-open", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=self.log)
        self.address = f"127.0.0.1:{self.port}"
        told = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.AsyncClient(base_url=f"http://{self.address}", timeout=30, headers=told)
        self.unaccounted, self.samples, self.ever = 0, 0, set()

    async def look(self) -> tuple[dict, dict[str, dict]]:
        """The numbers of all and of each camera; conservation is looked at each time."""
        stats, cameras = (await self.client.get("/api/stats")).json(), (await self.client.get("/api/cameras")).json()
        for frames in (stats["frames"], *(camera["frames"] for camera in cameras)):
            off = frames["in"] - frames["decided"] - frames["in_flight"] - sum(frames["dropped"].values())
            self.unaccounted, self.samples = max(self.unaccounted, abs(off)), self.samples + 1
        return stats, {camera["id"]: camera for camera in cameras}

    async def goes_on(self, seconds: float) -> float | None:
        """How long until every camera has new decisions and every process lives; None: not within `seconds`."""
        begun, first = time.monotonic(), None
        while time.monotonic() - begun < seconds:
            with suppress(httpx.HTTPError):
                stats, cameras = await self.look()
                decided = {name: camera["frames"]["decided"] for name, camera in cameras.items()}
                first = first or decided
                alive = all(process["alive"] for process in stats["processes"].values())
                if alive and decided and all(count >= first[name] + ENOUGH for name, count in decided.items()):
                    return round(time.monotonic() - begun, 2)
            await asyncio.sleep(0.1)
        return None

    def below(self) -> list[psutil.Process]:
        """The processes of the service: first the workers, then those that make them. Who has lost its maker is below nobody any more: `ever`."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        self.ever |= set(found)
        return sorted(found, key=lambda one: (one.ppid() == self.process.pid, one.create_time()))


    def orphans(self) -> list[psutil.Process]:
        """Those whose maker is gone, and who live on."""
        below = self.below()
        return [one for one in self.ever if one not in below and one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


async def listen(address: str, seen: dict) -> None:
    """Count what comes, in and out of order, over connections that break."""
    last: dict[str, int] = {}
    with suppress(websockets.ConnectionClosed, OSError):
        async with websockets.connect(f"ws://{address}/ws", max_queue=1024) as reader:
            async for message in reader:
                record = json.loads(message)
                if record["type"] == "missed":
                    seen["missed"] += record["count"]
                    continue
                seen["records"] += 1
                seen["out_of_order"] += record["seq"] <= seen["newest"]
                seen["newest"] = record["seq"]
                if record["type"] == "decision":
                    seen["out_of_order"] += record["frame"] <= last.get(record["stream"], -1)
                    last[record["stream"]] = record["frame"]


async def killed(served: Served, victim: psutil.Process) -> dict:
    """Kill one process, and see the service go on."""
    before, _ = await served.look()
    made_by = "the service" if victim.ppid() == served.process.pid else "its fork server"
    made_by = made_by if victim in served.below() else "a fork server that is gone"
    victim.send_signal(signal.SIGKILL)
    missing: Counter[str] = Counter()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        stats, _ = await served.look()
        missing.update(name for name, process in stats["processes"].items() if not process["alive"])
        await asyncio.sleep(0.02)
    back_s = await served.goes_on(BACK_S)
    served.below()
    after, _ = await served.look()
    lost = {cause: count - before["frames"]["dropped"].get(cause, 0) for cause, count in after["frames"]["dropped"].items()}
    return {"killed": sorted(missing) or [f"a process of {made_by}"], "made_by": made_by, "back_s": back_s and round(back_s + 1, 2),
            "restarts": {name: process["restarts"] for name, process in after["processes"].items()},
            "dropped": {cause: count for cause, count in lost.items() if count}, "late": after["late"], "unaccounted": served.unaccounted}


async def end(served: Served, folder: Path, seen: dict) -> dict:
    """Kill the service itself -> what became of its workers and of its records."""
    below = [*served.below(), *served.orphans()]
    served.process.kill()
    served.process.wait()
    gone, left = await asyncio.to_thread(psutil.wait_procs, below, GONE_S)
    who = [" ".join(process.cmdline())[-120:] for process in left]
    for process in left:
        process.kill()
    with sqlite3.connect(folder / "records.sqlite") as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        with_seq = [name for name in tables if any(column[1] == "seq" for column in store.execute(f"PRAGMA table_info({name})"))]
        seqs = sorted(seq for name in with_seq for (seq,) in store.execute(f"SELECT seq FROM {name}"))
        whole = store.execute("PRAGMA integrity_check").fetchone()[0]
    return {"workers_left": who, "workers_gone": len(gone), "stored": len(seqs), "stored_twice": len(seqs) - len(set(seqs)),
            "newest_stored": seqs[-1], "told_but_not_stored": max(seen["newest"] - seqs[-1], 0), "holes": seqs[-1] - seqs[0] + 1 - len(set(seqs)),
            "database": whole}


def cameras_of(count: int) -> list[dict]:
    """Of one city, filmed where they are read; nobody is hidden."""
    return [{"name": f"camera-{k}", "url": f"city:{k + 1}/{count}", "privacy": {"hide": "nothing"}} for k in range(count)]


async def run(folder: Path, count: int) -> dict:
    store = {"store": str(folder / "records.sqlite")}
    served = Served(folder, cameras_of(count), store)
    seen, rows = {"records": 0, "out_of_order": 0, "missed": 0, "newest": 0}, []
    try:
        started = await served.goes_on(START_S)
        if started is None:
            raise SystemExit(f"The service did not start: {(folder / 'log.txt').read_text()[-500:]}")
        listening = asyncio.create_task(listen(served.address, seen))
        for victim in served.below():
            rows.append(await killed(served, victim))
            print(json.dumps(rows[-1]), flush=True)
        for victim in served.orphans()[:1]:
            rows.append(await killed(served, victim))
            print(json.dumps(rows[-1]), flush=True)
        ended = await end(served, folder, seen)
        await listening
        print(json.dumps(ended), flush=True)
        again = Served(folder, cameras_of(count), store)
        try:
            back_s, before = await again.goes_on(START_S), seen["newest"]
            newest = (await again.client.get("/api/results?limit=1")).json()["newest"]
        finally:
            again.process.send_signal(signal.SIGTERM)
            again.process.wait(30)
    finally:
        with suppress(ProcessLookupError):
            os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
    log = (folder / "log.txt").read_text()
    return {"machine": machine.provenance({}), "cameras": count, "started_s": started, "kills": rows, "records": seen, "samples": served.samples,
            "unaccounted": served.unaccounted, "end": ended, "again": {"started_s": back_s, "numbers_rise": newest > before},
            "tracebacks_in_the_log": log.count("Traceback")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        told = asyncio.run(run(Path(folder), args.cameras))
    print(json.dumps({key: value for key, value in told.items() if key not in {"machine", "kills"}}))
    if args.out:
        files.write_json(told, args.out)


if __name__ == "__main__":
    main()
