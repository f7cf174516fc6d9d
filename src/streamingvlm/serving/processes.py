"""A worker process and the pipe to it, as the service's loop sees them: messages out, messages in, and word when it is gone. Knows no other message.

    worker = Worker("analysis", "streamingvlm.serving.live.analysis:work", (slots, folder), on_message, on_gone)
    worker.start(loop); worker.send(("run", 7, frames)); await worker.stop()

`work(connection, *arguments)`, named and not imported so that the main process needs no torch, runs in a new process of one thread that ends with its
parent. It ends when its pipe closes or it reads STOP. ("ready", …) says that it has loaded; ("failed", reason) is sent for it where it raises a
`UserError`.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection

from streamingvlm.base.errors import UserError

STOP, READY = ("stop",), "ready"
PRELOAD = ["torch", "av", "streamingvlm.serving.live.analyst", "streamingvlm.streaming.stream"]  # by the fork server, once for all workers
GRACE_S = 3.0  # from being asked to end to being ended
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # between its end and its next beginning
AT_ONCE = 64  # messages read before the loop has its turn again


def context() -> multiprocessing.context.BaseContext:
    """Fork server where there is one: a worker is there in 0.05 s and shares what was imported."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    chosen = multiprocessing.get_context(kind)
    if kind == "forkserver":
        chosen.set_forkserver_preload(PRELOAD)
    return chosen


class Worker:
    """`on_message(message)` is called in the loop, message by message; `on_gone(exit code)` when the process ended unasked."""

    def __init__(self, name: str, work: str, arguments: tuple, on_message: Callable[[tuple], None], on_gone: Callable[[int | None], None]):
        self.name, self.work, self.arguments = name, work, arguments
        self.on_message, self.on_gone = on_message, on_gone
        self.process: multiprocessing.Process | None = None
        self.connection: Connection | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ends = 0  # in a row, before it was ready
        self.begun = self.stopped = False
        self._sending = threading.Lock()  # two threads' messages must not end up within each other

    @property
    def alive(self) -> bool:
        """By its pipe: of a process whose fork server was killed, the system tells us nothing, and it goes on."""
        return self.begun and self.connection is not None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin. UserError where the system ends our processes while they begin."""
        own, theirs = multiprocessing.Pipe()
        try:
            self._launch(theirs)
        except (EOFError, OSError) as error:  # no memory, or whoever stops the service asks all of its processes at once
            own.close()
            raise UserError(f"The process `{self.name}` was ended before it began ({error}): start the service again.") from None
        self._listen(own, loop)

    def restart(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin anew. What is sent meanwhile waits in the pipe: where the fork server was killed too, its successor imports for seconds before it
        answers, and the loop must not wait for that. If it can't begin, it has gone again."""
        own, theirs = multiprocessing.Pipe()

        def launch() -> None:
            with suppress(EOFError, OSError):
                self._launch(theirs)

        self.begun = False
        self._listen(own, loop)
        threading.Thread(target=launch, daemon=True).start()

    def _launch(self, theirs: Connection) -> None:
        process = context().Process(target=_begin, args=(self.work, theirs, self.arguments), name=self.name, daemon=True)
        try:
            process.start()
        finally:
            theirs.close()
        self.process, self.begun = process, True

    def _listen(self, own: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.connection, self.loop = own, loop
        loop.add_reader(own.fileno(), self._readable)

    def again(self) -> float:
        """Begin anew after a pause, which is twice as long with each end in a row before it was ready -> the pause, in seconds."""
        pause_s = min(PAUSE_S * 2**self.ends, LONGEST_PAUSE_S)
        self.ends += 1
        self.loop.call_later(pause_s, lambda: self.stopped or self.restart(self.loop))
        return pause_s

    def send(self, message: tuple) -> bool:
        """-> whether there was somebody to send it to."""
        try:
            with self._sending:
                if self.connection is not None:
                    self.connection.send(message)
                    return True
        except (OSError, ValueError):  # it has gone; `_readable` will say so
            pass
        return False

    def watch(self, waiting: int, late_ms: Sequence[float]) -> None:
        """Frames that wait, and how late those of a batch were: one process can do nothing about it, `replicas.fleet` can."""

    def counts(self) -> None:
        """Of replicas, which one process has none of."""

    async def stop(self) -> None:
        """Ask it to end, and see to it that it does."""
        self.stopped = True
        self.send(STOP)
        self._close()
        if self.process is not None:
            await asyncio.to_thread(self.process.join, GRACE_S)
            if self.process.is_alive():
                self.process.kill()
                await asyncio.to_thread(self.process.join, GRACE_S)

    def _close(self) -> None:
        if self.connection is not None:
            self.loop.remove_reader(self.connection.fileno())
            self.connection.close()
            self.connection = None

    def _readable(self) -> None:
        try:
            for _ in range(AT_ONCE):
                if self.connection is None or not self.connection.poll():
                    return
                message = self.connection.recv()
                self.ends = 0 if message[0] == READY else self.ends
                self.on_message(message)
        except (EOFError, OSError):
            self._close()
            self.process.join(GRACE_S / 10)
            self.on_gone(self.process.exitcode)


def _begin(work: str, connection: Connection, arguments: tuple) -> None:
    import os

    import torch

    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to answer, which then asks us to end
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    module, _, name = work.partition(":")
    work = getattr(import_module(module), name)
    gc.freeze()  # a collector that walks through all that torch brings held a frame up for a quarter of a second, and wrote to pages that are shared
    try:
        work(connection, *arguments)
    except UserError as error:
        connection.send(("failed", str(error)))
    except (EOFError, ConnectionError):  # nobody is there any more
        pass
