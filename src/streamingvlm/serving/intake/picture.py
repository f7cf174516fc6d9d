"""A camera's picture in the sizes that are wanted: for the model, and for people. Knows no camera.

One step of swscale changes colour and size at once; BILINEAR there is antialiased, PIL's at a fifth of its cost. Letters: H W pixels, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

PREVIEW_PX = 480  # the longer side of a preview


def frame_of(image: av.VideoFrame | np.ndarray) -> av.VideoFrame:
    """[H, W, C] uint8 RGB as a frame; a frame as it is."""
    if not isinstance(image, np.ndarray):
        return image
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def fitted(image: av.VideoFrame | np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """-> [H, W, C] uint8 RGB of this size, whatever the camera's shape; limited-range colours become full range."""
    if isinstance(image, np.ndarray) and image.shape[:2] == (height_px, width_px):
        return image
    # Without `threads=1` FFmpeg starts threads for every picture: 1 ms of CPU, and on a busy machine tens of milliseconds of waiting for them.
    return frame_of(image).reformat(width_px, height_px, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()


def preview(image: av.VideoFrame | np.ndarray) -> np.ndarray:
    """-> [H, W, C] uint8 RGB for people to look at, never larger than the camera's picture. What may be sent of it, `privacy.redactor` makes."""
    frame = frame_of(image)
    share = min(1.0, PREVIEW_PX / max(frame.width, frame.height))
    return fitted(frame, max(2, round(frame.height * share)), max(2, round(frame.width * share)))
