"""KV storage: append, keep (evict, reorder, re-rotate). Knows tensors, not policy.

Keys are kept as computed before RoPE (`raw`) beside a rotated working copy. A decode step appends to both in place; an eviction gathers what
stays and rotates it afresh from `raw`, once, so that no rounding error can pile up over a stream of any length.
Letters: B streams, L layers, K kv heads, S cached tokens, T new tokens, D head dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        """positions [3, T] -> cos, sin [T, D], float32, as `rotate` takes them: the first half of sin is negated."""
        turn = positions.float()[self.axis].T * self.inv_freq  # [T, D/2]
        cos, sin = turn.cos(), turn.sin()
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)  # [T, D]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [..., T, D] by cos, sin [T, D] (any float dtype; they are cast to x's)."""
    return x * cos.to(x.dtype) + x.roll(x.shape[-1] // 2, -1) * sin.to(x.dtype)


@dataclass(frozen=True)
class WriteSlots:
    """Where `tokens` new tokens go: R of them over the cached tokens `again` [R] (or None), the others from `start` on."""

    start: int
    again: Tensor | None
    tokens: int

    def bias(self, length: int, groups: int, like: Tensor, only_again: bool = False) -> Tensor | None:
        """Additive mask [groups * T, S] for S = `length` cached tokens: a token sees those up to itself. None where it would hide nothing.
        `only_again`: of the tokens computed again alone, [groups * R, S]."""
        if self.again is None and (only_again or self.tokens == 1):
            return None
        new = length - self.start
        if self.again is None:  # what was cached before is seen by all: only the last square hides anything
            out = torch.zeros(groups, new, length, dtype=like.dtype, device=like.device)
            out[:, :, self.start :].masked_fill_(torch.ones(new, new, dtype=torch.bool, device=like.device).triu(1), float("-inf"))
            return out.flatten(0, 1)
        rows = self.again if only_again else torch.cat((self.again, torch.arange(self.start, length, device=like.device)))
        hidden = torch.arange(length, device=like.device) > rows[:, None]  # [T, S]
        return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill(hidden, float("-inf")).repeat(groups, 1)


class Pool:
    """Room for the keys, values and positions of B streams: one tensor each, so that one decode step can serve all of them."""

    def __init__(self, like: Tensor, streams: int, capacity: int):
        """`like` [3, L, *, K, *, D]: a store of the wanted shape, dtype and device but for the streams and the capacity."""
        _, layers, _, kv_heads, _, head_dim = like.shape
        self.store = like.new_zeros(3, layers, streams, kv_heads, capacity, head_dim)  # raw keys, rotated keys, values
        self.positions = torch.zeros(3, streams, capacity, device=like.device)  # fractions too: see `Dialogue.positions`
        self.lengths = [0] * streams  # cached tokens of each

    @property
    def capacity(self) -> int:
        return self.positions.shape[-1]

    def grow(self, capacity: int) -> None:
        """More room for each stream, in new tensors."""
        old, n = (self.store, self.positions), max(self.lengths)
        self.store = self.store.new_zeros(*self.store.shape[:-2], capacity, self.store.shape[-1])
        self.positions = self.positions.new_zeros(*self.positions.shape[:-1], capacity)
        self.store[..., :n, :], self.positions[..., :n] = old[0][..., :n, :], old[1][..., :n]

    @classmethod
    def of(cls, caches: Sequence[KVCache], capacity: int) -> Pool:
        """Move caches into one new pool, row by row; what they hold stays."""
        pool = cls(caches[0].pool.store, len(caches), max(capacity, *(cache.length for cache in caches)))
        for row, cache in enumerate(caches):
            n = pool.lengths[row] = cache.length
            pool.store[:, :, row, :, :n], pool.positions[:, row, :n] = cache.store[:, :, :, :n], cache.positions[:, :n]
            cache.pool, cache.row = pool, row
        return pool


class KVCache:
    """Preallocated keys and values of one stream: a row of a pool, at first its only one. Grows by doubling only when it turns out too small."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, rope: Rope, dtype: torch.dtype, device: torch.device, capacity: int = 512):
        self.rope, self.row = rope, 0
        self.pool = Pool(torch.empty(3, layers, 0, kv_heads, 0, head_dim, dtype=dtype, device=device), 1, capacity)

    @property
    def store(self) -> Tensor:
        """[3, L, K, capacity, D]: raw keys, rotated keys, values."""
        return self.pool.store[:, :, self.row]

    @property
    def positions(self) -> Tensor:
        """[3, capacity]."""
        return self.pool.positions[:, self.row]

    @property
    def length(self) -> int:
        return self.pool.lengths[self.row]

    @length.setter
    def length(self, tokens: int) -> None:
        self.pool.lengths[self.row] = tokens

    @property
    def capacity(self) -> int:
        return self.pool.capacity

    @property
    def bytes(self) -> int:
        """Bytes of what is cached now (raw and rotated keys, values), not of what is reserved."""
        return self.store[:, :, :, : self.length].numel() * self.store.element_size()

    def extend(self, positions: Tensor, again: Tensor | None = None) -> WriteSlots:
        """Make room for T new tokens at `positions` [3, T]; `write` then fills it layer by layer.

        `again` [R]: the first R of them are tokens cached already, at these indices, that are computed again where they stand."""
        tokens, positions = positions.shape[1], positions.to(self.positions.dtype)
        if again is not None:
            self.positions[:, again] = positions[:, : len(again)]
            positions = positions[:, len(again) :]
        start, stop = self.length, self.length + positions.shape[1]
        if stop > self.capacity:
            self.pool.grow(max(stop, 2 * self.capacity))
        self.positions[:, start:stop] = positions
        self.length = stop
        return WriteSlots(start, again, tokens)

    def write(self, layer: int, new: Tensor, slots: WriteSlots) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys before RoPE, rotated keys and values [3, T, K, D] -> all its rotated keys and values [K, S, D], as views."""
        store, stop, new = self.pool.store[:, layer, self.row], self.length, new.transpose(1, 2)  # [3, K, capacity, D], [3, K, T, D]
        if slots.again is not None:
            store[:, :, slots.again] = new[:, :, : len(slots.again)]
            new = new[:, :, len(slots.again) :]
        store[:, :, slots.start : stop] = new
        return store[1, :, :stop], store[2, :, :stop]

    def keep(self, index: Tensor, positions: Tensor | None, unmoved: int = 0) -> None:
        """Keep the tokens at `index` [S], in that order, at new `positions` [3, S]; None leaves each at the position it had.
        The first `unmoved` of them are where they were, at the positions they had: they cost nothing."""
        n, index = len(index), index[unmoved:]
        if positions is None:
            self.positions[:, unmoved:n] = self.positions[:, index]
        else:
            self.positions[:, unmoved:n] = positions[:, unmoved:]
            cos, sin = self.rope.angles(positions[:, unmoved:])
        for store in self.store.unbind(1):  # [3, K, capacity, D]: a layer at a time fits into a CPU's own memory, five times faster
            if positions is None:  # nothing moves in angle, so the working copy is gathered like the rest
                store[:, :, unmoved:n] = store.index_select(2, index)
            else:
                moved = store[::2].index_select(2, index)  # [2, K, S, D]
                store[::2, :, unmoved:n] = moved
                store[1, :, unmoved:n] = rotate(moved[0], cos, sin)
        self.length = n

    def clear(self) -> None:
        self.length = 0

    @contextmanager
    def fork(self) -> Iterator[None]:
        """What joins the cache within is gone behind it. It stands in free slots, so nothing is copied and nothing cached is touched, as long as
        nothing is computed again or evicted within. A cache that had to grow shrinks again, unless it shares its pool: others may have moved on."""
        pool, length = self.pool, self.length
        held = pool.store, pool.positions
        try:
            yield
        finally:
            self.length = length
            if self.pool is pool and len(pool.lengths) == 1:
                pool.store, pool.positions = held
