"""One camera being read: a thread that takes its pictures, thins them out, fits them to the model and puts them into its jitter buffer.

A live camera is never waited for and never waits; a file hands in no more than CREDIT frames that nobody has decided. What is left out is counted by
cause and told in `losses`. Knows no slot and no process. Letters: H W pixels.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.media.buffer import JitterBuffer
from streamingvlm.media.pacing import Pacer
from streamingvlm.media.sources import kinds
from streamingvlm.media.sources.protocol import Change, Picture, watched
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.live import picture as pictures

PREVIEW_S = 1.0  # between two previews while nobody looks: an alarm wants a picture
CREDIT = 8
JOIN_S = 2.0


class Reading:
    """`send(kind, name, ...)` hands a message to the service, `wake()` tells whoever releases that something may be due sooner."""

    def __init__(self, camera: Camera, epoch: int, index: int, shape: tuple[int, int, int], send: Callable[..., None], wake: Callable[[], None],
                 more: Mapping[str, Callable]):
        self.camera, self.name, self.shape, self.send, self.wake = camera, camera.name, shape, send, wake
        self.first_epoch, self.epoch, self.index = epoch, epoch, index
        self.source = kinds.source(camera.url, more=more)
        self.buffer, self.pacer = JitterBuffer(camera.delay_s), Pacer(camera.fps)
        self.lock, self.stop, self.credit = threading.Lock(), threading.Event(), threading.Semaphore(CREDIT)
        self.losses: Counter[str] = Counter()
        self.times: deque[float] = deque(maxlen=32)  # pts of the newest pictures
        self.wanted_until = self.preview_at = 0.0
        self.size = (0, 0)
        self.thread = threading.Thread(target=self._run, name=camera.name, daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Stop reading; what is in the buffer is let go."""
        self.stop.set()
        self.credit.release()

    def landed(self) -> None:
        """One of a file's frames was decided."""
        if not self.source.live:
            self.credit.release()
