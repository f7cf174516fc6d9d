"""WebSockets: records as JSON, previews as binary messages. A slow reader holds nobody up: records it misses are counted, pictures just left out.

    /ws?since=&streams=&types=             {"seq", "type", …}, one a message; {"type": "missed", "count": n} where some were left out
    /ws/pictures?streams=&fps=             4 bytes, big-endian: length of a JSON header; the header {"stream", "frame", "pts_s"}; a JPEG

What is wrong with a request is said in a message, {"error": "…"}, before the socket closes (1008): a browser shows no other answer to its script.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Coroutine

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api.parameters import PicturesQuery, WatchQuery, chosen, reachable, read
from streamingvlm.serving.privacy.redactor import Redacted, jpeg_of
from streamingvlm.serving.service import Service

router = APIRouter()
LOOKED_AT_S = 3.0


@router.websocket("/ws")
async def watch(socket: WebSocket) -> None:
    await _serve(socket, _records)


@router.websocket("/ws/pictures")
async def pictures(socket: WebSocket) -> None:
    await _serve(socket, _pictures)


async def _serve(socket: WebSocket, send: Callable[[WebSocket, Service], Coroutine]) -> None:
    """Send until the other side leaves. What it says is read and ignored: else its leaving would not be seen."""
    await socket.accept()
    sending = asyncio.ensure_future(send(socket, socket.scope["service"]))
    leaving = asyncio.ensure_future(_left(socket))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    except UserError as error:
        await socket.send_json({"error": str(error)})
        await socket.close(1008)
    except WebSocketDisconnect:
        pass
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


async def _left(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _records(socket: WebSocket, service: Service) -> None:
    query = read(WatchQuery, socket.query_params)
    streams = chosen(query.streams, service)
    types = query.types.split(",") if query.types else None
    async with service.results.subscribe(streams, types, reachable(query.since, service)) as records:
        async for record in records:
            await socket.send_text(record.json)


async def _pictures(socket: WebSocket, service: Service) -> None:
    query = read(PicturesQuery, socket.query_params)
    chosen(query.streams, service)
    wanted, sent = query.streams and query.streams.split(","), {}
    while True:
        names = wanted or [camera["id"] for camera in service.cameras()]
        service.want_pictures(names, LOOKED_AT_S)
        for name in names:
            found = service.picture(name)
            if found is None or sent.get(name) == found[0]["frame"]:
                continue
            sent[name] = found[0]["frame"]
            await socket.send_bytes(packed(*found))
        await asyncio.sleep(1 / query.fps)


def packed(stamp: dict, picture: Redacted) -> bytes:
    header = json.dumps(stamp, separators=(",", ":")).encode()
    return struct.pack(">I", len(header)) + header + jpeg_of(picture)
