"""A worker process: its collector leaves alone what it came with; one that cannot begin is a sentence, and can be stopped; one that ends
again and again waits longer each time."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
from types import SimpleNamespace

import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.serving import processes
from streamingvlm.serving.processes import READY, STOP, Worker


def tell(connection) -> None:
    """In the worker: how many objects no collection walks through, and how many it would."""
    connection.send((gc.get_freeze_count(), len(gc.get_objects())))
    while connection.recv() != STOP:
        pass


async def heard() -> tuple[int, int]:
    told = asyncio.get_running_loop().create_future()
    worker = Worker("told", "test_processes:tell", (), told.set_result, lambda code: told.set_exception(OSError(f"the worker ended: {code}")))
    worker.start(asyncio.get_running_loop())
    try:
        return await asyncio.wait_for(told, 60)
    finally:
        await worker.stop()


def test_no_collection_walks_through_what_a_worker_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    frozen, walked = asyncio.run(heard())
    assert frozen > 50_000 > walked, "one pass over all of torch's objects takes a quarter of a second in the middle of a stream"


def test_one_that_is_ended_while_it_begins_is_a_sentence_and_can_still_be_stopped(monkeypatch):
    """`systemctl stop` asks every process of a service at once, the fork server too."""
    class Ended:
        def Process(self, **what):
            return self

        def start(self):
            raise EOFError("unexpected EOF")

    async def run():
        worker = Worker("told", "test_processes:tell", (), print, print)
        with pytest.raises(UserError, match="`told` was ended before it began"):
            worker.start(asyncio.get_running_loop())
        await worker.stop()

    monkeypatch.setattr(processes, "context", Ended)
    asyncio.run(run())


def test_one_that_takes_long_to_begin_again_holds_up_nobody_and_gets_what_was_sent(monkeypatch):
    """A fork server that was killed begins anew too, and imports first."""
    go, chosen = threading.Event(), processes.context

    class Slow:
        def __init__(self, process=None):
            self.process = process

        def Process(self, **what):
            return Slow(chosen().Process(**what))

        def start(self):
            go.wait(60)
            self.process.start()

        def __getattr__(self, name):
            return getattr(self.process, name)

    async def run():
        told, gone = asyncio.Queue(), asyncio.Queue()
        worker = Worker("told", "test_processes:tell", (), told.put_nowait, gone.put_nowait)
        worker.restart(asyncio.get_running_loop())
        assert worker.send(STOP) and told.empty() and not worker.alive
        go.set()
        async with asyncio.timeout(60):
            assert await told.get() and await gone.get() == 0, "it read what was sent before it began"
            monkeypatch.setattr(processes, "context", lambda: SimpleNamespace(Process=lambda **what: SimpleNamespace(start=fails)))
            worker.restart(asyncio.get_running_loop())
            await gone.get()
        await worker.stop()

    def fails():
        raise EOFError("unexpected EOF")

    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    monkeypatch.setattr(processes, "context", Slow)
    asyncio.run(run())


def test_the_pause_before_it_begins_again_grows_until_it_is_ready():
    worker, later = Worker("told", "test_processes:tell", (), lambda message: None, print), []
    worker.loop = SimpleNamespace(call_later=lambda pause_s, begin: later.append((pause_s, begin)))
    assert [worker.again() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30] == [pause_s for pause_s, _ in later]
    worker.connection, theirs = multiprocessing.Pipe()
    theirs.send((READY, "and what it needs"))
    worker._readable()
    assert worker.again() == 0.5
    worker.stopped = True
    assert later[-1][1]() is True, "and a service that ends begins nothing"
