"""Before gRPC: what `access.door` is to HTTP. Every method of every servicer goes through it, and what it does not know is refused.

    grpc.aio.server(interceptors=[Calls(gate, lambda grant, asked: Analytics(Scoped(service, gate, grant, asked)))])

The token comes as metadata, `authorization: Bearer TOKEN`. Calls that stream end when their token is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc

from streamingvlm.serving.access import needs
from streamingvlm.serving.access.audit import Doing, Entry, Unwritten, refused
from streamingvlm.serving.access.gate import Denied, Gate, Grant, credentials

CODES = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED, 404: grpc.StatusCode.UNIMPLEMENTED,
         429: grpc.StatusCode.RESOURCE_EXHAUSTED}
OURS = "/streamingvlm.v1.Analytics/"


class Calls(grpc.aio.ServerInterceptor):
    """`servicer(grant, asked)`: the methods of `OURS` as the bearer sees them; `asked` gets the cameras that are named. Other services (health) are
    the server's own."""

    def __init__(self, gate: Gate, servicer: Callable[[Grant, set[str]], object]):
        self.gate, self.servicer = gate, servicer

    async def intercept_service(self, continuation, details: grpc.HandlerCallDetails):
        handler = await continuation(details)
        if handler is None:
            return grpc.unary_unary_rpc_method_handler(_nothing)
        method, need = details.method, needs.of("gRPC", details.method)
        said = [value for key, value in details.invocation_metadata or () if key.lower() == "authorization"]

        def methods(grant: Grant, asked: set[str]):
            return getattr(self.servicer(grant, asked), method.removeprefix(OURS)) if method.startswith(OURS) else None

        return _Guarded(self.gate, handler, method, need, token(said), methods).handler()


def token(said: list) -> str | None:
    kind, rest = credentials(said)
    return None if not said else rest if kind == "bearer" else ""


async def _nothing(request, context: grpc.aio.ServicerContext):
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "There is no such method.")


class _Guarded:
    """One call of a method: its token is looked at when it begins, with the caller's address at hand."""

    def __init__(self, gate: Gate, handler, method: str, need: needs.Need | None, said: str | None, methods: Callable):
        self.gate, self.inner, self.method, self.need, self.said, self.methods = gate, handler, method, need, said, methods

    def handler(self) -> grpc.RpcMethodHandler:
        inner = self.inner
        if inner.response_streaming:
            make = grpc.stream_stream_rpc_method_handler if inner.request_streaming else grpc.unary_stream_rpc_method_handler
            return make(self._many, inner.request_deserializer, inner.response_serializer)
        make = grpc.stream_unary_rpc_method_handler if inner.request_streaming else grpc.unary_unary_rpc_method_handler
        return make(self._one, inner.request_deserializer, inner.response_serializer)

    async def _admitted(self, context: grpc.aio.ServicerContext) -> Grant:
        address = _address(context.peer())
        try:
            return await self.gate.admit(self.said, self.need, address)
        except Denied as denied:
            self.gate.audit.note(refused(denied, address, f"gRPC {self.method}" if denied.grant else "gRPC"))
            await context.abort(CODES[denied.status], str(denied))

    @asynccontextmanager
    async def _written(self, context: grpc.aio.ServicerContext, grant: Grant, lasts: bool) -> AsyncIterator[set[str]]:
        """In the audit log from its beginning to its end -> where the cameras go that it turns out to be about."""
        doing = Doing(Entry(grant.name, grant.role, _address(context.peer()), f"gRPC {self.method}", "", "open"), "closed" if lasts else "cut off")
        try:
            async with self.gate.audit.during(doing, self.need.changes, lasts):
                try:
                    yield doing.cameras
                    doing.status = "OK"
                except grpc.aio.AbortError:
                    doing.status = context.code().name
                    raise
        except Unwritten as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def _one(self, request, context: grpc.aio.ServicerContext):
        grant = await self._admitted(context)
        async with self._written(context, grant, lasts=False) as asked:
            return await (self.methods(grant, asked) or self.inner.unary_unary or self.inner.stream_unary)(request, context)

    async def _many(self, request, context: grpc.aio.ServicerContext):
        grant = await self._admitted(context)
        async with self._written(context, grant, lasts=True) as asked:
            answers = (self.methods(grant, asked) or self.inner.unary_stream or self.inner.stream_stream)(request, context)
            items, coming = answers if hasattr(answers, "__anext__") else _by_itself(answers), None
            over = asyncio.ensure_future(self.gate.ended(grant))
            try:
                while True:
                    coming = asyncio.ensure_future(anext(items, None))
                    await asyncio.wait((coming, over), return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        await context.abort(CODES[401], "The token is over.")
                    if (item := coming.result()) is None:
                        return
                    yield item
            finally:
                for task in filter(None, (coming, over)):
                    task.cancel()
                await asyncio.gather(*filter(None, (coming, over)), return_exceptions=True)
                await items.aclose()


async def _by_itself(answering: Awaitable) -> AsyncIterator:
    """A method that writes its answers by itself, as one that hands them over."""
    await answering
    return
    yield


def _address(peer: str) -> str:
    """ipv4:192.0.2.7:5000 -> 192.0.2.7"""
    return peer.partition(":")[2].rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "") or peer
