"""A service that makes everything up, for the page: cameras whose boxes move, late decisions, drops, alarms, sentences. The doors are the real ones.

    python tests/serving/fake_service.py --cameras 8 --port 8765        # and open http://127.0.0.1:8765
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import math
import random
import threading
import time
from types import SimpleNamespace

from PIL import Image, ImageDraw

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api.app import application
from streamingvlm.serving.api.listen import listening
from streamingvlm.serving.privacy.redactor import stored
from streamingvlm.serving.results import Results
from streamingvlm.serving.service import Conflict, NotFound

KINDS = ("fall", "pavement", "loiter", "bag", "clone", "surge")
SAID = ("two people walk past the shop", "a car stops at the kerb, its door opens", "one person waits under the lamp", "nobody in sight",
        "a person in red runs to the left, another turns to look and follows at some distance", "the bag is still there")
SIZE = 320, 180
LOOP = 32  # pictures of a camera before they repeat


class FakeCamera:
    def __init__(self, spec: dict, index: int, fps: float):
        self.random = random.Random(index)
        self.frame, self.dropped, self.decided, self.alarm_until, self.alarm = 0, {}, 0, 0, None
        self.pictures = [self._jpeg(k) for k in range(LOOP)]
        self.row = {"kind": spec["url"].split(":")[0], "state": "live", "reason": "", "since": time.time(), "fps": fps,
                    "width": SIZE[0], "height": SIZE[1], "delay_s": 0.2,
                    "priority": 1, "mode": "auto", "action": "", "alarms": [], "comment": "", "latency_ms": {}} | spec

    def boxes(self, frame: int) -> list[dict]:
        """Where things are in a frame, as fractions; the same for the picture and for the decision about it."""
        turn = 2 * math.pi * (frame % LOOP) / LOOP
        x, far = 0.4 + 0.28 * math.sin(turn), 0.35 + 0.25 * math.cos(turn)
        return [{"box": [x, 0.4, x + 0.09, 0.72], "label": "person", "score": 0.93},
                {"box": [far, 0.7, far + 0.26, 0.92], "label": "car", "score": 0.88},
                {"box": [0.82, 0.62, 0.88, 0.72], "label": "bag", "score": 0.71}]

    def _jpeg(self, frame: int) -> bytes:
        ground = tuple(self.random.randrange(70, 120) for _ in range(3)) if frame == 0 else self.ground
        self.ground = ground
        image = Image.new("RGB", SIZE, ground)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 117, 320, 180), fill=(60, 62, 66))
        for one, colour in zip(self.boxes(frame), ((200, 60, 50), (210, 210, 215), (40, 40, 40)), strict=True):
            draw.rectangle([side * SIZE[k % 2] for k, side in enumerate(one["box"])], fill=colour)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=80)
        return stored(out.getvalue())


class FakeService:
    """`eventful`: alarms, drops and a camera that stalls come by themselves; without, only what a test asks for."""

    def __init__(self, cameras: int = 8, fps: float = 8.0, eventful: bool = True, first: int | None = None):
        self.settings = SimpleNamespace(title="Made-up cameras", budget_ms=120.0)
        self.results, self.store = Results(first=first), None
        self.fps, self.eventful, self.begun = fps, eventful, time.time()
        self.watched: dict[str, FakeCamera] = {}
        self.latencies: list[float] = []
        self.tasks: dict[str, asyncio.Task] = {}
        self.offers: list[str] = []
        self.begin_with: list[tuple[str, ...]] = []  # what has happened before anybody can connect
        self.asked: list[str] = []
        self.wanted = [{"id": f"gate-{k + 1}", "url": f"rtsp://127.0.0.1:8554/gate-{k + 1}"} for k in range(cameras)]

    def begin(self) -> None:
        for spec in self.wanted:
            self._watch(spec)
        for name, *given in self.begin_with:
            getattr(self, name)(*given)

    def _watch(self, spec: dict) -> dict:
        camera = self.watched[spec["id"]] = FakeCamera(spec, len(self.watched), self.fps)
        self.tasks[spec["id"]] = asyncio.ensure_future(self._live(spec["id"], camera))
        return self._row(camera)

    async def _live(self, name: str, camera: FakeCamera) -> None:
        chance, due = camera.random, time.monotonic() + camera.random.random() / self.fps
        while True:
            due += 1 / self.fps
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if camera.row["state"] != "live":
                continue
            camera.frame += 1
            if self.eventful and chance.random() < 0.02:
                cause = chance.choice(("stale", "superseded", "late_for_batch"))
                camera.dropped[cause] = camera.dropped.get(cause, 0) + 1
                continue
            late_ms = 40 + chance.lognormvariate(3.2, 0.6)
            asyncio.get_running_loop().call_later(late_ms / 1000, self.decide, name, camera.frame, late_ms)
            if camera.frame % round(self.fps * 2) == 0:
                self.say(name, chance.choice(SAID))
            if self.eventful:
                self._events(name, camera)

    def _events(self, name: str, camera: FakeCamera) -> None:
        if camera.alarm and camera.frame > camera.alarm_until:
            self.alarm(name, camera.alarm, "off")
        elif not camera.alarm and camera.random.random() < 0.004:
            camera.alarm_until = camera.frame + round(self.fps * camera.random.uniform(3, 12))
            self.alarm(name, camera.random.choice(KINDS), "on")

    def decide(self, name: str, frame: int, late_ms: float = 60.0) -> None:
        camera = self.watched.get(name)
        if camera is None:
            return
        camera.decided += 1
        camera.row["action"] = ("walk", "run", "idle", "meet")[frame // 40 % 4]
        self.latencies.append(late_ms)
        del self.latencies[:-2000]
        scores = {kind: 0.9 if kind == camera.alarm else round(0.05 + 0.04 * k, 2) for k, kind in enumerate(KINDS)}
        self.results.publish({"type": "decision", "stream": name, "frame": frame, "epoch": 0, "pts_s": frame / self.fps,
                              "captured_at": time.time() - 0.3, "captured_by": "sender",
                              "boxes": camera.boxes(frame), "action": camera.row["action"], "anomalies": scores,
                              "alarms": camera.row["alarms"], "event_score": 0.1, "future": 0.1, "dropped_before": {},
                              "ms": {"see": 20.0, "memory": 4.0, "wait": late_ms - 24, "release": late_ms, "capture": late_ms + 210}})

    def say(self, name: str, text: str) -> None:
        camera = self.watched[name]
        camera.row["comment"], chunk = text, camera.frame
        self.results.publish({"type": "comment", "stream": name, "chunk": chunk, "start_s": float(chunk), "end_s": chunk + 1.0,
                              "text": text, "tokens": 8, "kv_tokens": 90, "ms": {"decode": 30.0}})

    def alarm(self, name: str, kind: str, state: str) -> None:
        camera = self.watched[name]
        camera.alarm = kind if state == "on" else None
        camera.row["alarms"] = [kind] if state == "on" else []
        self.results.publish({"type": "alarm", "stream": name, "kind": kind, "state": state, "frame": camera.frame, "pts_s": camera.frame / self.fps,
                              "score": 0.91}, camera.pictures[camera.frame % LOOP] if state == "on" else None)

    def state(self, name: str, state: str, reason: str) -> None:
        self.watched[name].row.update(state=state, reason=reason, since=time.time())
        self.results.publish({"type": "state", "stream": name, "state": state, "reason": reason, "epoch": 0})

    def _row(self, camera: FakeCamera) -> dict:
        some = sorted(self.latencies[-400:]) or [60.0]
        latency = {f"p{p}": some[min(len(some) - 1, len(some) * p // 100)] for p in (50, 95, 99)}
        lost = sum(camera.dropped.values())
        return camera.row | {"latency_ms": latency | {f"capture_{name}": value + 210 for name, value in latency.items()},
                             "frames": {"in": camera.frame, "decided": camera.decided, "in_flight": max(0, camera.frame - camera.decided - lost),
                                        "dropped": dict(camera.dropped)}}

    def cameras(self) -> list[dict]:
        return [self._row(camera) for camera in self.watched.values()]

    async def add(self, camera: dict) -> dict:
        if camera["name"] in self.watched:
            raise Conflict(f"There is a camera {camera['name']!r} already: choose another name.")
        if not camera["url"].startswith(("rtsp:", "pattern:", "webrtc:")):
            raise UserError(f"The address {camera['url']!r} has no kind that is known: begin with rtsp://, a path, pattern: or webrtc:.")
        return self._watch({"id": camera["name"]} | {key: value for key, value in camera.items() if key != "name"})

    async def ask(self, name: str, question: str, options: tuple[str, ...] = ()) -> dict:
        if name not in self.watched:
            raise NotFound(f"There is no camera {name!r}.")
        if "?" not in question:
            raise UserError("That is no question: end it with `?`.")
        return {"stream": name, "question": question, "text": "nobody in sight", "ms": {"ttft": 9.0, "total": 31.0}}

    async def remove(self, name: str) -> None:
        if name not in self.watched:
            raise NotFound(f"There is no camera {name!r}.")
        self.tasks.pop(name).cancel()
        del self.watched[name]
        self.results.forget(name)

    def picture(self, name: str) -> tuple[dict, bytes] | None:
        camera = self.watched.get(name)
        if camera is None or not camera.frame:
            return None
        return {"stream": name, "frame": camera.frame, "pts_s": camera.frame / self.fps}, camera.pictures[camera.frame % LOOP]

    def want_pictures(self, names, seconds: float) -> None:
        self.asked = list(names)

    async def offer(self, name: str, sdp: str) -> tuple[str, str]:
        self.offers.append(sdp)
        raise UserError("This made-up service takes no WebRTC.")

    async def hang_up(self, resource: str) -> None:
        raise NotFound(f"There is no session {resource!r}.")

    async def push(self, name, pts_s, captured_at, picture, width, height) -> None:
        raise UserError("This made-up service takes no frames.")

    def policy(self, name: str) -> str:
        return "hides people"

    def card(self) -> str:
        return "# Data card of a service that is made up\n"

    def stats(self, streams=None) -> dict:
        rows, edges = self.cameras(), [10 * 1.15 ** k for k in range(40)]
        low = [0.0, *edges[:-1]]
        latency = rows[0]["latency_ms"] if rows else {}
        causes = {cause for row in rows for cause in row["frames"]["dropped"]}
        frames = {key: sum(row["frames"][key] for row in rows) for key in ("in", "decided", "in_flight")}
        return {"title": self.settings.title, "budget_ms": self.settings.budget_ms,
                "latency_ms": {"release": {p: latency.get(p) for p in ("p50", "p95", "p99")},
                               "capture": {p: latency.get(f"capture_{p}") for p in ("p50", "p95", "p99")}},
                "buckets": [[edge, sum(a < value <= edge for value in self.latencies)] for a, edge in zip(low, edges, strict=True)],
                "frames": frames | {"dropped": {cause: sum(row["frames"]["dropped"].get(cause, 0) for row in rows) for cause in sorted(causes)}},
                "late": 0, "batch": {"count": 1, "mean": 4.0, "sizes": {"4": 1}}, "commentary": {"skipped": 0},
                "uptime_s": time.time() - self.begun,
                "processes": {"analytics": {"alive": True, "restarts": 0}}}


class Running:
    """The service in a thread of its own: `with Running(FakeService()) as it: it.address; it.call(it.service.alarm, "gate-1", "fall", "on")`."""

    def __init__(self, service: FakeService, port: int = 0):
        self.service, self.port = service, port
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self.loop, self.leave = asyncio.get_running_loop(), asyncio.Event()
        self.service.begin()
        async with listening(application(self.service), "127.0.0.1", self.port) as self.address:
            self.ready.set()
            await self.leave.wait()
            for task in self.service.tasks.values():
                task.cancel()

    def call(self, function, *given):
        async def called():
            return function(*given)
        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(10)

    def __enter__(self) -> Running:
        self.thread.start()
        assert self.ready.wait(20), "the made-up service does not start"
        return self

    def __exit__(self, *raised) -> None:
        self.loop.call_soon_threadsafe(self.leave.set)
        self.thread.join(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    with Running(FakeService(arguments.cameras, arguments.fps), arguments.port) as running, contextlib.suppress(KeyboardInterrupt):
        print(running.address, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
