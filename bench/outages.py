"""Everything that happens to cameras and to those who watch, done to a whole service in turn and measured from outside. Asserts nothing.

    python bench/outages.py --save reports/reference/cables.json      # eight cameras, five minutes off: thirteen minutes
    python bench/outages.py --cameras 3 --off 10 --frozen 3 --calm 5  # a short one, two minutes

The service is `streamingvlm serve`, its cameras are the made-up city's, each behind an RTSP server and a cable (`cables`) of its own. In turn: a calm
time, itself frozen (SIGSTOP), one camera dead, all cables out, all cameras off, each rebooted, somebody who pushes another codec than announced.
From the calm time to the last reboot others hold a WebSocket and do not read; then they do. p99 is of all frames, lost ones too, in the steps of the
service's own buckets; `decided_ms` exact, of those decided. `bench/network.py cables` has sources without a service, picture by picture.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import websockets

sys.path.insert(0, str(Path(__file__).resolve().parent))  # by -m, too

from cables import Cable
from kills import START_S, Served
from network import scraped, unaccounted

from streamingvlm.base import files, machine
from streamingvlm.media.sources.rtp import Encoded
from streamingvlm.media.sources.rtsp_server import running
from streamingvlm.serving.intake.city import Filming
from streamingvlm.serving.live.demo import CRF, DELAY_S, pictures
from streamingvlm.worlds.city.world import FPS

PULLED_S, REBOOT_S, SETTLE_S, BACK_S = 10.0, 3.0, 10.0, 60.0
SMALL_BYTES, DEAF = 1 << 17, 8  # what the system keeps for one of those who do not read, and how many they are


class Camera:
    """An RTSP server of one of the city's cameras, and the cable to it."""

    def __init__(self, filming: Filming, number: int, begun: float, stack: contextlib.ExitStack):
        self.filming, self.number, self.begun, self.power = filming, number, begun, contextlib.ExitStack()
        stack.callback(self.power.close)
        self.cable = stack.enter_context(Cable(self._server()))
        self.name = f"camera-{number + 1}"
        self.row = {"name": self.name, "url": f"rtsp://127.0.0.1:{self.cable.port}/city", "delay_s": DELAY_S, "privacy": {"hide": "nothing"}}

    def _server(self) -> int:
        shown = Encoded(pictures(self.filming, self.number, self.begun), FPS, crf=CRF)
        return int(self.power.enter_context(running({"city": shown})).rpartition(":")[2])

    def off(self) -> None:
        self.cable.state = "cut"
        self.power.close()

    def on(self) -> None:
        self.cable.target, self.cable.state = self._server(), "plugged"


class Heard:
    """What the service says over its WebSocket: decisions, and states of cameras."""

    def __init__(self):
        self.decisions: list[tuple[float, str, float, float]] = []  # when it came, camera, captured_at, ms from release
        self.states: list[tuple[float, str, str, str]] = []
        self.last: dict[str, int] = {}
        self.out_of_order = self.missed = 0

    async def listen(self, address: str) -> None:
        with suppress(websockets.ConnectionClosed):
            async with websockets.connect(f"ws://{address}/ws?types=decision,state", max_queue=4096) as reader:
                async for message in reader:
                    self.take(json.loads(message))

    def take(self, record: dict) -> None:
        if record["type"] == "missed":
            self.missed += record["count"]
        elif record["type"] == "state":
            self.states.append((time.time(), record["stream"], record["state"], record["reason"]))
        else:
            self.out_of_order += record["frame"] <= self.last.get(record["stream"], -1)
            self.last[record["stream"]] = record["frame"]
            self.decisions.append((time.time(), record["stream"], record["captured_at"], record["ms"]["release"]))

    def since(self, at: float, names: list[str]) -> dict:
        """Of these cameras: decisions a second and how late they were."""
        late = [ms for came, name, _, ms in self.decisions if came >= at and name in names]
        counts = Counter(name for came, name, *_ in self.decisions if came >= at and name in names)
        lasted_s = time.time() - at
        told = {f"p{q}": round(float(np.percentile(late, q)), 1) for q in (50, 99, 100)} if late else {}
        return {"decided_ms": told, "fps_least": round(min(counts[name] for name in names) / lasted_s, 2)}

    async def back(self, names: list[str], since: float) -> dict[str, float]:
        """Seconds until each camera has a decision of a frame taken after `since`; who is missing did not come back."""
        found: dict[str, float] = {}
        while len(found) < len(names) and time.time() < since + BACK_S:
            await asyncio.sleep(0.1)
            for came, name, captured_at, _ in reversed(self.decisions):
                if came < since:
                    break
                if name in names and captured_at > since:
                    found[name] = round(came - since, 2)
        return dict(sorted(found.items()))


