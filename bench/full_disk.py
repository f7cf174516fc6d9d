"""A file system that fills up under a running service and has room again later: who goes on, what is said, what is lost, what is left half-written?
Measures; asserts nothing.

    sudo python bench/full_disk.py --out reports/bench/full_disk.json       # mounts a tmpfs of its own; --folder: a small file system that is there

The service is `streamingvlm serve` with access set up; its records with their alarms' pictures, its tokens with the audit log, and the recording of
the run lie on the small file system. Looked at from outside: its API, Prometheus' numbers, its log, and what lies there in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from kills import START_S, Served, cameras_of

from streamingvlm.base import files, machine
from streamingvlm.media import arrivals
from streamingvlm.serving.access.tokens import Tokens

SIZE, CAMERAS = "3m", 2


@contextmanager
def small(folder: Path | None):
    """A file system of little room."""
    if folder:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="full") as place:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=False).returncode:
            raise SystemExit("Nothing can be mounted here: run this as root, or name a small file system with --folder.")
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def fill(path: Path) -> int:
    """Take all the room that there is -> bytes."""
    taken = 0
    with suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with suppress(OSError):
                while wrote := file.write(bytes(size)):
                    taken += wrote
    return taken


async def numbers(served: Served) -> dict[str, float]:
    """The store's, and how many records were published."""
    text = (await served.client.get("/metrics")).text
    found = {name: sum(float(value) for value in re.findall(rf"^streamingvlm_{name}(?:{{[^}}]*}})? ([\d.e+]+)$", text, re.MULTILINE))
             for name in ("records_total", "store_written_total", "store_lost_total", "store_waiting")}
    return found | {"off": found["records_total"] - found["store_written_total"] - found["store_lost_total"] - found["store_waiting"]}


async def looked(served: Served, seconds: float, fill_again: Path | None = None) -> dict:
    """What the service does for so long."""
    said, changes, off, (_, first) = set(), [], [], await served.look()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if fill_again:
            fill(fill_again)  # what was freed meanwhile
        health = (await served.client.get("/healthz")).json()
        said.add(health["store"]["error"])
        answer = await served.client.delete("/api/cameras/nobody")
        changes.append((answer.status_code, answer.json().get("error", "")))
        off.append((await numbers(served))["off"])
        await served.look()
        await asyncio.sleep(0.5)
    _, last = await served.look()
    return {"said": sorted(map(str, said)), "a_change": sorted(set(changes)), "records_unaccounted": min(off, key=abs),
            "store": await numbers(served), "decided": {name: last[name]["frames"]["decided"] - first[name]["frames"]["decided"] for name in first}}


async def run(folder: Path, place: Path, full_s: float) -> dict:
    store, access, trace = place / "records.sqlite", place / "access.sqlite", place / "run.jsonl.gz"
    tokens = Tokens(str(access))
    token = tokens.add("bench", "administer", None, None)
    tokens.engine.dispose()
    more = {"store": str(store), "access": {"tokens": str(access), "per_s": 1000, "burst": 10000}}
    served = Served(folder, cameras_of(CAMERAS), more, ("--record", str(trace)), token)
    try:
        if await served.goes_on(START_S) is None:
            raise SystemExit(f"The service did not start: {(folder / 'log.txt').read_text()[-500:]}")
        before = await looked(served, 5)
        taken = fill(place / "filler")
        full = await looked(served, full_s, place / "filler")
        (place / "filler").unlink()
        freed, recovered = time.monotonic(), None
        while recovered is None and time.monotonic() - freed < 60:
            if (await served.client.get("/healthz")).json()["store"]["error"] is None:
                recovered = round(time.monotonic() - freed, 2)
            await asyncio.sleep(0.1)
        after = await looked(served, 5)
        wrote = await numbers(served)
        served.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(served.process.wait, 60)
    finally:
        with suppress(ProcessLookupError):
            served.process.kill()
    log = (folder / "log.txt").read_text()
    return {"machine": machine.provenance({}), "size": SIZE, "filled_bytes": taken, "before": before, "full": full, "recovered_s": recovered,
            "after": after, "exit_code": code, "unaccounted": served.unaccounted, "left": left(place, store, access, trace, wrote),
            "tracebacks_in_the_log": log.count("Traceback"), "log": log[-3000:].splitlines()}


def left(place: Path, store: Path, access: Path, trace: Path, wrote: dict) -> dict:
    """What lies there when all is over."""
    whole, seqs = {}, []
    for path in (store, access):
        with sqlite3.connect(path) as database:
            whole[path.name] = database.execute("PRAGMA integrity_check").fetchone()[0]
            if path == store:
                seqs = [seq for name in ("decisions", "events", "comments", "states") for (seq,) in database.execute(f"SELECT seq FROM {name}")]
    with suppress(Exception):
        whole[trace.name] = f"{sum(1 for _ in arrivals.read(trace))} rows" if trace.exists() else "not there"
    return {"files": sorted(path.name for path in place.iterdir()), "whole": whole, "stored": len(seqs), "stored_twice": len(seqs) - len(set(seqs)),
            "told_as_written": wrote["store_written_total"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="for which it is full")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="full-disk") as folder, small(args.folder) as place:
        told = asyncio.run(run(Path(folder), place, args.seconds))
    print(json.dumps({key: value for key, value in told.items() if key != "machine"}, indent=1))
    if args.out:
        files.write_json(told, args.out)


if __name__ == "__main__":
    main()
