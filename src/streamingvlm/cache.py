"""KV storage: append, keep (evict, reorder, re-rotate). Knows tensors, not policy.

Keys are kept as computed before RoPE (`raw`) beside a rotated working copy. A decode step appends to both in place; an eviction gathers what
stays and rotates it afresh from `raw`, once, so that no rounding error can pile up over a stream of any length.
Letters: L layers, K kv heads, S cached tokens, T new tokens, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Rope:
    """Multimodal RoPE: frequency f turns with the time, row or column position according to `sections` (Qwen2-VL's mrope_section)."""

    def __init__(self, head_dim: int, theta: float, sections: list[int], device: torch.device):
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        self.inv_freq = 1.0 / (theta**exponent)  # [D/2]
        self.axis = torch.repeat_interleave(torch.arange(3), torch.tensor(sections)).to(device)  # [D/2]: 0 time, 1 row, 2 column

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [3, T] -> cos, sin [T, D], float32."""
        turn = positions.float()[self.axis].T * self.inv_freq  # [T, D/2]
        turn = torch.cat((turn, turn), dim=-1)  # [T, D]
        return turn.cos(), turn.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [..., T, D] by cos, sin [T, D] (any float dtype; they are cast to x's)."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


@dataclass(frozen=True)
class Room:
    """Where T new tokens go: R of them over the cached tokens `again` [R] (or None), the others from `start` on; their cos, sin [T, D]."""

    start: int
    again: Tensor | None
    cos: Tensor
    sin: Tensor

    def bias(self, length: int, groups: int, like: Tensor) -> Tensor | None:
        """Additive mask [groups * T, S] for S = `length` cached tokens: a token sees those up to itself. None where it would hide nothing."""
        T = self.cos.shape[0]
        if T == 1 and self.again is None:
            return None
        rows = torch.arange(self.start, length, device=like.device)
        if self.again is not None:
            rows = torch.cat((self.again, rows))
        hidden = torch.arange(length, device=like.device) > rows[:, None]  # [T, S]
        return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill(hidden, float("-inf")).repeat(groups, 1)


class KVCache:
    """Preallocated keys and values of one stream. Grows by doubling only when `capacity` turns out too small."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, rope: Rope, dtype: torch.dtype, device: torch.device, capacity: int = 512):
        self.rope, self.length = rope, 0
        self.store = torch.zeros(3, layers, kv_heads, capacity, head_dim, dtype=dtype, device=device)  # raw keys, rotated keys, values
        self.positions = torch.zeros(3, capacity, dtype=torch.long, device=device)

    @property
    def capacity(self) -> int:
        return self.positions.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of what is cached now (raw and rotated keys, values), not of what is reserved."""
        return self.store[:, :, :, : self.length].numel() * self.store.element_size()

    def extend(self, positions: Tensor, again: Tensor | None = None) -> Room:
        """Make room for T new tokens at `positions` [3, T]; `write` then fills it layer by layer.

        `again` [R]: the first R of them are tokens cached already, at these indices, that are computed again where they stand."""
        angles = self.rope.angles(positions)
        if again is not None:
            self.positions[:, again] = positions[:, : len(again)]
            positions = positions[:, len(again) :]
        start, stop = self.length, self.length + positions.shape[1]
        if stop > self.capacity:
            self._grow(max(stop, 2 * self.capacity))
        self.positions[:, start:stop] = positions
        self.length = stop
        return Room(start, again, *angles)

    def write(self, layer: int, keys: Tensor, values: Tensor, room: Room) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys (before RoPE) and values [K, T, D] -> all its rotated keys and values [K, S, D], as views."""
        new = torch.stack((keys, rotate(keys, room.cos, room.sin), values))  # [3, K, T, D]
        if room.again is not None:
            self.store[:, layer][:, :, room.again] = new[:, :, : len(room.again)]
            new = new[:, :, len(room.again) :]
        self.store[:, layer, :, room.start : self.length] = new
        return self.store[1, layer, :, : self.length], self.store[2, layer, :, : self.length]

    def keep(self, index: Tensor, positions: Tensor | None) -> None:
        """Keep the tokens at `index` [S], in that order, at new `positions` [3, S]; None leaves each at the position it had."""
        n = index.shape[0]
        if positions is None:  # nothing moves in angle, so the working copy is gathered like the rest
            self.store[:, :, :, :n] = self.store[:, :, :, index]
            self.positions[:, :n] = self.positions[:, index]
        else:
            self.store[::2, :, :, :n] = self.store[::2, :, :, index]
            self.positions[:, :n] = positions
            cos, sin = self.rope.angles(positions)
            self.store[1, :, :, :n] = rotate(self.store[0, :, :, :n], cos, sin)
        self.length = n

    def clear(self) -> None:
        self.length = 0

    def _grow(self, capacity: int) -> None:
        shape = (*self.store.shape[:3], capacity, self.store.shape[-1])
        store, positions = self.store.new_zeros(shape), self.positions.new_zeros(3, capacity)
        store[:, :, :, : self.length] = self.store[:, :, :, : self.length]
        positions[:, : self.length] = self.positions[:, : self.length]
        self.store, self.positions = store, positions
