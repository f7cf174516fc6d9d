"""What the scheduler is told and what it answers: plain tuples, made a few hundred times a second and stream. Knows no clock and no pixels.

Every time is in seconds on one monotonic clock, the driver's; `pts_s` and `captured_at` are the frame's own and only handed through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

CAUSES = ("buffer_full", "stale", "subsampled", "superseded", "late_for_batch", "decode_error", "reconnect_gap", "admission")
Mode = Literal["auto", "every_frame", "freshest"]
MODES: tuple[Mode, ...] = ("auto", "every_frame", "freshest")


@dataclass(frozen=True)
class Settings:
    """What one stream asks for.

    budget_ms: from release to decision. priority: higher goes first. mode: `every_frame` queues; `freshest` keeps the newest frame only; `auto` is
    every_frame while it keeps up and freshest for a while after it did not. live: False for a file, which is never dropped from but held back (see
    `Scheduler.wants`). queue: most frames that wait. stale_ms: a live frame older than this is of no use to anybody. fps: what to expect of it.
    """

    budget_ms: float = 120.0
    priority: float = 0.0
    mode: Mode = "auto"
    live: bool = True
    queue: int = 16
    stale_ms: float = 1000.0
    fps: float = 8.0

    def __post_init__(self):
        if self.mode not in MODES or not self.budget_ms > 0 or not self.stale_ms > 0 or not self.fps > 0 or self.queue < 1:
            raise ValueError(f"a stream needs a mode of {', '.join(MODES)}, a budget, an age limit, a rate and a queue above 0, not {self}")


# Events


class StreamAdded(NamedTuple):
    stream: str
    settings: Settings


class StreamRemoved(NamedTuple):
    """Its waiting frames are dropped (`admission`); those that run are still decided."""

    stream: str


class FrameArrived(NamedTuple):
    """A frame that may run from now on. `frame_id` is the driver's handle to it; `released_at`: when its budget began to run."""

    stream: str
    frame_id: int
    pts_s: float
    captured_at: float
    released_at: float


class FrameLost(NamedTuple):
    """Frames that came in but never got here, by one of CAUSES."""

    stream: str
    count: int
    cause: str


class BatchDone(NamedTuple):
    """`run_ms`: how long the batch took; what the latency curve learns from."""

    batch_id: int
    run_ms: float


class BatchLost(NamedTuple):
    """The process that ran it is gone: its frames wait again, in their order."""

    batch_id: int


class CurveChanged(NamedTuple):
    """The machine is another one from now on, with more replicas or fewer. `curve`: (streams in a batch, ms), as `LatencyCurve` is given it."""

    curve: tuple[tuple[int, float], ...]


class Alarm(NamedTuple):
    """What the model last said of a stream: adds `severity` to its priority for a while."""

    stream: str
    severity: float


class Timer(NamedTuple):
    """The time of the last `Wake` has come."""


Event = StreamAdded | StreamRemoved | FrameArrived | FrameLost | BatchDone | BatchLost | CurveChanged | Alarm | Timer


# Actions


class Run(NamedTuple):
    """One frame each of some streams, the most urgent first. Answer with BatchDone or BatchLost."""

    batch_id: int
    frames: tuple[FrameArrived, ...]


class Drop(NamedTuple):
    frame: FrameArrived
    cause: str


class Wake(NamedTuple):
    """Send a Timer at `at`; the last Wake replaces those before it."""

    at: float


class Admitted(NamedTuple):
    stream: str


class Refused(NamedTuple):
    """`reason`: a sentence for whoever asked. Frames that come all the same are dropped (`admission`)."""

    stream: str
    reason: str


class Closed(NamedTuple):
    """The last frame of a removed stream is accounted for: its final counts."""

    stream: str
    counts: Counts


Action = Run | Drop | Wake | Admitted | Refused | Closed


@dataclass
class Counts:
    """Of one stream: frames in = decided + dropped + in flight, after every event. `late`: decided after their budget."""

    frames_in: int = 0
    decided: int = 0
    late: int = 0
    waiting: int = 0
    running: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))

    @property
    def in_flight(self) -> int:
        return self.waiting + self.running

    @property
    def balanced(self) -> bool:
        return self.frames_in == self.decided + sum(self.dropped.values()) + self.in_flight

    def add(self, other: Counts) -> None:
        for name in ("frames_in", "decided", "late", "waiting", "running"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for cause, count in other.dropped.items():
            self.dropped[cause] += count
