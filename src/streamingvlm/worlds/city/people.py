"""Who is where and when: the simulation. Decides every visit of a person, car or bag; knows no frames and no pixels.

A visit is a path in one camera's picture: places (in units, see `knobs`) at times (in seconds), and between two of them a pose. Each is drawn
from its own source of chance, so a longer city begins like a shorter one. `plan` returns them all; `truth` takes frames of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from streamingvlm.worlds.city.knobs import CLASSES, POSES, CityKnobs, looks
from streamingvlm.worlds.city.scene import Scene
from streamingvlm.worlds.city.streets import LEFT, RIGHT, Ways

PERSON, CAR, BAG = range(len(CLASSES))
STAND, WALK, LIE = range(len(POSES))
WARM_UP_S = 40.0  # the city has lived this long when the recording starts
MARGIN = {PERSON: 8.0, CAR: 18.0}  # how far outside the picture a path starts and ends, in units
MANY_CAMERAS = 12  # beyond this many people come more seldom: there are looks for some forty of them at a time
USUAL_CAMERAS = 8


@dataclass(frozen=True)
class Visit:
    """One thing's path through one picture: at `at_s[k]` it is at `x[k]`, and between k and k + 1 it has `pose[k]`. `y` is where it stands."""

    camera: int
    kind: int
    at_s: np.ndarray  # [knots]
    x: np.ndarray  # [knots]
    pose: np.ndarray  # [knots - 1]
    y: float
    track: int = -1
    look: tuple[int, int] = (-1, -1)
    tint: int = 0
    on_pavement: bool = False


class Path:
    """A path while it is being made: go and stay, one after the other."""

    def __init__(self, at_s: float, x: float):
        self.at_s, self.x, self.pose = [at_s], [x], []

    def go(self, x: float, speed: float) -> Path:
        return self._add(self.at_s[-1] + max(abs(x - self.x[-1]) / speed, 1e-3), x, WALK)

    def stay(self, seconds: float, pose: int = STAND) -> Path:
        return self._add(self.at_s[-1] + seconds, self.x[-1], pose)

    def _add(self, at_s: float, x: float, pose: int) -> Path:
        self.at_s.append(at_s)
        self.x.append(x)
        self.pose.append(pose)
        return self

    def visit(self, camera: int, kind: int, y: float) -> Visit:
        return Visit(camera, kind, np.array(self.at_s), np.array(self.x), np.array(self.pose), y)


@dataclass(frozen=True)
class Town:
    """What the simulation needs to know of a city."""

    key: tuple[int, ...]  # of its chance
    knobs: CityKnobs
    scenes: list[Scene]
    ways: Ways
    seconds: float
    width: float  # of a picture, in units
    evaluation: bool

    def rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([*self.key, *what])


def plan(town: Town) -> list[Visit]:
    """Every visit of a city, people with their looks, each person under one track number in all cameras."""
    wardrobe, free_s = looks(town.evaluation), {}
    rng, out, track = town.rng(3), [], 0
    for born_s, people in sorted(_groups(town), key=lambda group: group[0]):
        draw = rng.permutation(len(wardrobe))
        free = [wardrobe[k] for k in draw if free_s.get(wardrobe[k], -np.inf) <= born_s]
        if len(free) <= max(people.wear):  # all looks are worn: these people stay at home
            continue
        for k, trip in zip(people.wear, people.trips, strict=True):
            look = free[k]
            gone_s = max(visit.at_s[-1] for visit in trip if visit.kind == PERSON)
            free_s[look] = max(free_s.get(look, -np.inf), gone_s + town.knobs.look_rest_s)
            bags = [visit for visit in trip if visit.kind == BAG]
            out += [replace(visit, track=track, look=look) for visit in trip if visit.kind == PERSON]
            out += [replace(bag, track=track + 1 + number) for number, bag in enumerate(bags)]  # each bag is one of its own
            track += 1 + len(bags)
    return out + _cars(town, track)


