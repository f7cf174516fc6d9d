"""Frames -> normalised patches in the order in which Qwen2-VL's vision tower wants them. Needs torch alone: no decoder is imported.

    patches, grid_thw = to_patches(chunk.frames)      # [P, 1176] float32, (t, h, w)

Letters for shapes: F frames, H W pixels, C channels, P patches.
"""

from __future__ import annotations

import numpy as np
import torch

from streamingvlm.base.patches import CELL_PX, MERGE, PATCH_PX, TEMPORAL

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def to_patches(frames: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """[F, H, W, C] uint8, H and W multiples of 28 -> [P, 1176] float32 and (t, h, w), P = t * h * w, in Qwen2-VL's order.

    The last of an odd number of frames is repeated. Stays on the tensor's device. `ValueError` for other sizes.
    """
    frames = torch.as_tensor(frames)
    if frames.ndim != 4 or frames.shape[1] % CELL_PX or frames.shape[2] % CELL_PX or frames.shape[3] != 3:
        raise ValueError(f"to_patches takes [F, H, W, 3] with H and W multiples of {CELL_PX}, not {tuple(frames.shape)}.")
    if len(frames) % TEMPORAL:
        frames = torch.cat([frames, frames[-1:]])
    t, h, w = len(frames) // TEMPORAL, frames.shape[1] // PATCH_PX, frames.shape[2] // PATCH_PX
    mean, std = (255 * torch.tensor(values, device=frames.device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (frames.permute(0, 3, 1, 2).float() - mean) / std  # [F, C, H, W]
    grid = pixels.reshape(t, TEMPORAL, 3, h // MERGE, MERGE, PATCH_PX, w // MERGE, MERGE, PATCH_PX)
    return grid.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, 3 * TEMPORAL * PATCH_PX**2), (t, h, w)  # [P, 1176]
