"""All the ways to come in without being let in that we can think of, tried against a service's own doors and counted. Served must be none.

    tried = await trespass(address, grpc_port, app, keys); tried.served      # [] or what got in

Every HTTP route, WebSocket and gRPC method is taken from the application itself, so one that is added is tried too. A way in counts as refused where
the answer is a refusal and holds nothing but one sentence. Knows no token's making: `Keys` brings what a test has made.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI

from streamingvlm.serving.access import needs

REFUSALS = {400, 401, 403, 404, 405, 411, 413, 414, 429}
PARAMETER = {"{name}": "door", "{resource}": "door~s1", "{path}": "app.js"}
HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
          "/streamingvlm.v1.Analytics/Nothing", "/streamingvlm.v1.analytics/Watch")
TRICKS = ("//api/cameras", "/api/cameras/", "/api/./cameras", "/api/../api/cameras", "/%61pi/cameras", "/api%2fcameras", "/api/cameras%00",
          "/API/cameras", "/api/cameras;x=1", "/api/cameras%20", "/static/../api/cameras", "/static/%2e%2e/%2e%2e/store.py", "/static/..%2fstore.py",
          "/static/....//store.py", "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/api/cameras/door/../yard/picture.jpg",
          "/api/cameras/..%2fyard", "/api/alarms/..%2f1.jpg", "/whip/door/../../api/cameras",
          "/docs", "/redoc", "/openapi.json", "/api/openapi.json/", "/.env", "/metrics/",
          "/api/records/", "/healthz/", "/ws", "/ws/pictures", "*", "/api/audit/..;/", "/static/", "/static", "/static/index.html/..")


@dataclass(frozen=True)
class Keys:
    """`none`: headers of what is no token, or no longer, by its name; `reader`: a good one that reads the camera `door` alone; `all_reader`: of all
    cameras; `operator`: one that operates `door` alone. `token`: text that is good for everything, to be put where no token belongs."""

    none: Mapping[str, str]
    reader: str
    all_reader: str
    operator: str
    token: str


@dataclass(frozen=True)
class Attempt:
    """`door`: HTTP, WS or gRPC; `why`: what should keep it out."""

    door: str
    method: str
    path: str
    why: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Tried:
    count: Counter = field(default_factory=Counter)  # by door
    served: list[tuple[Attempt, str]] = field(default_factory=list)


def ways(app: FastAPI) -> list[tuple[str, str]]:
    """(method or "WS", path with a camera's name in it) of everything that the application answers."""
    found = []
    for one in app.routes:
        for route in getattr(getattr(one, "original_router", None), "routes", [one]):
            path = route.path + ("/{path}" if not hasattr(route, "endpoint") else "")  # a folder of files
            for name, value in PARAMETER.items():
                path = path.replace(name, value)
            methods = getattr(route, "methods", None) or ({"GET"} if path.startswith("/static") else {"WS"})
            found += [(method, path) for method in sorted(methods)]
    return found


def attempts(app: FastAPI, calls: list[str], keys: Keys) -> Iterator[Attempt]:
    everything = [*ways(app), *(("gRPC", call) for call in calls)]
    for method, path in everything:
        door = method if method in {"WS", "gRPC"} else "HTTP"
        yield Attempt(door, method, path, "no token")
        for name, said in keys.none.items():
            yield Attempt(door, method, path, name, (("Authorization", said),))
        for name, headers, query in _odd(keys.token):
            yield Attempt(door, method, path + (query if door != "gRPC" else ""), name, headers)
    yield from _lower(everything, keys)
    for path in TRICKS:
        for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "TRACE"):
            yield Attempt("HTTP", method, path, "a path that means another")


def _odd(token: str) -> Iterator[tuple[str, tuple[tuple[str, str], ...], str]]:
    """A good token where no token belongs."""
    for name in ("token", "access_token", "authorization"):
        yield f"in the address as {name}", (), f"?{name}={token}"
    for name in ("X-Api-Key", "X-Authorization", "Proxy-Authorization", "Sec-WebSocket-Protocol", "X-Forwarded-User"):
        yield f"in {name}", ((name, f"Bearer {token}"),), ""
    yield "as a cookie", (("Cookie", f"streamingvlm={token}"),), ""
    yield "as somebody's name", (("Authorization", "Basic " + base64.b64encode(f"{token}:".encode()).decode()),), ""
    yield "of another kind", (("Authorization", f"Token {token}"),), ""
    yield "said twice", (("Authorization", f"Bearer {token}"), ("Authorization", "Bearer no")), ""
    yield "from this machine, it says", (("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=127.0.0.1"), ("X-Real-IP", "127.0.0.1")), ""


