"""How Qwen2-VL cuts a picture into vision tokens: the sizes that a reader, a token layout and a model must agree on. Knows no pixel and no tensor."""

from __future__ import annotations

import math

from streamingvlm.base.errors import UserError

PATCH_PX, MERGE, TEMPORAL = 14, 2, 2  # px a patch, patches a side in one token, frames in one time slice
CELL_PX = PATCH_PX * MERGE


def smart_size(height: int, width: int, max_pixels: int, min_pixels: int = 0) -> tuple[int, int]:
    """Qwen2-VL's smart_resize: (h, w), multiples of 28, nearest to the aspect, min_pixels <= h * w <= max_pixels, >= 28 each.

    Where a side is clamped to 28 px, Qwen's rule exceeds `max_pixels`; here the other side gives way, and a picture is not enlarged beyond
    `max_pixels`. `UserError` where that is below 28 * 28.
    """
    if max_pixels < CELL_PX**2:
        raise UserError(f"video.max_pixels is {max_pixels}, but one vision token takes {CELL_PX**2}: raise it.")
    h, w = (max(1, round(side / CELL_PX)) * CELL_PX for side in (height, width))
    if h * w > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        h, w = (max(1, math.floor(side / beta / CELL_PX)) * CELL_PX for side in (height, width))
        widest = max_pixels // min(h, w) // CELL_PX * CELL_PX
        h, w = min(h, widest), min(w, widest)
    elif h * w < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        larger = tuple(math.ceil(side * beta / CELL_PX) * CELL_PX for side in (height, width))
        h, w = larger if math.prod(larger) <= max_pixels else (h, w)
    return h, w
