"""A service without cameras and models, for the tests of its doors: it has two cameras and says what it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api.app import application
from streamingvlm.serving.api.listen import listening
from streamingvlm.serving.privacy.redactor import stored
from streamingvlm.serving.results import Results
from streamingvlm.serving.service import Conflict, NotFound

JPEG = b"\xff\xd8 a picture \xff\xd9"
PICTURE = stored(JPEG)


class FakeService:
    def __init__(self, store=None):
        self.settings = SimpleNamespace(title="test", budget_ms=120.0)
        self.results, self.store = Results(), store
        self.watched = {name: self._camera(name) for name in ("door", "yard")}
        self.alive, self.looked_at, self.sessions, self.pushed = True, [], {}, []
        self.frame = 0

    @staticmethod
    def _camera(name: str) -> dict:
        return {"id": name, "url": f"pattern:{name}", "kind": "pattern", "state": "live", "reason": "", "since": 0.0, "fps": 8.0,
                "width": 96, "height": 96, "delay_s": 0.2, "priority": 1, "mode": "auto", "action": "walk", "alarms": [], "comment": "",
                "latency_ms": {"p50": 30.0, "p95": 60.0, "p99": 90.0},
                "frames": {"in": 10, "decided": 7, "in_flight": 1, "dropped": {"stale": 2}}}

    def cameras(self) -> list[dict]:
        return list(self.watched.values())

    async def add(self, camera: dict) -> dict:
        if not {"name", "url"} <= set(camera) <= {"name", "url", "privacy", "keep"}:
            raise UserError("A camera has `name` and `url`.")
        if camera["name"] in self.watched:
            raise Conflict(f"There is a camera {camera['name']!r} already; choose another name.")
        if camera["url"] == "bug":
            raise ZeroDivisionError("a secret of the inside")
        self.watched[camera["name"]] = self._camera(camera["name"])
        return self.watched[camera["name"]]

    async def remove(self, name: str) -> None:
        self._known(name)
        del self.watched[name]
        self.results.forget(name)

    def _known(self, name: str) -> None:
        if name not in self.watched:
            raise NotFound(f"There is no camera {name!r}.")

    def picture(self, name: str) -> tuple[dict, bytes] | None:
        return ({"stream": name, "frame": self.frame, "pts_s": self.frame / 8}, PICTURE) if name in self.looked_at else None

    def want_pictures(self, names, seconds: float) -> None:
        self.looked_at = sorted({*self.looked_at, *names})

    async def ask(self, name: str, question: str, options: tuple[str, ...] = ()) -> dict:
        self._known(name)
        if name == "yard":
            raise Conflict("Nobody comments on 'yard', so nobody can be asked about it.")
        return {"stream": name, "question": question, "text": options[0] if options else "a person", "ms": {"total": 12.0}}

    async def offer(self, name: str, sdp: str) -> tuple[str, str]:
        self._known(name)
        self.sessions[f"{name}~s1"] = sdp
        return f"{name}~s1", "v=0\r\nanswer\r\n"

    async def hang_up(self, resource: str) -> None:
        if self.sessions.pop(resource, None) is None:
            raise NotFound(f"There is no session {resource!r}.")

    async def push(self, name, pts_s, captured_at, picture, width, height) -> None:
        self._known(name)
        self.pushed.append((name, pts_s, captured_at, picture, width, height))
        self.results.publish(decision(name, len(self.pushed), pts_s=pts_s))

    def policy(self, name: str) -> str:
        return "hides people"

    def card(self) -> str:
        return "# Data card of a service that is made up\n"

    def stats(self, streams=None) -> dict:
        if streams is not None:
            return {"of": sorted(streams), "processes": {"analytics": {"alive": self.alive, "restarts": 0}}}
        return {"latency_ms": {"release": {"p50": 30.0, "p95": 60.0, "p99": 90.0}, "capture": {}}, "buckets": [[30, 7]], "late": 0, "uptime_s": 1.0,
                "frames": {"in": 20, "decided": 14, "in_flight": 2, "dropped": {"stale": 4}}, "batch": {"count": 7, "mean": 2.0, "sizes": {"2": 7}},
                "processes": {"analytics": {"alive": self.alive, "restarts": 0}}}


def decision(stream: str, frame: int, **more) -> dict:
    return {"type": "decision", "stream": stream, "frame": frame, "epoch": 0, "pts_s": frame / 8, "captured_at": 1e9 + frame / 8,
            "captured_by": "sender", "boxes": [{"box": [0.1, 0.2, 0.3, 0.4], "label": "person", "score": 0.9}], "action": "walk",
            "anomalies": {"fall": 0.1}, "alarms": [], "event_score": 0.2, "future": 0.9, "dropped_before": {"stale": 1},
            "ms": {"see": 5.0, "memory": 2.0, "wait": 3.0, "release": 30.0, "capture": 230.0}} | more


def alarm(stream: str, frame: int, state: str = "on") -> dict:
    return {"type": "alarm", "stream": stream, "kind": "fall", "state": state, "frame": frame, "pts_s": frame / 8, "score": 0.8, "picture": None}


def comment(stream: str, chunk: int) -> dict:
    return {"type": "comment", "stream": stream, "chunk": chunk, "start_s": float(chunk), "end_s": chunk + 1.0, "text": "left serves", "tokens": 3,
            "kv_tokens": 90, "ms": {"decode": 10.0}}


@asynccontextmanager
async def running(service: FakeService) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """The service's HTTP doors on a free port -> a client, and the address for WebSockets."""
    async with listening(application(service), "127.0.0.1", 0) as address, httpx.AsyncClient(base_url=address, timeout=30) as client:
        yield client, address.replace("http", "ws", 1)
