"""The process that reads a share of the cameras: a thread a camera from its source to the jitter buffer, one that releases what is due.

Messages in: ("add", Camera, epoch, index), ("remove", name), ("landed", name), ("want", {name: until}), ("offer", ticket, name, sdp),
("hang_up", ticket, name, resource), ("push", ticket, name, Picture), STOP. Out: ("frame", stamp, slot, released_at), ("lost", name, cause, count),
("change", name, Change, (w, h)), ("picture", name, {stream, frame, pts_s}, jpeg), ("late", name, count), ("answer", ticket, result),
("refused", ticket, kind, reason).

Each frame that came in is sent on as a frame or as lost; those in a buffer are neither yet. Knows no scheduler and no model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Stamp
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.live.processes import STOP
from streamingvlm.serving.live.reading import Reading
from streamingvlm.serving.live.slots import Slots

TICK_S = 0.25  # the releasing thread sleeps so long at most


class Desk:
    """All cameras of this process. `send` may be called from any thread."""

    def __init__(self, connection: Connection, slots: Slots, more: Mapping[str, Callable]):
        self.connection, self.slots, self.more = connection, slots, dict(more)
        self.readings: dict[str, Reading] = {}
        self.sending, self.woken, self.ended = threading.Lock(), threading.Event(), False

    def send(self, *message) -> None:
        try:
            with self.sending:
                self.connection.send(message)
        except (OSError, ValueError):  # the service is gone, and so will be this process
            self.ended = True

    def release(self) -> None:
        """Send on what is due, until the end: the only thread that takes slots."""
        while not self.ended:
            now = time.time()
            for reading in list(self.readings.values()):
                for frame, due_at in reading.due(now):
                    slot = self.slots.put(frame.pixels)
                    if slot is None:
                        self.send("lost", reading.name, "buffer_full", 1)
                        reading.landed()
                    else:
                        self.send("frame", frame.stamp, slot, time.monotonic() - max(now - due_at, 0.0))
            nearest = min((reading.next_at for reading in list(self.readings.values())), default=now + TICK_S)
            self.woken.wait(min(max(nearest - time.time(), 0.001), TICK_S))
            self.woken.clear()
