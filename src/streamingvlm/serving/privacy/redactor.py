"""Pictures in, pictures without their people out: a coarse mosaic over boxes, or over everything. The only maker of what may be stored or sent.

    redactor = Redactor("people"); redacted = redactor(pixels, boxes)     # boxes None: nobody knows where people are, so all of it is hidden
    jpeg_of(redacted)                                                    # TypeError for anything that no redactor made

Every writer and sender of pixels takes `Redacted` and asks `jpeg_of` for its bytes. Cells of the mosaic are so large that a person is a handful of
them; each holds one colour, the mean of what was there, so nothing can be computed back. Letters: H W pixels, C channels, N boxes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

HIDE = {  # `privacy.hide`, from what hides least to what hides most -> what a person is told of it
    "nothing": "nothing",
    "faces": "faces: the head of who stands near, all of who is far away; all of the picture where the model did not look",
    "people": "people, by the model's own boxes; all of the picture where it did not look",
    "everything": "everything: the picture is a coarse mosaic",
}
ACROSS = 4  # cells along the longer side of what is hidden
WHOLE = 8  # the same of a whole picture
LEAST_PX = 4
QUALITY, SMALL_PX, SHARP = 80, 200, 92  # of JPEG; a picture of so few pixels is not smeared: its colours are not halved either
HEAD, HEAD_WIDER = 0.4, 0.25  # share of a standing person's box that holds the head, and how much wider than the box it may lean
NEAR_PX = 100  # a person less tall has no face that a detector finds: all of them is hidden
_KEY = object()

Box = tuple[float, float, float, float]  # x0 y0 x1 y1 as shares of the picture


class Redacted:
    """A JPEG that may be stored and sent. Made by `Redactor`, or by `stored` of one that was."""

    __slots__ = ("_jpeg",)

    def __init__(self, jpeg: bytes, key: object):
        if key is not _KEY:
            raise TypeError("Only a redactor makes pictures that may be stored or sent.")
        self._jpeg = jpeg

    def __len__(self) -> int:
        return len(self._jpeg)

    def __reduce__(self):  # through the pipe from the process that reads cameras
        return stored, (self._jpeg,)

    def __repr__(self) -> str:
        return f"Redacted({len(self._jpeg)} bytes)"


def jpeg_of(picture: Redacted) -> bytes:
    """The bytes, for whoever writes or sends them. TypeError for what is no `Redacted`."""
    if type(picture) is not Redacted:
        raise TypeError(f"Only a redacted picture may be stored or sent, not {type(picture).__name__}.")
    return picture._jpeg


def stored(jpeg: bytes) -> Redacted:
    """What the store wrote, or a pipe carried, read back: only `Redacted` got there."""
    return Redacted(jpeg, _KEY)


class Redactor:
    """`hide`: one of HIDE."""

    def __init__(self, hide: str):
        if hide not in HIDE:
            raise ValueError(f"no such thing to hide: {hide}")
        self.hide = hide

    def __call__(self, pixels: np.ndarray, boxes: Sequence[Box] | None) -> Redacted:
        """[H, W, C] uint8 RGB and what is to be hidden of it -> what may be stored or sent. `boxes` None: the detector did not run."""
        return Redacted(as_jpeg(self.hidden(pixels, boxes)), _KEY)

    def hidden(self, pixels: np.ndarray, boxes: Sequence[Box] | None) -> np.ndarray:
        """The pixels of it; the ones handed in stay as they are."""
        if self.hide == "nothing":
            return pixels
        out = np.array(pixels)
        if boxes is None or self.hide == "everything":
            _mosaic(out, (0, 0, out.shape[1], out.shape[0]), max(LEAST_PX, -(-max(out.shape[:2]) // WHOLE)))
            return out
        for box in boxes:
            if (place := clipped(box, out.shape[0], out.shape[1])) is not None:
                _mosaic(out, place, max(LEAST_PX, -(-max(place[2] - place[0], place[3] - place[1]) // ACROSS)))
        return out

    def boxes(self, people: Sequence[Box], size_px: tuple[int, int] | None) -> list[Box]:
        """What is to be hidden of the people found in a picture of this height and width; None: it is not known yet."""
        return [head(box, *size_px) for box in people] if self.hide == "faces" and size_px else [tuple(box) for box in people]


def head(box: Box, height_px: int, width_px: int) -> Box:
    """Where the face of a person is, if they stand near; else all of them."""
    x0, y0, x1, y1 = box
    high, wide = (y1 - y0) * height_px, (x1 - x0) * width_px
    if high < NEAR_PX or wide > high:  # far away, or lying
        return box
    more = HEAD_WIDER * (x1 - x0)
    return x0 - more, y0 - HEAD / 4 * (y1 - y0), x1 + more, y0 + HEAD * (y1 - y0)


def clipped(box: Box, height_px: int, width_px: int) -> tuple[int, int, int, int] | None:
    """In whole pixels, all that it touches; None where it is outside or no box. What is not finite is as large as can be."""
    x0, y0, x1, y1 = (edge if np.isfinite(edge) else far for edge, far in zip(box, (0.0, 0.0, 1.0, 1.0), strict=True))
    left, top = max(int(np.floor(min(max(x0, -1), 2) * width_px)), 0), max(int(np.floor(min(max(y0, -1), 2) * height_px)), 0)
    right, bottom = min(int(np.ceil(min(max(x1, -1), 2) * width_px)), width_px), min(int(np.ceil(min(max(y1, -1), 2) * height_px)), height_px)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _mosaic(out: np.ndarray, place: tuple[int, int, int, int], cell: int) -> None:
    """Means of cells of the picture's own grid, over all cells that `place` touches, in place."""
    rows, columns = _edges(place[1], place[3], out.shape[0], cell), _edges(place[0], place[2], out.shape[1], cell)
    part = out[rows[0] : rows[-1], columns[0] : columns[-1]]
    sums = np.add.reduceat(np.add.reduceat(part.astype(np.uint32), rows[:-1] - rows[0], 0), columns[:-1] - columns[0], 1)  # [rows, columns, C]
    high, wide = np.diff(rows), np.diff(columns)
    means = (sums // (high[:, None] * wide)[..., None]).astype(np.uint8)
    part[:] = means.repeat(high, 0).repeat(wide, 1)


def _edges(start_px: int, stop_px: int, size_px: int, cell_px: int) -> np.ndarray:
    """Where the cells that this range touches begin and end. The last of a picture takes what is left over: a cell of one pixel would show it."""
    grid = np.append(np.arange(0, max(size_px - cell_px, 0) + 1, cell_px), size_px)
    return grid[np.searchsorted(grid, start_px, "right") - 1 : np.searchsorted(grid, stop_px, "left") + 1]


def as_jpeg(pixels: np.ndarray) -> bytes:
    """[H, W, C] uint8 RGB as a JPEG."""
    from PIL import Image

    out, sharp = io.BytesIO(), max(pixels.shape) <= SMALL_PX
    Image.fromarray(pixels).save(out, "JPEG", quality=SHARP if sharp else QUALITY, subsampling=0 if sharp else 2)
    return out.getvalue()
