"""Eight cameras for whoever has none: a made-up city, filmed live and served over RTSP on this machine by a process of its own.

    async with cameras(8) as specs: ...        # cameras.Camera each, rtsp://127.0.0.1:.../camera-1

The city is drawn as it is watched, at its own eight pictures a second. After EPISODE_S the next one begins: another street, other people. Knows no
model and no service. Letters: H W pixels, C channels.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from streamingvlm.worlds.city.world import FPS, City

EPISODE_S = 300
SEED = 5_000_000  # cities that neither training nor evaluation knows
READY_S = 20.0
DELAY_S = 0.25  # of the jitter buffer: the quickest frame of a camera and the slowest are that far apart at most, on this machine


class Filming:
    """The city of now, shared by its cameras: each asks for the picture of a moment. `seconds`: of an episode."""

    def __init__(self, cameras: int, seconds: int = EPISODE_S):
        self.cameras, self.frames = cameras, int(seconds * FPS)
        self.pool = ThreadPoolExecutor(1)
        self.coming = {0: self.pool.submit(self._make, 0)}
        self.lock = threading.Lock()

    def _make(self, episode: int) -> City:
        city = City(SEED + episode, cameras=self.cameras, frames=self.frames, evaluation=True)
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


def pictures(filming: Filming, camera: int) -> Iterator[np.ndarray]:
    """A camera's pictures from now on, each when it is due; what was not drawn in time is left out."""
    begun, frame = time.monotonic(), 0
    while True:
        yield filming.draw(camera, frame)
        frame = max(frame + 1, int((time.monotonic() - begun) * FPS))
        time.sleep(max(begun + frame / FPS - time.monotonic(), 0.0))
