"""The forward pass: many streams at once equal each alone; what is computed again in place equals what a fresh prefill gives."""

from __future__ import annotations

import pytest
import torch
from helpers import TINY

from streamingvlm.base.errors import UserError
from streamingvlm.models.qwen25 import loading
from streamingvlm.models.qwen25.vlm import VLM, Prefill


def tokens(vlm, n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, vlm.text.hidden_size, generator=torch.Generator().manual_seed(seed))


def at(start: int, n: int) -> torch.Tensor:
    return torch.arange(start, start + n).expand(3, n)


def test_many_streams_in_one_forward_equal_each_alone(vlm):
    lengths = [(5, 3, 1), (9, 1, 1), (2, 7, 4)]  # tokens of each stream in three forwards: prefill and decode side by side
    alone, together = ([vlm.new_cache() for _ in lengths] for _ in range(2))
    for step in range(3):
        xs = [tokens(vlm, n[step], 10 * s + step) for s, n in enumerate(lengths)]
        places = [at(cache.length, len(x)) for cache, x in zip(alone, xs, strict=True)]
        one = [vlm.forward([Prefill(x, p, cache)])[0] for x, p, cache in zip(xs, places, alone, strict=True)]
        many = vlm.forward([Prefill(x, p, cache) for x, p, cache in zip(xs, places, together, strict=True)])
        for a, b in zip(one, many, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a.store[..., : a.length, :], b.store[..., : b.length, :], rtol=0, atol=1e-5)


def test_computed_again_in_place_equals_a_fresh_prefill(vlm):
    """Tokens 3 and 4 were computed from other embeddings; computed again with the right ones, the same pass that appends sees them right."""
    x, wrong = tokens(vlm, 9, 0), tokens(vlm, 9, 1)
    fresh = vlm.new_cache()
    expected = vlm.forward([Prefill(x, at(0, 9), fresh)])[0]
    mended = vlm.new_cache()
    vlm.forward([Prefill(torch.cat((x[:3], wrong[3:5])), at(0, 5), mended)])
    again = torch.tensor([3, 4])
    out = vlm.forward([Prefill(x[3:], at(3, 6), mended, again)])[0]
    torch.testing.assert_close(out, expected[3:], rtol=0, atol=1e-5)
    torch.testing.assert_close(mended.store[..., :9, :], fresh.store[..., :9, :], rtol=0, atol=1e-5)
    assert torch.equal(mended.positions[:, :9], fresh.positions[:, :9]) and mended.length == 9


def test_prefill_without_a_mask_in_memory_equals_prefill_with_one(vlm):
    """The path of a GPU, which on a CPU computes the same, slower: new tokens, first and later ones, with and without tokens computed again."""
    flash = VLM(vlm.hf, vlm.tokenizer)
    assert not flash.lower_right
    flash.lower_right = True
    ours, theirs = vlm.new_cache(), flash.new_cache()
    for seed, (start, n, again) in enumerate([(0, 9, []), (9, 6, []), (15, 1, []), (16, 6, [2, 3]), (20, 3, [7, 17])]):
        x, stale = tokens(vlm, n, seed), torch.tensor(again) if again else None
        places = torch.cat((stale.expand(3, -1), at(start + len(again), n - len(again))), dim=1) if again else at(start, n)
        a, b = (m.forward([Prefill(x, places, cache, stale)])[0] for m, cache in ((vlm, ours), (flash, theirs)))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.store[..., : ours.length, :], theirs.store[..., : ours.length, :], rtol=0, atol=1e-5)
    assert ours.length == theirs.length == 21


def test_the_seed_decides_every_weight(words):
    a, b = (loading.build(TINY, words).hf.state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_too_little_memory_is_no_broken_folder(vlm, tmp_path, monkeypatch):
    vlm.save(tmp_path)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading, "_from_folder", full)
    with pytest.raises(UserError, match="does not fit into the memory of cpu"):
        loading.load(tmp_path, torch.device("cpu"))
