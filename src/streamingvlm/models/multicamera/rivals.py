"""What could stand in TRM's place: a GRU, and a plain transformer of the same size over a stream's last frames. Same calls as `trm.TRM`.

For comparisons only. Letters: B streams, T tokens of a stream (1), W frames remembered, E hidden size, H heads, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.models.multicamera.nets import SwiGLU, linear, rms
from streamingvlm.models.multicamera.trm import Carry


class Gated(nn.Module):
    """A GRU cell."""

    def __init__(self, width: int, hidden: int = 128):
        super().__init__()
        self.cell, self.out = nn.GRUCell(width, hidden), linear(hidden, width)

    def start(self, streams: int, tokens: int = 1) -> Carry:
        return {"hidden": torch.zeros(streams, tokens, self.cell.hidden_size)}

    def forward(self, x: Tensor, carry: Carry) -> tuple[list[Tensor], Carry]:
        hidden = self.cell(x.flatten(0, 1), carry["hidden"].flatten(0, 1)).view_as(carry["hidden"])  # [B, T, E']
        return [rms(x + self.out(hidden))], {"hidden": hidden}


class Window(nn.Module):
    """Two pre-norm layers of causal attention over the last `frames` frames; each layer keeps what came into it. No recursion."""

    def __init__(self, width: int, hidden: int = 64, heads: int = 4, frames: int = 64, layers: int = 2):
        super().__init__()
        self.heads, self.frames, self.layers = heads, frames, layers
        self.qkv = nn.ModuleList(linear(width, 3 * width) for _ in range(layers))
        self.join = nn.ModuleList(linear(width, width) for _ in range(layers))
        self.mlp = nn.ModuleList(SwiGLU(width, hidden) for _ in range(layers))
        slopes = 2.0 ** -torch.arange(heads) / 8  # a bias for nearness, as in ALiBi: heads look back some 8 to 64 frames
        self.register_buffer("near", -slopes[:, None] * torch.arange(frames - 1, -1, -1))  # [H, W]

    def start(self, streams: int, tokens: int = 1) -> Carry:
        empty = torch.zeros(streams, self.frames, 2 * self.join[0].in_features)
        return {f"kept{k}": empty.clone() for k in range(self.layers)} | {"seen": torch.zeros(streams)}

    def forward(self, x: Tensor, carry: Carry) -> tuple[list[Tensor], Carry]:
        """x [B, 1, E]."""
        after = {"seen": (carry["seen"] + 1).clamp(max=self.frames)}
        blind = torch.arange(self.frames - 1, -1, -1) >= after["seen"][:, None]  # [B, W]
        bias = self.near[None, :, None].masked_fill(blind[:, None, None], -torch.inf)  # [B, H, 1, W]
        for k in range(self.layers):
            q, new = self.qkv[k](rms(x)).split((x.shape[-1], 2 * x.shape[-1]), -1)
            kept = after[f"kept{k}"] = torch.cat((carry[f"kept{k}"][:, 1:], new), 1)  # [B, W, 2 E]
            q, keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, *kept.chunk(2, 2)))  # [B, H, 1 or W, D]
            x = x + self.join[k](F.scaled_dot_product_attention(q, keys, values, bias).transpose(1, 2).flatten(2))  # [B, 1, E]
            x = x + self.mlp[k](rms(x))
        return [rms(x)], after
