"""The city: 2 to 32 cameras over one net of streets, any length, any frame rate and size. Same seed -> same people, same pixels, same labels.

Built so that each part of a model of many streams has a job of its own: some things show in one frame (LOCAL: fall, pavement), some only over
time (TEMPORAL: loiter, bag), and some only across cameras (CROSS: clone, surge), which no single stream can decide (`oracle` measures it).
Evaluation has palettes, pairs of colours and street layouts that training never meets. The door to the rest of this package: `people` decides
what happens, `truth` what is true of it, `draw` what it looks like. Knows nothing of models or files.

    city = City(seed=7, cameras=8, frames=384)
    city.truth.anomalies         # [cameras, F, 6] bool
    city.draw(3, 17)             # [96, 96, 3] uint8
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.worlds.city import draw, people, streets, truth
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES, FAMILIES, FPS, POSES, SHIRTS, SIZE_PX, TROUSERS, UNITS, CityKnobs, held_out
from streamingvlm.worlds.city.scene import Scene, scene
from streamingvlm.worlds.city.truth import Truth, cross
from streamingvlm.worlds.city.wardrobe import PLAIN, Wardrobe

__all__ = ["ACTIONS", "ANOMALIES", "CLASSES", "FAMILIES", "FPS", "POSES", "SHIRTS", "SIZE_PX", "TROUSERS", "City", "CityKnobs", "Truth", "Wardrobe",
           "cross", "held_out"]


@dataclass(frozen=True)
class City:
    """One city, recorded. `width_px`: of pictures that are not square. `layout`: of its streets; by default the seed decides.

    UserError for fewer than 2 or more than 32 cameras, or for no frame.
    """

    seed: int
    cameras: int = 8
    frames: int = 384
    evaluation: bool = False
    fps: float = FPS
    height_px: int = SIZE_PX
    width_px: int | None = None
    layout: str | None = None
    knobs: CityKnobs = field(default_factory=CityKnobs)

    def __post_init__(self):
        if not 2 <= self.cameras <= 32 or self.frames < 1:
            raise UserError(f"A city has 2 to 32 cameras and at least one frame, not {self.cameras} and {self.frames}.")

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of a picture."""
        return self.height_px, self.width_px or self.height_px

    @property
    def width(self) -> float:
        """Of a picture, in units."""
        return UNITS * self.size_px[1] / self.size_px[0]

    def rng(self, *what: int) -> np.random.Generator:
        """The city's own source of chance for one purpose, so that more of one thing changes nothing else."""
        return np.random.default_rng([self.seed, int(self.evaluation), *what])

    @cached_property
    def streets(self) -> streets.Ways:
        """Where each end of each camera's street leads."""
        rng, choices = self.rng(1), streets.LAYOUTS[self.evaluation]
        drawn = choices[int(rng.integers(len(choices)))]
        return streets.ways(self.layout or drawn, self.cameras, rng)

    @cached_property
    def scenes(self) -> list[Scene]:
        return [scene(self.rng(2, camera), self.knobs, self.width, self.evaluation) for camera in range(self.cameras)]

    @cached_property
    def visits(self) -> list[people.Visit]:
        """Every path of a person, car or bag through a picture."""
        return people.plan(people.Town((self.seed, int(self.evaluation)), self.knobs, self.scenes, self.streets, self.frames / self.fps, self.width,
                                       self.evaluation))

    @cached_property
    def truth(self) -> Truth:
        """Every label of every frame."""
        return truth.label(self._sprites, self.cameras, self.frames, self.knobs, self.fps, self.size_px)

    def draw(self, camera: int, frame: int, wardrobe: Wardrobe | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """One picture [H, W, C] uint8, in any order. `wardrobe`: other clothes on the same people. `out`: drawn into, at 1080p ten times as fast."""
        starts = self._starts
        things = self._sprites[starts[camera * self.frames + frame]:starts[camera * self.frames + frame + 1]]
        background, plates = self._stage(camera)
        image = np.empty_like(background) if out is None else out
        np.copyto(image, background)
        draw.paint(image, things, PLAIN if wardrobe is None else wardrobe.colour, self.scenes[camera].brightness, frame / self.fps)
        image += plates[int(frame / self.fps * FPS + 1e-6) * 7 % 11 % draw.PLATES]
        return image

    def render(self, camera: int, frames: slice = slice(None), wardrobe: Wardrobe | None = None) -> np.ndarray:
        """Pictures of one camera, one after the other: [F, H, W, C] uint8."""
        wanted = range(self.frames)[frames]
        out = np.empty((len(wanted), *self.size_px, 3), np.uint8)
        for k, frame in enumerate(wanted):
            self.draw(camera, frame, wardrobe, out[k])
        return out

    @cached_property
    def _sprites(self) -> np.ndarray:
        return truth.sprites(self.visits, self.scenes, self.knobs, self.frames, self.fps, self.size_px)

    @cached_property
    def _starts(self) -> np.ndarray:
        """[cameras * F + 1]: where each frame's sprites start."""
        key = self._sprites["camera"].astype(np.int64) * self.frames + self._sprites["frame"]
        return np.searchsorted(key, np.arange(self.cameras * self.frames + 1))

    @cached_property
    def _stages(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

    def _stage(self, camera: int) -> tuple[np.ndarray, np.ndarray]:
        """(background, grain) of a camera, kept once made: of pictures as large as a screen nobody wants those of all cameras at once."""
        if camera not in self._stages:
            place = self.scenes[camera]
            self._stages[camera] = draw.background(place, self.size_px), draw.plates(place, self.rng(4, camera), self.size_px)
        return self._stages[camera]
