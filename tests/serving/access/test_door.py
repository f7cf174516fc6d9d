"""Nothing is open: every way in of HTTP, WebSockets and gRPC is tried without a right, and with it. What is secret shows nowhere."""

from __future__ import annotations

import asyncio
import base64
import datetime
import logging
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import httpx
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving_fake import JPEG, FakeService, alarm, comment, decision

from streamingvlm.base.errors import UserError
from streamingvlm.serving import cameras
from streamingvlm.serving.access import needs
from streamingvlm.serving.access.audit import Doing, Entry, Unwritten
from streamingvlm.serving.access.gate import Gate, loopback, required
from streamingvlm.serving.access.tokens import Tokens
from streamingvlm.serving.api import rpc
from streamingvlm.serving.api.app import application
from streamingvlm.serving.api.listen import Tls, listening
from streamingvlm.serving.api.proto import streamingvlm_pb2 as proto
from streamingvlm.serving.api.proto.streamingvlm_pb2_grpc import AnalyticsStub
from streamingvlm.serving.privacy.redactor import stored
from streamingvlm.serving.store import Store
from streamingvlm.serving.trials import trespass


class House:
    """A service behind a gate, with a token of every kind, running."""

    def __init__(self, folder, **access):
        never = {"per_s": 10_000, "burst": 100_000, "failures_per_minute": 10_000}
        self.access = cameras.Access(**never | {"tokens": str(folder / "access.sqlite")} | access)
        made, now = Tokens(self.access.tokens), time.time()
        self.keys = {name: made.add(name, role, of, None) for name, role, of in (
            ("reader", "read", ["door"]), ("all-reader", "read", None), ("operator", "operate", ["door"]), ("boss", "administer", None),
            ("revoked", "administer", None))}
        self.keys["expired"] = made.add("expired", "administer", None, now - 10, now - 20)
        made.revoke("revoked")
        self.tokens = made
        self.gate = Gate(self.access)
        self.service = FakeService(Store(str(folder / "records.sqlite")))
        self.service.results.listen(self.service.store.write)
        self.app = application(self.service, self.gate)

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"}

    @asynccontextmanager
    async def running(self):
        async with AsyncExitStack() as stack:
            self.address = await stack.enter_async_context(listening(self.app, "127.0.0.1", 0))
            self.port = await stack.enter_async_context(rpc.answering(self.service, "127.0.0.1", 0, self.gate))
            self.client = await stack.enter_async_context(httpx.AsyncClient(base_url=self.address, timeout=30))
            try:
                yield self
            finally:
                await asyncio.to_thread(self.gate.audit.flush)
                self.service.store.close()

    def trespassers(self) -> trespass.Keys:
        good = self.keys["boss"]
        number, secret = good.split("_", 2)[1:]
        wrong = {"revoked": self.keys["revoked"], "expired": self.keys["expired"], "empty": "", "of nobody": f"svlm_{'0' * 12}_{secret}",
                 "another's secret": f"svlm_{number}_{self.keys['reader'].split('_', 2)[2]}", "cut off": good[:-1], "with more": good + "A",
                 "in capitals": good.upper(), "too long": good * 50, "SQL": "' OR 1=1 --", "of zeros": "svlm_" + "0" * 12 + "_" + "0" * 43}
        none = {name: f"Bearer {text}".strip() for name, text in wrong.items()}
        none |= {"basic, wrong": "Basic " + base64.b64encode(b"boss:wrong").decode(), "basic, broken": "Basic %%%", "bare": good[5:]}
        return trespass.Keys(none, *(f"Bearer {self.keys[name]}" for name in ("reader", "all-reader", "operator")), good)


