"""How many streams a machine serves: the most whose p99 from release to decision keeps the budget. Knows neither streams nor machine, only `run`.

    found = capacity(lambda streams: Measured(outcome.covered, outcome.seconds), budget_ms=120.0)
    found.streams, found.trials

`run(streams)` measures that many, in virtual time or live. Doubles, then bisects. Whether a share over the budget is above 1 % is a matter of chance
for few frames, so a trial passes when it is surely below, fails when it is surely above, and is run again, its frames added, while it is neither.
A dropped frame counts until a newer one of its stream was decided (see `virtual`): a machine that drops what it can't do serves no more streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamingvlm.base.numbers import wilson

if TYPE_CHECKING:
    from streamingvlm.serving.schedule.latencies import Latencies

SHARE = 0.01  # of frames that may be over the budget: p99
SURE = 1.645  # standard deviations: nineteen of twenty
SHORTEST_S = 10.0  # of a trial


@dataclass(frozen=True)
class Measured:
    """What `run` returns: the latency of every frame that was due, and how long the run was."""

    covered: Latencies
    seconds: float


@dataclass(frozen=True)
class Trial:
    """`low`, `high`: bounds of the share over the budget. `sure`: whether they leave no doubt. `goodput`: frames a second within the budget."""

    streams: int
    frames: int
    over: int
    low: float
    high: float
    p50_ms: float
    p99_ms: float
    goodput: float
    seconds: float
    passes: bool
    sure: bool


@dataclass(frozen=True)
class Capacity:
    """`streams`: the most that passed, 0 if one did not."""

    streams: int
    budget_ms: float
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        """The trial of that many."""
        return next((trial for trial in self.trials if trial.streams == self.streams), None)


def bounds(over: int, frames: int) -> tuple[float, float]:
    """Wilson's bounds of a share that `over` of `frames` were seen of."""
    if not frames:
        return 0.0, 1.0
    low, high = wilson(over / frames, frames, SURE)
    return max(0.0, low), min(1.0, high)


def capacity(run: Callable[[int], Measured], budget_ms: float, limit: int = 256, tries: int = 4) -> Capacity:
    """`limit`: look no higher. After `tries` runs of one size the share that was seen decides."""
    trials: list[Trial] = []

    def passes(streams: int) -> bool:
        trials.append(trial(run, streams, budget_ms, tries))
        return trials[-1].passes

    return Capacity(largest(passes, limit), budget_ms, trials)


def trial(run: Callable[[int], Measured], streams: int, budget_ms: float, tries: int) -> Trial:
    """Run that many streams until it is sure whether they keep the budget, `tries` times at most."""
    measured = run(streams)
    latencies, seconds = measured.covered, measured.seconds
    while True:
        if measured.seconds < SHORTEST_S:
            raise ValueError(f"a trial of capacity takes {SHORTEST_S:g} s at least, not {measured.seconds:.1f}")
        frames, over = len(latencies), latencies.over(budget_ms)
        low, high = bounds(over, frames)
        tries -= 1
        sure = high <= SHARE or low > SHARE
        if sure or tries <= 0:
            passes = frames > 0 and over <= SHARE * frames
            return Trial(streams, frames, over, low, high, latencies.percentile(50), latencies.percentile(99), (frames - over) / seconds, seconds,
                         passes, sure)
        measured = run(streams)
        latencies.merge(measured.covered)
        seconds += measured.seconds


def largest(passes: Callable[[int], bool], limit: int, within: float = 0.0) -> int:
    """The largest n in 1..limit that passes, 0 if none does, for a `passes` that never turns true again. Doubles, then bisects.

    `within`: be content when what fails is no more than this share above what passes."""
    low, high = 0, limit + 1  # low passes (or is 0), high does not (or is out of bounds)
    n = 1
    while low + 1 < high and (high > limit or high - low > within * low):
        low, high = (n, high) if passes(n) else (low, n)
        n = min(2 * low, limit) if high > limit else (low + high) // 2
    return low
