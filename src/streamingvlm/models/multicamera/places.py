"""What has been where, and for how long: a leaky memory for each column of a camera's picture. Knows no people and no other cameras.

A column tells what stands in it now (`heads.Sight.columns`), and what stands near. A small net decides what of it is remembered and how fast it is
forgotten; another one reads, and says of each column how long somebody has stood in it, or a bag been alone. Because the memory takes nothing from
what is computed later, a whole window of frames is read at once and only the sum over time runs frame by frame.

    told, clocks, memory = places(columns, places.start(streams), present)     # columns [F, B, 7, G] -> told [F, B, E], clocks [F, B, 2, G]

Letters: F frames, B streams, C channels, G columns of the picture (24), E hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.models.multicamera.heads import COLUMNS, GRID
from streamingvlm.models.multicamera.nets import convolution, linear
from streamingvlm.models.multicamera.trm import leak

CLOCKS = 2  # standing, a bag alone; 1.0 is where it becomes an anomaly
NEAR = 7  # columns


class Places(nn.Module):
    """`remembers` False: the same weights, but nothing is kept from frame to frame (the single-frame baseline)."""

    def __init__(self, width: int, paces: int = 5, mixed: int = 48, longest: float = 128.0, remembers: bool = True):
        super().__init__()
        self.channels, self.remembers = paces * COLUMNS, remembers
        self.write = convolution(2 * COLUMNS, 2 * self.channels, 3, flat=True)
        with torch.no_grad():  # at first: each thing's presence, remembered at each of the paces
            self.write.weight.mul_(0.3)
            self.write.weight[range(self.channels), [k % COLUMNS for k in range(self.channels)], 1] += 6
            self.write.bias[: self.channels] = -3
            self.write.bias[self.channels:] = leak(paces, 2.0, longest).repeat_interleave(COLUMNS)
        self.read = nn.Sequential(convolution(2 * COLUMNS + self.channels, mixed, 5, flat=True), nn.SiLU(),
                                  convolution(mixed, mixed, 3, flat=True), nn.SiLU())
        self.clock, self.out = convolution(mixed, CLOCKS, 1, flat=True), linear(2 * mixed, width)

    def start(self, streams: int) -> Tensor:
        return torch.zeros(streams, self.channels, GRID)

    def forward(self, columns: Tensor, memory: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """columns [F, B, C, G], memory [B, C', G] -> what is told of each frame [F, B, E], its columns' clocks [F, B, 2, G], and the memory after the
        last. Where a stream is not `present` [F, B] its memory stands still."""
        shape, frames = columns.shape[:2], columns.flatten(0, 1)
        frames = torch.cat((frames, F.max_pool1d(frames, NEAR, 1, NEAR // 2)), 1)  # [F B, 2 C, G]
        value, keep = self.write(frames).unflatten(0, shape).sigmoid().chunk(2, 2)  # [F, B, C', G]
        kept = []
        for new, share, here in zip(((1 - keep) * value).unbind(0), keep.unbind(0), present[..., None, None].unbind(0), strict=True):
            memory = torch.where(here, new + share * memory if self.remembers else new, memory)
            kept.append(memory)
        read = self.read(torch.cat((frames, torch.cat(kept)), 1))  # [F B, mixed, G]
        told = self.out(torch.cat((read.amax(2), read.mean(2)), 1))  # [F B, E]
        return told.unflatten(0, shape), self.clock(read).unflatten(0, shape), memory
