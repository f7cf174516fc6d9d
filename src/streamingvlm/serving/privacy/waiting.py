"""A camera's pictures that wait until it is known where people are in them. Without its detections none gets out as it is.

    waiting = Waiting(hide, hold_s, send, draw)           # send(header, Redacted), in the thread that `draw(job)` does its jobs in
    waiting.picture(index, at_s, header, pixels, now_s)   # from the thread that reads
    waiting.decided(index, at_s, boxes)                   # from another: what the detector found in that frame; None: it did not run on it
    waiting.still(index, pixels)                          # from a third: another picture of a frame that was decided just now

A picture gets out when `ahead` later frames were decided, so that who is found only then is hidden before as well; or after PATIENCE_S, with what is
held by then, or hidden altogether. Letters: H W pixels, C channels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamingvlm.serving.privacy.held import Held, before
from streamingvlm.serving.privacy.redactor import Box, Redacted, Redactor

ROOM = 32  # pictures that wait
PATIENCE_S = 1.5
AHEAD = 1  # later frames that a picture waits for
FAR_S = 1.0  # a detection says nothing of a picture so much before it
STILL_S = 0.3  # that a still waits for the later frames
KNOWN = 64  # frames whose boxes are remembered for a still


@dataclass
class _Frame:
    """`boxes`: where people may be, as far as it is known; None: it is not. `later`: frames decided since. `looked`: whether the detector saw this
    picture, or one within FAR_S after it; else who came since the last one is in no box."""

    index: int
    at_s: float
    boxes: list[Box] | None = None
    later: int = 0
    looked: bool = False

    @property
    def hidden(self) -> list[Box] | None:
        """What is to be hidden; None: all of it."""
        return self.boxes if self.looked else None

    def decided(self, index: int, at_s: float, boxes: Sequence[Box] | None, held: Sequence[Box] | None) -> None:
        """Take over what the detector said of frame `index`, this one or a later one."""
        if self.index == index:
            self.boxes, self.looked = held, self.looked or boxes is not None
        elif self.index < index and boxes is not None:
            self.later += 1
            if self.boxes is not None and 0 <= at_s - self.at_s <= FAR_S:
                self.looked = True
                self.boxes = [*self.boxes, *before(boxes, at_s - self.at_s)]


@dataclass
class _Picture(_Frame):
    header: dict = field(default_factory=dict)
    pixels: np.ndarray | None = None
    since_s: float = 0.0


class Waiting:
    """`draw` must do the jobs it is given in their order; they take milliseconds, and what they send may have to wait."""

    def __init__(self, hide: str, hold_s: float, send: Callable[[dict, Redacted], None],
                 draw: Callable[[Callable[[], None]], None] = lambda job: job(), ahead: int = AHEAD):
        self.redactor, self.held, self.send, self.draw, self.ahead = Redactor(hide), Held(hold_s), send, draw, ahead
        self.size_px: tuple[int, int] | None = None  # height and width of the camera's pictures
        self._waiting: deque[_Picture] = deque()
        self._known: deque[_Frame] = deque(maxlen=KNOWN)
        self._lock = threading.Condition()

    def picture(self, index: int, at_s: float, header: dict, pixels: np.ndarray, now_s: float) -> None:
        """[H, W, C] uint8 of the frame `index`, in rising order."""
        if self.redactor.hide in {"nothing", "everything"}:
            return self.draw(lambda: self.send(header, self.redactor(pixels, None)))
        with self._lock:
            self.size_px = pixels.shape[:2]
            self._waiting.append(_Picture(index, at_s, header=header, pixels=pixels, since_s=now_s))
            ready = self._take(lambda one: now_s - one.since_s > PATIENCE_S)
            while len(self._waiting) > ROOM:
                ready.append(self._waiting.popleft())
            self._let_out(ready)

    def decided(self, index: int, at_s: float, people: Sequence[Box] | None) -> None:
        with self._lock:
            boxes = None if people is None else self.redactor.boxes(people, self.size_px)  # heads before they are held and grow
            if boxes is not None:
                self.held.see(at_s, boxes)
            held = self.held.at(at_s)
            self._known.append(_Frame(index, at_s))
            for one in (*self._waiting, *self._known):
                one.decided(index, at_s, boxes, held)
            self._lock.notify_all()
            ready = self._take(lambda one: one.later >= self.ahead if one.boxes is not None else one.index < index and one.later > self.ahead)
            self._let_out(ready)

    def still(self, index: int, pixels: np.ndarray) -> Redacted:
        """[H, W, C] uint8 of frame `index`, in any size; waits a moment for the frames behind it. Hidden altogether where nothing is known of it."""
        if self.redactor.hide in {"nothing", "everything"}:
            return self.redactor(pixels, None)
        with self._lock:
            known = next((one for one in reversed(self._known) if one.index == index), None)
            if known is not None and known.boxes is not None:
                self._lock.wait_for(lambda: known.later >= self.ahead, STILL_S)
            boxes = None if known is None else known.hidden
        return self.redactor(pixels, boxes)

    def forget(self) -> None:
        """Another connection, whose clock begins anew: what waits is let go, and nothing is known."""
        with self._lock:
            self._waiting.clear()
            self._known.clear()
            self.held.forget()
            self.size_px = None

    def _take(self, ready: Callable[[_Picture], bool]) -> list[_Picture]:
        """The oldest of those that are ready, as far as all before them are."""
        taken = []
        while self._waiting and ready(self._waiting[0]):
            taken.append(self._waiting.popleft())
        return taken

    def _let_out(self, pictures: Sequence[_Picture]) -> None:
        """Called under the lock, which keeps them in order."""
        for one in pictures:
            self.draw(lambda one=one, boxes=one.hidden: self.send(one.header, self.redactor(one.pixels, boxes)))
