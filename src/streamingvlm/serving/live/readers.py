"""The processes that read the cameras, as the service's loop sees them: who reads whom, and what they report. Knows no model and no scheduler.

A camera is read by the process that reads the fewest. A process that ends is started again with the cameras it had: each begins a new epoch.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Stamp
from streamingvlm.media.sources.protocol import Change
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.privacy.redactor import Redacted
from streamingvlm.serving.processes import Worker, context
from streamingvlm.serving.service import Busy, Conflict, NotFound
from streamingvlm.serving.slots import Slots

log = logging.getLogger(__name__)
SLOTS = 256  # pictures a process may have on their way at once
ROWS = 512  # twice as many as there are cameras at most: those of a reader that begins again get new ones, beside their old ones
REMEMBERED = 1024  # cameras that were removed
RESTART_S = 0.5
ANSWER_S = 15.0
REFUSED = {"Taken": Conflict, "Gone": NotFound, "Full": Busy}  # errors of sources, by what the doors call them


@dataclass(frozen=True)
class Heard:
    """What is called in the loop: `frame(stamp, pool, slot, released_at)`, `lost(stream, cause, count, (released_at, stamp) | None)`,
    `changed(stream, change)`, `picture(stream, header, redacted)`. `held(pool)`: the slots that are still needed."""

    frame: Callable[[Stamp, int, int, float], None]
    lost: Callable[[str, str, int, tuple[float, Stamp] | None], None]
    changed: Callable[[str, Change], None]
    picture: Callable[[str, dict, Redacted], None]
    held: Callable[[int], set[int]]


class Readers:
    def __init__(self, count: int, shape: tuple[int, int, int], heard: Heard, more: Mapping[str, Callable] | None = None):
        self.heard, self.restarts, self.stopped = heard, [0] * count, False
        self.pools = [Slots.make(context(), SLOTS, shape) for _ in range(count)]
        self.came = context().RawArray("Q", ROWS)  # pictures of each camera, counted by whoever reads it: what died with it is known
        self.rows: dict[str, int] = {}
        self.free_rows = itertools.cycle(range(ROWS))  # in turn: a thread that is just ending still counts in its old one
        self.workers = [Worker(f"reader-{k}", "streamingvlm.serving.intake.worker:work", (pool, self.came, dict(more or {})),
                               lambda message, k=k: self._message(k, message), lambda code, k=k: self._gone(k, code))
                        for k, pool in enumerate(self.pools)]
        self.cameras: dict[str, tuple[Camera, int]] = {}
        self.sources: dict[str, tuple[str, ...] | None] = {}  # the rules of where a camera's pictures may come from, None: from anywhere
        self.newest: dict[str, tuple[int, int]] = {}  # epoch and index of a camera's last frame: a new process goes on behind them
        self.first: dict[str, int] = {}  # the first epoch of a camera: what is older is of one that had its name
        self.heard_of: Counter[str] = Counter()  # pictures of a camera that its process told of, as frames or as lost
        self.before: dict[str, tuple[int, int]] = {}  # of the newest cameras that were removed
        self.tickets = itertools.count()
        self.asked: dict[int, asyncio.Future] = {}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        for worker in self.workers:
            worker.start(loop)

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    def add(self, camera: Camera, sources: tuple[str, ...] | None) -> None:
        load = [sum(at == k for _, at in self.cameras.values()) for k in range(len(self.workers))]
        at = load.index(min(load))
        self.cameras[camera.name], self.sources[camera.name] = (camera, at), sources
        self.newest[camera.name] = self.before.pop(camera.name, (-1, -1))
        self.first[camera.name] = self.newest[camera.name][0] + 1
        self._send(camera, at)

    def _send(self, camera: Camera, at: int) -> None:
        epoch, index = self.newest[camera.name]
        row = next(row for row in self.free_rows if row not in self.rows.values())
        self.rows[camera.name], self.heard_of[camera.name], self.came[row] = row, 0, 0
        self.workers[at].send(("add", camera, epoch + 1, index + 1, row, self.sources[camera.name]))

    def remove(self, name: str) -> None:
        _, at = self.cameras.pop(name)
        self.before[name] = self.newest.pop(name)
        if len(self.before) > REMEMBERED:
            del self.before[next(iter(self.before))]
        del self.first[name], self.rows[name], self.heard_of[name], self.sources[name]
        self.workers[at].send(("remove", name))

    def decided(self, stamp: Stamp, people: list | None) -> None:
        """Where people are in a frame, or None where nobody looked: its picture waits for that. A file may send another frame."""
        if stamp.stream in self.cameras:
            self.workers[self.cameras[stamp.stream][1]].send(("decided", stamp.stream, stamp.epoch, stamp.index, stamp.pts_s, people))

    def want(self, wanted: Mapping[str, float]) -> None:
        """Previews of cameras until then, monotonic."""
        for at, worker in enumerate(self.workers):
            if mine := {name: until for name, until in wanted.items() if name in self.cameras and self.cameras[name][1] == at}:
                worker.send(("want", mine))

    async def ask(self, name: str, kind: str, *what):
        """Ask the process that reads `name` for something -> its answer. NotFound, Conflict or UserError, as it says."""
        if name not in self.cameras:
            raise NotFound(f"There is no camera {name!r}.")
        ticket, future = next(self.tickets), asyncio.get_running_loop().create_future()
        self.asked[ticket] = future
        try:
            if not self.workers[self.cameras[name][1]].send((kind, ticket, name, *what)):
                raise UserError(f"{name}'s reader is just starting: try again in a second.")
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise UserError(f"{name} did not answer within {ANSWER_S:g} s: try again.") from None
        finally:
            self.asked.pop(ticket, None)

    def _message(self, at: int, message: tuple) -> None:
        match message:
            case ("frame", stamp, slot, released_at):
                if stamp.epoch >= self.first.get(stamp.stream, math.inf):
                    self.newest[stamp.stream] = (stamp.epoch, stamp.index)
                    self.heard_of[stamp.stream] += 1
                    self.heard.frame(stamp, at, slot, released_at)
                else:  # removed while it was in the pipe
                    self.pools[at].free(slot)
            case ("lost", name, cause, count, epoch, released) if epoch >= self.first.get(name, math.inf):
                self.heard_of[name] += count
                self.heard.lost(name, cause, count, released)
            case ("changed", name, change) if change.epoch >= self.first.get(name, math.inf):
                self.heard.changed(name, change)
            case ("picture", name, epoch, header, picture) if epoch >= self.first.get(name, math.inf):
                self.heard.picture(name, header, picture)
            case ("answer", ticket, result) if self._open(ticket):
                self.asked[ticket].set_result(result)
            case ("refused", ticket, kind, reason) if self._open(ticket):
                self.asked[ticket].set_exception(REFUSED.get(kind, UserError)(reason))

    def _open(self, ticket: int) -> bool:
        """Whether somebody still waits for this answer."""
        return ticket in self.asked and not self.asked[ticket].done()

    def _gone(self, at: int, code: int | None) -> None:
        """A reader ended unasked: its cameras are read anew, and slots that nobody holds are free again."""
        if self.stopped:
            return
        self.restarts[at] += 1
        log.warning("reader %d ended (exit code %s); it is started again", at, code)
        loop = asyncio.get_running_loop()
        for name, (_, reader) in self.cameras.items():
            if reader == at:
                if (missing := self.came[self.rows[name]] - self.heard_of[name]) > 0:  # in its buffer, or not yet told of
                    self.heard.lost(name, "reconnect_gap", missing, None)
                    self.newest[name] = (self.newest[name][0], self.newest[name][1] + missing)
                reason = "The process that reads it ended and is started again."
                self.heard.changed(name, Change("waiting", reason, max(self.newest[name][0], 0), time.time()))
        loop.call_later(RESTART_S, self._again, at, loop)

    def _again(self, at: int, loop: asyncio.AbstractEventLoop) -> None:
        if self.stopped:
            return
        held = self.heard.held(at)
        for slot in range(self.pools[at].count):
            if slot not in held:
                self.pools[at].free(slot)
        self.workers[at].restart(loop)
        for camera, reader in self.cameras.values():
            if reader == at:
                self._send(camera, at)
