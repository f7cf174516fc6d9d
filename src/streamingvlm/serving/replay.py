"""What a scheduler was told, written down, and told again: the same actions in the same order. Knows the events' fields, no clock.

    recorded = Recorded(scheduler, recorder)          # in place of the scheduler: handles, and writes down
    for now, actions in replay(arrivals.read(path), Scheduler(same curve, same limits)): ...

A replay from arrivals alone (`virtual.run`) answers what other settings would have done; this one answers what was done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from streamingvlm.base.errors import UserError
from streamingvlm.media.arrivals import Handled, Recorder, Row
from streamingvlm.serving import events
from streamingvlm.serving.events import Action, Event, Settings
from streamingvlm.serving.scheduler import Scheduler

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


def replay(rows: Iterable[Row], scheduler: Scheduler) -> Iterator[tuple[float, list[Action]]]:
    """(time, actions) of every event in the trace, told to a scheduler of the same curve and limits."""
    for row in rows:
        if isinstance(row, Handled):
            yield row.at, scheduler.handle(to_event(row), row.at)
