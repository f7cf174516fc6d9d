"""What is said of one frame: an action, what is wrong, and the things from left to right, each with the corners of its box. Knows words alone.

    walk fall left person 3 20 7 30 car 40 31 46 37      # corners x0 y0 x1 y1 in steps of 1/48 of the picture

Words are parsed exactly: what `say` never says is no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES, SIZE_PX

STEPS = 48  # the picture's side; a corner is one of 0 to 48
STEP_PX = SIZE_PX / STEPS
MOST = 8  # things; of a fuller frame the first from the left are said
QUESTION = "Action, alarms, boxes?"
ACTION_WORDS = {name: {"fall": "falls", "empty": "nobody"}.get(name, name) for name in ACTIONS}  # a word has one meaning: `fall` is an alarm,
ALARM_WORDS = {name: {"bag": "left"}.get(name, name) for name in ANOMALIES}  # and `bag` a thing
WORDS = tuple(dict.fromkeys([*QUESTION.split(), *ACTION_WORDS.values(), *ALARM_WORDS.values(), *CLASSES, *map(str, range(STEPS + 1))]))
LONGEST = 1 + len(ANOMALIES) + 5 * MOST  # words


@dataclass(frozen=True)
class Thing:
    """label: an index of CLASSES; corners x0, y0, x1, y1 in steps, x0 < x1 and y0 < y1."""

    label: int
    corners: tuple[int, int, int, int]


@dataclass(frozen=True)
class Said:
    """action: an index of ACTIONS; anomalies: names, in the order of ANOMALIES."""

    action: int
    anomalies: tuple[str, ...] = ()
    things: tuple[Thing, ...] = ()


def say(said: Said) -> list[str]:
    """The words of an answer."""
    things = [[CLASSES[thing.label], *map(str, thing.corners)] for thing in said.things]
    return [ACTION_WORDS[ACTIONS[said.action]], *(ALARM_WORDS[name] for name in said.anomalies), *(word for words in things for word in words)]


def parse(words: Sequence[str]) -> Said | None:
    """The answer, or None for words that `say` would not say. A box without any extent is no box."""
    actions, alarms, left = list(ACTION_WORDS.values()), {word: name for name, word in ALARM_WORDS.items()}, list(words)
    if not left or left[0] not in actions:
        return None
    action, at = actions.index(left[0]), 1
    while at < len(left) and left[at] in alarms:
        at += 1
    anomalies = tuple(alarms[word] for word in left[1:at])
    if list(anomalies) != [name for name in ANOMALIES if name in anomalies] or (len(left) - at) % 5 or len(left) - at > 5 * MOST:
        return None
    things = [_thing(left[k : k + 5]) for k in range(at, len(left), 5)]
    return None if None in things else Said(action, anomalies, tuple(things))


def _thing(words: Sequence[str]) -> Thing | None:
    name, *corners = words
    if name not in CLASSES or not all(word in WORDS and word.isdigit() for word in corners):
        return None
    x0, y0, x1, y1 = map(int, corners)
    return Thing(CLASSES.index(name), (x0, y0, x1, y1)) if x0 < x1 and y0 < y1 else None