def test_nothing_gets_in_that_was_not_let_in_and_nothing_says_a_secret(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    for client in ("httpcore", "httpx", "websockets.client"):  # in this process too, and no part of the service
        caplog.set_level(logging.WARNING, client)
    house = House(tmp_path)

    async def run():
        async with house.running():
            tried = await trespass.trespass(house.address, house.port, house.app, house.trespassers(), one_in=3)
            texts = [(await house.client.get(path, headers=house.bearer("boss"))).text for path in ("/", "/metrics", "/healthz", "/api/stats")]
            return tried, texts

    tried, texts = asyncio.run(run())
    assert tried.served == []
    assert sum(tried.count.values()) >= 300 and min(tried.count[door] for door in ("HTTP", "WS", "gRPC")) >= 20, tried.count
    assert set(house.service.watched) == {"door", "yard"} and not house.service.sessions and not house.service.pushed, "and nothing was done"
    said = "".join([caplog.text, *texts, str(house.gate.audit.rows(limit=10_000))])
    for key in house.keys.values():
        assert key not in said and key.split("_", 2)[2][:12] not in said
    assert b"svlm_" not in (tmp_path / "access.sqlite").read_bytes(), "of a token only its hash is kept"


def test_every_way_in_is_on_the_list_and_opens_to_who_may(tmp_path):
    house = House(tmp_path)
    listed = [(method, path) for method, path in trespass.ways(house.app) if method != "HEAD"]
    assert all(needs.of(method, path) for method, path in listed) and len(listed) > 15

    async def run():
        async with house.running():
            for method, path in listed:
                if method == "WS":
                    async with websockets.connect(house.address.replace("http", "ws") + path, additional_headers=house.bearer("boss")):
                        continue
                answer = await house.client.request(method, path, headers=house.bearer("boss"))
                assert answer.status_code not in {401, 403, 429}, (method, path)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel:
                told = [("authorization", f"Bearer {house.keys['boss']}")]
                assert len((await AnalyticsStub(channel).Cameras(proto.CamerasRequest(), metadata=told)).cameras) == 1  # `door` was deleted above

    asyncio.run(run())


def test_who_sees_one_camera_sees_nothing_of_another(tmp_path):
    house = House(tmp_path)

    async def run():
        async with house.running():
            for frame, stream in enumerate(("door", "yard") * 3):
                house.service.results.publish(decision(stream, frame))
                house.service.results.publish(comment(stream, frame) | {"text": f"said of {stream}"})
                house.service.results.publish(alarm(stream, frame), stored(b"a picture of " + stream.encode()))
            await asyncio.to_thread(house.service.store.flush)
            mine, said = house.bearer("reader"), []
            for path in ("/api/cameras", "/api/results", "/api/alarms", "/api/history", "/healthz"):
                answer = await house.client.get(path, headers=mine)
                assert answer.status_code == 200 and "door" in answer.text
                said.append(answer.text)
            for record in house.service.results.since(0, ["door", "yard"], ["alarm"])[0]:
                answer = await house.client.get(f"/api/alarms/{record['picture']}.jpg", headers=mine)
                assert answer.status_code == (200 if record["stream"] == "door" else 404)
                house.service.results._pictures.clear()  # and of those that are stored
                answer = await house.client.get(f"/api/alarms/{record['picture']}.jpg", headers=mine)
                assert answer.status_code == (200 if record["stream"] == "door" else 404)
            async with websockets.connect(house.address.replace("http", "ws") + "/ws?since=0", additional_headers=mine) as socket:
                said += [await socket.recv() for _ in range(9)]
                house.service.results.publish(decision("yard", 99))
                house.service.results.publish(decision("door", 99))
                assert '"frame":99' in (last := await socket.recv())
            async with grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel:
                told = [("authorization", f"Bearer {house.keys['reader']}")]
                reader = AnalyticsStub(channel).Watch(proto.WatchRequest(since=0), metadata=told)
                said += [str(await reader.read()) for _ in range(9)]
            assert not [text for text in [*said, last] if "yard" in text]

    asyncio.run(run())


def test_a_token_that_is_revoked_ends_what_it_had_begun(tmp_path):
    house = House(tmp_path)

    async def run():
        async with house.running():
            told = house.bearer("operator")
            offered = await house.client.post("/whip/door", content=b"v=0\r\nm=video 9 X 96\r\n", headers=told | {"Content-Type": "application/sdp"})
            assert offered.status_code == 201 and house.service.sessions
            async with websockets.connect(house.address.replace("http", "ws") + "/ws", additional_headers=told) as socket, \
                    grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel:
                watching = AnalyticsStub(channel).Watch(proto.WatchRequest(), metadata=[("authorization", told["Authorization"])])
                waiting = asyncio.ensure_future(watching.read())
                await asyncio.sleep(0.1)
                await asyncio.to_thread(house.tokens.revoke, "operator")
                await house.gate.refresh()
                with pytest.raises(websockets.ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 20)
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await asyncio.wait_for(waiting, 20)
                assert ended.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert not house.service.sessions, "whoever pushed was hung up on"
            assert (await house.client.get("/api/cameras", headers=told)).status_code == 401

    asyncio.run(run())


def test_a_browser_asks_for_the_token_once(tmp_path):
    house = House(tmp_path)

    async def run():
        async with house.running():
            asked = await house.client.get("/")
            assert asked.status_code == 401 and asked.headers["www-authenticate"].startswith("Basic")
            first = await house.client.get("/", auth=("anybody", house.keys["reader"]))
            cookie = first.headers["set-cookie"]
            assert first.status_code == 200 and house.keys["reader"] not in cookie and {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
            held = {"Cookie": cookie.partition(";")[0]}
            assert [row["id"] for row in (await house.client.get("/api/cameras", headers=held)).json()] == ["door"]
            async with websockets.connect(house.address.replace("http", "ws") + "/ws", additional_headers=held):
                pass
            with pytest.raises(websockets.InvalidStatus):
                async with websockets.connect(house.address.replace("http", "ws") + "/ws", additional_headers=held | {"Origin": "http://elsewhere.example"}):
                    pass
            await asyncio.to_thread(house.tokens.revoke, "reader")
            await house.gate.refresh()
            assert (await house.client.get("/api/cameras", headers=held)).status_code == 401

    asyncio.run(run())


def test_too_many_requests_and_too_many_wrong_tokens_wait(tmp_path):
    house = House(tmp_path, per_s=0.01, burst=3, failures_per_minute=4)

    async def run():
        async with house.running():
            got = [await house.client.get("/healthz", headers=house.bearer("boss")) for _ in range(5)]
            assert [answer.status_code for answer in got] == [200, 200, 200, 429, 429] and int(got[-1].headers["retry-after"]) > 1
            wrong = [(await house.client.get("/healthz", headers={"Authorization": f"Bearer {k}"})).status_code for k in range(5)]
            assert wrong == [401, 401, 401, 429, 429], "the first try of a good one counted too"
            assert (await house.client.get("/healthz", headers=house.bearer("reader"))).status_code == 429, "nor is it tried what else is right"

    asyncio.run(run())


def test_what_was_done_is_written_down_before_it_is_done(tmp_path):
    house = House(tmp_path)

    async def run():
        async with house.running():
            assert (await house.client.delete("/api/cameras/door", headers=house.bearer("operator"))).status_code == 204
            for _ in range(3):
                await house.client.get("/api/results?streams=yard", headers=house.bearer("all-reader"))
            await house.client.get("/api/cameras", headers={"Authorization": "Bearer wrong"})
            rows = await asyncio.to_thread(house.gate.audit.rows)
            told = {(row["who"], row["what"], row["cameras"], row["status"]): row["count"] for row in rows}
            assert told == {("operator", "DELETE /api/cameras/door", "door", "204"): 1, ("all-reader", "GET /api/results", "yard", "200"): 3,
                            ("nobody", "GET", "", "401"): 1}
            house.gate.audit.engine.dispose()
            (tmp_path / "access.sqlite").unlink()
            for leftover in tmp_path.glob("access.sqlite-*"):
                leftover.unlink()
            (tmp_path / "access.sqlite").mkdir()
            refused = await house.client.delete("/api/cameras/yard", headers=house.bearer("boss"))
            assert refused.status_code in {401, 503} and "yard" in house.service.watched

    asyncio.run(run())


def test_whatever_happens_a_row_ends_and_names_its_cameras(tmp_path):
    house = House(tmp_path)

    house.service.watched["door"]["frames"]["in_flight"] = 0  # so that nothing is waited for behind the last frame

    async def broken(name: str) -> None:
        raise ZeroDivisionError(name)

    house.service.remove = broken

    async def frames():
        yield proto.FrameIn(stream="door", pts_s=1.0, jpeg=JPEG)

    async def run():
        async with house.running():
            for camera in ({"name": "roof", "url": "bug"}, {"name": "shed", "url": "push:"}):
                await house.client.post("/api/cameras", json=camera, headers=house.bearer("boss"))
            assert (await house.client.delete("/api/cameras/yard", headers=house.bearer("boss"))).status_code == 500
            with pytest.raises(Unwritten), pytest.MonkeyPatch.context() as patched:
                patched.setattr(house.gate.audit, "change", lambda entry: (_ for _ in ()).throw(Unwritten("The disk is full.")))
                async with house.gate.audit.during(Doing(Entry("", "", "", "", "", "")), changes=True):
                    pytest.fail("It was done, and nobody knows.")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel:
                stub, told = AnalyticsStub(channel), [("authorization", f"Bearer {house.keys['operator']}")]
                async with asyncio.timeout(20):
                    assert [_ async for _ in stub.Analyse(frames(), metadata=told)]
                watching = stub.Watch(proto.WatchRequest(streams=["door"], since=0), metadata=told)
                await watching.read()
                watching.cancel()
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Watch(proto.WatchRequest(streams=["yard"]), metadata=told).read()
            ours = "gRPC /streamingvlm.v1.Analytics/"
            wanted = {("boss", "POST /api/cameras", "roof", "403"), ("boss", "POST /api/cameras", "shed", "201"),
                      ("boss", "it hides people", "shed", "added"),
                      ("boss", "DELETE /api/cameras/yard", "yard", "500"),
                      ("operator", ours + "Analyse", "door", "OK"), ("operator", ours + "Watch", "", "open"),
                      ("operator", ours + "Watch", "door", "closed"), ("operator", ours + "Watch", "", "NOT_FOUND")}
            for _ in range(400):  # ends are written behind the answer
                rows = {tuple(row[key] for key in ("who", "what", "cameras", "status")) for row in house.gate.audit.rows()}
                if rows == wanted:
                    break
                await asyncio.sleep(0.05)
            assert rows == wanted

    asyncio.run(run())


def test_who_may_read_watches_its_health_until_its_token_is_over(tmp_path):
    house = House(tmp_path)

    async def run():
        async with house.running(), grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel:
            stub, told = health_pb2_grpc.HealthStub(channel), [("authorization", f"Bearer {house.keys['reader']}")]
            before = len(asyncio.all_tasks())
            for _ in range(3):
                watching = stub.Watch(health_pb2.HealthCheckRequest(), metadata=told)
                assert (await asyncio.wait_for(watching.read(), 20)).status == health_pb2.HealthCheckResponse.SERVING
                watching.cancel()
            watching = stub.Watch(health_pb2.HealthCheckRequest(), metadata=told)
            await asyncio.wait_for(watching.read(), 20)
            await asyncio.to_thread(house.tokens.revoke, "reader")
            await house.gate.refresh()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await asyncio.wait_for(watching.read(), 20)
            assert ended.value.code() == grpc.StatusCode.UNAUTHENTICATED
            async with asyncio.timeout(20):
                while len(asyncio.all_tasks()) > before:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_without_access_it_listens_to_this_machine_alone_and_under_its_own_name(tmp_path):
    assert loopback("127.0.0.1") and loopback("::1") and loopback("localhost") and not loopback("0.0.0.0") and not loopback("example.org")
    required(cameras.Service())
    with pytest.raises(UserError, match="no access is set up"):
        required(cameras.Service(host="0.0.0.0"))
    with pytest.raises(UserError, match="without TLS"):
        required(cameras.Service(host="::", access=cameras.Access()))
    required(cameras.Service(host="0.0.0.0", access=cameras.Access(proxy="10.0.0.2")))

    async def run():
        service = FakeService()
        async with listening(application(service), "127.0.0.1", 0) as address, httpx.AsyncClient(base_url=address) as client:
            assert (await client.get("/api/cameras")).status_code == 200
            rebound = {"Host": "rebound.example:80", "Origin": "http://rebound.example:80"}
            assert (await client.get("/api/cameras", headers=rebound)).status_code == 403

    asyncio.run(run())


def self_signed(folder) -> Tls:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    made = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "c.pem").write_bytes(made.public_bytes(pem))
    (folder / "k.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return Tls(str(folder / "c.pem"), str(folder / "k.pem")).checked()


def test_with_a_certificate_nothing_is_said_in_the_clear(tmp_path):
    house, tls = House(tmp_path), self_signed(tmp_path)
    with pytest.raises(UserError, match="PEM"):
        Tls(str(tmp_path / "k.pem"), str(tmp_path / "none.pem")).checked()

    async def run():
        trusted = ssl.create_default_context(cafile=tls.certificate)
        async with listening(house.app, "127.0.0.1", 0, tls) as address, rpc.answering(house.service, "127.0.0.1", 0, house.gate, tls) as port:
            place = address.replace("127.0.0.1", "localhost")
            async with httpx.AsyncClient(verify=trusted, base_url=place) as client:
                greeted = await client.get("/", headers=house.bearer("boss"))
                assert place.startswith("https://") and greeted.status_code == 200 and "Secure" in greeted.headers["set-cookie"]
                with pytest.raises(httpx.TransportError):
                    await client.get(place.replace("https", "http") + "/")
            async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials((tmp_path / "c.pem").read_bytes())) as channel:
                told = [("authorization", f"Bearer {house.keys['boss']}")]
                assert len((await AnalyticsStub(channel).Cameras(proto.CamerasRequest(), metadata=told)).cameras) == 2

    asyncio.run(run())
