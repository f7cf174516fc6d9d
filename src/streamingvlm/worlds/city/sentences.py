"""What a camera's second says, in words that can be read back: what is wrong and where, then who does what. Exactly scored.

    second  := wrong (" and " wrong)* (" and " people)? | people | "empty"
    wrong   := shirt trousers "falls" where | "car on pavement" where | shirt trousers "loiters" where | "bag alone" where
    people  := count verb            count: 1 to 9, of those who do not lie; verb: stands, walks, runs, meets, without s after 2 and more
    where   := "left" | "middle" | "right"

Colours come before what their wearer does, so that the words carry the reasoning from one to the other. Knows labels, no pixels and no model.

    said = second(city.truth, camera=3, k=12)     # Said(people=2, action="walk", wrongs=(Wrong("fall", "left", ("red", "blue")),))
    say(said)                                     # ("red", "blue", "falls", "left", "and", "2", "people", "walk")
    parse(" ".join(say(said))) == said.plain

`note` says in nearly the same words what the multi-camera model makes of a second, for a commentator to start from; before each thing that may be
wrong stands for how many eighths of the second it was seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamingvlm.worlds.city.knobs import ACTIONS, FAMILIES, SHIRTS, TROUSERS, UNITS
from streamingvlm.worlds.city.people import BAG, CAR, LIE, PERSON, STAND, WALK
from streamingvlm.worlds.city.truth import Truth

QUERY = "Watch this street"
WHERE = ("left", "middle", "right")
VERBS = {"idle": "stand", "walk": "walk", "run": "run", "meet": "meet"}
CLAUSES = {"fall": "{shirt} {trousers} falls {where}", "pavement": "car on pavement {where}", "loiter": "{shirt} {trousers} loiters {where}",
           "bag": "bag alone {where}"}  # in the order they are said
WORDS = tuple(dict.fromkeys([*QUERY.split(), "empty", "person", "people", "and", *(form for verb in VERBS.values() for form in (verb, f"{verb}s")),
                             *(word for clause in CLAUSES.values() for word in clause.split() if word.isalpha()), *WHERE, *SHIRTS, *TROUSERS]))
MOST = 9  # people are counted so far
DOUBTFUL, HALF = 2, 4  # eighths of a second: what was seen for less is not noted; what was seen for so long is so
SAME = 0.1  # of the picture's width: a thing moves less from frame to frame
EDGE = 4.0  # units: nearer than this to a border between left, middle and right, both are right


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong. `or_where`: the other place that is as good, where it is near a border."""

    kind: str
    where: str
    look: tuple[str, str] | None = None
    or_where: str | None = None

    def agrees(self, other: Wrong) -> bool:
        """Whether `other`, as said, is this one."""
        return (self.kind, self.look) == (other.kind, other.look) and other.where in (self.where, self.or_where)


@dataclass(frozen=True)
class Said:
    """One second: what is wrong, and how many people (who do not lie) do what. "empty" without people."""

    people: int = 0
    action: str = "empty"
    wrongs: tuple[Wrong, ...] = ()

    @property
    def plain(self) -> Said:
        """As it can be read back: without second places."""
        return replace(self, wrongs=tuple(replace(wrong, or_where=None) for wrong in self.wrongs))


def say(said: Said) -> tuple[str, ...]:
    """The words of one second."""
    parts = [CLAUSES[wrong.kind].format(where=wrong.where, **dict(zip(("shirt", "trousers"), wrong.look or (), strict=False)))
             for wrong in said.wrongs]
    if said.people:
        verb = VERBS[said.action]
        parts.append(f"1 person {verb}s" if said.people == 1 else f"{said.people} people {verb}")
    return tuple(" and ".join(parts or ["empty"]).split())


_COLOURS = {"shirt": f"(?P<shirt>{'|'.join(SHIRTS)})", "trousers": f"(?P<trousers>{'|'.join(TROUSERS)})", "where": f"(?P<where>{'|'.join(WHERE)})"}
_WRONG = {kind: re.compile(clause.format(**_COLOURS)) for kind, clause in CLAUSES.items()}
_PEOPLE = re.compile(rf"(?P<count>[1-{MOST}]) (?:person|people) (?P<verb>{'|'.join(VERBS.values())})s?")


