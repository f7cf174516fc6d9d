"""The doors of gRPC with a real server and the generated client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving_fake import JPEG, PICTURE, FakeService, alarm, comment, decision

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api import messages, rpc
from streamingvlm.serving.api.proto import generate
from streamingvlm.serving.api.proto import streamingvlm_pb2 as proto
from streamingvlm.serving.api.proto.streamingvlm_pb2_grpc import AnalyticsStub
from streamingvlm.serving.results import Results
from streamingvlm.serving.service import Busy

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@asynccontextmanager
async def called(service: FakeService) -> AsyncIterator[tuple[AnalyticsStub, grpc.aio.Channel]]:
    async with rpc.answering(service, "127.0.0.1", 0) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield AnalyticsStub(channel), channel


async def until(said, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not said():
            await asyncio.sleep(0.01)


def test_the_generated_code_is_that_of_the_contract(tmp_path):
    made = generate.generate(tmp_path)
    assert len(made) == 3
    for path in made:
        held = generate.PROTO.with_name(path.name)
        assert path.read_text() == held.read_text(), f"{held.name} is not of {generate.PROTO.name}: python -m streamingvlm.serving.api.proto.generate"


def test_every_kind_of_record_and_cameras_are_as_they_were_published():
    async def run():
        service = FakeService()
        service.results.publish(decision("door", 3))
        service.results.publish(comment("door", 1))
        service.results.publish(alarm("door", 4), PICTURE)
        service.results.publish({"type": "state", "stream": "yard", "state": "stalled", "reason": "No picture for 3 s.", "epoch": 2})
        async with called(service) as (stub, _):
            reader = stub.Watch(proto.WatchRequest(since=0))
            got = [await reader.read() for _ in range(4)]
            seen, said, raised, state = got
            assert [record.seq for record in got] == [record["seq"] for record in service.results.since(0)[0]] and seen.stream == "door"
            assert seen.decision.frame == 3 and seen.decision.boxes[0].label == "person" and seen.decision.boxes[0].y1 == 0.4
            assert dict(seen.decision.anomalies) == {"fall": 0.1} and dict(seen.decision.dropped_before) == {"stale": 1}
            assert seen.decision.ms["release"] == 30.0 and seen.decision.captured_by == "sender" and seen.decision.HasField("captured_at")
            assert said.comment.text == "left serves" and raised.alarm.on and raised.alarm.picture == str(raised.seq)
            assert state.state.reason == "No picture for 3 s." and state.WhichOneof("kind") == "state"
            cameras = (await stub.Cameras(proto.CamerasRequest())).cameras
            frames = cameras[0].frames
            assert getattr(frames, "in") == frames.decided + frames.in_flight + sum(frames.dropped.values()) == 10
            assert [camera.id for camera in cameras] == ["door", "yard"] and cameras[0].latency_ms["p99"] == 90.0

    asyncio.run(run())


def test_watching_resumes_filters_and_ends_with_its_caller():
    async def run():
        service = FakeService()
        results = service.results
        for frame in range(10):
            results.publish(decision("door", frame))
        async with called(service) as (stub, _):
            resumed = stub.Watch(proto.WatchRequest(since=results.oldest + 7, streams=["door"]))
            talk = stub.Watch(proto.WatchRequest(types=["comment"]))
            assert [(await resumed.read()).decision.frame for _ in range(3)] == [7, 8, 9]
            await until(lambda: len(results.depths()) == 2)
            for frame in range(10, 13):
                results.publish(decision("door", frame))
                results.publish(comment("yard", frame))
            assert [(await resumed.read()).decision.frame for _ in range(3)] == [10, 11, 12]
            assert [(await talk.read()).comment.chunk for _ in range(3)] == [10, 11, 12]
            resumed.cancel()
            await until(lambda: len(results.depths()) == 1)
        await until(lambda: not results.depths())

    asyncio.run(run())


def test_a_reader_that_does_not_read_is_bounded_and_told():
    async def run():
        service = FakeService()
        results = service.results = Results(queued=64)
        async with called(service) as (stub, _):
            slow, quick = stub.Watch(proto.WatchRequest()), stub.Watch(proto.WatchRequest())
            await until(lambda: len(results.depths()) == 2)
            for frame in range(1000):
                results.publish(decision("door", frame, action="walk" * 5000))
                if frame % 50 == 49:
                    assert [(await quick.read()).decision.frame for _ in range(50)] == list(range(frame - 49, frame + 1))
            assert max(results.depths()) <= 64
            frames, missed = [], 0
            while not frames or frames[-1] < 999:
                record = await asyncio.wait_for(slow.read(), 20)
                if record.WhichOneof("kind") == "missed":
                    missed += record.missed.count
                else:
                    frames.append(record.decision.frame)
            assert missed and missed + len(frames) == 1000 and frames == sorted(frames)

    asyncio.run(run())


def test_frames_in_records_out_and_an_end():
    async def run():
        service = FakeService()
        service.watched["door"]["frames"] = {"in": 0, "decided": 0, "in_flight": 0, "dropped": {}}
        service.watched["door"]["delay_s"] = 0.0
        refusals = iter((False, True, True, False, False))
        push = service.push

        async def busy(*frame):
            if next(refusals, False):
                raise Busy("Frames come faster than they are read.")
            await push(*frame)

        service.push = busy
        rgb = proto.Rgb(width=2, height=1, pixels=bytes(6))

        async def frames():
            yield proto.FrameIn(stream="door", pts_s=0.0, jpeg=JPEG)
            yield proto.FrameIn(stream="door", pts_s=0.5, captured_at=1e9, rgb=rgb)
            yield proto.FrameIn(stream="door", pts_s=1.0, jpeg=JPEG)

        async with called(service) as (stub, _):
            service.results.publish(decision("yard", 0))
            got = [record async for record in stub.Analyse(frames())]
            assert [(record.stream, record.decision.pts_s) for record in got] == [("door", 0.0), ("door", 0.5), ("door", 1.0)]
            assert [pushed[2:] for pushed in service.pushed] == [(None, JPEG, None, None), (1e9, bytes(6), 2, 1), (None, JPEG, None, None)]
            assert service.results.depths() == []

    rpc_quiet, rpc.QUIET_S = rpc.QUIET_S, 0.2
    try:
        asyncio.run(run())
    finally:
        rpc.QUIET_S = rpc_quiet


def test_what_is_wrong_is_a_status_and_a_sentence():
    good = {"stream": "door", "pts_s": 1.0, "jpeg": JPEG}
    rgb = proto.Rgb(width=3, height=3, pixels=bytes(26))
    frames = [(good | {"stream": ""}, INVALID, "camera"), (good | {"stream": "roof"}, NOT_FOUND, "roof"), (good | {"jpeg": b""}, INVALID, "picture"),
              (good | {"pts_s": float("nan")}, INVALID, "pts_s"), (good | {"captured_at": float("inf")}, INVALID, "captured_at"),
              ({"stream": "door", "rgb": rgb}, INVALID, "27 bytes, not 26"), ({"stream": "door"}, INVALID, "picture"),
              ({"stream": "door", "rgb": proto.Rgb(width=2**31, height=2**31)}, INVALID, "picture")]
    watches = [({"streams": ["roof"]}, NOT_FOUND, "roof"), ({"types": ["gossip"]}, INVALID, "gossip"), ({"since": 2**60}, INVALID, "future"),
               ({"streams": [""]}, NOT_FOUND, "")]

    async def refused(call) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with asyncio.timeout(20):
                _ = [record async for record in call]
        return raised.value

    async def run():
        service = FakeService()
        async with called(service) as (stub, channel):
            for message, code, named in frames:
                error = await refused(stub.Analyse(iter([proto.FrameIn(**message)])))
                assert error.code() == code and named in error.details() and error.details().endswith("."), (message, error)
            for message, code, named in watches:
                error = await refused(stub.Watch(proto.WatchRequest(**message)))
                assert error.code() == code and named in error.details() and error.details().endswith("."), (message, error)
            large = await refused(stub.Analyse(iter([proto.FrameIn(stream="door", jpeg=bytes(rpc.LARGEST_BYTES + 1))])))
            assert large.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            service.cameras = lambda: 1 / 0
            with pytest.raises(grpc.aio.AioRpcError) as inside:
                await stub.Cameras(proto.CamerasRequest())
            assert inside.value.code() == grpc.StatusCode.INTERNAL and "log" in inside.value.details() and "division" not in inside.value.details()
            garbage = channel.unary_unary("/streamingvlm.v1.Analytics/Cameras")
            with pytest.raises(grpc.aio.AioRpcError) as unread:
                await garbage(b"\xff\xff\xff")
            assert "Traceback" not in unread.value.details()
        assert not service.pushed and not service.results.depths()

    asyncio.run(run())


def test_health_follows_the_analytics_process():
    async def run():
        service = FakeService()
        async with called(service) as (_, channel):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=rpc.NAMES[1]))
            kinds = health_pb2.HealthCheckResponse

            async def becomes(kind):
                async with asyncio.timeout(20):
                    while (await watch.read()).status != kind:
                        pass

            await becomes(kinds.SERVING)
            service.alive = False
            await becomes(kinds.NOT_SERVING)
            service.alive = True
            await becomes(kinds.SERVING)
            watch.cancel()

    asyncio.run(run())


def test_a_port_in_use_is_one_sentence():
    async def run():
        async with rpc.answering(FakeService(), "127.0.0.1", 0) as port:
            with pytest.raises(UserError, match=r"choose another port\.$"):
                async with rpc.answering(FakeService(), "127.0.0.1", port):
                    pass

    asyncio.run(run())


def test_every_field_of_the_contract_is_filled_from_records():
    known = {name: {field.name for field in message.DESCRIPTOR.fields} for name, message in messages.KINDS.items()}
    filled = {name: set(fields) for name, fields in messages.PLAIN.items()}
    filled["decision"].add("boxes")
    filled["alarm"].add("on")
    assert filled == known and {field.name for field in proto.Camera.DESCRIPTOR.fields} == set(messages.CAMERA)
