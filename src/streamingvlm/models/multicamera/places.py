"""What has been where, and for how long: a leaky memory for each column of a camera's picture. Knows no people and no other cameras.

A column tells what stands in it now (`heads.Sight.columns`). A small net over neighbouring columns decides what of it is remembered and how fast
it is forgotten; another one reads. Because the memory takes nothing from what is computed later, a whole window of frames is read at once and
only the sum over time runs frame by frame.

    told, memory = places(columns, places.start(streams), present)     # columns [F, B, 7, G] -> told [F, B, E]

Letters: F frames, B streams, C channels, G columns of the picture (24), E hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamingvlm.models.multicamera.heads import COLUMNS, GRID
from streamingvlm.models.multicamera.nets import convolution, linear
from streamingvlm.models.multicamera.trm import leak


class Places(nn.Module):
    """`remembers` False: the same weights, but nothing is kept from frame to frame (the single-frame baseline)."""

    def __init__(self, width: int, channels: int = 32, mixed: int = 48, longest: float = 128.0, remembers: bool = True):
        super().__init__()
        self.channels, self.remembers = channels, remembers
        self.write = convolution(COLUMNS, 2 * channels, 7, flat=True)
        with torch.no_grad():
            self.write.bias[channels:] = leak(channels, 1.5, longest)
        self.read = nn.Sequential(convolution(COLUMNS + channels, mixed, 5, flat=True), nn.SiLU(), convolution(mixed, mixed, 3, flat=True), nn.SiLU())
        self.out = linear(2 * mixed, width)

    def start(self, streams: int) -> Tensor:
        return torch.zeros(streams, self.channels, GRID)

    def forward(self, columns: Tensor, memory: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """columns [F, B, C, G], memory [B, C', G] -> what is told of each frame [F, B, E] and the memory after the last. Where a stream is not
        `present` [F, B] its memory stands still."""
        frames = columns.flatten(0, 1)
        value, keep = self.write(frames).unflatten(0, columns.shape[:2]).chunk(2, 2)  # [F, B, C', G]
        value, keep, kept = value.sigmoid(), keep.sigmoid(), []
        for new, share, here in zip(((1 - keep) * value).unbind(0), keep.unbind(0), present[..., None, None].unbind(0), strict=True):
            memory = torch.where(here, new + share * memory if self.remembers else new, memory)
            kept.append(memory)
        read = self.read(torch.cat((frames, torch.cat(kept)), 1))  # [F B, mixed, G]
        told = self.out(torch.cat((read.amax(2), read.mean(2)), 1))  # [F B, E]
        return told.unflatten(0, columns.shape[:2]), memory