def parse(text: str) -> Said:
    """Read one second. A clause that is not in the grammar claims nothing; nothing at all reads as "empty"."""
    people, action, wrongs = 0, "empty", []
    for clause in " ".join(text.split()).split(" and "):
        if found := _PEOPLE.fullmatch(clause):
            people, action = int(found["count"]), next(name for name, verb in VERBS.items() if verb == found["verb"])
        for kind, way in _WRONG.items():
            if found := way.fullmatch(clause):
                parts = found.groupdict()
                wrongs.append(Wrong(kind, parts["where"], (parts["shirt"], parts["trousers"]) if "shirt" in parts else None))
    return Said(people, action, tuple(wrongs))


def second(truth: Truth, camera: int, k: int, kinds: Iterable[str] = FAMILIES["local"]) -> Said:
    """What there is to say of second `k`: what lasts at least half of it, of these kinds, and the median of the people."""
    first = round(k * truth.fps)
    frames = range(first, min(round((k + 1) * truth.fps), truth.action.shape[1]))
    parts = [truth.boxes(camera, frame) for frame in frames]
    counts, actions = zip(*(_people(truth, part, truth.meets[camera, frame]) for part, frame in zip(parts, frames, strict=True)), strict=True)
    people = min(int(np.median(counts)), MOST)
    shown = [action for action in actions if action != "empty"]
    action = max(VERBS, key=lambda name: (shown.count(name), list(VERBS).index(name))) if people else "empty"
    boxes = np.concatenate([np.arange(part.start, part.stop) for part in parts])
    found = [wrong for kind in CLAUSES if kind in kinds for wrong in _wrongs(truth, camera, kind, boxes, len(frames))]
    return Said(people, action, tuple(found))


def _people(truth: Truth, part: slice, meets: bool) -> tuple[int, str]:
    person = (truth.box_class[part] == PERSON) & (truth.box_pose[part] != LIE)
    walks = person & (truth.box_pose[part] == WALK)
    action = ("meet" if meets else "run" if (walks & truth.box_fast[part]).any() else "walk" if walks.any() else "idle" if person.any() else "empty")
    return int(person.sum()), action


def _wrongs(truth: Truth, camera: int, kind: str, boxes: np.ndarray, frames: int) -> list[Wrong]:
    """The things of one kind, from left to right, that are so in at least half of the frames."""
    mine = boxes[_is_wrong(truth, kind, boxes)]
    out = []
    for track in np.unique(truth.box_track[mine]):
        its = mine[truth.box_track[mine] == track]
        if 2 * len(its) >= frames:
            x, look = float(truth.box[its][:, [0, 2]].mean()), truth.box_look[its[0]]
            names = (SHIRTS[look[0]], TROUSERS[look[1]]) if kind in {"fall", "loiter"} else None
            where, or_where = _where(x / truth.size_px[1], EDGE / UNITS * truth.size_px[0] / truth.size_px[1])
            out.append((x, Wrong(kind, where, names, or_where)))
    return [wrong for _, wrong in sorted(out, key=lambda pair: pair[0])]


def _is_wrong(truth: Truth, kind: str, boxes: np.ndarray) -> np.ndarray:
    """[boxes] bool: which of these boxes are what makes this kind true."""
    what, pose = truth.box_class[boxes], truth.box_pose[boxes]
    return truth.box_wrong[boxes] & {"fall": pose == LIE, "pavement": what == CAR, "loiter": pose == STAND, "bag": what == BAG}[kind]


def _where(x: float, edge: float) -> tuple[str, str | None]:
    """x: 0 to 1 across the picture -> where that is, and where else it may be said to be."""
    at = min(int(x * 3), 2)
    near = [k for k in (at - 1, at + 1) if 0 <= k <= 2 and abs(x - max(k, at) / 3) < edge]
    return WHERE[at], WHERE[near[0]] if near else None