class Deaf:
    """Holds a WebSocket and reads nothing; in the end all that is left, from where it was if the service let it go."""

    async def begin(self, served: Served) -> None:
        here = socket.socket()
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        here.connect(("127.0.0.1", served.port))
        here.setblocking(False)
        self.address, self.seqs, self.missed, self.let_go = f"ws://{served.address}/ws", [], 0, ""
        self.reader = await websockets.connect(self.address, sock=here, max_queue=1, ping_interval=None)

    async def end(self, newest: int) -> dict:
        """Read up to record `newest` -> what came, what was told to be missed, and what is neither."""
        async with asyncio.timeout(120):
            try:
                await self._read(newest)
            except websockets.ConnectionClosed as error:
                self.let_go = error.rcvd.reason if error.rcvd else "without a word"
                async with websockets.connect(f"{self.address}?since={self.seqs[-1]}") as self.reader:
                    await self._read(newest)
        untold = self.seqs[-1] - self.seqs[0] + 1 - len(self.seqs) - self.missed
        return {"came": len(self.seqs), "missed": self.missed, "untold": untold, "twice": len(self.seqs) - len(set(self.seqs)), "let_go": self.let_go}

    async def _read(self, newest: int) -> None:
        told = 0
        while not self.seqs or self.seqs[-1] < newest:
            record = json.loads(await self.reader.recv())
            if record["type"] == "missed":
                told = record["count"]
            else:  # what is missed stands before the next record; without it, whoever resumes is told again
                self.seqs.append(record["seq"])
                self.missed, told = self.missed + told, 0


class Scene:
    def __init__(self, served: Served, cameras: list[Camera]):
        self.served, self.cameras, self.names = served, cameras, [camera.name for camera in cameras]
        self.heard, self.rows = Heard(), []

    async def stats(self) -> dict:
        return (await self.served.look())[0]

    def add(self, what: str, **told) -> None:
        self.rows.append({"what": what, **told, "main_mib": round(psutil.Process(self.served.process.pid).memory_info().rss / 2**20, 1)})
        print(json.dumps(self.rows[-1]), flush=True)

    async def calm(self, what: str, seconds: float, names: list[str] | None = None) -> None:
        before, since = await self.stats(), time.time()
        await asyncio.sleep(seconds)
        self.add(what, seconds=seconds, **self.heard.since(since, names or self.names), p99_ms_at_most=between(before, await self.stats(), 0.99))

    async def freeze(self, what: str, processes: list[int], seconds: float) -> None:
        before, since = await self.stats(), time.time()
        for number, wait_s in ((signal.SIGSTOP, seconds), (signal.SIGCONT, SETTLE_S)):
            for process in processes:
                os.kill(process, number)
            await asyncio.sleep(wait_s)
        after = await self.stats()
        self.add(what, seconds=seconds, p99_ms_of_the_run={clock: [of["latency_ms"][clock]["p99"] for of in (before, after)] for clock in
                 ("release", "capture")}, p99_ms_at_most=between(before, after, 0.99), **self.heard.since(since, self.names))

    async def all_out(self, what: str, state: str, seconds: float) -> None:
        for camera in self.cameras:
            camera.cable.state = state
        await asyncio.sleep(seconds)
        told = sorted({row["reason"] for row in (await self.served.look())[1].values()})
        for camera in self.cameras:
            camera.cable.state = "plugged"
        self.add(what, seconds=seconds, reasons=told, back_s=await self.heard.back(self.names, time.time()))

    async def reboot(self, camera: Camera) -> None:
        since, others = time.time(), [name for name in self.names if name != camera.name]
        await asyncio.to_thread(camera.off)
        await asyncio.sleep(REBOOT_S)
        await asyncio.to_thread(camera.on)
        back = await self.heard.back([camera.name], time.time())
        self.add(f"{camera.name} rebooted", seconds=REBOOT_S, back_s=back, others=self.heard.since(since, others),
                 states_of_others=sum(at >= since and name != camera.name for at, name, *_ in self.heard.states))

    async def dead(self, camera: Camera, seconds: float) -> None:
        camera.cable.state = "pulled"
        await self.calm(f"{camera.name} dead, the others", seconds, [name for name in self.names if name != camera.name])
        since, camera.cable.state = time.time(), "plugged"
        await self.heard.back([camera.name], since)

    async def liar(self) -> None:
        """Somebody announces VP8 and sends what is none; her encoder is that of this process."""
        from aiortc.codecs import vpx
        from publisher import Publisher

        client = httpx.Client(base_url=f"http://{self.served.address}", timeout=20)
        client.post("/api/cameras", json={"name": "liar", "url": "webrtc:"}).raise_for_status()
        encode, since, publisher, said = vpx.Vp8Encoder.encode, time.time(), Publisher(Whip(client)), []
        vpx.Vp8Encoder.encode = lambda self, frame, force_keyframe=False: ([b"\x10" + bytes(50)], frame.pts)
        try:
            await asyncio.to_thread(publisher.__enter__)
            while not said and time.time() < since + BACK_S:
                await asyncio.sleep(0.1)
                said = [reason for _, name, _, reason in self.heard.states if name == "liar" and "decoded" in reason]
            await asyncio.to_thread(publisher.__exit__)
        finally:
            vpx.Vp8Encoder.encode = encode
        row = (await self.served.look())[1]["liar"]
        self.add("a publisher that lies about its codec", said=said[:1], codec=publisher.codec, decided_of_it=row["frames"]["decided"],
                 others=self.heard.since(since, self.names))


