"""The made-up city as a camera: `city:1/8` is the first of its eight. Needs no camera, file or network. Knows no model and no service.

    camera = CityCamera("city:1/8")                   # a `media.sources.protocol.Source`; `Filming` is what all of a city's cameras share

The city is drawn as it is watched, at its own eight pictures a second. Cameras of as many are of one city and show the same moment, whichever process
reads them: the moment is the clock's. Letters: H W pixels, C channels.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.protocol import Picture
from streamingvlm.worlds.city.world import FPS, City

EPISODE_S = 300  # then the next one begins: another street, other people
SEED = 5_000_000  # cities that neither training nor evaluation knows
EPISODES = 1000  # then the first comes again
FEWEST, MOST = 2, 32  # cameras of a city


class Filming:
    """The city of now, shared by its cameras: each asks for the picture of a moment. `seconds`: of an episode."""

    def __init__(self, cameras: int, seconds: int = EPISODE_S):
        self.cameras, self.frames = cameras, int(seconds * FPS)
        self.pool = ThreadPoolExecutor(1)
        self.coming = {}
        self.lock = threading.Lock()

    def _make(self, episode: int) -> City:
        city = City(SEED + episode % EPISODES, cameras=self.cameras, frames=self.frames, evaluation=True)
        city.draw(0, 0)  # people are planned when first asked for
        return city

    def draw(self, camera: int, frame: int) -> np.ndarray:
        """[H, W, C] uint8: what `camera` sees in the so-manieth frame of all."""
        episode, at = divmod(frame, self.frames)
        with self.lock:
            for number in (episode, episode + 1):  # the next one is made while this one runs
                if number not in self.coming:
                    self.coming[number] = self.pool.submit(self._make, number)
            for old in [number for number in self.coming if number < episode]:
                del self.coming[old]
            city = self.coming[episode].result()
        return city.draw(camera, at)


@functools.lru_cache(maxsize=2)
def filming(cameras: int) -> Filming:
    """One for all cameras of a process."""
    return Filming(cameras)


class CityCamera:
    """A `Source`. UserError where `address` is no city:CAMERA/CAMERAS."""

    live = True

    def __init__(self, address: str):
        found = re.fullmatch(r"city:(\d+)(?:/(\d+))?", address, re.IGNORECASE)
        self.camera, self.cameras = (int(found[1]), int(found[2] or 8)) if found else (0, 0)
        if not (FEWEST <= self.cameras <= MOST and 1 <= self.camera <= self.cameras):
            raise UserError(f"{address!r} is no camera of the made-up city: write city:1/8, the first of eight; a city has {FEWEST} to {MOST}.")
        self.label = address

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        city = filming(self.cameras)
        first = frame = int(time.time() * FPS)
        while not stop.wait(max(frame / FPS - time.time(), 0.0)):
            yield Picture((frame - first) / FPS, city.draw(self.camera - 1, frame), time.time(), frame / FPS)
            frame = max(frame + 1, int(time.time() * FPS))  # a machine that is too slow leaves out moments
