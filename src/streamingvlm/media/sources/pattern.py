"""A camera that needs no camera: a moving test card at a steady rate, which shows the number of each picture. Knows no file and no network.

    for picture in Pattern(640, 360, 30.0).connect(stop): assert number(picture.image) == ...

Letters for shapes: H W pixels, C channels.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator

import numpy as np

from streamingvlm.media.sources.protocol import Picture

BARS = np.where([[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]], 235, 16).astype(np.uint8)
BITS = 1 << np.arange(15, -1, -1)  # of the number: a strip of 16 cells, black and white, the most significant first


class Pattern:
    """`width` x `height` pixels, `fps` pictures a second, of which `count` (None: without end). Captured when they are due, on this machine."""

    live = True

    def __init__(self, width: int, height: int, fps: float, count: int | None = None):
        self.width, self.height, self.fps, self.count = width, height, fps, count
        self.label = f"pattern:{width}x{height}@{fps:g}"

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        index, began, begun = 0, time.time(), time.monotonic()
        while self.count is None or index < self.count:
            pts_s = index / self.fps
            if stop.wait(max(begun + pts_s - time.monotonic(), 0.0)):
                return
            yield Picture(pts_s, draw(index, self.width, self.height), time.time(), began + pts_s)
            index += 1


def draw(index: int, width: int, height: int) -> np.ndarray:
    """-> [H, W, C] uint8: colour bars, a grey block that walks across them, and below, in an eighth of the height, the number `index` modulo 2^16."""
    picture = _card(width, height).copy()
    side = max(height // 4, 2)
    left = index * max(width // 64, 1) % max(width - side, 1)
    picture[height // 4 : height // 4 + side, left : left + side] = 128
    picture[height - height // 8 :] = np.where(index & BITS, 235, 16).astype(np.uint8)[np.arange(width) * 16 // width][None, :, None]
    return picture


def number(picture: np.ndarray) -> int:
    """[H, W, C] -> the number that `draw` put into it, even after compression and in another size."""
    height, width = picture.shape[:2]
    strip = picture[height - height // 16, (np.arange(16) * 2 + 1) * width // 32]  # [16, C]
    return int(BITS[strip.mean(axis=1) > 125].sum())


@functools.lru_cache(maxsize=8)
def _card(width: int, height: int) -> np.ndarray:
    return np.broadcast_to(BARS[np.arange(width) * len(BARS) // width], (height, width, 3))
