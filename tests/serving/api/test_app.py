"""The doors of HTTP against a real server: what is asked is answered, what is wrong is one sentence."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest
from serving_fake import JPEG, FakeService, alarm, comment, decision, running

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api.app import application
from streamingvlm.serving.api.listen import listening
from streamingvlm.serving.privacy.redactor import stored

SDP = {"Content-Type": "application/sdp"}
OFFER = b"v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
JSON = {"Content-Type": "application/json"}
WRONG = [  # method, path, headers, body, status, what the sentence has to name
    ("GET", "/nope", {}, b"", 404, "/nope"),
    ("PUT", "/api/cameras", {}, b"", 405, "PUT"),
    ("GET", "/api/results?sinse=3", {}, b"", 422, "limit, since, streams, types"),
    ("GET", "/api/results?since=9007199254740990", {}, b"", 422, "future"),
    ("GET", "/api/results?since=-1", {}, b"", 422, "since"),
    ("GET", "/api/results?since=1e400", {}, b"", 422, "since"),
    ("GET", "/api/results?limit=100000", {}, b"", 422, "limit"),
    ("GET", "/api/results?streams=door,roof", {}, b"", 404, "roof"),
    ("GET", "/api/results?streams=door,", {}, b"", 422, "streams"),
    ("GET", "/api/results?types=decision,gossip", {}, b"", 422, "gossip"),
    ("GET", "/api/results?streams=" + "x" * 5000, {}, b"", 422, "streams"),
    ("GET", "/api/history?from=yesterday", {}, b"", 422, "from"),
    ("GET", "/api/history?from=nan", {}, b"", 422, "from"),
    ("GET", "/api/history", {}, b"", 404, "stores nothing"),
    ("GET", "/api/alarms?limit=0", {}, b"", 422, "limit"),
    ("GET", "/api/alarms/17.jpg", {}, b"", 404, "17"),
    ("GET", "/api/cameras/roof/picture.jpg", {}, b"", 404, "roof"),
    ("POST", "/api/cameras", {"Content-Type": "application/json"}, b"{", 422, "JSON"),
    ("POST", "/api/cameras", {"Content-Type": "application/json"}, b"[1]", 422, "body"),
    ("POST", "/api/cameras", {"Content-Type": "application/json"}, b"\xff\xfe", 422, "JSON"),
    ("POST", "/api/cameras", {"Content-Type": "application/json"}, b'{"name": "roof", "path": "x"}', 422, "`url`"),
    ("POST", "/api/cameras", {"Content-Type": "application/json"}, b'{"name": "door", "url": "x"}', 409, "already"),
    ("POST", "/api/cameras", {"Content-Type": "application/json"}, b'{"name": "roof", "url": "bug"}', 500, "log"),
    ("POST", "/api/cameras", {"Content-Type": "text/plain"}, b'{"name": "roof", "url": "x"}', 422, "body"),
    ("DELETE", "/api/cameras/roof", {}, b"", 404, "roof"),
    ("POST", "/api/cameras/roof/ask", JSON, b'{"question": "who?"}', 404, "roof"),
    ("POST", "/api/cameras/yard/ask", JSON, b'{"question": "who?"}', 409, "Nobody comments"),
    ("POST", "/api/cameras/door/ask", JSON, b'{"question": ""}', 422, "question"),
    ("POST", "/api/cameras/door/ask", JSON, b'{"question": "who?", "options": [""]}', 422, "at least 1"),
    ("POST", "/whip/door", {"Content-Type": "text/plain"}, OFFER, 415, "application/sdp"),
    ("POST", "/whip/door", SDP, b"hello", 422, "v=0"),
    ("POST", "/whip/door", SDP, b"v=0\xff", 422, "UTF-8"),
    ("POST", "/whip/roof", SDP, OFFER, 404, "roof"),
    ("DELETE", "/whip/door/s9", {}, b"", 404, "s9"),
    ("GET", "/static/../app.py", {}, b"", 404, "app.py"),
    ("GET", "/static/%2e%2e/app.py", {}, b"", 404, "app.py"),
    ("POST", "/api/cameras", {"Origin": "http://elsewhere.example"}, b"{}", 403, "another site"),
    ("DELETE", "/api/cameras/door", {"Origin": "null"}, b"", 403, "another site"),
    ("POST", "/api/cameras", {"Content-Type": "application/json"}, b"x" * 300_000, 413, "256 KiB"),
]


def test_what_is_wrong_is_one_sentence_and_never_a_traceback():
    async def run():
        async with running(FakeService()) as (client, _):
            for method, path, headers, body, status, named in WRONG:
                answer = await client.request(method, path, headers=headers, content=body)
                said = answer.json()
                assert answer.status_code == status and set(said) == {"error"} and named in said["error"], (method, path, answer.text)
                assert re.fullmatch(r"[^\n]{10,200}[.]", said["error"]) and "Traceback" not in answer.text and "a secret" not in answer.text
            assert [camera["id"] for camera in (await client.get("/api/cameras")).json()] == ["door", "yard"], "and nothing was done"

    asyncio.run(run())


def test_a_body_that_does_not_say_its_length_is_limited_too():
    async def pieces():
        for _ in range(10):
            yield b"x" * 65536

    async def run():
        async with running(FakeService()) as (client, _):
            for path in ("/api/cameras", "/whip/door"):
                answer = await client.post(path, content=pieces(), headers=SDP if "whip" in path else {"Content-Type": "application/json"})
                assert answer.status_code == 413 and "256 KiB" in answer.json()["error"], path

    asyncio.run(run())


def test_results_are_resumed_where_a_reader_was():
    async def run():
        service = FakeService()
        async with running(service) as (client, _):
            for frame in range(20):
                service.results.publish(decision("door", frame))
                service.results.publish(comment("yard", frame))
            got, seq = [], 0
            while (page := (await client.get("/api/results", params={"since": seq, "limit": 7, "streams": "door"})).json())["records"]:
                got += page["records"]
                seq = got[-1]["seq"]
                assert page["missed"] == 0 and page["newest"] == service.results.newest
            assert [record["frame"] for record in got] == list(range(20))
            talk = (await client.get("/api/results?types=comment,alarm")).json()["records"]
            assert [record["chunk"] for record in talk] == list(range(20))

    asyncio.run(run())


def test_cameras_come_and_go_and_are_looked_at():
    async def run():
        service = FakeService()
        async with running(service) as (client, _):
            added = await client.post("/api/cameras", json={"name": "roof", "url": "pattern:"}, headers={"Origin": str(client.base_url)})
            assert added.status_code == 201 and added.json()["id"] == "roof"
            seen = await client.get("/api/cameras/roof/picture.jpg")
            assert seen.content == JPEG and seen.headers["content-type"] == "image/jpeg" and service.looked_at == ["roof"]
            assert (await client.delete("/api/cameras/roof")).status_code == 204
            assert len((await client.get("/api/cameras")).json()) == 2 and (await client.get("/api/stats")).json()["processes"]["analytics"]["alive"]
            assert (await client.get("/healthz")).json()["cameras"] == {"door": "live", "yard": "live"}
            service.alive = False
            sick = await client.get("/healthz")
            assert sick.status_code == 503 and "analytics process" in sick.json()["error"] and sick.json()["cameras"]["door"] == "live"

    asyncio.run(run())


def test_a_camera_is_asked():
    async def run():
        async with running(FakeService()) as (client, _):
            answer = await client.post("/api/cameras/door/ask", json={"question": "who is there?", "options": ["a car", "nobody"]})
            assert answer.status_code == 200 and answer.json()["text"] == "a car" and answer.json()["question"] == "who is there?"

    asyncio.run(run())


def test_alarms_newest_first_with_their_pictures():
    async def run():
        service = FakeService()
        async with running(service) as (client, _):
            for frame, stream in enumerate(("door", "yard", "door")):
                service.results.publish(alarm(stream, frame), stored(JPEG + b"%d" % frame))
            found = (await client.get("/api/alarms")).json()
            assert [record["frame"] for record in found] == [2, 1, 0]
            assert [record["frame"] for record in (await client.get("/api/alarms?stream=door&limit=1")).json()] == [2]
            picture = await client.get(f"/api/alarms/{found[1]['picture']}.jpg")
            assert picture.content == JPEG + b"1"

    asyncio.run(run())


def test_whip_hands_the_offer_on_and_the_answer_back():
    async def run():
        service = FakeService()
        async with running(service) as (client, _):
            answer = await client.post("/whip/door", content=OFFER, headers={"Content-Type": "application/SDP; charset=utf-8"})
            assert answer.status_code == 201 and answer.text.startswith("v=0") and answer.headers["content-type"].startswith("application/sdp")
            assert service.sessions == {"door~s1": OFFER.decode()}
            assert (await client.delete(answer.headers["location"])).status_code == 204 and not service.sessions

    asyncio.run(run())


def test_a_browser_is_kept_strict_and_two_services_apart():
    async def run():
        one, other = FakeService(), FakeService()
        one.results.publish(decision("door", 0))
        async with running(one) as (client, _), running(other) as (second, _):
            answer = await client.get("/api/cameras")
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy and "unsafe" not in policy and answer.headers["x-content-type-options"] == "nosniff"
            assert "server" not in answer.headers
            for path, kind in (("/", "text/html"), ("/static/app.js", "text/javascript"), ("/static/style.css", "text/css")):
                part = await client.get(path)
                assert part.status_code == 200 and part.headers["content-type"].startswith(kind) and part.headers["cache-control"] == "no-cache"
                assert part.headers["content-security-policy"] == policy
            assert len((await client.get("/api/results")).json()["records"]) == 1 and not (await second.get("/api/results")).json()["records"]
            described = (await client.get("/api/openapi.json")).json()
            assert {"/api/cameras", "/api/results", "/whip/{name}", "/healthz", "/metrics"} <= set(described["paths"]) and json.dumps(described)

    asyncio.run(run())


def test_a_port_in_use_is_one_sentence():
    async def run():
        async with running(FakeService()) as (client, _):
            with pytest.raises(UserError, match=r"choose another port\.$"):
                async with listening(application(FakeService()), "127.0.0.1", client.base_url.port):
                    pass
            with pytest.raises(UserError, match=r"Can't listen at nowhere\.invalid"):
                async with listening(application(FakeService()), "nowhere.invalid", 0):
                    pass
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{client.base_url}/healthz")

    asyncio.run(run())
