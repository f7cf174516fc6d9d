"""Every number of the city that one may want to change, and the names of what is in it. Knows no chance and no pixels.

    CityKnobs(arrival_gap_s=20.0)     # a quieter city
    City(seed=7, cameras=8, frames=384, knobs=CityKnobs(zoom=(1.3, 1.5)))

Lengths are in units: a picture is 96 units high, whatever its size in pixels. Times are in seconds, so a city is the same at any frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CLASSES = ("person", "car", "bag")
ACTIONS = ("empty", "idle", "walk", "run", "meet", "fall")  # of a camera and frame; where several fit, the last of them
ANOMALIES = ("fall", "pavement", "loiter", "bag", "clone", "surge")
FAMILIES = {"local": ("fall", "pavement"), "temporal": ("loiter", "bag"), "cross": ("clone", "surge")}
CLOCKS = ("standing", "bag")
POSES = ("stand", "walk", "lie")
SHIRTS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
TROUSERS = ("black", "white", "blue", "red", "green", "yellow")
LOOKS = len(SHIRTS) * len(TROUSERS)
FPS = 8.0
SIZE_PX = 96
UNITS = 96.0  # the height of a picture, in units


@dataclass(frozen=True)
class CityKnobs:
    """The rates, sizes and times of a city. A pair is a range drawn from evenly; `_gap_s` is the mean gap of a Poisson process."""

    # who comes, and what they do. The scripts: see `people`.
    arrival_gap_s: float = 14.0  # a camera, of people from outside
    scripts: dict[str, float] = field(default_factory=lambda: {
        "pass": 0.35, "pause": 0.27, "run": 0.10, "fall": 0.05, "loiter": 0.08, "bag_back": 0.07, "bag_left": 0.08})
    walk_s: tuple[float, float] = (9.6, 15.2)  # units a second
    run_s: tuple[float, float] = (24.0, 33.6)
    pause_s: tuple[float, float] = (2.0, 6.0)
    lie_s: tuple[float, float] = (3.0, 5.0)
    loiter_s: tuple[float, float] = (12.5, 18.75)
    goes_on: float = 0.6  # the share of people who walk on to the neighbouring camera
    hops: int = 1
    travel_s: tuple[float, float] = (2.5, 6.0)  # between cameras: more than 2 s, so that nobody is in two of them within 16 frames by nature
    # bags
    bag_down_s: tuple[float, float] = (0.75, 1.25)  # standing there to put it down
    bag_back_s: tuple[float, float] = (1.0, 1.6)  # a decoy walks off for this long, and comes back as fast
    bag_stays_s: tuple[float, float] = (5.0, 11.0)  # left for good, it is taken away after
    # cars
    car_gap_s: float = 13.75
    car_s: tuple[float, float] = (14.4, 27.2)
    car_on_pavement: float = 0.08
    # what happens in several cameras; mean gaps for eight cameras or more, longer in proportion for fewer
    crowd: tuple[int, int] = (3, 4)
    crowd_s: tuple[float, float] = (4.5, 6.0)
    lone_gap_s: float = 15.0  # crowds in one camera
    pair_gap_s: float = 30.0  # in two at once: not yet a surge
    surge_gap_s: float = 80.0  # in three or four
    clone_gap_s: float = 22.0  # two ordinary arrivals with one look
    crowd_clone: float = 0.07  # the share of crowds with a clone of one of them elsewhere: else a crowd would tell one stream that there is none
    together_s: float = 1.0  # how far apart "at once" may be
    look_rest_s: float = 2.0  # how long a look rests after the person who wore it has gone
    # what the labels mean
    standing_limit_s: float = 8.0  # loiter from here on
    bag_limit_s: float = 4.0  # a bag is left behind from here on
    bag_near: float = 14.0  # a person who stands this near minds the bag; who walks past does not
    meet_within: float = 24.0  # this many units hold at least `crowd[0]` standing people
    surge_cameras: int = 3
    run_from_s: float = 20.0  # units a second
    # sizes, in units (width, height)
    person: tuple[float, float] = (8.0, 20.0)
    lying: tuple[float, float] = (20.0, 8.0)
    car: tuple[float, float] = (26.0, 12.0)
    bag: tuple[float, float] = (7.0, 6.0)
    zoom: tuple[float, float] = (0.9, 1.2)  # of a camera
    brightness: tuple[int, int] = (-14, 14)
    grain: tuple[int, int] = (2, 8)


def held_out(shirt: int, trousers: int) -> bool:
    """The looks that only evaluation sees: 12 of the 48, none of them taking a colour away altogether."""
    return (shirt - trousers) % 4 == 0


def looks(evaluation: bool) -> list[tuple[int, int]]:
    """All (shirt, trousers) that people of a world may wear: 36 in training, all 48 in evaluation."""
    pairs = [(a, b) for a in range(len(SHIRTS)) for b in range(len(TROUSERS))]
    return [pair for pair in pairs if evaluation or not held_out(*pair)]