@dataclass(frozen=True)
class _Group:
    """People who come to the city at one time: what each does, and which of the free looks each wears."""

    trips: list[list[Visit]]
    wear: list[int]


def _groups(town: Town) -> Iterator[tuple[float, _Group]]:
    """(when the first of them comes in, the people) of everybody who comes to the city together."""
    knobs, cameras = town.knobs, len(town.scenes)
    gap_s = knobs.arrival_gap_s * max(1.0, cameras / MANY_CAMERAS)
    for camera in range(cameras):
        for k, at_s in enumerate(_moments(town.rng(10, camera), gap_s, town.seconds)):
            yield at_s, _Group([_trip(town, town.rng(11, camera, k), camera, at_s)], [0])
    late_s = (town.width + 2 * MARGIN[PERSON]) / knobs.walk_s[0]  # who gathers after the end may come in before it
    few = max(1.0, USUAL_CAMERAS / cameras)
    for k, at_s in enumerate(_moments(town.rng(20), knobs.clone_gap_s * few, town.seconds)):
        rng = town.rng(21, k)
        pair = rng.choice(cameras, 2, replace=False)
        starts = at_s + np.array([0.0, rng.uniform(0, knobs.together_s)])
        yield at_s, _Group([_trip(town, rng, int(c), float(s)) for c, s in zip(pair, starts, strict=True)], [0, 0])
    for kind, gap_s, counts in ((30, knobs.lone_gap_s, (1, 1)), (40, knobs.pair_gap_s, (2, 2)), (50, knobs.surge_gap_s, (3, 4))):
        if counts[0] <= cameras:
            for k, at_s in enumerate(_moments(town.rng(kind), gap_s * few, town.seconds + late_s)):
                rng = town.rng(kind + 1, k)
                for camera in rng.choice(cameras, min(cameras, int(rng.integers(counts[0], counts[1] + 1))), replace=False):
                    trips = _crowd(town, rng, int(camera), at_s + rng.uniform(0, knobs.together_s))
                    wear, born_s = list(range(len(trips))), min(trip[0].at_s[0] for trip in trips)
                    if rng.random() < knobs.crowd_clone:  # somebody dressed like one of them comes in elsewhere
                        elsewhere = int(camera + rng.integers(1, cameras)) % cameras
                        trips.append(_trip(town, rng, elsewhere, born_s + rng.uniform(0, 2 * knobs.together_s)))
                        wear.append(int(rng.integers(len(wear))))
                    yield born_s, _Group(trips, wear)


def _moments(rng: np.random.Generator, gap_s: float, until_s: float) -> Iterator[float]:
    at_s = -WARM_UP_S
    while (at_s := at_s + rng.exponential(gap_s)) < until_s:
        yield at_s


def _trip(town: Town, rng: np.random.Generator, camera: int, at_s: float) -> list[Visit]:
    """One person's walk through the city, from one camera to the next, bags included."""
    side, out = int(rng.integers(2)), []
    for hop in range(town.knobs.hops + 1):
        visits, leaves = _visit(town, rng, camera, side, at_s)
        out += visits
        onward = town.ways.get((camera, leaves), [])
        if hop == town.knobs.hops or not onward or rng.random() >= town.knobs.goes_on:
            break
        camera, side = onward[int(rng.integers(len(onward)))]
        at_s = float(visits[0].at_s[-1] + rng.uniform(*town.knobs.travel_s))
    return out


