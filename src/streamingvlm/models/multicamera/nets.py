"""The few layers that every part is made of: weightless RMS norm, SwiGLU, attention, a block of both. Weights by fan-in, no biases.

Knows no video and no stream. Letters: B rows, T tokens, E hidden size, H heads, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5


def rms(x: Tensor) -> Tensor:
    """x [..., E] at a root mean square of 1, without weights."""
    return F.rms_norm(x, x.shape[-1:], eps=EPSILON)


def fan_in(weight: Tensor) -> Tensor:
    """Fill with a normal cut at two deviations, so that what comes out has the variance of what goes in. Returns it."""
    std = weight[0].numel() ** -0.5
    return nn.init.trunc_normal_(weight, std=std / 0.8796, a=-2 * std / 0.8796, b=2 * std / 0.8796)  # 0.8796: what the cut leaves of the deviation


def linear(width: int, out: int, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(width, out, bias=bias)
    fan_in(layer.weight.data)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(channels: int, out: int, kernel: int, stride: int = 1, flat: bool = False) -> nn.Module:
    """A convolution with a bias over pictures, or over a row of places (`flat`). Padded so that stride 1 keeps the size."""
    layer = (nn.Conv1d if flat else nn.Conv2d)(channels, out, kernel, stride, padding=(kernel - stride + 1) // 2)
    fan_in(layer.weight.data)
    nn.init.zeros_(layer.bias)
    return layer


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), x [..., E]."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Attention(nn.Module):
    """Every token of a row looks at every one of it; no order but what the tokens hold themselves."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.out = heads, linear(width, 3 * width), linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        q, k, v = self.qkv(x).view(rows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each [B, H, T, D]
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, tokens, width))  # [B, T, E]


class Block(nn.Module):
    """Attention (if there are heads) and SwiGLU around a residual path, x [B, T, E]. `post_norm`: as in the recursion; else as in a ViT."""

    def __init__(self, width: int, hidden: int, heads: int = 0, post_norm: bool = False):
        super().__init__()
        self.attention = Attention(width, heads) if heads else None
        self.mlp, self.post_norm = SwiGLU(width, hidden), post_norm

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.attention, self.mlp):
            if part is not None:
                x = rms(x + part(x)) if self.post_norm else x + part(rms(x))
        return x


def parameters(module: nn.Module) -> int:
    """How many weights there are to learn."""
    return sum(weight.numel() for weight in module.parameters())


def seeded(seed: int, build):
    """What `build()` makes with torch's chance seeded, and given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
