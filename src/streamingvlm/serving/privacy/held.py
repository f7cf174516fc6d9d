"""Where people may be, between two looks of a detector and when it misses one: boxes held over gaps, grown by how fast they move. Knows no pixels.

    held = Held(); held.see(at_s, boxes)      # what the detector found, as often as it runs
    held.at(at_s)                             # boxes to hide at that time; None: too long since it ran, so nobody knows

A person that is not found again stays hidden for `hold_s`, in a box that spans where they were and where they would be by now, larger the longer it
is held. Times are the camera's own. Letters: N boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streamingvlm.serving.privacy.redactor import Box

HOLD_S = 1.0
GROW = 0.15  # of a box's size, on each side, always: a detector's edges are not exact
FAST = 0.25  # of a picture's side a second, assumed of whoever was seen once only
SLACK = 0.05  # of a picture's side a second, beyond what was measured
NEAR = 1.5  # of the larger box's size, and what it may have moved: further apart are two people


@dataclass
class _Person:
    """`speed`: of the middle, shares of the picture a second; None until seen twice."""

    box: Box
    at_s: float
    speed: tuple[float, float] | None = None


class Held:
    """One camera's. `hold_s`: how long who is not found again stays hidden. The last look of the detector counts so long, HOLD_S at most:
    who came since is in no box."""

    def __init__(self, hold_s: float = HOLD_S):
        self.hold_s, self.people, self.ran_at = hold_s, [], -math.inf

    def see(self, at_s: float, boxes: Sequence[Box]) -> None:
        """The detector ran on the picture of `at_s`. A time before the last one begins anew."""
        if at_s < self.ran_at:
            self.forget()
        left = [person for person in self.people if at_s - person.at_s <= self.hold_s]
        found = []
        for box in boxes:
            before = min((person for person in left if _near(person, box, at_s)), key=lambda person: _apart(_moved(person, at_s), box), default=None)
            if before is not None:
                left.remove(before)
            found.append(_Person(tuple(box), at_s, _speed(before, box, at_s) if before else None))
        self.people, self.ran_at = [*found, *left], at_s

    def at(self, at_s: float) -> list[Box] | None:
        """All boxes that may hold somebody at `at_s`; None where the detector's last look was later, or too long ago."""
        if not 0 <= at_s - self.ran_at <= min(self.hold_s, HOLD_S):
            return None
        return [grown(person.box, _moved(person, at_s), _reach(person, at_s)) for person in self.people if at_s - person.at_s <= self.hold_s]

    def forget(self) -> None:
        """Another connection of the camera: nothing is known."""
        self.people, self.ran_at = [], -math.inf


def before(boxes: Sequence[Box], earlier_s: float) -> list[Box]:
    """Where those who were found may have been so much earlier."""
    return [grown(tuple(box), tuple(box), earlier_s * FAST) for box in boxes]


def grown(one: Box, other: Box, reach: float) -> Box:
    """A box around both, larger by GROW of its size and by `reach`."""
    x0, y0, x1, y1 = min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])
    wide, high = GROW * (x1 - x0) + reach, GROW * (y1 - y0) + reach
    return max(x0 - wide, 0.0), max(y0 - high, 0.0), min(x1 + wide, 1.0), min(y1 + high, 1.0)


def _reach(person: _Person, at_s: float) -> float:
    return (at_s - person.at_s) * (FAST if person.speed is None else SLACK + 0.5 * math.hypot(*person.speed))


def _moved(person: _Person, at_s: float) -> Box:
    dx, dy = ((at_s - person.at_s) * part for part in person.speed or (0.0, 0.0))
    x0, y0, x1, y1 = person.box
    return x0 + dx, y0 + dy, x1 + dx, y1 + dy


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _apart(one: Box, other: Box) -> float:
    return math.dist(_middle(one), _middle(other))


def _near(person: _Person, box: Box, at_s: float) -> bool:
    size = max(person.box[2] - person.box[0], person.box[3] - person.box[1], box[2] - box[0], box[3] - box[1])
    return _apart(_moved(person, at_s), box) <= NEAR * size + (at_s - person.at_s) * (FAST if person.speed is None else SLACK)


def _speed(person: _Person, box: Box, at_s: float) -> tuple[float, float]:
    """Half of what was measured just now, half of what was known."""
    passed = max(at_s - person.at_s, 1e-3)
    now = tuple((b - a) / passed for a, b in zip(_middle(person.box), _middle(box), strict=True))
    return now if person.speed is None else tuple((a + b) / 2 for a, b in zip(person.speed, now, strict=True))
