"""What is kept goes when its time is over, is handed over whole, and is gone from the files when it is deleted."""

from __future__ import annotations

import json
import time

import pytest
from serving_fake import alarm, comment, decision

from streamingvlm.base.errors import UserError
from streamingvlm.cli.main import main
from streamingvlm.serving import cameras
from streamingvlm.serving.governance import card, export, kept
from streamingvlm.serving.privacy.redactor import stored
from streamingvlm.serving.privacy.retention import Keep
from streamingvlm.serving.results import Results
from streamingvlm.serving.store import Store

SECRET = b"the face of somebody " * 40


@pytest.fixture
def filled(tmp_path):
    """A store with an hour of two cameras, a record of each type each minute; and the results it heard them from."""
    store, results, now = Store(str(tmp_path / "records.sqlite"), keep_s=1e9), Results(), time.time()
    results.listen(store.write)
    for minute in range(60):
        for stream in ("gate", "yard"):
            at = {"at": now - 60 * (60 - minute)}
            results.publish(decision(stream, minute) | at)
            results.publish(comment(stream, minute) | at | {"text": f"somebody at the {stream}"})
            results.publish(alarm(stream, minute) | at, stored(stream.encode() + SECRET))
    assert store.flush()
    yield store, results, now
    store.close()


def test_each_kind_of_each_camera_stays_as_long_as_it_says(filled):
    store, _, _ = filled
    settings = cameras.parse({"service": {"store": "x", "keep_s": 1800}, "cameras": [
        {"name": "gate", "url": "push:", "keep": {"records_s": 600, "pictures_s": 300}}, {"name": "yard", "url": "push:"}]})
    store.keep_s = settings.service.keep_s
    store.keeps = {camera.name: kept(settings.service, camera) for camera in settings.cameras}
    assert store.keeps["gate"] == Keep(600, 1800, 300) and store.keeps["yard"] == Keep.same(1800)
    store.tidy()
    told = store.counted()
    assert told["gate"]["decisions"]["count"] == told["gate"]["comments"]["count"] == 9 and told["gate"]["events"]["count"] == 29
    assert told["gate"]["events"]["pictures"] == 4 and told["yard"]["events"]["pictures"] == told["yard"]["decisions"]["count"] == 29


def test_what_is_deleted_is_in_no_file_any_more(filled, tmp_path):
    store, results, now = filled

    def anywhere(words: bytes) -> bool:
        return any(words in path.read_bytes() for path in tmp_path.glob("records.sqlite*"))

    assert anywhere(b"gate" + SECRET[:100]) and anywhere(b"somebody at the gate")
    assert store.erase(["gate"], None, now - 1800) == 90
    assert store.counted()["gate"]["events"]["count"] == 30 and store.counted()["yard"]["events"]["count"] == 60
    assert store.erase(["gate"]) == 90 and results.erase(["gate"]) == 180
    assert not anywhere(b"gate" + SECRET[:20]) and not anywhere(b"somebody at the gate") and anywhere(b"somebody at the yard")
    assert results.since(0, ["gate"])[0] == [] and len(results.since(0, ["yard"])[0]) == 180
    assert results._pictures and not [stream for stream, _ in results._pictures.values() if stream == "gate"]


def test_an_export_is_whole_or_not_there(filled, tmp_path, monkeypatch):
    store, _, now = filled
    monkeypatch.setattr("streamingvlm.serving.governance.PAGE", 7)
    told = export(store, ["gate"], now - 1800, None, tmp_path / "out")
    records = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert told["records"] == len(records) == 90 == len({record["seq"] for record in records}) and told["pictures"] == 30
    assert {record["stream"] for record in records} == {"gate"} and min(record["at"] for record in records) >= now - 1800
    assert all((tmp_path / "out" / "pictures" / f"{record['picture']}.jpg").read_bytes() == b"gate" + SECRET for record in records
               if record["type"] == "alarm")
    assert len(told["sha256"]) == 31
    with pytest.raises(UserError, match="already"):
        export(store, None, None, None, tmp_path / "out")
    monkeypatch.setattr(store, "picture", lambda name: (_ for _ in ()).throw(UserError("The database went away.")))
    with pytest.raises(UserError, match="went away"):
        export(store, None, None, None, tmp_path / "half")
    assert not (tmp_path / "half").exists() and not list(tmp_path.glob(".half*"))


def test_many_records_of_one_moment_are_all_handed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("streamingvlm.serving.governance.PAGE", 4)
    store, results = Store(str(tmp_path / "r.sqlite"), keep_s=1e12), Results()
    results.listen(store.write)
    for frame in range(40):
        results.publish(decision("gate", frame) | {"at": 1000.0 + frame // 15})
    assert store.flush() and export(store, None, None, None, tmp_path / "out")["records"] == 40
    store.close()


def test_the_card_says_what_the_settings_say(filled):
    settings = cameras.parse({"service": {"store": "r.sqlite", "title": "The street", "access": {}}, "cameras": [
        {"name": "gate", "url": "rtsp://user:hunter2@192.0.2.7/a", "privacy": {"hide": "everything"}, "keep": {"pictures_s": 3600}},
        {"name": "yard", "url": "push:"}]})
    text = card(settings.service, settings.cameras, filled[0].counted())
    assert "# Data card of The street" in text and "| gate | everything: the picture is a coarse mosaic | 7 days | 7 days | 3600 s |" in text
    assert "| yard | people, by" in text and "audit log" in text and "60 events (60 pictures)" in text and "hunter2" not in text
    assert "not stored" in card(cameras.Service(), settings.cameras) and "whoever is on this machine" in card(cameras.Service(), ())


def test_the_command_prints_exports_and_deletes(filled, tmp_path, capsys):
    (tmp_path / "cameras.yaml").write_text('service: {store: "%s"}\ncameras: [{name: gate, url: "push:"}]\n' % (tmp_path / "records.sqlite"))
    base = ["--store", str(tmp_path / "records.sqlite")]
    assert main(["data", "card", str(tmp_path / "cameras.yaml")]) == 0 and "Stored now of yard: 60 comments" in capsys.readouterr().out
    assert main(["data", "export", str(tmp_path / "out"), *base, "--camera", "gate"]) == 0
    assert "180 records and 60 pictures" in capsys.readouterr().out
    assert main(["data", "delete", *base, "--camera", "gate", "--to", "2999-01-01"]) == 0 and "180 records are deleted" in capsys.readouterr().out
    for wrong in (["delete", *base], ["delete", "--camera", "x"], ["export", *base], ["card"],
                  ["export", str(tmp_path / "o"), "--store", "/nowhere/x"], ["delete", *base, "--from", "soon"]):
        assert main(["data", *wrong]) == 2, wrong
