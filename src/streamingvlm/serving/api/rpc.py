"""The doors of gRPC: watch records, hand frames in, list cameras, health. Knows `service.Service`; the messages are `proto/streamingvlm.proto`.

    async with answering(service, "127.0.0.1", 50051) as port: ...

    stub = streamingvlm_pb2_grpc.AnalyticsStub(grpc.aio.insecure_channel("127.0.0.1:50051"))
    async for record in stub.Watch(streamingvlm_pb2.WatchRequest(streams=["door"])): ...

A slow reader is held by gRPC's flow control and by its own bounded queue of records; a fast sender of frames by the same flow control.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from streamingvlm.base.errors import UserError
from streamingvlm.serving.access.calls import OURS, Calls
from streamingvlm.serving.access.gate import Denied, Gate
from streamingvlm.serving.access.scoped import Scoped
from streamingvlm.serving.api import messages
from streamingvlm.serving.api.listen import Tls
from streamingvlm.serving.api.parameters import chosen, reachable
from streamingvlm.serving.api.proto import streamingvlm_pb2 as proto
from streamingvlm.serving.api.proto import streamingvlm_pb2_grpc as proto_grpc
from streamingvlm.serving.results import TYPES
from streamingvlm.serving.service import Busy, Conflict, NotFound, Service

log = logging.getLogger(__name__)
LARGEST_BYTES = 8 << 20
OPTIONS = (("grpc.max_receive_message_length", LARGEST_BYTES), ("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 100),
           ("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1),
           ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000))
CODES = {NotFound: grpc.StatusCode.NOT_FOUND, Conflict: grpc.StatusCode.ALREADY_EXISTS, Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
         Denied: grpc.StatusCode.PERMISSION_DENIED}
QUIET_S = 1.0  # and a camera's delay: how long nothing may come after the last frame
BUSY_S, AGAIN_S = 10.0, 0.1
HEALTH_S = 0.5
NAMES = ("", "streamingvlm.v1.Analytics")


@asynccontextmanager
async def answering(service: Service, host: str, port: int, gate: Gate | None = None, tls: Tls | None = None) -> AsyncIterator[int]:
    """Serve inside the block -> the port. `port` 0: any that is free. `gate`: who may come in. UserError where the port is taken."""
    before = [Readable(), *([Calls(gate, lambda grant, asked: Analytics(Scoped(service, gate, grant, asked)))] if gate else [])]
    server, state = grpc.aio.server(options=OPTIONS, interceptors=before), health.aio.HealthServicer()
    proto_grpc.add_AnalyticsServicer_to_server(Analytics(service), server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    try:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        port = server.add_secure_port(place, tls.grpc()) if tls else server.add_insecure_port(place)
    except RuntimeError:
        raise UserError(f"Can't listen for gRPC at {host}:{port}: choose another port.") from None
    await server.start()
    watching = asyncio.ensure_future(_report(service, state))
    try:
        yield port
    finally:
        watching.cancel()
        await server.stop(grace=0.5)


async def _report(service: Service, state: health.aio.HealthServicer) -> None:
    """Healthy while decisions can be made."""
    kinds = health_pb2.HealthCheckResponse
    while True:
        alive = service.stats()["processes"].get("analytics", {}).get("alive", False)
        for name in NAMES:
            await state.set(name, kinds.SERVING if alive else kinds.NOT_SERVING)
        await asyncio.sleep(HEALTH_S)


@asynccontextmanager
async def _said(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """What goes wrong inside is a status and one sentence for the client; the traceback stays here."""
    try:
        yield
    except UserError as error:
        code = next((code for kind, code in CODES.items() if isinstance(error, kind)), grpc.StatusCode.INVALID_ARGUMENT)
        await context.abort(code, str(error))
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "A message is none of this method's: see streamingvlm.proto.")
    except (grpc.aio.AbortError, grpc.aio.UsageError):
        raise
    except Exception:
        log.exception("A gRPC call failed.")
        await context.abort(grpc.StatusCode.INTERNAL, "Something went wrong inside the service; its log says what.")


class Readable(grpc.aio.ServerInterceptor):
    """A message that is none comes to its method as None: grpc itself would fill the log with tracebacks, for whoever sends it."""

    async def intercept_service(self, continuation, details: grpc.HandlerCallDetails):
        handler = await continuation(details)
        if handler is None or handler.request_streaming or not handler.request_deserializer:  # a stream's are read inside the method
            return handler
        read, ours = handler.request_deserializer, details.method.startswith(OURS)

        def readable(data: bytes):
            try:
                return read(data)
            except DecodeError:
                return None if ours else read(b"")

        return handler._replace(request_deserializer=readable)


class Analytics(proto_grpc.AnalyticsServicer):
    def __init__(self, service: Service):
        self.service = service

    async def Cameras(self, request: proto.CamerasRequest, context: grpc.aio.ServicerContext) -> proto.CameraList:
        async with _said(context):
            return proto.CameraList(cameras=map(messages.of_camera, self.service.cameras()))

    async def Watch(self, request: proto.WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[proto.Record]:
        async with _said(context):
            if request is None:
                raise DecodeError
            streams = chosen(",".join(request.streams), self.service) if request.streams else None
            if wrong := [type_ for type_ in request.types if type_ not in TYPES]:
                raise UserError(f"types: must be some of {', '.join(TYPES)}, not {wrong[0][:40]!r}.")
            since = reachable(request.since, self.service) if request.HasField("since") else None
            async with self.service.results.subscribe(streams, list(request.types) or None, since) as records:
                async for record in records:
                    yield messages.of_record(record)

    async def Analyse(self, frames: AsyncIterator[proto.FrameIn], context: grpc.aio.ServicerContext) -> AsyncIterator[proto.Record]:
        async with _said(context):
            streams: set[str] = set()
            async with self.service.results.subscribe(streams) as records:
                pushing, coming = asyncio.ensure_future(self._push(frames, streams)), asyncio.ensure_future(anext(records))
                try:
                    while True:
                        waited = {coming} if pushing.done() else {coming, pushing}
                        await asyncio.wait(waited, timeout=self._quiet_s(streams) if pushing.done() else None, return_when=asyncio.FIRST_COMPLETED)
                        if pushing.done():
                            pushing.result()
                        if coming.done():
                            yield messages.of_record(coming.result())
                            coming = asyncio.ensure_future(anext(records))
                        elif pushing in waited or self._in_flight(streams):
                            continue
                        else:
                            return
                finally:
                    for task in (pushing, coming):
                        task.cancel()
                    await asyncio.gather(pushing, coming, return_exceptions=True)

    async def _push(self, frames: AsyncIterator[proto.FrameIn], streams: set[str]) -> None:
        """Hand frames on, no faster than they are taken. `streams`: those that were pushed to."""
        async for message in frames:
            frame = messages.frame(message)
            chosen(frame[0], self.service)
            streams.add(frame[0])
            until = time.monotonic() + BUSY_S
            while True:
                try:
                    await self.service.push(*frame)
                    break
                except Busy:
                    if time.monotonic() > until:
                        raise
                    await asyncio.sleep(AGAIN_S)

    def _quiet_s(self, streams: set[str]) -> float:
        return QUIET_S + max((camera["delay_s"] for camera in self.service.cameras() if camera["id"] in streams), default=0.0)

    def _in_flight(self, streams: set[str]) -> int:
        return sum(camera["frames"]["in_flight"] for camera in self.service.cameras() if camera["id"] in streams)
