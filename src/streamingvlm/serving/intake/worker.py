"""The process that reads a share of the cameras: a thread a camera from its source to the jitter buffer, one that releases what is due.

Messages in: ("add", Camera, epoch, index, row, rules of where it may lead or None), ("remove", name),
("decided", name, epoch, index, pts_s, people or None),
("want", {name: until when, monotonic}), ("offer", ticket, name, sdp),
("hang_up", ticket, name, resource), ("push", ticket, name, Picture), ("still", ticket, name, index), STOP.
Out: ("frame", stamp, slot, released_at), ("lost", name, cause, count, epoch, (released_at, stamp) where no slot was free),
("changed", name, Change), ("picture", name, first epoch, {stream, frame, pts_s, width, height}, Redacted), ("answer", ticket, result),
("refused", ticket, kind, reason).

Each frame that came in is sent on as a frame or as lost; those in a buffer are neither yet. Knows no scheduler and no model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Frame
from streamingvlm.serving.access.sources import Allowed
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.intake.own import KINDS
from streamingvlm.serving.intake.reading import Reading
from streamingvlm.serving.processes import STOP
from streamingvlm.serving.slots import Slots

log = logging.getLogger(__name__)
UNDRAWN = 64  # pictures that wait to be drawn
TICK_S = 0.25  # the releasing thread sleeps so long at most


class Cameras:
    """All cameras of this process. `send` may be called from any thread."""

    def __init__(self, connection: Connection, slots: Slots, came, more: Mapping[str, Callable]):
        self.connection, self.slots, self.came, self.more = connection, slots, came, dict(more)
        self.readings: dict[str, Reading] = {}
        self.sending, self.woken, self.ended = threading.Lock(), threading.Event(), False
        self.drawing = ThreadPoolExecutor(1, "pictures")  # the thread that takes messages must not wait for a pipe that nobody empties until it did
        self.undrawn = threading.Semaphore(UNDRAWN)

    def send(self, *message) -> None:
        try:
            with self.sending:
                self.connection.send(message)
        except (OSError, ValueError):  # the service is gone, and so will be this process
            self.ended = True

    def draw(self, job: Callable[[], None]) -> None:
        """Do it, after those before it; where too many wait it is left out: a preview, and there will be others."""
        if self.undrawn.acquire(blocking=False):
            self.drawing.submit(job).add_done_callback(self._drawn)

    def _drawn(self, done: Future) -> None:
        self.undrawn.release()
        if error := done.exception():
            log.error("A picture could not be drawn.", exc_info=error)

    def add(self, camera: Camera, epoch: int, index: int, row: int, sources: tuple[str, ...] | None) -> None:
        self.remove(camera.name)

        def count(pictures: int) -> None:
            self.came[row] += pictures

        check = None if sources is None else Allowed(sources).check
        self.readings[camera.name] = Reading(camera, epoch, index, self.slots.shape, self.send, self.woken.set, count, self.draw, self.more, check)

    def remove(self, name: str) -> None:
        if reading := self.readings.pop(name, None):
            reading.end()

    def release(self) -> None:
        """Send on what is due, until the end: the only thread that takes slots."""
        while not self.ended:
            nearest = time.monotonic() + TICK_S
            for reading in list(self.readings.values()):
                for frame, released_at in reading.due(time.monotonic()):
                    self._hand_on(reading, frame, released_at)
                for cause, count in reading.lost().items():
                    self.send("lost", reading.name, cause, count, reading.first_epoch, None)
                nearest = min(nearest, reading.next_at or nearest)
            self.woken.wait(max(nearest - time.monotonic(), 0.001))
            self.woken.clear()

    def _hand_on(self, reading: Reading, frame: Frame, released_at: float) -> None:
        slot = self.slots.put(frame.pixels)
        if slot is None:
            reading.landed()
            self.send("lost", reading.name, "buffer_full", 1, reading.first_epoch, (released_at, frame.stamp))
        else:
            self.send("frame", frame.stamp, slot, released_at)

    def read(self, message: tuple) -> None:
        """Do what the service says."""
        match message:
            case ("add", *what):
                self.add(*what)
            case ("remove", name):
                self.remove(name)
            case ("decided", name, *what) if name in self.readings:
                self.readings[name].decided(*what)
            case ("want", wanted):
                for name, until in wanted.items():
                    if name in self.readings:
                        self.readings[name].wanted_until = until
            case (("offer" | "hang_up" | "push" | "still") as kind, ticket, name, what):
                self._ask(kind, ticket, name, what)

    def _ask(self, kind: str, ticket: int, name: str, what) -> None:
        """Of a camera that is pushed to, or a picture of any. Answers in a thread: both take a while, and others are not to wait for it."""
        reading = self.readings.get(name)

        def answer() -> None:
            try:
                asked = reading if kind == "still" else reading.source if reading else None
                if not hasattr(asked, kind):
                    raise UserError(f"{name} is not pushed to: give it an address that begins with webrtc: or push:.")
                self.send("answer", ticket, getattr(asked, kind)(what))
            except UserError as error:
                self.send("refused", ticket, type(error).__name__, str(error))

        threading.Thread(target=answer, daemon=True).start()


def work(connection: Connection, slots: Slots, came, more: Mapping[str, Callable]) -> None:
    """Run until told to stop, or the other end is gone. `came`: a number for each camera, which its pictures are counted in."""
    cameras = Cameras(connection, slots, came, dict(more) | KINDS)
    threading.Thread(target=cameras.release, daemon=True).start()
    try:
        while (message := connection.recv()) != STOP:
            cameras.read(message)
    except (EOFError, OSError):
        pass
    cameras.ended = True
    for name in list(cameras.readings):
        cameras.remove(name)
