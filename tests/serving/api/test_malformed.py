"""Who speaks no protocol, half of one, or a broken one: connections end in time, memory stays, nobody else notices, and nothing is let in."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import tracemalloc
from contextlib import AsyncExitStack

import grpc
from serving_fake import FakeService, decision, running
from websockets.asyncio.client import connect

from streamingvlm.serving.api import listen, rpc
from streamingvlm.serving.results import Results

SHAKE = (b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
         b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED,
           grpc.StatusCode.RESOURCE_EXHAUSTED}
METHODS = ("/streamingvlm.v1.Analytics/Analyse", "/streamingvlm.v1.Analytics/Watch", "/streamingvlm.v1.Analytics/Cameras")
CROWD = 200


async def until(said, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not said():
            await asyncio.sleep(0.02)


def frame(chance: random.Random) -> bytes:
    """A WebSocket frame that may be anything: of no kind, unmasked, longer than it says, of half a letter."""
    first, body = chance.randrange(256), chance.randbytes(chance.choice((0, 1, 7, 125, 200)))
    told = chance.choice((len(body), 0, 2**15, 2**62))
    length = bytes([told]) if told < 126 else b"\x7e" + told.to_bytes(2, "big") if told < 2**16 else b"\x7f" + told.to_bytes(8, "big")
    masked = chance.random() < 0.7
    return bytes([first, length[0] | 0x80 * masked]) + length[1:] + (chance.randbytes(4) if masked else b"") + body


async def told(port: int, *said: bytes, seconds: float = 10.0, ends: bool = True) -> bytes:
    """Say something to a port, and read until the other side ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(seconds):
            for part in said:
                writer.write(part)
                await writer.drain()
            if ends:
                writer.write_eof()
            return await reader.read()
    except OSError:  # it was let go while it still spoke
        return b""
    finally:
        writer.transport.abort()


def test_broken_messages_end_their_connection_and_nothing_else(pytestconfig, caplog):
    many = pytestconfig.getoption("examples") or 60
    chance = random.Random(pytestconfig.getoption("examples"))

    async def run():
        service = FakeService()
        async with running(service) as (client, address), connect(f"{address}/ws") as reader:
            port, answers = client.base_url.port, []
            for k in range(many):
                noise = chance.randbytes(chance.choice((1, 40, 3000)))
                said = [SHAKE, *(frame(chance) for _ in range(chance.randrange(1, 5)))] if k % 3 else [noise]
                answers.append(await told(port, *said))
            assert all(b"Traceback" not in answer and b"File \"" not in answer for answer in answers)
            assert all(answer.startswith(b"HTTP/1.1 101") for answer in answers[1::3]) and not any(b" 200 " in answer[:40] for answer in answers)
            await until(lambda: len(service.results.depths()) == 1)
            service.results.publish(decision("door", 1))
            assert json.loads(await asyncio.wait_for(reader.recv(), 20))["frame"] == 1 and not service.pushed

    asyncio.run(run())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info]


def test_broken_grpc_messages_are_a_status_and_never_a_traceback(pytestconfig, caplog):
    many = pytestconfig.getoption("examples") or 60
    chance = random.Random(pytestconfig.getoption("examples"))

    async def run():
        service = FakeService()
        async with rpc.answering(service, "127.0.0.1", 0) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            codes = set()
            for k in range(many):
                messages = [chance.randbytes(chance.choice((1, 8, 300))) for _ in range(2)]
                try:
                    call = channel.stream_stream(METHODS[k % 2])(iter(messages), timeout=2)
                    await call.read()
                except grpc.aio.AioRpcError as error:
                    if k % 2 and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                        continue  # bytes that are a wish to watch all there is, and nothing comes
                    codes.add(error.code())
                    assert "Traceback" not in error.details() and "Error(" not in error.details(), error.details()
                if k % 3 == 0:
                    answer = await told(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + messages[0], *messages)
                    assert b"Traceback" not in answer
            assert codes and codes <= REFUSED and not service.pushed
            assert len(await channel.unary_unary(METHODS[2])(b"")) > 50, "it goes on"

    asyncio.run(run())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_who_begins_and_does_not_go_on_is_let_go(monkeypatch):
    monkeypatch.setattr(listen, "ASK_S", 0.5)
    head = b"POST /api/cameras HTTP/1.1\r\nHost: localhost\r\n"
    halves = (b"", b"G", b"GET /api/stats HTTP/1.1\r\nHost: loc", head, head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
              b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api")

    async def run():
        async with running(FakeService()) as (client, _):
            port = client.base_url.port
            answers = await asyncio.gather(*(told(port, half, ends=False, seconds=20) for half in halves * 10))
            assert all(b"Traceback" not in answer for answer in answers) and answers[5].startswith(b"HTTP/1.1 200")
            grown = await told(port, head, *(b"X-%d: %s\r\n" % (k, b"x" * 8000) for k in range(40)), ends=False, seconds=20)
            assert not grown or b" 400 " in grown[:40], "a head is limited"
            assert (await client.get("/healthz")).status_code == 200

    asyncio.run(run())


def test_a_crowd_that_does_not_read_costs_no_memory_and_leaves_nothing_behind():
    """Two hundred at once: quick ones, ones that never read, ones whose other end is gone without a word."""

    async def run():
        service, long = FakeService(), decision("door", 0, action="walk" * 500)
        service.results = Results(kept=64, queued=64)
        async with running(service) as (client, address), AsyncExitStack() as stack:
            quick = await stack.enter_async_context(connect(f"{address}/ws"))
            crowd = await asyncio.gather(*(connect(f"{address}/ws", max_queue=1) for _ in range(CROWD - 1)))
            await until(lambda: len(service.results.depths()) == CROWD)
            grown = []
            tracemalloc.start()
            for frames in (range(100), range(100, 200), range(200, 300)):
                for number in frames:
                    service.results.publish(long | {"frame": number})
                    if number % 50 == 49:
                        got = [json.loads(await asyncio.wait_for(quick.recv(), 30))["frame"] for _ in range(50)]
                        assert got == list(range(number - 49, number + 1))
                gc.collect()
                grown.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
            assert max(service.results.depths()) <= 64 and grown[2] - grown[1] < 2**20, grown
            for reader in crowd:
                reader.transport.abort()
            await until(lambda: len(service.results.depths()) == 1)
            assert (await client.get("/healthz")).status_code == 200

    asyncio.run(run())
