"""WebSockets with real sockets and several clients at once: in order, each what it asked for, and a slow one alone with its slowness."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import suppress

import pytest
import websockets
from serving_fake import JPEG, FakeService, alarm, comment, decision, running
from websockets.asyncio.client import connect

from streamingvlm.serving.results import Results


async def until(said, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not said():
            await asyncio.sleep(0.01)


async def take(reader, count: int) -> list[dict]:
    async with asyncio.timeout(20):
        return [json.loads(await reader.recv()) for _ in range(count)]


def test_each_reader_gets_what_it_asked_for_in_order_and_from_where_it_was():
    async def run():
        service = FakeService()
        results = service.results
        for frame in range(5):
            results.publish(decision("door", frame))
        async with (running(service) as (_, address), connect(f"{address}/ws") as everything,
                    connect(f"{address}/ws?streams=yard&types=alarm,comment") as yard):
            await until(lambda: len(results.depths()) == 2)
            async with connect(f"{address}/ws?since={results.oldest + 3}&streams=door") as resumed:
                await until(lambda: len(results.depths()) == 3)
                for frame in range(5, 20):
                    results.publish(decision("door", frame))
                    results.publish(comment("yard", frame))
                results.publish(alarm("yard", 20))
                assert [record["frame"] for record in await take(resumed, 17)] == list(range(3, 20))
                assert [record["type"] for record in await take(yard, 16)] == ["comment"] * 15 + ["alarm"]
                seen = await take(everything, 31)
                assert [record["seq"] for record in seen] == [results.oldest + 5 + i for i in range(1, 32)]
                plain = {key: value for key, value in seen[0].items() if key not in {"seq", "at"}}
                assert plain == decision("door", 5), "the record as it was published"
            await until(lambda: len(results.depths()) == 2)
        await until(lambda: not results.depths())

    asyncio.run(run())


def test_a_reader_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed():
    async def run():
        service = FakeService()
        results = service.results = Results(queued=64)
        long = decision("door", 0, action="walk" * 5000)  # more than what fits into the system's own buffers
        async with running(service) as (_, address), connect(f"{address}/ws", max_queue=1) as slow, connect(f"{address}/ws") as quick:
            await until(lambda: len(results.depths()) == 2)
            for frame in range(1000):
                results.publish(long | {"frame": frame})
                if frame % 50 == 49:
                    assert [record["frame"] for record in await take(quick, 50)] == list(range(frame - 49, frame + 1))
            assert max(results.depths()) <= results.queued
            frames, missed = [], 0
            while not frames or frames[-1] < 999:
                record = (await take(slow, 1))[0]
                missed += record["count"] if record["type"] == "missed" else 0
                frames += [record["frame"]] if record["type"] == "decision" else []
            assert missed and missed + len(frames) == 1000 and frames == sorted(frames)

    asyncio.run(run())


def test_pictures_are_the_newest_and_never_twice():
    async def run():
        service = FakeService()
        service.frame = 3
        async with running(service) as (_, address), connect(f"{address}/ws/pictures?streams=door&fps=30") as reader:
            frames = []
            for service.frame in (3, 4, 9):
                message = await asyncio.wait_for(reader.recv(), 20)
                length = struct.unpack(">I", message[:4])[0]
                header = json.loads(message[4 : 4 + length])
                assert header["stream"] == "door" and message[4 + length :] == JPEG
                frames.append(header["frame"])
            assert frames == [3, 4, 9]
            with suppress(TimeoutError):
                pytest.fail(f"a picture twice: {await asyncio.wait_for(reader.recv(), 0.2)}")
            assert service.looked_at == ["door"]

    asyncio.run(run())


def test_what_is_wrong_is_said_before_the_socket_closes():
    async def run():
        service = FakeService()
        async with running(service) as (_, address):
            for path, named in (("/ws?sinse=1", "since, streams, types"), ("/ws?since=9007199254740990", "future"), ("/ws?since=x", "since"),
                                ("/ws?streams=roof", "roof"), ("/ws?types=gossip", "gossip"), ("/ws/pictures?fps=1000", "fps"),
                                ("/ws/pictures?streams=roof", "roof"), ("/ws/pictures?since=1", "fps, streams")):
                async with connect(address + path) as reader:
                    said = json.loads(await reader.recv())
                    assert set(said) == {"error"} and named in said["error"] and said["error"].endswith("."), path
                    with pytest.raises(websockets.ConnectionClosedError) as closed:
                        await reader.recv()
                    assert closed.value.rcvd.code == 1008
            for path, origin, status in (("/ws", "http://elsewhere.example", 403), ("/nope", None, 403)):
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await connect(address + path, origin=origin)
                assert refused.value.response.status_code == status
            async with connect(f"{address}/ws", origin=address.replace("ws", "http", 1)) as reader:  # the service's own page
                await reader.send("I say things that nobody asked for")
                await until(service.results.depths)
                service.results.publish(decision("door", 1))
                assert (await take(reader, 1))[0]["frame"] == 1
                await reader.send("x" * 100_000)
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    await reader.recv()
                assert closed.value.rcvd.code == 1009
            await until(lambda: not service.results.depths())

    asyncio.run(run())


def test_a_camera_that_goes_ends_nobodys_connection():
    async def run():
        service = FakeService()
        async with running(service) as (client, address), connect(f"{address}/ws") as reader, connect(f"{address}/ws/pictures?fps=30") as pictures:
            await until(service.results.depths)
            await client.delete("/api/cameras/yard")
            service.results.publish(decision("door", 1))
            assert (await take(reader, 1))[0]["stream"] == "door"
            for service.frame in range(1, 4):
                assert await asyncio.wait_for(pictures.recv(), 20)

    asyncio.run(run())
