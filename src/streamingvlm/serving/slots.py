"""Pictures in shared memory: one process writes, others read, nobody copies through a pipe. Knows one size of picture and no stream.

    slots = Slots.make(context, 64, (96, 96, 3))     # handed to processes as an argument when they start
    at = slots.put(pixels)                           # in the writer; None: all are taken
    pixels = slots.view(at); slots.free(at)          # in a reader; in the owner, once nobody needs it

One process puts and one frees, so a byte a slot is all the agreement they need. The memory goes when the last of them ends, however it ends.
Letters: H W pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np

SHAPE = (96, 96, 3)  # [H, W, C] of a picture as the `tiny` backbone takes it
DETECTOR_SHAPE = (300, 300, 3)  # [H, W, C]: the whole picture, squeezed, as the detector was trained


def shape(folder: Path) -> tuple[int, int, int]:
    """[H, W, C] of the pictures that a folder's model takes. Said here, because who only reads cameras should not have to load torch."""
    return DETECTOR_SHAPE if (folder / "model.json").is_file() else SHAPE


@dataclass
class Slots:
    """`raw`: `count` pictures of `shape` [H, W, C] one after the other; `taken`: 1 where one is in use."""

    raw: object
    taken: object
    count: int
    shape: tuple[int, int, int]

    @classmethod
    def make(cls, context: BaseContext, count: int, shape: tuple[int, int, int]) -> Slots:
        return cls(context.RawArray("B", count * int(np.prod(shape))), context.RawArray("B", count), count, shape)

    def view(self, at: int) -> np.ndarray:
        """[H, W, C] uint8: the memory itself."""
        size = int(np.prod(self.shape))
        return np.frombuffer(self.raw, np.uint8, size, at * size).reshape(self.shape)

    def put(self, pixels: np.ndarray) -> int | None:
        """Copy a picture in -> where, or None where all slots are taken. For one thread of one process at a time."""
        at = bytes(self.taken).find(b"\0")
        if at < 0:
            return None
        self.view(at)[:] = pixels
        self.taken[at] = 1
        return at

    def free(self, at: int) -> None:
        self.taken[at] = 0

    @property
    def free_count(self) -> int:
        return bytes(self.taken).count(b"\0")
