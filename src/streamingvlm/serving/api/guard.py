"""Around the whole application: bodies within a limit, no writing from another site, headers that keep a browser strict. Knows no route.

A door may be on loopback with nobody to ask for a password; even so a page of another site that is open in the same browser must not add a camera or
read a stream: what says where it comes from (`Origin`) has to come from here.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMIT_BYTES = 256 * 1024
SAFE = {"GET", "HEAD", "OPTIONS"}
HEADERS = {
    "Content-Security-Policy":
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # where a route says nothing else: a page half of yesterday and half of today does not work
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limit_bytes: int = LIMIT_BYTES):
        self.app, self.limit_bytes = app, limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if foreign(headers) and scope.get("method") not in SAFE:
            refusal = JSONResponse({"error": "A page of another site may not do this; open the service's own page."}, 403)
            return await refusal(scope, receive, send)
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limit_bytes:
            return await JSONResponse({"error": self.too_large}, 413, {"Connection": "close"})(scope, receive, send)
        await self.app(scope, self._counted(receive), self._strict(send))

    @property
    def too_large(self) -> str:
        return f"The request's body is larger than {self.limit_bytes // 1024} KiB."

    def _counted(self, receive: Receive) -> Receive:
        """A body that does not say its length is counted as it comes."""
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.limit_bytes:
                raise HTTPException(413, self.too_large)
            return message

        return counted

    @staticmethod
    def _strict(send: Send) -> Send:
        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        return strict


def foreign(headers: Headers) -> bool:
    """Whether a browser says that another site asks."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
