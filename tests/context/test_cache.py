"""The KV store: appending, evicting and re-rotating never change what a fresh rotation would give."""

from __future__ import annotations

import pytest
import torch

from streamingvlm.context.cache import KVCache, Rope, rotate

ROPE = Rope(16, 1e6, [2, 3, 3], torch.device("cpu"))


def cache(dtype=torch.float32, capacity=8) -> KVCache:
    return KVCache(2, 2, 16, ROPE, dtype, torch.device("cpu"), capacity)


def feed(kv: KVCache, positions: torch.Tensor, seed: int) -> None:
    slots = kv.extend(positions)
    angles = [part[:, None] for part in ROPE.angles(positions)]
    for layer in range(2):
        keys, values = torch.randn(2, positions.shape[1], 2, 16, generator=torch.Generator().manual_seed(seed * 2 + layer)).to(kv.store.dtype)
        turned = rotate(keys, *angles)
        kv.write(layer, torch.stack((keys, turned, values)), slots)


def positions(start: int, n: int) -> torch.Tensor:
    return torch.arange(start, start + n).expand(3, n)


def test_growing_beyond_the_capacity_keeps_everything():
    small, large = cache(capacity=2), cache(capacity=64)
    for kv in (small, large):
        for i in range(6):
            feed(kv, positions(3 * i, 3), i)
    assert small.length == large.length == 18
    torch.testing.assert_close(small.store[:, :, :, :18], large.store[:, :, :, :18], rtol=0, atol=0)


def test_keep_reorders_keys_values_and_positions():
    kv = cache()
    feed(kv, positions(0, 6), 0)
    before = kv.store[:, :, :, :6].clone()
    index = torch.tensor([0, 4, 2])
    kv.keep(index, None)
    assert kv.length == 3 and kv.positions[0, :3].tolist() == [0, 4, 2]
    assert torch.equal(kv.store[:, :, :, :3], before[:, :, :, index])


@pytest.mark.parametrize("moves", [True, False])
def test_what_did_not_move_need_not_be_touched(moves):
    whole, front = cache(), cache()
    index = torch.tensor([0, 1, 2, 5, 4, 7])
    for kv, unmoved in ((whole, 0), (front, 3)):
        feed(kv, positions(0, 8), 0)
        kv.store[:, :, :, :3] += torch.tensor(1.0 if unmoved else 0.0)  # would be seen, were the working copy made again
        kv.keep(index, positions(0, 6) if moves else None, unmoved)
        kv.store[:, :, :, :3] -= torch.tensor(1.0 if unmoved else 0.0)
    assert whole.length == front.length == 6 and torch.equal(whole.positions[:, :6], front.positions[:, :6])
    torch.testing.assert_close(whole.store[:, :, :, :6], front.store[:, :, :, :6], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_thousand_evictions_leave_no_drift(dtype):
    kv = cache(dtype, capacity=64)
    feed(kv, positions(0, 20), 0)
    for i in range(1_000):
        kv.keep(torch.arange(1, 20), positions(0, 19))
        feed(kv, positions(19, 1), i)
    fresh = rotate(kv.store[0, :, :, :20], *ROPE.angles(kv.positions[:, :20]))
    assert torch.equal(kv.store[1, :, :, :20], fresh)


def test_attention_depends_on_relative_positions_only():
    q, k = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    near, far = (rotate(q, *ROPE.angles(positions(p, 5))) @ rotate(k, *ROPE.angles(positions(p, 5))).T for p in (0, 900))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-3)
