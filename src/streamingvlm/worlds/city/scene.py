"""What a camera looks at when nobody is there: wall, pavement, road, and the light. Knows nothing of people; `draw` paints it.

Palettes of evaluation never appear in training. Colours stay within 40..215, so that brightness and grain need no clipping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamingvlm.worlds.city.knobs import UNITS, CityKnobs

# wall, pavement, road, window, door
PALETTES = {
    False: (
        ((150, 104, 90), (168, 164, 158), (84, 86, 92), (96, 112, 128), (92, 68, 60)),
        ((188, 176, 150), (150, 150, 150), (70, 72, 78), (104, 120, 132), (120, 88, 64)),
        ((128, 130, 134), (176, 172, 160), (92, 90, 88), (72, 84, 100), (70, 74, 82)),
        ((122, 146, 142), (160, 156, 148), (76, 80, 82), (84, 100, 104), (100, 82, 66)),
        ((64, 66, 84), (100, 100, 110), (48, 50, 58), (176, 164, 116), (58, 50, 54)),
        ((176, 156, 112), (140, 136, 130), (80, 80, 82), (90, 104, 116), (104, 70, 58)),
    ),
    True: (
        ((176, 138, 142), (158, 160, 168), (66, 62, 70), (92, 96, 120), (96, 64, 76)),
        ((116, 130, 102), (168, 160, 146), (90, 92, 88), (78, 96, 96), (84, 74, 56)),
        ((90, 102, 130), (126, 128, 140), (56, 58, 72), (150, 150, 130), (72, 66, 78)),
    ),
}


@dataclass(frozen=True)
class Scene:
    """One camera's place. Heights from above, in units; `parts` are (left, top, right, bottom, colour) painted one over the other."""

    pavement: tuple[float, float]  # where it begins and ends
    zoom: float
    brightness: int
    grain: int
    parts: list[tuple[float, float, float, float, tuple[int, int, int]]]

    @property
    def walkway(self) -> tuple[float, float]:
        """Where feet (and wheels on the pavement) can be."""
        return self.pavement[0] + 4, self.pavement[1] - 1

    @property
    def lanes(self) -> tuple[float, float]:
        """Where wheels can be on the road, the whole car below the pavement."""
        return min(self.pavement[1] + 14, UNITS - 3), UNITS - 2


def scene(rng: np.random.Generator, knobs: CityKnobs, width: float, evaluation: bool) -> Scene:
    """Draw a place, `width` units wide."""
    choices = PALETTES[evaluation]
    wall, pavement, road, window, door = choices[int(rng.integers(len(choices)))]
    top = float(rng.integers(34, 44))
    bottom = top + float(rng.integers(20, 27))
    parts = [(0, 0, width, top, wall), (0, top, width, bottom, pavement), (0, bottom - 1, width, bottom, _darker(pavement)),
             (0, bottom, width, UNITS, road)]
    for left in rng.uniform(2, width - 12, int(rng.integers(2, 6) * width / UNITS)):
        sill = float(rng.integers(4, 12))
        parts.append((left, sill, left + 9, sill + 12, window))
    left = float(rng.uniform(6, width - 16))
    parts.append((left, top - 22, left + 10, top, door))
    lamp = float(rng.uniform(4, width - 6))
    parts += [(lamp, 6, lamp + 2, top + 2, (56, 58, 60)), (lamp - 2, 4, lamp + 4, 8, (206, 200, 170))]
    middle = (bottom + UNITS) / 2
    parts += [(left, middle, left + 8, middle + 1.5, (176, 176, 170)) for left in np.arange(rng.uniform(0, 16), width, 16)]
    low, high = knobs.brightness
    return Scene((top, bottom), float(rng.uniform(*knobs.zoom)), int(rng.integers(low, high + 1)),
                 int(rng.integers(knobs.grain[0], knobs.grain[1] + 1)), parts)


def _darker(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(max(40, c - 24) for c in colour)