def _visit(town: Town, rng: np.random.Generator, camera: int, side: int, at_s: float) -> tuple[list[Visit], int]:
    """One person in one picture: (the visit and perhaps a bag's, the side where the person leaves)."""
    knobs, scene = town.knobs, town.scenes[camera]
    script = str(rng.choice(list(knobs.scripts), p=np.array(list(knobs.scripts.values())) / sum(knobs.scripts.values())))
    speed = rng.uniform(*(knobs.run_s if script == "run" else knobs.walk_s))
    leaves = side if script not in {"pass", "run"} and rng.random() < 0.2 else 1 - side
    y, place = rng.uniform(*scene.walkway), rng.uniform(0.2, 0.8) * town.width
    path, bag = Path(at_s, _edge(town, side)), None
    if script in {"pause", "loiter"}:
        path.go(place, speed).stay(rng.uniform(*(knobs.pause_s if script == "pause" else knobs.loiter_s)))
    elif script == "fall":
        path.go(place, speed).stay(rng.uniform(*knobs.lie_s), LIE).stay(rng.uniform(0.5, 1.0))
    elif script in {"bag_back", "bag_left"}:
        bag = _with_bag(town, rng, path, place, speed, script, y)
    path.go(_edge(town, leaves), speed)
    visits = [path.visit(camera, PERSON, y)]
    return (visits if bag is None else [*visits, replace(bag, camera=camera)]), leaves


def _with_bag(town: Town, rng: np.random.Generator, path: Path, place: float, speed: float, script: str, y: float) -> Visit:
    """Go on with the path of somebody who puts a bag down, and return the bag."""
    knobs = town.knobs
    path.go(place, speed).stay(rng.uniform(*knobs.bag_down_s))
    down_s, beside = path.at_s[-2], place + rng.choice((-1, 1)) * (knobs.person[0] + knobs.bag[0]) / 2
    taken_s = path.at_s[-1] + rng.uniform(*knobs.bag_stays_s)
    if script == "bag_back":
        for _ in range(int(rng.integers(1, 3))):
            away = place + rng.choice((-1, 1)) * speed * rng.uniform(*knobs.bag_back_s)
            path.go(away, speed).go(place, speed).stay(rng.uniform(*knobs.bag_down_s))
        taken_s = path.at_s[-1]
    return Visit(0, BAG, np.array([down_s, taken_s]), np.array([beside, beside]), np.array([STAND]), y + 0.5, tint=int(rng.integers(3)))


def _crowd(town: Town, rng: np.random.Generator, camera: int, at_s: float) -> list[list[Visit]]:
    """People who come in together, stand together from about `at_s` on, and go."""
    knobs, scene = town.knobs, town.scenes[camera]
    count, side, spacing = int(rng.integers(knobs.crowd[0], knobs.crowd[1] + 1)), int(rng.integers(2)), knobs.person[0] + 1.0
    place = rng.uniform(0.25, 0.75) * town.width - spacing * (count - 1) / 2
    y, speed, stays_s = rng.uniform(scene.walkway[0] + 2, scene.walkway[1] - 2), rng.uniform(*knobs.walk_s), rng.uniform(*knobs.crowd_s)
    trips = []
    for k in range(count):
        x, start = place + k * spacing, _edge(town, side)
        comes_s = at_s - abs(x - start) / speed + rng.uniform(0, 0.6)
        path = Path(comes_s, start).go(x, speed)
        path.stay(at_s + stays_s - path.at_s[-1] + rng.uniform(0, 0.3)).go(_edge(town, int(rng.integers(2))), speed)
        trips.append([path.visit(camera, PERSON, y + rng.uniform(-2, 2))])
    return trips


def _cars(town: Town, track: int) -> list[Visit]:
    out = []
    for camera, scene in enumerate(town.scenes):
        for k, at_s in enumerate(_moments(town.rng(60, camera), town.knobs.car_gap_s, town.seconds)):
            rng = town.rng(61, camera, k)
            side, on_pavement = int(rng.integers(2)), bool(rng.random() < town.knobs.car_on_pavement)
            y = rng.uniform(*(scene.walkway if on_pavement else scene.lanes))
            path = Path(at_s, _edge(town, side, CAR)).go(_edge(town, 1 - side, CAR), rng.uniform(*town.knobs.car_s))
            out.append(replace(path.visit(camera, CAR, y), track=track, tint=int(rng.integers(5)), on_pavement=on_pavement))
            track += 1
    return out


def _edge(town: Town, side: int, kind: int = PERSON) -> float:
    return {LEFT: -MARGIN[kind], RIGHT: town.width + MARGIN[kind]}[side]
