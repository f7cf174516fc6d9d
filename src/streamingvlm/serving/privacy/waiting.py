"""A camera's pictures that wait until it is known where people are in them. Without its detections none gets out as it is.

    waiting = Waiting(privacy, send)                      # send(header, Redacted)
    waiting.picture(index, at_s, header, pixels, now_s)   # from the thread that reads
    waiting.decided(index, at_s, boxes)                   # from another: what the detector found in that frame; None: it did not run on it

A picture gets out when `ahead` later frames were decided, so that who is found only then is hidden before as well; or after PATIENCE_S, with what is
held by then, or hidden altogether. Letters: H W pixels, C channels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from streamingvlm.serving.privacy.held import Held, before
from streamingvlm.serving.privacy.redactor import Box, Redacted, Redactor

ROOM = 32  # pictures that wait
PATIENCE_S = 1.5
AHEAD = 1  # later frames that a picture waits for
FAR_S = 1.0  # a detection says nothing of a picture so much before it


@dataclass
class _Picture:
    """`boxes`: where people may be, as far as it is known; None: it is not. `later`: frames decided since."""

    index: int
    at_s: float
    header: dict
    pixels: np.ndarray
    since_s: float
    boxes: list[Box] | None = None
    later: int = 0


class Waiting:
    def __init__(self, hide: str, hold_s: float, send: Callable[[dict, Redacted], None], ahead: int = AHEAD):
        self.redactor, self.held, self.send, self.ahead = Redactor(hide), Held(hold_s), send, ahead
        self._waiting: deque[_Picture] = deque()
        self._lock = threading.Lock()

    def picture(self, index: int, at_s: float, header: dict, pixels: np.ndarray, now_s: float) -> None:
        """[H, W, C] uint8 of the frame `index`, in rising order."""
        if self.redactor.hide in {"nothing", "everything"}:
            return self.send(header, self.redactor(pixels, None))
        with self._lock:
            self._waiting.append(_Picture(index, at_s, header, pixels, now_s))
            ready = self._take(lambda one: now_s - one.since_s > PATIENCE_S)
            while len(self._waiting) > ROOM:
                ready.append(self._waiting.popleft())
        self._let_out(ready)

    def decided(self, index: int, at_s: float, boxes: Sequence[Box] | None) -> None:
        with self._lock:
            if boxes is not None:
                self.held.see(at_s, boxes)
            for one in self._waiting:
                if one.index == index:
                    one.boxes = self.held.at(at_s)
                elif one.index < index and boxes is not None:
                    one.later += 1
                    if one.boxes is not None and 0 <= at_s - one.at_s <= FAR_S:
                        one.boxes = [*one.boxes, *before(boxes, at_s - one.at_s)]
            ready = self._take(lambda one: one.later >= self.ahead if one.boxes is not None else one.index < index and one.later > self.ahead)
        self._let_out(ready)

    def forget(self) -> None:
        """Another connection, whose clock begins anew: what waits is let go, and nothing is known."""
        with self._lock:
            self._waiting.clear()
            self.held.forget()

    def _take(self, ready: Callable[[_Picture], bool]) -> list[_Picture]:
        """The oldest of those that are ready, as far as all before them are."""
        taken = []
        while self._waiting and ready(self._waiting[0]):
            taken.append(self._waiting.popleft())
        return taken

    def _let_out(self, pictures: Sequence[_Picture]) -> None:
        for one in pictures:
            self.send(one.header, self.redactor(one.pixels, one.boxes))
