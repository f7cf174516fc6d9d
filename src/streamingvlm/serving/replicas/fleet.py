"""Several replicas in the place of the model's one process: the same messages in and out (`live.analysis`), so the decider drives it as it is.

    fleet = Fleet(make, pools, on_message); fleet.start(loop); fleet.send(("run", 7, [(stamp, pool, slot)])); await fleet.stop()

A stream has one home. A batch goes in parts to its streams' homes, and its answers come together. Between batches streams move: to a replica that is
new, or from one that goes, with all that is known of them. A replica that died takes that with it: its part of the batch is decided by others, from a
fresh start (`counts` has how often), and frames that grow old meanwhile are the scheduler's drops. Knows no Ray and no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
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
ANSWER_S = 30.0  # a replica that lives and says nothing for so long is taken for dead
PAUSE_S = 2.0  # after one could not be started


class Far(Protocol):
    """A `replica.Replica` wherever it runs; a call raises, whatever it likes, where that is gone."""

    async def call(self, method: str, *arguments): ...

    async def gone(self) -> None:
        """Returns, or raises, once it has ended unasked: sooner than a call that waits for an answer would tell."""

    async def stop(self) -> None: ...


class Fleet:
    """`make(name)` starts a replica. `on_message` as for `processes.Worker`; nobody need hear that one is gone: it mends itself."""

    def __init__(self, make: Callable[[str], Awaitable[Far]], pools: Sequence[Slots], on_message: Callable[[tuple], None],
                 knobs: Knobs | None = None):
        self.make, self.pools, self.on_message, self.knobs = make, pools, on_message, knobs or Knobs()
        self.replicas: dict[str, Far] = {}
        self.ends: dict[str, asyncio.Future] = {}  # each replica's `gone`
        self.curve: dict[int, float] = {}  # streams in a batch of one replica -> ms
        self.curve_of = 1  # replicas whose curve was told last
        self.homes: dict[str, str] = {}
        self.wanted, self.memory, self.names = self.knobs.minimum, Memory(), itertools.count()
        self.deaths = self.lost = self.moved = 0
        self.queued = 0  # frames that wait, as the scheduler last said
        self.lateness: deque[tuple[float, float]] = deque(maxlen=RECENT)  # (now, ms)
        self.turn = asyncio.Lock()  # of batches and moves
        self.tasks: set[asyncio.Future] = set()
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

    def counts(self) -> dict[str, int]:
        """For `/api/stats`: how many replicas there are and should be, how many died, and the streams that moved and those whose past was lost."""
        return {"running": len(self.replicas), "wanted": self.wanted, "deaths": self.deaths, "moved": self.moved, "lost": self.lost}

    async def stop(self) -> None:
        self.stopped = True
        for task in (tasks := list(self.tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(far.stop() for far in self.replicas.values()), return_exceptions=True)
        self.replicas.clear()
        self.ends.clear()

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
        return Load(len(self.homes), self.queued, float(np.percentile(late, 95)) if late else 0.0, len(self.replicas))

    # Inside

    def _task(self, work: Awaitable) -> asyncio.Future:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _begin(self) -> None:
        try:
            name = await self._grow()
            curve = await self.replicas[name].call("curve")
        except Exception as error:  # whatever a cluster raises
            self.on_message(("failed", str(error) if isinstance(error, UserError) else f"No replica could be started: {error!r:.300}"))
            return
        self.curve = {int(size): ms for size, ms in curve.items()}
        self.on_message(("ready", self.curve))
        following = None
        while True:  # a replica takes many looks to come, and the policy is to see each of them
            wanted = self.observe(self.load(time.monotonic()), time.monotonic())
            self._tell_curve()
            if following is None or following.done():
                following = self._task(self._follow(wanted))
            await asyncio.sleep(EVERY_S)

    def _tell_curve(self) -> None:
        """A batch takes as long as its largest part: what the scheduler makes batches by changes with the number of replicas."""
        if self.replicas and len(self.replicas) != self.curve_of:
            self.curve_of = len(self.replicas)
            self.on_message(("curve", shared(self.curve, self.curve_of)))

    async def _follow(self, wanted: int) -> None:
        try:
            await self.scale(wanted)
        except Exception:  # a cluster that has no room now may have it later
            log.exception("a replica could not be started; it is tried again")
            await asyncio.sleep(PAUSE_S)

    async def _grow(self) -> str:
        name = f"replica-{next(self.names)}"
        self.replicas[name] = far = await self.make(name)
        self.ends[name] = ended = self._task(far.gone())
        ended.add_done_callback(lambda ended: None if ended.cancelled() else self._died(name, ended.exception() or EOFError("it ended")))
        self.come.set()
        return name

    async def _drain(self, name: str) -> None:
        async with self.turn:
            while len(self.replicas) > 1 and (left := self._at(name)):
                await self._move(left[0])
            if len(self.replicas) == 1:  # the others died meanwhile
                return
            far = self._dismissed(name)
        if far:
            await far.stop()

    def _dismissed(self, name: str) -> Far | None:
        """The replica, of which nothing is expected any more."""
        if ended := self.ends.pop(name, None):
            ended.cancel()
        return self.replicas.pop(name, None)

    async def _balance(self) -> None:
        """Move the fewest streams that make the homes' numbers differ by one at most."""
        while len(self.replicas) > 1:
            fullest = max(self.replicas, key=lambda name: (len(self._at(name)), name))
            emptiest = self._emptiest()
            if len(self._at(fullest)) - len(self._at(emptiest)) <= 1:
                return
            await self._move(self._at(fullest)[-1])

    async def _move(self, stream: str) -> None:
        """From its home to the emptiest other one; should that die over it, to the next."""
        here = self.homes[stream]
        try:
            told = await self._call(here, "hand_over", stream)
        except ConnectionError:
            return  # its streams have no home now, and get one with their next frame
        self.homes.pop(stream, None)
        while self.replicas:
            to = self._emptiest(besides=here if len(self.replicas) > 1 else "")
            with contextlib.suppress(ConnectionError):
                await self._call(to, "take", stream, told)
                self.homes[stream], self.moved = to, self.moved + 1
                return
        self.lost += 1

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
        call = None
        try:
            call, ended = asyncio.ensure_future(self.replicas[name].call(method, *arguments)), self.ends[name]
            await asyncio.wait({call, ended}, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise EOFError("it ended") if ended.done() else TimeoutError(f"no answer in {ANSWER_S:g} s")
            return call.result()
        except Exception as error:
            self._died(name, error)
            raise ConnectionError(name) from error
        finally:
            if call:
                call.cancel()

    def _died(self, name: str, error: BaseException) -> None:
        far = None if self.stopped else self._dismissed(name)
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


def shared(curve: dict[int, float], replicas: int) -> dict[int, float]:
    """One replica's curve {streams in a batch: ms} -> that of so many of them."""
    sizes = sorted(curve)
    return {size: float(np.interp(math.ceil(size / replicas), sizes, [curve[one] for one in sizes])) for size in range(1, sizes[-1] * replicas + 1)}
