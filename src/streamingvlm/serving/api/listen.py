"""Run an application in the event loop that is there already. Knows uvicorn's settings, no route.

    async with listening(application(service), "127.0.0.1", 8000) as address: ...       # http://127.0.0.1:8000
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamingvlm.base.errors import UserError

MOST = 500  # connections: fewer than a process may have files open
ASK_S = 20.0  # from a connection, or the first of a request, to the last byte of its body
PING_S = 20.0  # a WebSocket whose other end is gone without a word is closed after two of these


class _Patient(H11Protocol):
    """HTTP by h11, which limits how long a request's head may be, and with an end to patience: a connection that begins a request, or its body, and
    does not go on is closed, or a few hundred of them would keep everybody else out."""

    _over: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._over:
            self._over.cancel()

    def _look(self) -> None:
        asked = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if asked and self._over:
            self._over.cancel()
            self._over = None
        elif not asked and not self._over:
            self._over = self.loop.call_later(ASK_S, self._close)

    def _close(self) -> None:
        self._over = None
        if self.transport.get_protocol() is self:  # else it is a WebSocket by now
            self.transport.close()


@dataclass(frozen=True)
class Tls:
    """Files in PEM: the certificate with those it hangs on, and its key."""

    certificate: str
    key: str

    def checked(self) -> Tls:
        """Itself. UserError where the files are none or do not belong together."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or "they can't be read"
            raise UserError(f"`access.certificate` and `access.key` are no certificate and its key ({reason}): name two files in PEM.") from None
        return self

    def grpc(self):
        import grpc

        return grpc.ssl_server_credentials([(Path(self.key).read_bytes(), Path(self.certificate).read_bytes())])


def _fit_for_a_log(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says neither an address with all that is in it, which may be a token where none belongs, nor that a refusal is a
    fault."""
    said = str(record.msg)
    return '"WebSocket %s"' not in said and not said.startswith("ASGI callable returned without completing handshake")


class _Server(uvicorn.Server):
    """Ctrl-C is for the command to answer, which ends this server as well."""

    @contextmanager
    def capture_signals(self):
        yield


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int, tls: Tls | None = None, proxy: str = "") -> AsyncIterator[str]:
    """Serve inside the block -> its address. `port` 0: any that is free. `proxy`: whose word on who is behind it counts. UserError where the port is
    taken."""
    door = bound(host, port)
    logging.getLogger("uvicorn.error").addFilter(_fit_for_a_log)  # once, however often it is said
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, http=_Patient, lifespan="off", timeout_graceful_shutdown=2,
                            ws_ping_interval=PING_S, ws_ping_timeout=PING_S, ws_max_size=64 * 1024, ws_max_queue=4, ws_per_message_deflate=False,
                            h11_max_incomplete_event_size=32 * 1024, limit_concurrency=MOST,
                            proxy_headers=bool(proxy), forwarded_allow_ips=proxy or None,
                            ssl_certfile=tls and tls.certificate, ssl_keyfile=tls and tls.key)
    server = _Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[door]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if task.done():
            task.result()
        shown = f"[{host}]" if ":" in host else host
        yield f"http{'s' if tls else ''}://{shown}:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        door.close()


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. UserError where the port is taken or the host is not this machine's."""
    door = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        door = socket.socket(family, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(256)
        return door
    except (OSError, OverflowError) as error:
        if door:
            door.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"Can't listen at {host}:{port} ({reason}): choose another port.") from None