class Whip:
    """A source's `offer`, by the service's WHIP."""

    def __init__(self, client: httpx.Client):
        self.client = client

    def offer(self, sdp: str) -> tuple[str, str]:
        answer = self.client.post("/whip/liar", content=sdp, headers={"Content-Type": "application/sdp"}).raise_for_status()
        return answer.headers["location"], answer.text


def between(before: dict, after: dict, share: float) -> float | None:
    """The bucket that holds this share of the frames between two looks at the service, its upper edge in ms."""
    counts = Counter({edge: count for edge, count in after["buckets"]})
    counts.subtract({edge: count for edge, count in before["buckets"]})
    wanted, so_far = share * counts.total(), 0
    for edge in sorted(counts):
        so_far += counts[edge]
        if counts.total() and so_far >= wanted:
            return edge
    return None


async def run(folder: Path, args: argparse.Namespace, stack: contextlib.ExitStack) -> dict:
    filming, begun = Filming(args.cameras), time.monotonic()
    filming.draw(0, 0)
    cameras = [Camera(filming, number, begun, stack) for number in range(args.cameras)]
    served = Served(folder, [camera.row for camera in cameras], {"store": str(folder / "records.sqlite")}, budget_ms=120.0)
    stack.callback(end, served)
    scene = Scene(served, cameras)
    if await served.goes_on(START_S) is None:
        raise SystemExit(f"The service did not start: {(folder / 'log.txt').read_text()[-500:]}")
    listening = asyncio.create_task(scene.heard.listen(served.address))
    await scene.heard.back(scene.names, time.time())
    await scene.calm("calm", args.calm)
    deaf = [Deaf() for _ in range(DEAF)]
    await asyncio.gather(*(one.begin(served) for one in deaf))
    await scene.calm(f"calm, {DEAF} do not read", args.calm)
    await scene.freeze("the service frozen", [served.process.pid], args.frozen)
    await scene.freeze("all of its processes frozen", [process.pid for process in served.below()] + [served.process.pid], args.frozen)
    await scene.calm("calm, behind it", args.calm)
    await scene.dead(cameras[0], args.calm)
    await scene.all_out("all cables out", "pulled", PULLED_S)
    await scene.all_out("all cameras off", "cut", args.off)
    for camera in cameras:
        await scene.reboot(camera)
    newest = (await served.client.get("/api/results?limit=1")).json()["newest"]
    scene.add("those who did not read do now", they=[await one.end(newest) for one in deaf])
    await scene.liar()
    stats, rows = await served.look()
    in_metrics = scraped((await served.client.get("/metrics")).text, scene.names)
    listening.cancel()
    return {"rows": scene.rows, "frames": stats["frames"], "unaccounted_of_all": unaccounted(stats["frames"]), "looks": served.samples,
            "unaccounted": {name: unaccounted(row["frames"]) for name, row in rows.items()}, "unaccounted_in_any_look": served.unaccounted,
            "unaccounted_in_metrics": [unaccounted(each) for each in in_metrics],
            "out_of_order": scene.heard.out_of_order, "missed": scene.heard.missed, "late": stats["late"], "restarts": {
                name: process["restarts"] for name, process in stats["processes"].items()},
            "tracebacks_in_the_log": (folder / "log.txt").read_text().count("Traceback")}


def end(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    with suppress(Exception):
        served.process.wait(30)
    served.process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--off", type=float, default=300.0, help="seconds for which all cameras are off (300)")
    parser.add_argument("--calm", type=float, default=30.0, help="seconds of each time in which nothing happens (30)")
    parser.add_argument("--frozen", type=float, default=6.0, help="seconds for which the service stands still (6)")
    parser.add_argument("--save", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="outages") as folder, contextlib.ExitStack() as stack:
        found = asyncio.run(run(Path(folder), args, stack))
    told = {"bench": "outages", "command": f"python bench/outages.py --cameras {args.cameras} --off {args.off:g} --frozen {args.frozen:g} "
            f"--calm {args.calm:g}", "load": [round(one, 1) for one in (*load, os.getloadavg()[0])]}
    found = told | found | machine.provenance({"cameras": args.cameras, "off_s": args.off, "frozen_s": args.frozen, "calm_s": args.calm})
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}))
    if args.save:
        files.write_json(found, args.save)


if __name__ == "__main__":
    main()
