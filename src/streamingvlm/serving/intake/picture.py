"""A camera's picture in the sizes that are wanted: at most 720p, from that the model's, and for people. Knows no camera.

One step of swscale changes colour and size at once; BILINEAR there is antialiased, PIL's at a fifth of its cost. A large picture keeps its colours as
the camera sends them until somebody looks, the model at 96 pixels or people: 720p in RGB costs four times as much, and swscale takes the model's
size from it worse (`bench/ingest.py`). Letters: H W pixels, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

PREVIEW_PX = 480  # the longer side of a preview
HD_PX, UNTOLD, BT709 = 720, 2, 1  # from the one on, a picture that does not tell its matrix is BT.709's (H.273's numbers), a smaller one BT.601's


def frame_of(image: av.VideoFrame | np.ndarray) -> av.VideoFrame:
    """[H, W, C] uint8 RGB as a frame; a frame as it is."""
    if not isinstance(image, np.ndarray):
        return image
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def bounded(image: av.VideoFrame | np.ndarray, side_px: int) -> av.VideoFrame | np.ndarray:
    """The picture with a shorter side of at most `side_px`, else as it is; its colours are the camera's still, but told."""
    if not isinstance(image, np.ndarray) and image.colorspace == UNTOLD and min(image.width, image.height) >= HD_PX:
        image.colorspace = BT709
    height, width = image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)
    share = side_px / min(height, width)
    if share >= 1:
        return image
    return frame_of(image).reformat(*(max(2, round(side * share / 2) * 2) for side in (width, height)), interpolation="BILINEAR", threads=1)


def fitted(image: av.VideoFrame | np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """-> [H, W, C] uint8 RGB of this size, whatever the camera's shape; its colours by the matrix and range that it tells, in full range."""
    if isinstance(image, np.ndarray) and image.shape[:2] == (height_px, width_px):
        return image
    # Without `threads=1` FFmpeg starts threads for every picture: 1 ms of CPU, and on a busy machine tens of milliseconds of waiting for them.
    return frame_of(image).reformat(width_px, height_px, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()


def preview(image: av.VideoFrame | np.ndarray, side_px: int = PREVIEW_PX) -> np.ndarray:
    """-> [H, W, C] uint8 RGB of `side_px` on the longer side, never larger than the picture. What may be sent of it, `privacy.redactor` makes."""
    frame = frame_of(image)
    share = min(1.0, side_px / max(frame.width, frame.height))
    return fitted(frame, max(2, round(frame.height * share)), max(2, round(frame.width * share)))
