"""Before HTTP and WebSockets: who brings no token, or one that is not enough, is answered here and gets no further. ASGI middleware.

    app.add_middleware(Door, service=service, gate=gate)      # gate None: whoever is on this machine may do everything

Programs say `Authorization: Bearer TOKEN`. A browser is asked for a password, which is the token (any name beside it), and then gets a cookie for
this session: scripts cannot read it, other sites cannot use it. A token in an address is none: addresses end up in logs. What passes finds the
service as its token sees it (`scope["service"]`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamingvlm.serving.access import needs
from streamingvlm.serving.access.audit import Doing, Entry, Unwritten, refused
from streamingvlm.serving.access.gate import Denied, Gate, Grant, credentials
from streamingvlm.serving.access.scoped import Scoped
from streamingvlm.serving.service import Service

COOKIE = "streamingvlm"
ASK = {"WWW-Authenticate": 'Basic realm="StreamingVLM: the token is the password", charset="UTF-8"'}
NOT_OURS = "This service has no name but this machine's own: open it as localhost, or by its number."


class Door:
    def __init__(self, app: ASGIApp, service: Service, gate: Gate | None):
        self.app, self.service, self.gate = app, service, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if self.gate is None:
            if not own_name(headers.get("host", "")):  # a page elsewhere whose name was made to lead here
                return await JSONResponse({"error": NOT_OURS}, 403)(scope, receive, send)
            scope["service"] = self.service
            return await self.app(scope, receive, send)
        method, address = ("WS" if scope["type"] == "websocket" else scope["method"]), (scope.get("client") or ("",))[0]
        need, told = needs.of(method, scope["path"]), f"{method} {scope['path']}"
        token, session = brought(headers)
        try:
            grant = await self.gate.admit(token, need, address, session)
        except Denied as denied:
            self.gate.audit.note(refused(denied, address, told if denied.grant else method))
            return await refusal(denied, method)(scope, receive, send)
        lasts = scope["type"] == "websocket"
        doing = Doing(Entry(grant.name, grant.role, address, told, need.camera or _asked(scope), "open"), "closed" if lasts else "cut off")
        scope["service"] = Scoped(self.service, self.gate, grant, doing.cameras)
        try:
            async with self.gate.audit.during(doing, need.changes, lasts):
                await self._pass(scope, receive, send, grant, doing, token is not None and scope["path"] == "/")
        except Unwritten as error:
            await JSONResponse({"error": str(error)}, 503)(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, grant: Grant, doing: Doing, greets: bool) -> None:
        if scope["type"] == "websocket":
            return await self._while_valid(scope, receive, send, grant)

        async def heard(message: Message) -> None:
            if message["type"] == "http.response.start":
                doing.status = str(message["status"])
                if greets:
                    MutableHeaders(scope=message).append("Set-Cookie", self._cookie(grant, scope))
            await send(message)

        try:
            await self.app(scope, receive, heard)
        except Exception:  # is answered further out
            doing.status = "500"
            raise

    async def _while_valid(self, scope: Scope, receive: Receive, send: Send, grant: Grant) -> None:
        """A socket, until it closes or its token is over."""
        serving, over = asyncio.ensure_future(self.app(scope, receive, send)), asyncio.ensure_future(self.gate.ended(grant))
        try:
            await asyncio.wait((serving, over), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return serving.result()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await send({"type": "websocket.close", "code": 1008, "reason": "The token is over."})
        finally:
            for task in (serving, over):
                task.cancel()
            await asyncio.gather(serving, over, return_exceptions=True)

    def _cookie(self, grant: Grant, scope: Scope) -> str:
        secure = "; Secure" if scope.get("scheme") in {"https", "wss"} else ""
        return f"{COOKIE}={self.gate.session(grant)}; HttpOnly; SameSite=Strict; Path=/{secure}"


def brought(headers: Headers) -> tuple[str | None, str | None]:
    """The token of `Authorization`, or else a browser's session. What is said twice counts as nothing."""
    said = headers.getlist("authorization")
    kind, rest = credentials(said)
    if kind == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2], None
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return "", None
    if said:
        return rest if kind == "bearer" else "", None
    return None, cookie_parser(headers.get("cookie", "")).get(COOKIE)


def refusal(denied: Denied, method: str) -> JSONResponse:
    headers = (ASK if denied.status == 401 and method == "GET" else {}) | ({"Retry-After": str(int(denied.wait_s) + 1)} if denied.wait_s else {})
    return JSONResponse({"error": str(denied)}, denied.status, headers)


def own_name(host: str) -> bool:
    """Whether a `Host` is this machine's own, and no name that somebody elsewhere gave it."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.lower() == "localhost" or name.lower().endswith(".localhost"):
        return True
    try:
        return bool(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return False


def _asked(scope: Scope) -> str:
    """The cameras that a request names."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return ",".join(query.get("streams", []) + query.get("stream", []))
