"""Cameras that come while the service runs: what is hidden and kept of them, and where they may lead; a full disk. No process is started."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.serving import cameras
from streamingvlm.serving.intake import worker
from streamingvlm.serving.live.service import Service
from streamingvlm.serving.privacy.retention import Keep
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Scheduler
from streamingvlm.serving.service import Conflict

MODEL: Path = repository_root() / "data" / "city-base"
GATE = {"name": "gate", "url": "pattern:64x64@8", "privacy": {"hide": "everything"}, "keep": {"records_s": 600}}


@pytest.fixture
def service():
    settings = cameras.parse({"service": {"keep_s": 1000}, "cameras": [GATE, {"name": "yard", "url": "push:"}]})
    made = Service(settings.service, MODEL, store=SimpleNamespace(keeps={}, newest=0, write=lambda *record: None))
    made.decider.scheduler = Scheduler(LatencyCurve({1: 10.0}, 1))
    made.begin(settings.cameras)
    return made


def test_a_camera_that_comes_back_without_a_word_is_hidden_and_kept_as_before(service):
    async def again(**told):
        for name in [name for name in service.watched if name.casefold() == "gate"]:
            await service.remove(name)
        name = told.pop("name", "gate")
        await service.add({"name": name, "url": "push:"} | told)
        return service.watched[name].camera

    async def run():
        for told in ({}, {"name": "Gate"}, {"privacy": {"hold_s": 3}}):
            back = await again(**told)
            assert (back.privacy.hide, back.keep.records_s) == ("everything", 600), told
        assert back.privacy.hold_s == 3
        assert (await again(privacy={"hide": "people"}, keep={"records_s": 60})).keep.records_s == 60
        assert (await again()).privacy.hide == "people" and service.store.keeps["gate"] == Keep(60, 1000, 1000)

    asyncio.run(run())


@pytest.mark.parametrize("shared", [{"privacy": {"hide": "everything"}, "keep": {"events_s": 60}, "fps": 3, "budget_ms": 70}, {}])
def test_a_camera_that_is_added_is_what_one_of_the_file_would_be(shared):
    new = {"name": "new", "url": "push:", "delay_s": 0.5}
    settings = cameras.parse({"camera": shared, "cameras": [new]})
    service = Service(settings.service, MODEL, usual=settings.camera)
    service.decider.scheduler = Scheduler(LatencyCurve({1: 10.0}, 1))
    service.begin([])
    asyncio.run(service.add(new))
    added, ours = service.watched["new"].camera, settings.cameras[0]
    assert added.model_copy(update={"keep": ours.keep}) == ours and service.policies.taken(added) == service.policies.taken(ours)


def test_a_camera_that_is_refused_changes_nothing_of_what_is_stored(service):
    async def run():
        await service.remove("gate")
        service.decider.admit(1e-9)  # no time for one more
        with pytest.raises(Conflict):
            await service.add(GATE | {"keep": {"records_s": 0}, "privacy": {"hide": "nothing"}})
        assert service.store.keeps["gate"] == Keep(600, 1000, 1000) and service.policies.names["gate"][1].hide == "everything"

    asyncio.run(run())


def test_a_recording_whose_disk_is_full_ends_and_the_service_goes_on(service, caplog):
    def full(row):
        raise UserError("Can't write run.jsonl.gz: No space left on device.")

    service.recorder = SimpleNamespace(add=full)
    for _ in range(3):
        service.decider.lost("gate", "decode_error", 2)
    assert service.recorder is None and caplog.text.count("No space left") == caplog.text.count("The recording ends") == 1
    assert service.decider.scheduler.counts("gate").dropped["decode_error"] == 6


def test_a_camera_of_the_network_is_read_under_the_allow_list_and_one_of_the_file_is_not():
    address, said = "http://localhost:9/a.m3u8", []
    shared = {"access": {"sources": ["http://127.0.0.1"]}, "io_workers": 1}
    settings = cameras.parse({"service": shared, "cameras": [{"name": "ours", "url": address}]})
    service = Service(settings.service, MODEL)
    here = worker.Cameras(SimpleNamespace(send=said.append), service.readers.pools[0], service.readers.came, {})
    service.readers.workers = [SimpleNamespace(send=here.read, restart=lambda loop: None)]
    service.decider.scheduler = Scheduler(LatencyCurve({1: 10.0}, 1))
    service.begin(settings.cameras)
    asyncio.run(service.add({"name": "theirs", "url": address}))
    try:
        for _ in range(2):
            ends = {}
            until = time.monotonic() + 20
            while len(ends) < 2 and time.monotonic() < until:
                ends = {name: change.reason for kind, name, change in said if kind == "changed" and change.reason}
                time.sleep(0.01)
            assert "not among the sources" in ends["theirs"] and "Nothing answers" in ends["ours"]
            said.clear()
            service.readers._again(0, None)  # and when the process that reads them has to be started again
    finally:
        for name in ("ours", "theirs"):
            here.remove(name)
