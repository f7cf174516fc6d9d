"""Independent work on every core: worker processes of one torch thread each. What comes out does not depend on how many there are.

    for row in ordered(render, jobs): ...            # results in the order of the jobs, as soon as they are there
    for number, item in spread(watch, jobs): ...     # items of many generators, as they come; `number` is the job's

    start()                                          # before long imports: on another core, workers get ready beside them

Functions and arguments are pickled: functions of modules, plain data. One core, or one job, and all of it runs here, in the order of the jobs.
`STREAMINGVLM_WORKERS=2` limits the processes (memory: some 0.4 GB each). Knows nothing of what the work is.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from queue import Empty
from typing import TypeVar

from streamingvlm.base.errors import UserError

Result = TypeVar("Result")
PRELOAD = ("torch", "transformers", "streamingvlm.streaming.stream")  # by the fork server, once for all workers
_here: dict[str, multiprocessing.Queue] = {}  # in a worker: the queue that its generators' items go to


def cores() -> int:
    """How many workers there may be: the cores this process may use, or fewer if STREAMINGVLM_WORKERS says so."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("STREAMINGVLM_WORKERS", "")
    if asked and not (asked.isdecimal() and int(asked)):
        raise UserError(f"STREAMINGVLM_WORKERS must be a number of processes, not {asked!r}.")
    return min(here, int(asked)) if asked else here


def start(preload: Sequence[str] = PRELOAD) -> None:
    """Start the fork server now, if there will be workers: it imports what they need, some seconds' worth, while this process does the same."""
    if cores() > 1:
        _serve(preload)


def ordered(work: Callable[..., Result], jobs: Sequence[tuple], count: int | None = None) -> Iterator[Result]:
    """`work(*job)` of each job, in the order of the jobs."""
    count = min(count or cores(), len(jobs))
    if count <= 1:
        yield from (work(*job) for job in jobs)
        return
    with _pool(count, None) as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        try:
            for future in futures:
                yield _result(future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def spread(work: Callable[..., Iterator[Result]], jobs: Sequence[tuple], count: int | None = None) -> Iterator[tuple[int, Result]]:
    """(number of the job, item) of what each generator `work(*job)` yields, as it comes; the items of one job in their order."""
    count = min(count or cores(), len(jobs))
    if count <= 1:
        yield from ((number, item) for number, job in enumerate(jobs) for item in work(*job))
        return
    items = _context().Queue()
    with _pool(count, items) as pool:
        futures = [pool.submit(_generate, work, number, job) for number, job in enumerate(jobs)]
        left = len(jobs)
        try:
            while left:
                try:
                    number, item, ends = items.get(timeout=1.0)
                except Empty:
                    for future in futures:
                        if future.done():
                            _result(future)  # raises what went wrong
                    continue
                left -= ends
                if not ends:
                    yield number, item
            for future in futures:
                _result(future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future):
    try:
        return future.result()
    except BrokenProcessPool:
        raise UserError("A worker process was killed; most often it wanted more memory than there is: set STREAMINGVLM_WORKERS=1.") from None


def _generate(work: Callable[..., Iterator], number: int, job: tuple) -> None:
    for item in work(*job):
        _here["items"].put((number, item, False))
    _here["items"].put((number, None, True))


def _kind() -> str:
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _serve(preload: Sequence[str]) -> None:
    """A fork server, unless there is one. Ctrl-C is not for it, not even while it imports: it would answer with a traceback."""
    if _kind() != "forkserver":
        return
    multiprocessing.set_forkserver_preload(list(preload))
    mine = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if mine else None  # what is ignored is ignored by whoever is started meanwhile
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)


def _context():
    _serve(PRELOAD)
    return multiprocessing.get_context(_kind())


def _pool(count: int, items) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=_context(), initializer=_begin, initargs=(items,))


def _begin(items) -> None:
    """In a new worker: one thread, Ctrl-C is the parent's to answer, and an end when the parent is gone."""
    import torch

    _here["items"] = items
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
