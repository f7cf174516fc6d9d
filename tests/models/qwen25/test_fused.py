"""Projections as one product: the same numbers, the same weights, whoever looks at, replaces or saves them."""

from __future__ import annotations

import pytest
import torch
from helpers import TINY
from torch import nn

from streamingvlm.models.qwen25 import compress, loading
from streamingvlm.models.qwen25.fused import Block, Fused


def parent(bias: bool) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Module()
    module.a, module.b = nn.Linear(8, 6, bias=bias), nn.Linear(8, 4, bias=bias)
    return module


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_stand_side_by_side_and_weights_stay_where_they_are(bias):
    module, x = parent(bias), torch.randn(3, 8)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wanted = torch.cat((module.a(x), module.b(x)), -1)
    fused = Fused(module, ("a", "b"))
    torch.testing.assert_close(fused(x), wanted)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    with torch.no_grad():
        module.b.weight.zero_()  # pruned in place
    assert torch.equal(fused(x)[:, 6:], module.b(x))


def test_a_replaced_layer_and_one_that_is_listened_to_are_called():
    module, x, heard = parent(True), torch.randn(3, 8), []
    fused = Fused(module, ("a", "b"))
    fused(x)
    hook = module.a.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0].shape))
    fused(x)
    hook.remove()
    assert heard == [(3, 8)]
    module.b = nn.Linear(8, 4)  # as `merge_and_unload` of LoRA layers does
    torch.testing.assert_close(fused(x)[:, 6:], module.b(x))
    module.a = compress.Int8Linear.of(module.a)
    assert fused(x).shape == (3, 10)


@torch.no_grad()
def test_a_block_is_transformers_layer(words):
    vlm = loading.build(TINY, words)
    layer, x = vlm.hf.model.language_model.layers[0], torch.randn(5, TINY.hidden)
    block, attn, h = Block(layer), layer.self_attn, layer.input_layernorm(x)
    torch.testing.assert_close(block.project(x), torch.cat((attn.q_proj(h), attn.k_proj(h), attn.v_proj(h)), -1))
    mixed = torch.randn(5, attn.o_proj.in_features)
    after = x + attn.o_proj(mixed)
    torch.testing.assert_close(block.finish(x, mixed), after + layer.mlp(layer.post_attention_layernorm(after)))


def test_a_model_that_has_streamed_learns_on_and_saves_whole(words, tmp_path):
    vlm = loading.build(TINY, words)
    with torch.inference_mode():
        vlm.blocks[0].project(torch.randn(2, TINY.hidden))
    vlm.blocks[0].project(torch.randn(2, TINY.hidden)).sum().backward()
    vlm.save(tmp_path)
    loaded = loading.load(tmp_path, torch.device("cpu")).hf.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in vlm.hf.state_dict().items())
