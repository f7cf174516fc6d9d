"""How many replicas the streams need: a pure function of what was measured, called every second or so. Knows no clock, no process and no Ray.

    memory = Memory()
    wanted, memory = step(Knobs(), Load(streams=8, queued=3, late_p95_ms=90.0), running=2, memory=memory, now_s=12.0)

Two needs, and the larger holds: one for the streams, at so many a replica; and one for falling behind (late, or frames that queue), which teaches how
many streams a replica truly carries. That is remembered, or a replica that made the streams punctual would be taken away for it. Up at once, or, for
falling behind, after a while; down only to what was enough for all of `hold_s`, with a margin. Without streams: the minimum, and nothing remembered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Knobs:
    """`streams`: that a replica is taken to carry until it is seen not to. `budget_ms`: p95 lateness beyond which replicas are too few; `queued`:
    frames that wait, a stream, likewise. `behind_s`: for how long. `settle_s`: how long a new replica, once it is there, has to show what it does.
    `hold_s`: before one goes, and `margin`: with so much of another to spare."""

    minimum: int = 1
    maximum: int = 8
    streams: float = 4.0
    budget_ms: float = 120.0
    queued: float = 4.0
    behind_s: float = 3.0
    settle_s: float = 10.0
    hold_s: float = 30.0
    margin: float = 0.25

    def __post_init__(self):
        if not 1 <= self.minimum <= self.maximum or min(self.streams, self.budget_ms, self.queued, self.hold_s) <= 0:
            raise ValueError(f"replicas need 1 <= minimum <= maximum, and streams, budget, queue and hold above 0, not {self}")


@dataclass(frozen=True)
class Load:
    """Over all replicas. `late_p95_ms`: from a frame's release to its decision. `ready`: replicas that are there; None: all that are wanted."""

    streams: int = 0
    queued: int = 0
    late_p95_ms: float = 0.0
    ready: int | None = None


@dataclass(frozen=True)
class Memory:
    """`carried`: streams a replica as seen, None: not yet. Times are None where it is not so just now."""

    carried: float | None = None
    behind_since_s: float | None = None
    raised_s: float | None = None
    lower_since_s: float | None = None
    enough: int = 0  # the largest need since `lower_since_s`


def step(knobs: Knobs, load: Load, running: int, memory: Memory, now_s: float) -> tuple[int, Memory]:
    """-> how many replicas there should be, of which `running` are wanted now, and what to remember."""
    memory = _learned(knobs, load, running, memory, now_s) if load.streams else replace(memory, carried=None, behind_since_s=None)
    carried = min(memory.carried or knobs.streams, knobs.streams)
    need = _between(knobs, math.ceil(load.streams / carried - 1e-9))
    if need > running:
        return need, replace(memory, raised_s=now_s, lower_since_s=None, behind_since_s=None)
    spare = _between(knobs, math.ceil(load.streams / carried + knobs.margin - 1e-9) if load.streams else 0)
    if spare >= running:
        return _between(knobs, running), replace(memory, lower_since_s=None)
    if memory.lower_since_s is None:
        return _between(knobs, running), replace(memory, lower_since_s=now_s, enough=spare)
    enough = max(memory.enough, spare)
    if now_s - memory.lower_since_s < knobs.hold_s:
        return _between(knobs, running), replace(memory, enough=enough)
    return enough, replace(memory, lower_since_s=None)


def _learned(knobs: Knobs, load: Load, running: int, memory: Memory, now_s: float) -> Memory:
    """Behind for long enough, and not just because a replica is new: so many streams are more than `running` carry."""
    if load.ready is not None and load.ready < running:
        return replace(memory, behind_since_s=None, raised_s=now_s)  # what they can do together is yet to be seen
    if load.late_p95_ms <= knobs.budget_ms and load.queued <= knobs.queued * load.streams:
        return replace(memory, behind_since_s=None)
    since = now_s if memory.behind_since_s is None else memory.behind_since_s
    settling = memory.raised_s is not None and now_s - memory.raised_s < knobs.settle_s
    if settling or now_s - since < knobs.behind_s or running >= min(knobs.maximum, load.streams):
        return replace(memory, behind_since_s=since)
    carried = load.streams / (running + 1)
    return replace(memory, carried=min(carried, memory.carried or carried), behind_since_s=None)


def _between(knobs: Knobs, replicas: int) -> int:
    return min(max(replicas, knobs.minimum), knobs.maximum)
