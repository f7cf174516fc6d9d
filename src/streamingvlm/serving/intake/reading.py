"""One camera being read: a thread that takes its pictures, thins them out, fits them to the model and puts them into its jitter buffer.

A live camera is never waited for and never waits; a file hands in no more than CREDIT frames that nobody has decided. What is left out is counted by
cause and told in `losses`. Knows no slot and no process. Letters: H W pixels.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.media.buffer import JitterBuffer, Pace
from streamingvlm.media.sources import kinds
from streamingvlm.media.sources.protocol import Change, Picture, watched
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.intake import picture as pictures
from streamingvlm.serving.privacy.redactor import Redacted
from streamingvlm.serving.privacy.waiting import Waiting

if TYPE_CHECKING:
    import av

PREVIEW_S = 1.0  # between two previews while nobody looks: an alarm wants a picture
CREDIT = 8
EARLY_S, LATE_S = 2.0, 600.0  # a sender whose clock is further off than that from when a picture came is not believed
BACK_S = 1.0  # a clock that goes back by more begins a new epoch
LARGEST_S = 1e12  # of timestamps
KEPT_S, KEPT_PX = 1.0, 48 << 20  # how long behind its release a frame's picture is kept for an alarm, and how many pixels of a camera
STILL_PX = 1280  # the longer side of an alarm's picture


class Reading:
    """`send(kind, name, ...)` hands a message to the service, `wake()` tells whoever releases that something may be due sooner, `count(pictures)`
    adds to what came in, `draw(job)` has a picture drawn and sent in a thread of its own, `check(address)` refuses what its source leads to."""

    def __init__(self, camera: Camera, epoch: int, index: int, shape: tuple[int, int, int], send: Callable[..., None], wake: Callable[[], None],
                 count: Callable[[int], None], draw: Callable[[Callable[[], None]], None], more: Mapping[str, Callable],
                 check: Callable[[str], None] | None = None):
        self.camera, self.name, self.shape, self.send, self.wake, self.count = camera, camera.name, shape, send, wake, count
        self.jumps = 0  # times that a sender's clock went back without a new connection
        self.first_epoch, self.epoch, self.index = epoch, epoch, index
        self.source = kinds.source(camera.url, transport=camera.transport, more=more, check=check)
        self.buffer, self.pace = JitterBuffer(camera.delay_s), Pace(camera.fps)
        self.lock, self.stop, self.credit = threading.Lock(), threading.Event(), threading.Semaphore(CREDIT)
        self.losses: Counter[str] = Counter()
        self.times: deque[float] = deque(maxlen=32)  # pts of the newest pictures
        self.shown: deque[tuple[int, av.VideoFrame | np.ndarray]] = deque(maxlen=math.ceil((camera.delay_s + KEPT_S) * camera.fps))
        self.wanted_until = self.preview_at = 0.0
        self.waiting = Waiting(camera.privacy.hide, camera.privacy.hold_s, self._show, draw)
        self.thread = threading.Thread(target=self._run, name=camera.name, daemon=True)
        self.thread.start()

    def _show(self, header: dict, picture: Redacted) -> None:
        self.send("picture", self.name, self.first_epoch, header, picture)

    def end(self) -> None:
        """Stop reading; what is in the buffer is let go, and whoever pushes is hung up on."""
        self.stop.set()
        self.credit.release()
        if close := getattr(self.source, "close", None):
            threading.Thread(target=close).start()

    def landed(self) -> None:
        """One of a file's frames was decided, or is lost."""
        if not self.source.live:
            self.credit.release()

    def decided(self, epoch: int, index: int, pts_s: float, people: list | None) -> None:
        """Where people are in one of this reading's frames; None: nobody looked at it."""
        self.landed()
        if epoch == self.epoch:
            self.waiting.decided(index, pts_s, people)

    def due(self, now: float) -> list[tuple[Frame, float]]:
        """Frames that are due by `now` (monotonic), each with when it was released."""
        with self.lock:
            return self.buffer.pop(now)

    @property
    def next_at(self) -> float | None:
        """When the next frame is due; None if none waits."""
        with self.lock:
            return self.buffer.next_at

    def lost(self) -> dict[str, int]:
        """What was left out since last asked, by cause."""
        with self.lock:
            losses, self.losses = self.losses, Counter()
        return dict(losses)

    def _run(self) -> None:
        try:
            for item in watched(self.source, self.stop):
                if isinstance(item, Change):
                    self._changed(item)
                else:
                    self._picture(item)
        except Exception as error:
            reason = f"Reading it ended by a fault of the service ({type(error).__name__}): remove it and add it again."
            self.send("changed", self.name, Change("failed", reason, self.epoch, time.time()))
            raise

    def _changed(self, change: Change) -> None:
        self._begin(self.first_epoch + change.epoch + self.jumps)
        self.send("changed", self.name, Change(change.state, change.reason, self.epoch, change.at))

    def _begin(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch = epoch
            self.times.clear()
            self.pace.restart()
            self.waiting.forget()

    def _picture(self, taken: Picture) -> None:
        came = 1 + sum(taken.lost.values())
        self.index += came
        self.count(came)
        with self.lock:
            self.losses.update(taken.lost)
        if taken.corrupt or taken.image is None or not abs(taken.pts_s) < LARGEST_S:
            return self._lose("decode_error")
        if self.times and taken.pts_s < self.times[-1] - BACK_S:
            self.jumps += 1
            self._begin(self.epoch + 1)
        self.times.append(taken.pts_s)
        if not self.pace.keeps(taken.pts_s):
            return self._lose("subsampled")
        try:
            image = pictures.bounded(taken.image, self.camera.inference_px)
            fitted = pictures.fitted(image, *self.shape[:2])
        except (OSError, ValueError, ArithmeticError):  # FFmpeg's errors are among them
            return self._lose("decode_error")
        if not self.source.live:
            self.credit.acquire()
        frame = Frame(self._stamp(taken), fitted)
        with self.lock:
            for _, cause in self.buffer.push(frame, self.epoch, taken.pts_s, time.monotonic()):
                self.losses[cause] += 1
                self.landed()
        self.wake()
        self._keep(frame.stamp.index, image)
        self._preview(taken, image, frame.stamp)

    def _stamp(self, taken: Picture) -> Stamp:
        elapsed_s = self.times[-1] - self.times[0]
        fps = (len(self.times) - 1) / elapsed_s if elapsed_s > 0 else 0.0
        told = taken.captured_at is not None and -EARLY_S <= taken.received_at - taken.captured_at <= LATE_S
        captured = (taken.captured_at, "sender") if told else (taken.received_at, "receiver")
        return Stamp(self.name, self.index - 1, self.epoch, taken.pts_s, *captured, taken.received_at, fps)

    def _keep(self, index: int, image: av.VideoFrame | np.ndarray) -> None:
        width, height = _size(image)
        while self.shown and (len(self.shown) + 1) * width * height > KEPT_PX:
            self.shown.popleft()
        self.shown.append((index, image))

    def still(self, index: int) -> Redacted | None:
        """Frame `index` as large as it was kept, what is to be hidden of it hidden; None where that is too long ago."""
        for number, image in reversed(tuple(self.shown)):
            if number == index:
                return self.waiting.still(index, pictures.preview(image, STILL_PX))
        return None

    def _preview(self, taken: Picture, image: av.VideoFrame | np.ndarray, stamp: Stamp) -> None:
        now = time.monotonic()
        if now < self.wanted_until or now >= self.preview_at + PREVIEW_S:
            self.preview_at = now
            width, height = _size(taken.image)
            header = {"stream": self.name, "frame": stamp.index, "pts_s": stamp.pts_s, "width": width, "height": height}
            self.waiting.picture(stamp.index, stamp.pts_s, header, pictures.preview(image), now)

    def _lose(self, cause: str) -> None:
        with self.lock:
            self.losses[cause] += 1


def _size(image: av.VideoFrame | np.ndarray) -> tuple[int, int]:
    """Width and height."""
    return image.shape[1::-1] if isinstance(image, np.ndarray) else (image.width, image.height)
