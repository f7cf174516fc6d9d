"""What a scheduler was told, written down, and told again: the same actions in the same order. Knows the events' fields, no clock.

    streamingvlm serve --demo --record run.jsonl.gz
    python -m streamingvlm.serving.schedule.replay run.jsonl.gz     # every frame decided again, in virtual time; --frames: frame by frame

    for now, event, actions in replay(arrivals.read(path)): ...        # of a live run: the trace says what its scheduler was made of
    recorded = Recorded(scheduler, recorder)          # in place of a scheduler: handles, and writes down

A replay from arrivals alone (`virtual.drive`) answers what other settings would have done; this one answers what was done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from streamingvlm.base.errors import UserError, exit_status
from streamingvlm.media import arrivals
from streamingvlm.media.arrivals import Handled, Recorder, Row, Setup
from streamingvlm.serving.schedule import events
from streamingvlm.serving.schedule.events import Action, Event, Settings
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Limits, Scheduler
from streamingvlm.serving.schedule.virtual import Books, Outcome

EVENTS: dict[str, type] = {kind.__name__: kind for kind in Event.__args__}


class Recorded:
    """A scheduler whose events are written to a trace before it handles them."""

    def __init__(self, scheduler: Scheduler, recorder: Recorder):
        self.scheduler, self._recorder = scheduler, recorder

    def handle(self, event: Event, now: float) -> list[Action]:
        self._recorder.add(to_row(event, now))
        return self.scheduler.handle(event, now)


def to_row(event: Event, now: float) -> Handled:
    return Handled(now, type(event).__name__, tuple(dataclasses.asdict(field) if isinstance(field, Settings) else field for field in event))


def to_event(row: Handled) -> Event:
    """UserError if this version has no such event."""
    try:
        fields = row.fields
        if row.event == events.StreamAdded.__name__:
            fields = (fields[0], Settings(**fields[1]))
        return EVENTS[row.event](*fields)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"This trace holds an event `{row.event}` that this version does not know ({error}); record it again.") from None


def replay(rows: Iterable[Row], scheduler: Scheduler | None = None) -> Iterator[tuple[float, Event, list[Action]]]:
    """(time, event, actions) of every event in the trace, told to `scheduler`, or to one made as the trace says. UserError where it does not say."""
    for row in rows:
        if isinstance(row, Setup):
            scheduler = scheduler or Scheduler(LatencyCurve(dict(row.curve), row.largest))
            scheduler.limits = Limits(**row.limits)
        elif isinstance(row, Handled):
            if scheduler is None:
                raise UserError("This trace does not say what its scheduler was made of, so it cannot be decided again.")
            yield row.at, to_event(row), scheduler.handle(to_event(row), row.at)


class Fate(NamedTuple):
    """What became of a frame, and when: `decided`, or the cause of its drop."""

    at: float
    frame: events.FrameArrived
    what: str


def fates(rows: Iterable[Row], scheduler: Scheduler | None = None) -> Iterator[Fate]:
    """Every frame that reached the scheduler of a trace, in the order in which their fates were known."""
    running: dict[int, tuple[events.FrameArrived, ...]] = {}
    for at, event, actions in replay(rows, scheduler):
        if isinstance(event, events.BatchDone):
            yield from (Fate(at, frame, "decided") for frame in running.pop(event.batch_id, ()))
        for action in actions:
            if isinstance(action, events.Run):
                running[action.batch_id] = action.frames
            elif isinstance(action, events.Drop):
                yield Fate(at, action.frame, action.cause)


def measured(rows: Sequence[Row], since: float = -math.inf, until: float = math.inf) -> Outcome:
    """The latencies of a recorded run as `virtual.drive` has them, of the frames released between two times. Its counts are of the whole."""
    outcome, last = Outcome(), since
    books = Books(outcome)
    for row in rows:
        if isinstance(row, Handled) and row.event == events.StreamAdded.__name__:
            books.add(*to_event(row))
    for at, frame, what in fates(rows):
        if since <= frame.released_at < until:
            last = at
            if what == "decided":
                books.decided(frame, at)
            else:
                books.dropped(frame)
    books.finish(last)
    outcome.seconds = last - since
    return outcome


@exit_status
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m streamingvlm.serving.schedule.replay", description=__doc__.partition("\n")[0])
    parser.add_argument("trace", type=Path, help="a file that `streamingvlm serve --record` wrote")
    parser.add_argument("--frames", action="store_true", help="a JSON line for each frame, before the sums")
    args = parser.parse_args(argv)
    counted: dict[str, Counter] = {}
    for at, frame, what in fates(arrivals.read(args.trace)):
        counted.setdefault(frame.stream, Counter())[what] += 1
        if args.frames:
            print(json.dumps({"at": at, "stream": frame.stream, "pts_s": frame.pts_s, "what": what}))
    print(json.dumps({stream: dict(sorted(what.items())) for stream, what in sorted(counted.items())}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
