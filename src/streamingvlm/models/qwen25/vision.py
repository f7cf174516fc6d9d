"""The vision tower's forward for inference: the frames of one or many chunks in one pass. Knows patches and grids; no text, no cache, no clock.

Modules and weights are transformers' own (Qwen2.5-VL); only the loop over the blocks is ours. What a grid alone decides is computed once and kept,
and attention is one batched call per length of window, where transformers makes one call per window and layer. Training uses transformers' forward.
Letters: P patches, H heads, D head dim, E hidden size of the decoder, N vision tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

Grid = tuple[int, int, int]  # time slices, rows and columns of patches
Runs = list[tuple[int, int]]  # (how many neighbours, patches in each): what attends only to itself
KEPT = 16  # layouts at a time; a stream needs one


@dataclass(frozen=True)
class Layout:
    """What grids alone decide. The blocks see windows of one length side by side: in `order`, cells of four patches that become one token."""

    order: Tensor  # [P/4]
    back: Tensor  # [P/4] its inverse
    cos: Tensor  # [P, 1, 1, D] float32, as `order` has the patches
    sin: Tensor
    windows: Runs
    frames: Runs
    by_frame: tuple[Tensor, Tensor] | None  # [P] from `order` to whole frames of one length side by side, and back; None: they stand so already


class Tower:
    """`visual`: transformers' vision tower."""

    def __init__(self, visual: nn.Module):
        self.visual = visual
        self._layouts: dict[tuple[Grid, ...], Layout] = {}

    def __call__(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        """patches [P, 1176] of all grids, one after another -> vision tokens [N, E], likewise."""
        visual, layout = self.visual, self._layout(tuple(grids))
        embed = visual.patch_embed.proj.weight  # a convolution whose kernel is its stride: one product, and much faster as one
        x = F.linear(patches, embed.flatten(1))  # [P, C]
        x = x.view(len(layout.order), -1, x.shape[-1])[layout.order].flatten(0, 1)
        for i, block in enumerate(visual.blocks):
            x = x + self._attend(block.attn, block.norm1(x), layout, i in visual.fullatt_block_indexes)
            x = x + block.mlp(block.norm2(x))
        return visual.merger(x)[layout.back]  # [N, E]

    def _attend(self, attn: nn.Module, x: Tensor, layout: Layout, whole: bool) -> Tensor:
        """Attention [P, C] within each window, or within each `whole` frame."""
        qkv = attn.qkv(x).view(len(x), 3, attn.num_heads, -1)  # [P, 3, H, D]
        qk = qkv[:, :2].float()
        half = qk.shape[-1] // 2
        turned = torch.cat((-qk[..., half:], qk[..., :half]), dim=-1)
        qk = (qk * layout.cos + turned * layout.sin).to(x.dtype)  # [P, 2, H, D]
        parts = (*qk.unbind(1), qkv[:, 2])  # 3 x [P, H, D]
        if not whole or layout.by_frame is None:
            return attn.proj(_within(parts, layout.frames if whole else layout.windows))
        there, back = layout.by_frame
        return attn.proj(_within([part[there] for part in parts], layout.frames)[back])

    def _layout(self, grids: tuple[Grid, ...]) -> Layout:
        if grids not in self._layouts:
            if len(self._layouts) == KEPT:
                self._layouts.pop(next(iter(self._layouts)))
            self._layouts[grids] = layout(self.visual, grids)
        return self._layouts[grids]


def _within(qkv: Sequence[Tensor], runs: Runs) -> Tensor:
    """Attention of 3 x [P, H, D] in which each member of each run sees itself alone -> [P, H * D]."""
    out, start = [], 0
    for count, length in runs:
        stop = start + count * length
        q, k, v = (part[start:stop].unflatten(0, (count, length)).transpose(1, 2) for part in qkv)  # [count, H, length, D]
        out.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1))  # [count * length, H * D]
        start = stop
    return torch.cat(out)


def layout(visual: nn.Module, grids: Sequence[Grid]) -> Layout:
    """Lay out chunks of these grids. Transformers' functions, on the CPU: their lengths are never asked of a GPU."""
    device, merge, cell = visual.patch_embed.proj.weight.device, visual.spatial_merge_size, visual.spatial_merge_unit
    thw = torch.tensor(grids)
    index, edges = get_vision_window_index(thw, merge, visual.window_size, visual.patch_size)
    windows = edges.diff().long()  # [windows] patches in each, in the order of `index`
    order = _grouped(index.split((windows // cell).tolist()))  # [P/4]
    frames = torch.cat([torch.full((t,), h * w) for t, h, w in grids])  # [frames] patches in each
    cells = torch.arange(len(index)).split((frames // cell).tolist())  # of each frame
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))  # of each cell in `order`
    there = _grouped([place[its].sort().values for its in cells])  # [P/4]; within a frame any order will do
    straight = torch.equal(there, torch.arange(len(there)))
    there = (there[:, None] * cell + torch.arange(cell)).flatten()  # [P]
    position = get_vision_position_ids(thw, merge).unflatten(0, (-1, cell))[order].flatten(0, 1)  # [P, 2]
    angles = visual.rotary_pos_emb(position.to(device), position.to(device))  # cos, sin [P, D]
    return Layout(order.to(device), place.to(device), *(part.float()[:, None, None] for part in angles), _runs(windows), _runs(frames),
                  None if straight else (there.to(device), there.argsort().to(device)))


def _grouped(members: Sequence[Tensor]) -> Tensor:
    """The members one behind another, those of one length side by side."""
    return torch.cat(sorted(members, key=len))


def _runs(lengths: Tensor) -> Runs:
    length, count = lengths.sort().values.unique_consecutive(return_counts=True)
    return list(zip(count.tolist(), length.tolist(), strict=True))
