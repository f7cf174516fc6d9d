"""A worker process: its collector leaves alone what it came with."""

from __future__ import annotations

import asyncio
import gc

from streamingvlm.serving.processes import STOP, Worker


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
