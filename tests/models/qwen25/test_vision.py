"""The vision tower's loop computes what transformers' own forward computes, for one chunk and for many of different grids in one pass."""

from __future__ import annotations

import copy

import pytest
import torch

from streamingvlm.models.qwen25 import compress
from streamingvlm.models.qwen25.vision import KEPT, Tower
from streamingvlm.models.qwen25.vlm import VLM

# slices, rows, columns of patches; a window has 8 x 8 of them. Whole windows, parts of one, parts at two edges, several slices, several chunks
GRIDS = [[(1, 16, 24)], [(1, 4, 6)], [(1, 10, 14)], [(3, 18, 22)], [(2, 8, 8), (1, 8, 8)], [(1, 12, 20), (2, 10, 6), (1, 12, 20), (3, 8, 16)]]


@pytest.fixture(scope="module")
def visual(vlm):
    """Weights that keep the size of what passes through, and attention that looks somewhere."""
    tower, draw = copy.deepcopy(vlm.hf.model.visual), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in tower.named_parameters():
            if p.ndim > 1:
                p.normal_(std=(2 if "qkv" in name else 1) / p[0].numel() ** 0.5, generator=draw)
    return tower


def patches(grids, seed: int = 0) -> torch.Tensor:
    return torch.randn(sum(t * h * w for t, h, w in grids), 1176, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
@pytest.mark.parametrize("grids", GRIDS, ids=str)
def test_it_computes_what_transformers_computes(visual, grids):
    x = patches(grids)
    theirs = visual(x, grid_thw=torch.tensor(grids)).pooler_output
    scale = theirs.abs().max()
    torch.testing.assert_close(Tower(visual)(x, grids) / scale, theirs / scale, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_many_chunks_in_one_pass_are_each_alone(vlm):
    chunks = [(patches([grid], k), grid) for k, grid in enumerate([(1, 4, 6), (2, 10, 6), (1, 4, 6)])]
    for tokens, (x, grid) in zip(vlm.encode(chunks), chunks, strict=True):
        assert len(tokens) == len(x) // 4
        torch.testing.assert_close(tokens, vlm.encode([(x, grid)])[0], rtol=0, atol=1e-6)


def test_layouts_are_kept_and_do_not_pile_up(visual):
    tower, x = Tower(visual), patches([(1, 4, 4)])
    with torch.inference_mode():
        tower(x, [(1, 4, 4)])
        first = tower._layouts[((1, 4, 4),)]
        tower(x, [(1, 4, 4)])
        assert tower._layouts[((1, 4, 4),)] is first
        for columns in range(1, KEPT + 2):
            tower(patches([(1, 2, 2 * columns)]), [(1, 2, 2 * columns)])
    assert len(tower._layouts) == KEPT


@torch.inference_mode()
def test_int8_and_bfloat16_go_through_it_too(vlm):
    x, grid = patches([(1, 10, 14)]), (1, 10, 14)
    whole = vlm.encode([(x, grid)])[0]
    small, half = (VLM(copy.deepcopy(vlm.hf), vlm.tokenizer) for _ in range(2))
    compress.quantise(small)
    half = VLM(half.hf.bfloat16(), vlm.tokenizer)
    for other, share in ((small, 0.05), (half, 0.05)):
        assert 0 < (other.encode([(x, grid)])[0].float() - whole).abs().max() < share * whole.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: run `python -m pytest -n 0 tests/models/qwen25/test_vision.py`")
@torch.inference_mode()
def test_a_gpu_computes_the_same(vlm):
    x, grid = patches([(2, 10, 14)]), (2, 10, 14)
    there = VLM(copy.deepcopy(vlm.hf).cuda(), vlm.tokenizer)
    expected = vlm.encode([(x, grid)])[0]
    torch.testing.assert_close(there.encode([(x, grid)])[0].cpu(), expected, rtol=0, atol=1e-5)
    aside = there.encode_aside(lambda: (x.cuda(), grid))
    torch.testing.assert_close(aside()[1].cpu(), expected, rtol=0, atol=1e-5)
