"""The cities that the commentator learns from: in colours of their own, half of them with far more of what is rare. Knows no network.

    towns = [town(5_500_000 + k) for k in range(120)]
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from streamingvlm.worlds.city.knobs import CityKnobs
from streamingvlm.worlds.city.scene import Scene
from streamingvlm.worlds.city.world import City

FRAMES = 96  # of each: many cities, a few seconds of each
LIVELY = CityKnobs(scripts={"pass": 0.25, "pause": 0.17, "run": 0.10, "fall": 0.35, "loiter": 0.05, "bag_back": 0.04, "bag_left": 0.04},
                   car_on_pavement=0.4)
FARTHEST = 24  # how far a wall, a pavement, a door may be from the colour it has in the palettes of training


class Repainted(City):
    """A city whose places have other colours than any palette, so that no palette is learned by heart. People and cars keep theirs."""

    @cached_property
    def scenes(self) -> list[Scene]:
        return [_repainted(scene, self.rng(500, camera)) for camera, scene in enumerate(City(self.seed, self.cameras, 1, self.evaluation).scenes)]


def _repainted(scene: Scene, rng: np.random.Generator) -> Scene:
    old = dict.fromkeys(part[-1] for part in scene.parts)
    new = {colour: tuple((np.array(colour) + rng.integers(-FARTHEST, FARTHEST + 1, 3)).clip(40, 215).tolist()) for colour in old}
    return replace(scene, parts=[(*part[:-1], new[part[-1]]) for part in scene.parts])


def town(seed: int, cameras: int = 8, frames: int = FRAMES) -> City:
    """Every second city is lively, two of three are repainted."""
    kind = Repainted if seed % 3 else City
    return kind(seed, cameras, frames, knobs=LIVELY if seed % 2 else CityKnobs())
