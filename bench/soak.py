"""A running service, watched for a while as a client sees it: memory of every process, conservation, order, latencies. Measures; asserts nothing.

    streamingvlm serve --demo --no-open &
    python bench/soak.py --minutes 30 --out soak.json
    python bench/soak.py --minutes 10 --readers 200 --slow 50       # so many that read all there is, some of them a record every two seconds

Reads the numbers of the service's own API and its WebSocket, and the memory of its processes from the system.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import httpx
import psutil
import websockets

from streamingvlm.base import files, machine

SLOW_S = 2.0


def processes(port: int) -> dict[str, float]:
    """Resident MiB of the process that listens at `port` and of those below it, by what they run."""
    owner = next((psutil.Process(link.pid) for link in psutil.net_connections("tcp") if link.laddr.port == port and link.status == "LISTEN"), None)
    if owner is None:
        return {}
    mib = {"main": owner.memory_info().rss / 2**20}
    for k, child in enumerate(sorted(owner.children(recursive=True), key=lambda child: child.create_time())):
        mib[f"child {k}"] = child.memory_info().rss / 2**20
    return {name: round(value, 1) for name, value in mib.items()}


async def order(address: str, until: float, found: dict) -> None:
    """Count decisions, those that come out of order, and what was missed."""
    last: dict[str, int] = {}
    async with websockets.connect(f"ws://{address}/ws?types=decision", max_queue=1024) as socket:
        while time.time() < until:
            record = json.loads(await asyncio.wait_for(socket.recv(), 30))
            if record["type"] == "missed":
                found["missed"] += record["count"]
                continue
            found["decisions"] += 1
            found["out_of_order"] += record["frame"] <= last.get(record["stream"], -1)
            last[record["stream"]] = record["frame"]


async def crowd(address: str, until: float, pause_s: float, found: dict) -> None:
    """One reader more, who takes a record and then does nothing for a while; it counts as lost where it is thrown out."""
    try:
        async with websockets.connect(f"ws://{address}/ws", max_queue=1, open_timeout=60) as socket:
            while time.time() < until:
                record = json.loads(await asyncio.wait_for(socket.recv(), 60))
                found["missed" if record["type"] == "missed" else "read"] += record.get("count", 1)
                await asyncio.sleep(pause_s)
    except (OSError, TimeoutError, websockets.WebSocketException):
        found["lost"] += 1


async def watch(address: str, seconds: float, every_s: float, readers: int, slow: int) -> dict:
    begun, found, rows = time.time(), {"decisions": 0, "out_of_order": 0, "missed": 0}, []
    listening = asyncio.create_task(order(address, begun + seconds, found))
    crowds = {kind: {"read": 0, "missed": 0, "lost": 0} for kind in ("quick", "slow")}
    waiting = [asyncio.create_task(crowd(address, begun + seconds, SLOW_S if k < slow else 0.0, crowds["slow" if k < slow else "quick"]))
               for k in range(readers)]
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as client:
        while time.time() < begun + seconds:
            stats, cameras = (await client.get("/api/stats")).json(), (await client.get("/api/cameras")).json()
            frames = stats["frames"]
            off = frames["in"] - frames["decided"] - frames["in_flight"] - sum(frames["dropped"].values())
            rows.append({"s": round(time.time() - begun), "mib": processes(int(address.rpartition(":")[2])), "unaccounted": off, "frames": frames,
                         "release_ms": stats["latency_ms"]["release"], "live": sum(camera["state"] == "live" for camera in cameras)})
            print(json.dumps(rows[-1]), flush=True)
            await asyncio.sleep(every_s)
    await asyncio.gather(listening, *waiting)
    return {"machine": machine.provenance({}), "seconds": round(time.time() - begun), **found, "readers": readers, "slow": slow, **crowds,
            "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--address", default="127.0.0.1:8090")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every-s", type=float, default=60)
    parser.add_argument("--readers", type=int, default=0, help="more of them")
    parser.add_argument("--slow", type=int, default=0, help="of these, who hardly read")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    told = asyncio.run(watch(args.address, args.minutes * 60, args.every_s, args.readers, args.slow))
    if args.out:
        files.write_json(told, args.out)


if __name__ == "__main__":
    main()
