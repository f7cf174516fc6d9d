"""The whole service over real sources and processes: every frame accounted for, in order, whatever dies. One service for all tests, in turn."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from browser import FOUND, NONE, Browser
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from publisher import Publisher

from streamingvlm.base.errors import UserError
from streamingvlm.media import arrivals, writer
from streamingvlm.media.sources import pattern, rtsp_server
from streamingvlm.media.sources.rtp import Encoded
from streamingvlm.models.multicamera.network import Knobs, Network
from streamingvlm.serving import cameras
from streamingvlm.serving.api import described
from streamingvlm.serving.api.app import application
from streamingvlm.serving.api.listen import listening
from streamingvlm.serving.api.telemetry import Telemetry
from streamingvlm.serving.live.service import Service
from streamingvlm.serving.privacy.redactor import jpeg_of
from streamingvlm.serving.schedule import replay
from streamingvlm.serving.service import Conflict, NotFound
from streamingvlm.worlds.city.world import ANOMALIES

PATIENCE_S = 60.0
FROZEN_S = 1.5


class Logged(Service):
    """Remembers what became of every frame that was released, in order."""

    def _decided(self, stamp, answer, ms):
        self.fates.append((stamp.stream, stamp.pts_s, "decided"))
        super()._decided(stamp, answer, ms)

    def _dropped(self, stamp, cause):
        self.fates.append((stamp.stream, stamp.pts_s, cause))
        super()._dropped(stamp, cause)


class Running:
    """A service in a loop of its own thread."""

    def __init__(self, service: Service):
        self.service, self.loop = service, asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def call(self, function, *arguments):
        async def run():
            out = function(*arguments)
            return await out if asyncio.iscoroutine(out) else out

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE_S)

    def until(self, what):
        """Wait until `what(cameras by name)` holds."""
        end = time.monotonic() + PATIENCE_S
        while not self.call(lambda: what({row["id"]: row for row in self.service.cameras()})):
            assert time.monotonic() < end, self.call(self.service.cameras)
            time.sleep(0.05)

    def row(self, name):
        return next(row for row in self.call(self.service.cameras) if row["id"] == name)

    def balanced(self):
        return self.call(lambda: self.service.decider.scheduler.totals().balanced)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    Network(Knobs()).save(folder / "model")
    rules = {kind: {"on": 0.5, "off": 0.5} for kind in ANOMALIES}
    (folder / "model" / "thresholds.json").write_text(json.dumps({"thresholds": {}, "rules": rules}))
    film = folder / "film.mp4"
    writer.write_h264(film, (np.full((64, 64, 3), 8 * k, np.uint8) for k in range(24)), 12.0)
    settings = cameras.parse({"service": {"budget_ms": 2000, "utilisation": None}, "cameras": [
        {"name": "a", "url": "pattern:64x64@8", "fps": 4}, {"name": "b", "url": "pattern:96x64@8", "privacy": {"hide": "nothing"}},
        {"name": "dead", "url": "rtsp://operator:hunter2@127.0.0.1:9/none"}, {"name": "film", "url": f"file:{film}", "fps": 6},
        {"name": "pushed", "url": "push:"}]})
    recorder = arrivals.Recorder(folder / "run.jsonl.gz")
    running = Running(Logged(settings.service, folder / "model", recorder=recorder))
    running.service.fates = []
    running.service.check(settings.cameras)
    running.call(running.service.start)
    running.call(running.service.begin, settings.cameras)
    yield running
    running.call(running.service.stop)
    running.loop.call_soon_threadsafe(running.loop.stop)


def test_cameras_are_decided_and_a_dead_one_holds_up_nobody(running):
    running.until(lambda rows: rows["a"]["frames"]["decided"] > 5 and rows["b"]["frames"]["decided"] > 5 and rows["dead"]["reason"])
    dead, here = running.row("dead"), running.row("b")
    assert dead["state"] in {"waiting", "connecting"} and "hunter2" not in str(dead) and dead["frames"]["in"] == 0
    assert (here["state"], here["width"], here["height"]) == ("live", 96, 64) and here["latency_ms"]["p50"] > 0
    assert running.row("a")["frames"]["dropped"].get("subsampled", 0) > 0  # 8 a second, analysed at 4
    assert running.balanced()
    described.Stats.model_validate(running.call(running.service.stats))
    assert all(described.CameraRow.model_validate(row).id for row in running.call(running.service.cameras)), "as the API's description says"


def test_the_numbers_of_one_camera_tell_nothing_of_others(running):
    row, own, whole = running.call(lambda: (running.service.cameras()[0], running.service.stats({"a"}), running.service.stats()))
    assert row["id"] == "a" and own["frames"]["in"] == row["frames"]["in"] and own["frames"]["decided"] == row["frames"]["decided"]
    assert own["latency_ms"]["release"].items() <= row["latency_ms"].items() and sum(count for _, count in own["buckets"]) >= own["frames"]["decided"]
    assert own.keys() == whole.keys() and own["batch"]["count"] == 0 and set(own["processes"]) == {"analytics"}


def test_a_file_loses_no_frame(running):
    running.until(lambda rows: rows["film"]["state"] == "ended" and not rows["film"]["frames"]["in_flight"] and rows["film"]["frames"]["in"] == 24)
    assert running.row("film")["frames"] == {"in": 24, "decided": 12, "in_flight": 0, "dropped": {"subsampled": 12}}


def test_results_come_in_order_and_say_what_was_dropped(running):
    records, missed = running.call(running.service.results.since, 0, None, ["decision"])
    assert missed == 0 and len(records) > 10
    for stream in ("a", "b", "film"):
        mine = [record for record in records if record["stream"] == stream]
        assert [record["frame"] for record in mine] == sorted({record["frame"] for record in mine})
    described.Results.model_validate({"records": running.call(running.service.results.since, 0)[0], "missed": 0, "newest": 0})
    last = mine[-1]
    assert set(last["anomalies"]) == set(ANOMALIES) and last["ms"]["release"] >= last["ms"]["wait"] and last["captured_by"] == "receiver"
    assert sum(sum(record["dropped_before"].values()) for record in mine) >= 11


def test_a_frame_that_is_pushed_is_decided(running):
    taken_at = time.time() - 5
    for k in range(3):
        running.call(running.service.push, "pushed", float(k), taken_at + k, bytes(64 * 48 * 3), 64, 48)
    running.until(lambda rows: rows["pushed"]["frames"]["decided"] == 3)
    record = running.call(running.service.results.since, 0, ["pushed"], ["decision"])[0][-1]
    assert record["captured_by"] == "sender" and record["captured_at"] == taken_at + 2
    for k in range(12):  # again from the start, with times of its sender that nobody can believe
        running.call(running.service.push, "pushed", k / 8, -1e306, bytes(64 * 48 * 3), 64, 48)
        time.sleep(0.02)
    running.until(lambda rows: rows["pushed"]["frames"]["decided"] == 15)
    assert running.call(running.service.results.since, 0, ["pushed"], ["decision"])[0][-1]["captured_by"] == "receiver"
    with pytest.raises(UserError, match="RGB"):
        running.call(running.service.push, "pushed", 1.0, None, b"xx", 64, 48)
    with pytest.raises(UserError, match="not pushed to"):
        running.call(running.service.push, "a", 1.0, None, bytes(12), 2, 2)


def test_an_alarm_shows_the_frame_that_raised_it_and_alarms_keep_their_order(running):
    watched, results = running.service.watched["b"], running.service.results
    frame = watched.frame

    def alarm(kind, state, frame):
        return {"type": "alarm", "stream": "b", "kind": kind, "state": state, "frame": frame, "pts_s": 0.0, "score": 1.0, "picture": None}

    def publish():
        before = results.newest
        for record in (alarm("fall", "on", frame), alarm("fall", "off", frame), alarm("bag", "on", -7)):
            running.service._publish(watched, record)
        return before

    before = running.call(publish)
    running.until(lambda rows: not watched.alarms_waiting)
    fell, rose, late = (one for one in running.call(results.since, before, ["b"], ["alarm"])[0] if one["score"] == 1.0)
    assert [(one["kind"], one["state"]) for one in (fell, rose, late)] == [("fall", "on"), ("fall", "off"), ("bag", "on")]
    assert rose["picture"] is None and late["picture"], "a frame that is not kept: then the newest preview"
    again = running.call(running.service.readers.ask, "b", "still", frame + 1)
    shown = [pattern.number(np.asarray(Image.open(io.BytesIO(jpeg_of(one))).convert("RGB")))
             for one in (results.picture(fell["picture"]), again)]
    assert shown[1] == shown[0] + 1


class Whip:
    """What a publisher sees of a camera of the service."""

    def __init__(self, running, name: str):
        self.running, self.name = running, name

    def offer(self, sdp: str) -> tuple[str, str]:
        return self.running.call(self.running.service.offer, self.name, sdp)


def test_a_camera_is_pushed_to_over_webrtc(running):
    running.call(running.service.add, {"name": "web", "url": "webrtc:", "fps": 8})
    with pytest.raises(UserError, match="no video"):
        running.call(running.service.offer, "web", "v=0")
    with Publisher(Whip(running, "web")) as publisher:
        running.until(lambda rows: rows["web"]["frames"]["decided"] > 3)
        assert running.row("web")["state"] == "live"
        with pytest.raises(Conflict, match="already"):
            publisher.run(publisher.push())
        with pytest.raises(NotFound):
            running.call(running.service.hang_up, "web~other")
        running.call(running.service.hang_up, publisher.resource)
        running.until(lambda rows: rows["web"]["state"] == "waiting" and "somebody" in rows["web"]["reason"])
    frames = running.row("web")["frames"]
    assert frames["in"] == frames["decided"] + frames["in_flight"] + sum(frames["dropped"].values()) and running.balanced()
    running.call(running.service.remove, "web")


def test_cameras_come_and_go(running):
    with pytest.raises(Conflict, match="already"):
        running.call(running.service.add, {"name": "a", "url": "pattern:64x64@8"})
    with pytest.raises(UserError, match="names no source"):
        running.call(running.service.add, {"name": "c", "url": "gopher://host"})
    with pytest.raises(NotFound):
        running.call(running.service.remove, "nobody")
    running.call(running.service.remove, "film")
    running.call(running.service.add, {"name": "film", "url": "pattern:64x64@8"})
    running.until(lambda rows: rows["film"]["frames"]["decided"] > 2)
    for _ in range(3):  # with frames of the one before still on their way
        running.call(running.service.remove, "film")
        running.call(running.service.add, {"name": "film", "url": "pattern:64x64@8"})
        running.until(lambda rows: rows["film"]["frames"]["decided"] > 1)
    assert running.call(running.service.stats)["late"] == 0
    running.call(running.service.remove, "film")
    assert "film" not in [row["id"] for row in running.call(running.service.cameras)] and running.balanced()


def test_the_models_process_dies_and_comes_back(running):
    before = running.row("b")["frames"]["decided"]
    os.kill(running.service.decider.worker.process.pid, signal.SIGKILL)
    running.until(lambda rows: running.service.decider.restarts == 1 and rows["b"]["frames"]["decided"] > before + 3)
    assert running.balanced()


@pytest.mark.parametrize("who", ["the model", "the service"])
def test_a_freeze_shows_in_p99(running, who):
    """`covered`: a frame that is lost in it counts until a newer one is decided, or one late frame a camera is all there is to see."""
    name = f"watched {who}"
    telemetry = Telemetry(running.service)
    running.call(running.service.add, {"name": name, "url": "pattern:64x64@8"})
    running.until(lambda rows: rows[name]["frames"]["decided"] > 8)
    worker, before = running.service.decider.worker.process, running.row(name)["frames"]["decided"]
    if who == "the model":
        os.kill(worker.pid, signal.SIGSTOP)
        time.sleep(FROZEN_S)
        os.kill(worker.pid, signal.SIGCONT)
    else:
        running.loop.call_soon_threadsafe(time.sleep, FROZEN_S)
    running.until(lambda rows: rows[name]["frames"]["decided"] > before + 8)
    row, latency = running.row(name), running.call(running.service.watched[name].release.buckets)
    late = sum(count for ms, count in latency if ms > 300 * FROZEN_S)  # most of the frames that came in the freeze
    assert row["latency_ms"]["p99"] > 700 * FROZEN_S < row["latency_ms"]["capture_p99"] and late >= 4 * FROZEN_S, (row, latency)
    if who == "the model":
        text = running.call(telemetry.text)[0].decode()
        total = int(float(re.search(rf'release_to_decision_seconds_count{{stream="{name}"}} (\S+)', text)[1]))
        quick = int(float(re.search(rf'release_to_decision_seconds_bucket{{le="0.5",stream="{name}"}} (\S+)', text)[1]))
        assert total - quick >= 4 * FROZEN_S
    running.call(running.service.remove, name)
    assert running.balanced()


def test_a_reader_dies_and_its_cameras_come_back(running):
    at = running.service.readers.cameras["b"][1]
    epoch, before = running.service.watched["b"].epoch, running.row("b")["frames"]["decided"]
    os.kill(running.service.readers.workers[at].process.pid, signal.SIGKILL)
    running.until(lambda rows: rows["b"]["frames"]["decided"] > before + 3 and running.service.watched["b"].epoch > epoch)
    records, _ = running.call(running.service.results.since, 0, ["b"], ["decision"])
    frames = [record["frame"] for record in records]
    counted = running.row("b")["frames"]
    assert counted["dropped"].get("reconnect_gap", 0) + counted["decided"] + sum(counted["dropped"].values()) >= frames[-1]
    stats = running.call(running.service.stats)
    assert frames == sorted(set(frames)) and running.balanced() and stats["late"] == 0
    assert [stats["processes"][f"reader-{k}"]["restarts"] for k in range(2)] == [int(k == at) for k in range(2)]


def test_a_browser_sees_the_live_cameras_and_adds_one(running, tmp_path):
    """The page, the doors, the service and its sources, all of them real."""
    if FOUND is None:
        pytest.skip(NONE)
    doors = listening(application(running.service), "127.0.0.1", 0)
    address = running.call(doors.__aenter__)
    tile = "[...document.querySelectorAll('#wall .tile')].find(one => one.querySelector('.name').textContent === {!r})"
    try:
        cards = Encoded((pattern.draw(k, 96, 64) for k in itertools.count()), 8.0)
        with Browser(tmp_path) as page, rtsp_server.running({"card": cards}) as camera:
            page.open(address)
            shown = f"Number({tile.format('b')}?.textContent.match(/decided (\\d+)/)?.[1] ?? 0)"
            page.until(f"{shown} > 0", PATIENCE_S)
            before = page(shown)
            page.until(f"{shown} > {before} + 3", PATIENCE_S)
            running.call(running.service.add, {"name": "seen", "url": f"{camera}/card"})
            page.until(f"Number({tile.format('seen')}?.textContent.match(/decided (\\d+)/)?.[1] ?? 0) > 2", PATIENCE_S)
            running.call(running.service.remove, "seen")
            page.until(f"!{tile.format('seen')}", PATIENCE_S)
            assert not page.complaints
    finally:
        running.call(doors.__aexit__, None, None, None)


def test_no_slot_is_lost(running):
    for name in [row["id"] for row in running.call(running.service.cameras)]:
        running.call(running.service.remove, name)
    running.until(lambda rows: not rows and all(pool.free_count == pool.count for pool in running.service.readers.pools))
    assert running.balanced() and not running.service.decider.flying


def test_what_was_recorded_is_decided_again_in_virtual_time(running, capsys):
    """All of the above: streams that came and went, batches that were lost with their process, an alarm now and then."""
    running.call(running.service.recorder.close)
    running.service.recorder, path = None, running.service.recorder.path
    rows = list(arrivals.read(path))
    again = [(frame.stream, frame.pts_s, what) for _, frame, what in replay.fates(rows)]
    assert sorted(again) == sorted(running.service.fates) and sum(what == "decided" for *_, what in again) > 50
    assert any(isinstance(row, arrivals.Handled) and row.event == "BatchLost" for row in rows)
    assert sum(isinstance(row, arrivals.Arrival) for row in rows) == sum(
        isinstance(row, arrivals.Handled) and row.event == "FrameArrived" for row in rows)
    assert len(replay.measured(rows).decided) == sum(what == "decided" for *_, what in again)
    assert replay.main([str(path)]) == 0 and '"decided"' in capsys.readouterr().out