def _lower(everything: list[tuple[str, str]], keys: Keys) -> Iterator[Attempt]:
    """Good tokens that are not enough: for this, for that camera."""
    for method, path in everything:
        door = method if method in {"WS", "gRPC"} else "HTTP"
        if (need := needs.of(method, path)) is None or need.role != "read":
            yield Attempt(door, method, path, "it may only read", (("Authorization", keys.all_reader),))
        if path in {"/api/records", "/api/audit"}:
            yield Attempt(door, method, path, "it may only operate", (("Authorization", keys.operator),))
        if path in {"/metrics", "/api/audit", "/datacard"}:
            yield Attempt(door, method, path, "it is of some cameras", (("Authorization", keys.reader),))
        if "door" in path:
            for other in ("yard", "%79ard", "yard%20", "none"):
                yield Attempt(door, method, path.replace("door", other), "another's camera", (("Authorization", keys.operator),))
    for path in ("/api/results?streams=yard", "/api/results?streams=door,yard", "/api/history?stream=yard", "/api/history?stream=yard,door",
                 "/whip/door/yard~s1", "/api/cameras/yard", "/api/cameras/yard/picture.jpg"):
        method = "DELETE" if path.startswith(("/whip", "/api/cameras/yard")) and "picture" not in path else "GET"
        yield Attempt("HTTP", method, path, "another's camera", (("Authorization", keys.operator),))
    for path in ("/ws?streams=yard", "/ws?streams=door,yard", "/ws/pictures?streams=yard", "/ws/pictures?streams=door,yard"):
        yield Attempt("WS", "WS", path, "another's camera", (("Authorization", keys.operator),))


async def trespass(address: str, grpc_port: int, app: FastAPI, keys: Keys, one_in: int = 1, parallel: int = 16) -> Tried:
    """Try them all; with `one_in`, of those that bring anything only every so-manieth. The service must run, with cameras `door` and `yard` and
    a limit of failures that is never reached."""
    import grpc
    import httpx

    from streamingvlm.serving.api.proto import streamingvlm_pb2 as proto

    calls = [f"/{service.full_name}/{method.name}" for service in proto.DESCRIPTOR.services_by_name.values() for method in service.methods]
    tried, turns = Tried(), asyncio.Semaphore(parallel)
    async with httpx.AsyncClient(base_url=address, timeout=30) as client, grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:

        async def one(attempt: Attempt) -> None:
            async with turns:
                tried.count[attempt.door] += 1
                if got := await {"HTTP": _http, "WS": _socket, "gRPC": _call}[attempt.door](attempt, client, channel):
                    tried.served.append((attempt, got))

        chosen = [attempt for k, attempt in enumerate(attempts(app, [*calls, *HEALTH], keys)) if k % one_in == 0 or attempt.why == "no token"]
        await asyncio.gather(*map(one, chosen))
    return tried


async def _http(attempt: Attempt, client, channel) -> str:
    """What it got that is no refusal; "" where it was refused."""
    raw = {"target": attempt.path.encode()}  # as it is written: a client would mend what is meant to be crooked
    body = b"" if attempt.method == "GET" else b"{}"
    answer = await client.request(attempt.method, "/", headers=list(attempt.headers), content=body, extensions=raw)
    told = answer.text
    if answer.status_code in REFUSALS and (not told or _sentence(told)):
        return ""
    return f"{answer.status_code} {told[:200]}"


def _sentence(text: str) -> bool:
    """Whether an answer is one sentence and nothing else: ours, or the one of a server that could not read the request."""
    try:
        said = json.loads(text)
    except ValueError:
        return text == "Invalid HTTP request received."
    return set(said) == {"error"} and isinstance(said["error"], str)


async def _socket(attempt: Attempt, client, channel) -> str:
    import websockets

    where = str(client.base_url).rstrip("/").replace("http", "ws", 1) + attempt.path
    try:
        async with websockets.connect(where, additional_headers=list(attempt.headers), open_timeout=30, close_timeout=2) as socket:
            told = await asyncio.wait_for(socket.recv(), 10)
            return "" if isinstance(told, str) and _sentence(told) else f"a message: {told[:200]!r}"
    except (websockets.InvalidStatus, websockets.InvalidHandshake, websockets.ConnectionClosed):
        return ""
    except TimeoutError:
        return "an open socket"


async def _call(attempt: Attempt, client, channel) -> str:
    import grpc

    refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED}

    async def nothing():
        yield b""

    told = [(key.lower(), value) for key, value in attempt.headers]
    try:
        call = channel.stream_stream(attempt.path)(nothing(), metadata=told, timeout=10)
        async for message in call:
            return f"a message: {message[:200]!r}"
        return "an empty answer"
    except grpc.aio.AioRpcError as error:
        if error.details() == "Internal error from Core":  # the client's own: it was refused while it still wrote
            return await _call(attempt, client, channel)
        return "" if error.code() in refused else f"{error.code()} {error.details()}"
