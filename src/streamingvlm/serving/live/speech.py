"""What the cameras show, second by second, to the commentator, and its sentences back. Drops a second rather than wait: nobody waits for it.

A chunk is complete when a frame behind its end has come. While the commentator is busy, a camera's newest chunk takes the place of one that waits;
`skipped` counts those, the seconds in which too few frames came, and those that were lost with a process that died. What the model spotted in those
frames of a chunk that are decided by then goes with it as a note. Knows no source and no scheduler.
Letters: F frames of a chunk, H W pixels, C channels.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamingvlm.base.records import Chunk, Comment, Stamp
from streamingvlm.serving.live.questions import Questions
from streamingvlm.serving.processes import Worker
from streamingvlm.worlds.city.sentences import note

log = logging.getLogger(__name__)


@dataclass
class _Listening:
    """One camera's chunk in the making: the time of its epoch's first frame, the chunk's number, the frames it has, and what was spotted in
    its second."""

    epoch: int
    begun_s: float
    index: int = 0
    frames: list[np.ndarray] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    spotted: list[dict] = field(default_factory=list)


class Speech:
    """`say(comment)` is called in the loop for each sentence, `failed(reason)` once where there can be none."""

    def __init__(self, folder: Path, say: Callable[[Comment], None], failed: Callable[[str], None]):
        self.say, self.failed, self.skipped, self.restarts, self.stopped = say, failed, 0, 0, False
        self.worker = Worker("commentary", "streamingvlm.serving.live.commentary:work", (folder,), self._message, self._gone)
        self.chunk_s = self.count = 0
        self.listening: dict[str, _Listening] = {}
        self.waiting: dict[str, Chunk] = {}
        self.saying: set[str] | None = None  # whose chunks are with the commentator, until it has said something to all of them
        self.up = False
        self.questions = Questions(self._hand)
        self._sender = ThreadPoolExecutor(1, "speech")  # a pipe takes only what the other end has read, and takes it from one thread

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.worker.start(loop)

    async def stop(self) -> None:
        self.stopped = True
        self.questions.lost()
        self._sender.shutdown(wait=False, cancel_futures=True)
        await self.worker.stop()

    def frame(self, stamp: Stamp, pixels: np.ndarray) -> None:
        """A frame [H, W, C] came; it is copied if a chunk wants it."""
        if not self.chunk_s:
            return
        here = self.listening.get(stamp.stream)
        if here is None or here.epoch != stamp.epoch:
            self.forget(stamp.stream)
            here = self.listening[stamp.stream] = _Listening(stamp.epoch, stamp.pts_s)
        at_s = stamp.pts_s - here.begun_s
        index = math.floor(at_s / self.chunk_s + 1e-6)
        if index > here.index:
            self._complete(stamp.stream, here)
            self.skipped += index - here.index - 1
            here.index, here.frames, here.times_s, here.spotted = index, [], [], []
        if len(here.frames) < self.count and at_s + 1e-6 >= index * self.chunk_s + len(here.frames) * self.chunk_s / self.count:
            here.frames.append(pixels.copy())
            here.times_s.append(at_s)

    def spotted(self, stamp: Stamp, row: dict) -> None:
        """What the model found in a frame that came before; of a chunk that is on its way already it is too late."""
        here = self.listening.get(stamp.stream)
        if here is not None and here.epoch == stamp.epoch and math.floor((stamp.pts_s - here.begun_s) / self.chunk_s + 1e-6) == here.index:
            here.spotted.append(row)

    def forget(self, stream: str) -> None:
        """A camera that has gone, or connects anew."""
        if self.listening.pop(stream, None):
            self.waiting.pop(stream, None)
            self._hand(("forget", stream))

    def _complete(self, stream: str, here: _Listening) -> None:
        if len(here.frames) < self.count:
            self.skipped += 1
            return
        self.skipped += stream in self.waiting
        start_s = here.index * self.chunk_s
        self.waiting[stream] = Chunk(here.index, start_s, start_s + self.chunk_s, np.stack(here.frames), tuple(here.times_s),
                                     note(here.spotted))
        self._send()

    def _send(self) -> None:
        """Hand over what waits, if there is somebody to take it."""
        if self.saying is not None or not self.waiting or not self.up:
            return
        self.saying, chunks, self.waiting = set(self.waiting), self.waiting, {}
        self._hand(("say", 0, chunks))

    def _hand(self, message: tuple) -> None:
        if not self.stopped:
            self._sender.submit(self.worker.send, message)

    def _message(self, message: tuple) -> None:
        if message[0] == "ready":
            _, self.chunk_s, self.count = message
            self.up = True
            self.skipped += len(self.waiting) + sum(bool(here.frames) for here in self.listening.values())
            self.waiting.clear()  # a new process knows none of these streams: each begins anew
            self.listening.clear()
        elif message[0] == "failed":
            self.stopped = True
            self.failed(message[1])
        elif message[0] == "answered":
            self.questions.answered(*message[1:])
        else:
            self.saying = None
            for comment in message[2]:
                if comment.stream in self.listening:
                    self.say(comment)
            self._send()

    def _gone(self, code: int | None) -> None:
        self.questions.lost()
        self.skipped, self.saying, self.up = self.skipped + len(self.saying or ()), None, False
        if not self.stopped:
            self.restarts += 1
            log.warning("the commentator's process ended (exit code %s); it is started again in %g s", code, self.worker.again())
