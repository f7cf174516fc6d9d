"""Fewer, larger products: projections that read the same input as one matrix. Knows Linear layers; no attention and no cache.

The weights stay where transformers has them, as views into the matrix they share, so training, pruning in place and saving see what they always saw.
Layers of another kind (int8), layers that somebody listens to (hooks) and layers whose weights were replaced are called one by one; so are all while
torch.compile looks, which can't follow where weights lie and fuses by itself.
Letters: T tokens, E hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fused:
    """Linear layers of one input, `names` in `parent`: `__call__` gives their outputs side by side."""

    def __init__(self, parent: nn.Module, names: Sequence[str]):
        self.parent, self.names = parent, names
        self.weight = self.bias = None
        self.ends: tuple[int, int] | None = None  # where the first and the last layer's weights lie while they are part of the matrix

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, E] -> [T, sum of the outputs]."""
        parts = [getattr(self.parent, name) for name in self.names]  # asked for each time: whoever quantises replaces them
        if torch.compiler.is_compiling() or any(type(part) is not nn.Linear or part._forward_pre_hooks for part in parts):
            return torch.cat([part(x) for part in parts], dim=-1)
        if self.ends != (parts[0].weight.data_ptr(), parts[-1].weight.data_ptr()) and not self._fuse(parts):
            return torch.cat([part(x) for part in parts], dim=-1)
        return F.linear(x, self.weight, self.bias)

    @torch.inference_mode(False)  # weights that were made in inference could never learn again
    @torch.no_grad()
    def _fuse(self, parts: Sequence[nn.Linear]) -> bool:
        """Move the weights into one matrix, if all of them are plain tensors, with a bias or without."""
        biases = [part.bias for part in parts]
        if any(type(part.weight) is not nn.Parameter for part in parts) or 0 < sum(bias is None for bias in biases) < len(biases):
            return False
        self.weight, self.bias = _shared([part.weight for part in parts]), None if biases[0] is None else _shared(biases)
        self.ends = parts[0].weight.data_ptr(), parts[-1].weight.data_ptr()
        return True


def _shared(tensors: Sequence[nn.Parameter]) -> Tensor:
    """One tensor that holds them all; each becomes a view into it."""
    whole = torch.cat([tensor.data for tensor in tensors])
    for tensor, part in zip(tensors, whole.split([len(tensor) for tensor in tensors]), strict=True):
        tensor.data = part
    return whole


class Block:
    """One decoder layer of Qwen2.5-VL, without its attention."""

    def __init__(self, layer: nn.Module):
        self.layer, self.width = layer, layer.input_layernorm.weight.shape
        self.eps = layer.input_layernorm.variance_epsilon
        self.qkv, self.gate_up = Fused(layer.self_attn, ("q_proj", "k_proj", "v_proj")), Fused(layer.mlp, ("gate_proj", "up_proj"))

    def project(self, x: Tensor) -> Tensor:
        """x [T, E] -> queries, keys and values [T, (H + 2K) * D]."""
        return self.qkv(F.rms_norm(x, self.width, self.layer.input_layernorm.weight, self.eps))

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """x [T, E] and its attention [T, H * D] -> the layer's output [T, E]."""
        x = x + self.layer.self_attn.o_proj(mixed)
        gate, up = self.gate_up(F.rms_norm(x, self.width, self.layer.post_attention_layernorm.weight, self.eps)).chunk(2, dim=-1)
        return x + self.layer.mlp.down_proj(F.silu(gate) * up)