def note(rows: Sequence[Mapping]) -> str:
    """What the multi-camera model spotted in the frames of a second (`models.multicamera.heads.spotted` and `called`), any number of
    them, in words; "" where it looked at none."""
    if not rows:
        return ""
    parts = []
    for kind, things in (("fall", "falls"), ("pavement", "cars")):
        for x, likely, looks in _followed([_raised(row[things], row[kind]) for row in rows]):
            eighths = round(8 * likely / len(rows))
            if eighths >= DOUBTFUL:
                worn = dict(zip(("shirt", "trousers"), (names[at] for names, at in zip((SHIRTS, TROUSERS), looks, strict=False)), strict=False))
                parts.append(f"{eighths} {CLAUSES[kind].format(where=_where(x, 0.0)[0], **worn)}")
    people = min(round(float(np.median([row["people"] for row in rows]))), MOST)
    if people:
        shown = [_verb(row) for row in rows if row["people"]]
        action = max(VERBS, key=lambda name: (shown.count(name), list(VERBS).index(name)))
        parts.append(" ".join(say(Said(people, action))))
    return " and ".join(parts or ["empty"])


def heard(note: str) -> Said:
    """A note taken at its word: what was seen for at least half of the second is so."""
    claims = [re.match(r"(\d) (.*(?:falls|pavement) .*)", claim) for claim in note.split(" and ")]
    return parse(" and ".join(claim if found is None else found[2] for claim, found in zip(note.split(" and "), claims, strict=True)
                              if found is None or int(found[1]) >= HALF))


def _raised(things: Sequence[Sequence], likely: float) -> list[Sequence]:
    """What was found in a frame [x, how likely, ...], the likeliest of it as likely as the whole model thinks that there is anything."""
    ranked = sorted(things, key=lambda one: -one[1])
    return [(x, max(p, 0.0 if k else likely), *more) for k, (x, p, *more) in enumerate(ranked)]


def _verb(row: Mapping) -> str:
    """What those do who do not lie: a frame's own action may be the fall of another."""
    action = ACTIONS[row["action"]]
    return action if action in VERBS else "walk" if row["walk"] else "idle"


def _followed(frames: Sequence[Sequence[Sequence]]) -> list[tuple[float, float, list[int]]]:
    """Things (x, how likely, look ...) of frame after frame -> of each thing, from left to right: where it is on average, how likely over all frames,
    and its look as most of it was seen."""
    tracks: list[list[Sequence]] = []
    for things in frames:
        open_ = tracks[:]
        for thing in sorted(things, key=lambda one: -one[1]):
            mine = min(open_, key=lambda track: abs(track[-1][0] - thing[0]), default=None)
            if mine is None or abs(mine[-1][0] - thing[0]) > SAME:
                mine = []
                tracks.append(mine)
            else:
                open_ = [track for track in open_ if track is not mine]
            mine.append(thing)
    return sorted(map(_summed, tracks))


def _summed(track: Sequence[Sequence]) -> tuple[float, float, list[int]]:
    x, likely, *looks = zip(*track, strict=True)
    votes = [np.bincount(own, weights=likely) for own in looks]
    return float(np.average(x, weights=likely)), sum(likely), [int(vote.argmax()) for vote in votes]


@dataclass(frozen=True)
class Score:
    """One sentence against the truth."""

    exact: bool  # everything
    wrongs: bool  # what is wrong and where, nothing more
    who: bool  # the people and what they do


def score(said: Said, true: Said) -> Score:
    """`said` as parsed, `true` from `second`. The order of what is wrong does not matter."""
    left, missed = list(said.wrongs), 0
    for wrong in true.wrongs:
        match = next((k for k, other in enumerate(left) if wrong.agrees(other)), None)
        if match is None:
            missed += 1
        else:
            left.pop(match)
    wrongs, who = not left and not missed, (said.people, said.action) == (true.people, true.action)
    return Score(wrongs and who, wrongs, who)
