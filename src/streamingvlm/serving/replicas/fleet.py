"""Several replicas in the place of the model's one process: the same messages in and out (`live.analysis`), so the decider drives it as it is.

    fleet = Fleet(make, pools, on_message); fleet.start(loop); fleet.send(("run", 7, [(stamp, pool, slot)])); await fleet.stop()

A stream has one home. A batch goes in parts to its streams' homes, and its answers come together. Between batches streams move: to a replica that is
new, or from one that goes, with all that is known of them. A replica that died takes that with it: its part of the batch is decided by others, from a
fresh start (`lost` counts those streams), and frames that grow old meanwhile are the scheduler's drops. Knows no Ray and no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Frame
from streamingvlm.serving.processes import STOP
from streamingvlm.serving.replicas.policy import Knobs, Load, Memory, step
from streamingvlm.serving.slots import Slots

log = logging.getLogger(__name__)
EVERY_S = 1.0  # between looks at how many are needed
RECENT = 512  # frames whose lateness counts
RECENT_S = 5.0
ANSWER_S = 10.0  # a replica that says nothing for so long is taken for dead
PAUSE_S = 2.0  # after one could not be started


class Far(Protocol):
    """A `replica.Replica` wherever it runs; a call raises, whatever it likes, where that is gone."""

    async def call(self, method: str, *arguments): ...

    async def stop(self) -> None: ...


class Fleet:
    """`make(name)` starts a replica. `on_message` as for `processes.Worker`; nobody need hear that one is gone: it mends itself."""

    def __init__(self, make: Callable[[str], Awaitable[Far]], pools: Sequence[Slots], on_message: Callable[[tuple], None],
                 knobs: Knobs | None = None):
        self.make, self.pools, self.on_message, self.knobs = make, pools, on_message, knobs or Knobs()
        self.replicas: dict[str, Far] = {}
        self.homes: dict[str, str] = {}
        self.wanted, self.memory, self.names = self.knobs.minimum, Memory(), itertools.count()
        self.deaths = self.lost = self.moved = 0
        self.queued = 0  # frames that wait, as the scheduler last said
        self.lateness: deque[tuple[float, float]] = deque(maxlen=RECENT)  # (now, ms)
        self.turn = asyncio.Lock()  # of batches and moves
        self.tasks: set[asyncio.Task] = set()
        self.stopped = False
        self.come = asyncio.Event()  # there is a replica

    @property
    def alive(self) -> bool:
        return bool(self.replicas)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task(self._begin())

    def send(self, message: tuple) -> bool:
        if self.stopped or message == STOP:
            return False
        if message[0] == "run":
            _, batch, places = message
            frames = [Frame(stamp, np.array(self.pools[pool].view(slot))) for stamp, pool, slot in places]
            self._task(self._run(batch, frames))
        else:
            self._task(self._forget(message[1]))
        return True

    def watch(self, waiting: int, late_ms: Sequence[float]) -> None:
        self.queued = waiting
        self.lateness.extend((time.monotonic(), ms) for ms in late_ms)

    async def stop(self) -> None:
        self.stopped = True
        for task in (tasks := list(self.tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(far.stop() for far in self.replicas.values()), return_exceptions=True)
        self.replicas.clear()

    async def scale(self, wanted: int) -> None:
        """Have so many replicas, each with its share of the streams."""
        while len(self.replicas) < wanted:
            await self._grow()
        while len(self.replicas) > wanted:
            await self._drain(min(self.replicas, key=lambda name: (len(self._at(name)), name)))
        async with self.turn:
            await self._balance()

    def observe(self, load: Load, now_s: float) -> int:
        """-> how many replicas there should be now."""
        self.wanted, self.memory = step(self.knobs, load, self.wanted, self.memory, now_s)
        return self.wanted

    def load(self, now: float) -> Load:
        late = [ms for at, ms in self.lateness if at > now - RECENT_S]
        return Load(len(self.homes), self.queued, float(np.percentile(late, 95)) if late else 0.0)

    # Inside

    def _task(self, work: Awaitable) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _begin(self) -> None:
        try:
            name = await self._grow()
            curve = await self.replicas[name].call("curve")
        except UserError as error:
            self.on_message(("failed", str(error)))
            return
        self.on_message(("ready", {int(size): ms for size, ms in curve.items()}))
        while True:
            try:
                await self.scale(self.observe(self.load(time.monotonic()), time.monotonic()))
            except Exception:  # a cluster that has no room now may have it later
                log.exception("a replica could not be started or moved; it is tried again")
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(EVERY_S)

    async def _grow(self) -> str:
        name = f"replica-{next(self.names)}"
        self.replicas[name] = await self.make(name)
        self.come.set()
        return name

    async def _drain(self, name: str) -> None:
        async with self.turn:
            for stream in self._at(name):
                await self._move(stream, self._emptiest(besides=name))
            far = self.replicas.pop(name, None)
        if far:
            await far.stop()

    async def _balance(self) -> None:
        """Move the fewest streams that make the homes' numbers differ by one at most."""
        while len(self.replicas) > 1:
            fullest = max(self.replicas, key=lambda name: (len(self._at(name)), name))
            emptiest = self._emptiest()
            if len(self._at(fullest)) - len(self._at(emptiest)) <= 1:
                return
            await self._move(self._at(fullest)[-1], emptiest)

    async def _move(self, stream: str, to: str) -> None:
        here = self.homes[stream]
        try:
            told = await self._call(here, "hand_over", stream)
        except ConnectionError:
            return  # its streams have new homes already
        self.homes[stream] = to
        with contextlib.suppress(ConnectionError):  # then both are without it
            await self._call(to, "take", stream, told)
            self.moved += 1

    async def _run(self, batch: int, frames: list[Frame]) -> None:
        begun = time.perf_counter()
        async with self.turn:
            answers: dict[str, dict] = {}
            left = frames
            while left:
                await self.come.wait()
                parts: dict[str, list[Frame]] = {}
                for frame in left:
                    parts.setdefault(self._home(frame.stamp.stream), []).append(frame)
                results = await asyncio.gather(*(self._call(name, "decide", part) for name, part in parts.items()), return_exceptions=True)
                left = []
                for part, result in zip(parts.values(), results, strict=True):
                    if isinstance(result, BaseException):
                        if not isinstance(result, ConnectionError):
                            raise result
                        left += part
                    else:
                        answers |= {frame.stamp.stream: answer for frame, answer in zip(part, result[0], strict=True)}
        self.on_message(("done", batch, [answers[frame.stamp.stream] for frame in frames], (time.perf_counter() - begun) * 1e3))

    async def _forget(self, stream: str) -> None:
        async with self.turn:
            if name := self.homes.pop(stream, None):
                with contextlib.suppress(ConnectionError):
                    await self._call(name, "forget", stream)

    async def _call(self, name: str, method: str, *arguments):
        """ConnectionError where the replica is gone, which is then known."""
        try:
            return await asyncio.wait_for(self.replicas[name].call(method, *arguments), ANSWER_S)
        except Exception as error:
            self._died(name, error)
            raise ConnectionError(name) from error

    def _died(self, name: str, error: Exception) -> None:
        far = self.replicas.pop(name, None)
        if far is None:
            return
        homeless = self._at(name)
        self.deaths, self.lost = self.deaths + 1, self.lost + len(homeless)
        log.warning("%s is gone (%s: %.200s); %d streams begin anew elsewhere", name, type(error).__name__, error, len(homeless))
        for stream in homeless:
            del self.homes[stream]
        if not self.replicas:
            self.come.clear()
        self._task(far.stop())

    def _at(self, name: str) -> list[str]:
        return [stream for stream, home in self.homes.items() if home == name]

    def _home(self, stream: str) -> str:
        if stream not in self.homes:
            self.homes[stream] = self._emptiest()
        return self.homes[stream]

    def _emptiest(self, besides: str = "") -> str:
        return min((name for name in self.replicas if name != besides), key=lambda name: (len(self._at(name)), name))
