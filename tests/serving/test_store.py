"""Stored records: all there again, by SQLite and a real PostgreSQL; trouble is one sentence and a count, and nobody waits for it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from serving_fake import JPEG, PICTURE, alarm, comment, decision
from sqlalchemy.exc import OperationalError

from streamingvlm.base.errors import UserError
from streamingvlm.serving import store as module
from streamingvlm.serving.clock import Clock
from streamingvlm.serving.privacy.redactor import jpeg_of, stored
from streamingvlm.serving.results import Results
from streamingvlm.serving.store import Store, parsed, shown


def _as_somebody() -> list[str]:
    """PostgreSQL refuses to be run by root."""
    if os.geteuid():
        return []
    user = next((name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}), None)
    return ["runuser", "-u", user, "--"] if user else []


@pytest.fixture(scope="module")
def postgresql():
    """The address of a server of our own in a temporary folder, without syncs to disk."""
    folders = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    found = {name: shutil.which(name, path=os.pathsep.join(folders)) for name in ("initdb", "postgres")}
    if None in found.values():
        pytest.skip("no PostgreSQL server here: `apt-get install -y postgresql`, then `python -m pytest -n 0 tests/serving/test_store.py`")
    with tempfile.TemporaryDirectory(prefix="pg") as folder, socket.socket() as free:
        os.chmod(folder, 0o777)
        free.bind(("127.0.0.1", 0))
        port, data = free.getsockname()[1], f"{folder}/data"
        free.close()
        run = _as_somebody()
        subprocess.run([*run, found["initdb"], "-D", data, "-U", "eve", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"], check=True,
                       stdout=subprocess.DEVNULL, cwd=folder)
        options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-k", folder]
        with open(f"{folder}/log", "w") as log:
            server = subprocess.Popen([*run, found["postgres"], "-D", data, *options], stdout=log, stderr=log, cwd=folder)
        try:
            until = time.monotonic() + 30
            while "ready to accept connections" not in Path(f"{folder}/log").read_text() and time.monotonic() < until:
                time.sleep(0.02)
            yield f"postgresql://eve:hunter2@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    return str(tmp_path / "records.sqlite") if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def opened(place):
    """Makes stores at one place, which begins empty, and closes them."""
    made = []

    def make(**options) -> Store:
        made.append(Store(place, **options))
        return made[-1]

    make().erase()
    yield make
    for store in made:
        store.close()


def publish(store: Store, results: Results | None = None, count: int = 30) -> Results:
    results = results or Results()
    results.listen(store.write)
    for frame in range(count):
        results.publish(decision("door", frame) | {"at": 1000.0 + frame})
        results.publish(comment("yard", frame) | {"at": 1000.5 + frame, "text": f"left\0 serves to right, Ω {frame}"})
    results.publish(alarm("door", count) | {"at": 2000.0}, PICTURE)
    results.publish({"type": "state", "stream": "yard", "state": "stalled", "reason": "No picture for 3 s.", "epoch": 1, "at": 2001.0})
    return results


def test_what_was_published_is_there_again_also_for_the_next_run(opened):
    store = opened(keep_s=1e12)
    results = publish(store, count=120)
    assert store.flush() and store.status() | {"place": ""} == {"place": "", "written": 242, "lost": 0, "waiting": 0, "error": None}
    published = results.since(0)[0]
    store.close()
    again = opened(keep_s=1e12)
    assert again.records(limit=1000) == [dict(record) for record in published]
    assert [record["frame"] for record in again.records(["door"], ["decision"], 1010, 1014)] == [10, 11, 12, 13]
    assert [record["seq"] for record in again.records(limit=5, newest=True)] == [record["seq"] for record in published[-5:]]
    assert [record["seq"] for record in again.records(limit=5)] == [record["seq"] for record in published[:5]]
    name = again.records(types=["alarm"])[0]["picture"]
    assert jpeg_of(again.picture(name)) == JPEG
    assert again.picture("7") is None and again.picture("nothing") is None and again.picture("9" * 40) is None
    assert again.erase(["door"], 1000, 1100) == 100 and again.erase(["door"]) == 21 and again.picture(name) is None
    assert {record["stream"] for record in again.records()} == {"yard"}


def test_old_records_and_too_many_of_a_camera_go(opened):
    store = opened(keep_s=3600, keep_rows=10)
    results, now = Results(), time.time()
    results.listen(store.write)
    for frame in range(40):
        results.publish(decision("door", frame) | {"at": now - 4000 + 100 * frame})
    for frame in range(8):
        results.publish(decision("yard", frame) | {"at": now - 3900 + frame})
        results.publish(comment("yard", frame) | {"at": now + frame})
    assert store.flush()
    store.tidy()
    store.tidy()  # with nothing to do
    assert store.status()["error"] is None
    assert [record["frame"] for record in store.records(["door"])] == list(range(30, 40))
    assert [record["type"] for record in store.records(["yard"])] == ["comment"] * 8


class Machine:
    """Its two clocks, of which one is set."""

    def __init__(self):
        self.wall, self.steady = 1e9, 50.0

    def passes(self, seconds: float, set_by: float = 0.0) -> None:
        self.wall, self.steady = self.wall + seconds + set_by, self.steady + seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady)


@pytest.mark.parametrize("set_by", [3600.0, -3600.0, 0.0])
def test_a_clock_that_is_set_deletes_nothing_early_and_puts_nothing_out_of_order(tmp_path, set_by, monkeypatch):
    machine = Machine()
    monkeypatch.setattr("streamingvlm.serving.results.time.time", lambda: machine.wall)
    store = Store(str(tmp_path / "records.sqlite"), keep_s=600)
    store.clock = machine.clock()
    results = Results()
    results.listen(store.write)
    for frame in range(8):  # 100 s apart; the clock is set between the fourth and the fifth
        results.publish(decision("door", frame))
        machine.passes(100, set_by if frame == 3 else 0.0)
        store.clock.look()
    assert store.flush()
    store.tidy()
    kept = [record["frame"] for record in store.records(limit=100, newest=True)]
    assert kept == ([2, 3, 4, 5, 6, 7] if set_by >= 0 else list(range(8))), "of 600 s; where it was set back, what is older stays so much longer"
    machine.passes(499)
    store.tidy()
    assert 7 in [record["frame"] for record in store.records()]
    machine.passes(3700)
    store.tidy()
    assert store.records() == []
    store.close()


def test_numbers_rise_over_a_restart_before_which_the_clock_was_set_back(tmp_path, monkeypatch):
    store, results = Store(str(tmp_path / "records.sqlite")), Results()
    results.listen(store.write)
    results.publish(alarm("door", 1))
    store.close()
    monkeypatch.setattr("streamingvlm.serving.results.time.time", lambda: 1e6)
    again = Store(str(tmp_path / "records.sqlite"))
    later = Results(behind=again.newest)
    later.listen(again.write)
    later.publish(alarm("door", 2))
    assert again.flush() and [record["frame"] for record in again.records(types=["alarm"], limit=1, newest=True)] == [2]
    again.close()


def test_a_sqlite_file_gets_shorter_again(tmp_path):
    path = tmp_path / "records.sqlite"
    store = Store(str(path), keep_s=3600)
    results = Results()
    results.listen(store.write)
    for frame in range(60):
        results.publish(alarm("door", frame) | {"at": time.time() - (7200 if frame else 0)}, stored(bytes(20_000)))
    assert store.flush()
    with sqlite3.connect(path) as reader:
        reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.stat().st_size
        store.tidy()
        reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    reader.close()
    assert path.stat().st_size < before / 5 and [record["frame"] for record in store.records()] == [0]
    store.close()


def test_a_record_that_no_database_takes_costs_only_itself(opened):
    store = opened()
    results = Results()
    results.listen(store.write)
    for frame in range(9):
        results.publish(decision("door", frame, action=object() if frame == 5 else "walk", event_score=float("nan") if frame == 3 else 0.5))
    assert store.flush()
    assert store.status()["lost"] == 1 and store.status()["written"] == 8 and store.status()["error"] is None
    kept = store.records()
    assert [record["frame"] for record in kept] == [0, 1, 2, 3, 4, 6, 7, 8] and kept[3]["event_score"] is None


def test_a_full_disk_is_one_sentence_and_what_waits_is_written_when_there_is_room(tmp_path):
    store = Store(str(tmp_path / "records.sqlite"), queued=200)
    limit = store._engine.raw_connection()
    pages = limit.cursor().execute("PRAGMA page_count").fetchone()[0]
    limit.cursor().execute(f"PRAGMA max_page_count={pages + 8}")  # SQLite's own way to have a disk that is full
    limit.close()
    results = Results()
    results.listen(store.write)
    began, frame = time.monotonic(), 0
    while store.status()["error"] is None and time.monotonic() - began < 20:
        results.publish(decision("door", frame))
        frame += 1
    for _ in range(2000):
        results.publish(decision("door", frame))
        frame += 1
    status = store.status()
    assert "full" in status["error"] and "they wait" in status["error"] and status["error"].count(". ") == 0 and status["lost"]
    assert status["waiting"] <= 200 + module.BATCH
    store.flush = lambda: Store.flush(store, 0.05)
    with pytest.raises(UserError, match="Nothing was deleted"):
        store.erase()  # what waits would be written behind it
    del store.flush
    room = store._engine.raw_connection()
    room.cursor().execute("PRAGMA max_page_count=1000000")
    room.close()
    assert store.flush(20)
    status = store.status()
    assert status["error"] is None and status["written"] + status["lost"] == frame == status["lost"] + len(store.records(limit=10_000))
    store.close()


def test_what_is_just_being_taken_from_the_queue_still_waits(tmp_path):
    """Else an erasure begins in that moment, and the record is written behind it."""
    store, seen = Store(str(tmp_path / "records.sqlite")), []
    take = store._waiting.get_nowait

    def watched():
        item = take()
        seen.append(store.status()["waiting"])
        return item

    store._waiting.get_nowait = watched
    results = Results()
    results.listen(store.write)
    results.publish(decision("door", 0))
    assert store.flush(20) and seen and min(seen) > 0
    store.close()


def test_a_postgresql_that_ends_its_connections_loses_nothing(postgresql):
    store = Store(postgresql)
    store.erase()
    results = Results()
    results.listen(store.write)
    with store._engine.connect() as other:
        for frame in range(300):
            results.publish(decision("door", frame))
            if frame % 100 == 50:
                assert store.flush()
                other.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()")
        assert store.flush(20)
    assert [record["frame"] for record in store.records()] == list(range(300)) and store.status()["lost"] == 0
    store.close()


def test_a_database_that_hangs_holds_nobody_up(tmp_path, monkeypatch):
    store = Store(str(tmp_path / "records.sqlite"), queued=100)

    def hang(connection, batch):
        time.sleep(0.3)
        raise OperationalError("insert", {}, Exception("connection timed out"))

    monkeypatch.setattr(module, "_insert", hang)
    monkeypatch.setattr(module, "CLOSE_S", 1.0)
    results = Results()
    results.listen(store.write)
    longest = 0.0
    for frame in range(2000):
        began = time.thread_time()
        results.publish(decision("door", frame))
        longest = max(longest, time.thread_time() - began)
    assert longest < 0.2 and store.status()["lost"] >= 2000 - 100 - module.BATCH
    store.close()
    assert store.status()["written"] == 0 and store.lost == 2000, "what waited at the end is counted too"


def test_pictures_that_wait_are_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PICTURES_BYTES", 10_000)
    monkeypatch.setattr(module, "WRITE_S", 60.0)
    store = Store(str(tmp_path / "records.sqlite"))
    time.sleep(0.1)  # its thread waits now
    results = Results()
    results.listen(store.write)
    for frame in range(50):
        results.publish(alarm("door", frame), stored(b"x" * 1000))
    assert store.lost == 40 and store.flush() and len(store.records()) == 10
    results.publish(alarm("door", 51), stored(b"x" * 1000))
    assert store.flush() and store.lost == 40, "room again"
    store.close()


@pytest.mark.parametrize("where", ["/proc/nowhere/records.sqlite", "postgresql://eve:hunter2@127.0.0.1:1/records", "oracle+nothing://eve:hunter2@x/y",
                                   "mysql://eve:hunter2@x/y", "://", "postgresql://eve:hunter2@127.0.0.1:port/x"])
def test_no_such_database_is_one_sentence_without_the_password(where):
    with pytest.raises(UserError) as raised:
        Store(where)
    said = str(raised.value)
    assert "hunter2" not in said and said.endswith(".") and "\n" not in said and len(said) < 300


def test_no_part_of_a_databases_address_shows_a_password():
    for address in ("postgresql://u:hunter2@h/d", "postgresql://h/d?user=u&password=hunter2", "postgresql://u:hunter2@h/d?sslpassword=hunter2"):
        assert "hunter2" not in shown(parsed(address)) and "h/d" in shown(parsed(address))
    with pytest.raises(UserError, match="`tokens`"):
        parsed("://", "tokens")
