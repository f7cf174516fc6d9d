"""How a frame is asked about: the chat around its picture, and its pixels as the vision tower wants them. Knows tokens and patches, no label.

Letters: F frames, H W pixels, C channels, P patches, N vision tokens of a frame, T tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from streamingvlm.base.patches import CELL_PX, PATCH_PX, TEMPORAL
from streamingvlm.context.dialogue import ANSWER_OPEN, QUERY, USER_CLOSE, USER_OPEN, VISION, Dialogue, Span, ids_of
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vision import Grid
from streamingvlm.training.frame_vlm.grammar import QUESTION

SCALE, BORDER_PX = 1.5, 12  # 96 px -> 144, and a black border to 168: the tower's positions are relative, and a border says where the picture ends
CELLS = 6  # vision tokens along a side
SIDE_PX = CELLS * CELL_PX
GRID: Grid = (1, SIDE_PX // PATCH_PX, SIDE_PX // PATCH_PX)


class Prompt:
    """The same for every frame: ids [T] and positions [3, T] of the question; `start` of the N vision tokens; where the answer goes on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        talk = Dialogue(tokenizer)
        pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        spans = [Span(USER_OPEN, 0, (talk.im_start, *talk.user)),
                 Span(VISION, 0, (talk.vision_start, *(pad,) * CELLS**2, talk.vision_end), GRID),
                 Span(QUERY, 0, talk.encode(QUESTION)), Span(USER_CLOSE, 0, (talk.im_end, *talk.newline)),
                 Span(ANSWER_OPEN, 0, (talk.im_start, *talk.assistant))]
        self.talk, self.end = talk, talk.im_end
        self.ids, self.positions = ids_of(spans), torch.from_numpy(talk.positions(spans))
        self.start = self.ids.index(pad)
        self.next = int(self.positions.max()) + 1  # the position of the answer's first token

    def answer(self, words: list[str]) -> list[int]:
        """The ids of an answer and of its end."""
        return [*self.talk.encode(" ".join(words)), self.end]


def patches(frames: Tensor | np.ndarray) -> Tensor:
    """Frames [F, 96, 96, 3] uint8 -> patches [F * P, 1176] float32, each frame alone and shown for the whole of one time slice."""
    x = torch.as_tensor(frames).permute(0, 3, 1, 2)  # [F, C, H, W]
    x = F.interpolate(x, scale_factor=SCALE, mode="bilinear", align_corners=False)
    x = F.pad(x, (BORDER_PX,) * 4).permute(0, 2, 3, 1)
    return to_patches(x.repeat_interleave(TEMPORAL, 0))[0]
