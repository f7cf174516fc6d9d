"""Compression is real: fewer bytes, true zeros, and what is loaded back is what was saved."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from helpers import CACHE, STREAM, TINY, VIDEO, chunk

from streamingvlm.base.errors import UserError
from streamingvlm.context import policy
from streamingvlm.models.qwen25 import compress, loading
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.stream import Streamer

CPU = torch.device("cpu")


@pytest.fixture
def fresh(vlm):
    return VLM(copy.deepcopy(vlm.hf), vlm.tokenizer)


def test_int8_is_within_half_a_step_of_the_weights():
    linear = torch.nn.Linear(64, 48)
    small = compress.Int8Linear.of(linear)
    restored = small.weight.float() * small.scale[:, None]
    assert ((restored - linear.weight).abs() <= small.scale[:, None] / 2 + 1e-7).all()
    x = torch.randn(3, 5, 64)
    exact = torch.nn.functional.linear(x, restored, linear.bias)
    torch.testing.assert_close(small(x), exact, rtol=1e-4, atol=1e-4)
    small.pack()
    assert (small(x) - exact).abs().max() < 0.03 * exact.abs().max(), "the CPU kernel quantises activations to int8, no more"


def test_pruning_zeroes_the_smallest_share_of_every_row(fresh):
    before = {name: m.weight.detach().clone() for name, m in compress.linears(fresh.hf).items()}
    compress.prune(fresh, 0.25)
    assert compress.zeros(fresh) == pytest.approx(0.25, abs=0.01)
    for name, m in compress.linears(fresh.hf).items():
        gone = m.weight == 0
        assert (before[name].abs() * gone).amax(1).le(before[name].abs().masked_fill(gone, 9).amin(1)).all(), "row by row"
        assert torch.equal(m.weight[~gone], before[name][~gone])


def test_weights_that_meet_nothing_are_the_first_to_go(fresh):
    """Norms are of all inputs a layer met, and a large weight behind a dead input goes before a small one that is used."""
    streamer = Streamer(fresh, policy.get("streaming"), CACHE, VIDEO, STREAM)
    mlp, seen = fresh.hf.model.language_model.layers[0].mlp, []
    mlp.up_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].reshape(-1, 64)))
    with compress.input_norms(fresh) as norms:
        for k in range(3):
            streamer.step("test", chunk(k))
    assert norms.keys() == compress.linears(fresh.hf).keys()
    found = norms["model.language_model.layers.0.mlp.up_proj"].clone()
    torch.testing.assert_close(found, torch.cat(seen).norm(dim=0))
    streamer.step("test", chunk(3))
    assert torch.equal(norms["model.language_model.layers.0.mlp.up_proj"], found), "what comes later is not gathered"
    norms = {name: torch.ones_like(norm) for name, norm in norms.items()}
    norms["model.language_model.layers.0.mlp.up_proj"][::2] = 0
    compress.prune(fresh, 0.5, norms)
    assert (mlp.up_proj.weight[:, ::2] == 0).all() and (mlp.up_proj.weight[:, 1::2] != 0).all()
    assert (mlp.gate_proj.weight[:, ::2] != 0).any()


def test_two_of_every_four_weights_stay_and_they_are_the_larger(fresh):
    before = {name: m.weight.detach().clone() for name, m in compress.linears(fresh.hf).items()}
    compress.prune_two_of_four(fresh)
    fours = {name: m.weight.detach().view(m.out_features, -1, 4) for name, m in compress.linears(fresh.hf).items() if m.in_features % 4 == 0}
    assert len(fours) > 20
    for name, weight in fours.items():
        old = before[name].view_as(weight)
        assert ((weight != 0).sum(2) == 2).all(), name
        assert torch.equal(weight[weight != 0], old[weight != 0])
        assert (old.abs().topk(2).values == weight.abs().topk(2).values).all()


@pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] < 8,
                    reason="sparse matrix units are in NVIDIA GPUs since Ampere; there: python -m pytest -n 0 tests/models/qwen25/test_compress.py")
def test_semi_structured_weights_compute_what_dense_ones_do_in_less_memory(words):
    wide = loading.build(dataclasses.replace(TINY, hidden=128, intermediate=256), words)
    compress.prune_two_of_four(wide)
    vlm = VLM(wide.hf.to("cuda", torch.bfloat16), wide.tokenizer)
    x = torch.randn(32, 128, device="cuda", dtype=torch.bfloat16)
    mlp, dense = vlm.hf.model.language_model.layers[0].mlp, compress.memory_bytes(vlm)
    before = mlp(x)
    compress.semi_structured(vlm)
    torch.testing.assert_close(mlp(x), before, rtol=2e-2, atol=2e-2)
    assert compress.memory_bytes(vlm) < dense


def test_the_least_neurons_leave_the_mlps_and_the_rest_computes_as_before(fresh, vlm):
    """Neurons that give nothing are the first to go, and going changes nothing."""
    mlps = [m for m in fresh.hf.modules() if hasattr(m, "gate_proj")]
    assert len(mlps) == 5, "of the decoder and of the vision tower"
    with torch.no_grad():
        for mlp in mlps:
            mlp.down_proj.weight[:, ::4] = 0
    x = torch.randn(2, 7, 64)
    before = [mlp(x[..., : mlp.gate_proj.in_features]) for mlp in mlps]
    compress.shrink(fresh, 0.25)
    for mlp, out in zip(mlps, before, strict=True):
        torch.testing.assert_close(mlp(x[..., : mlp.gate_proj.in_features]), out)
        assert mlp.gate_proj.weight.shape[0] == mlp.down_proj.weight.shape[1] == mlp.gate_proj.out_features
    assert fresh.hf.config.text_config.intermediate_size == 72 and fresh.hf.config.vision_config.intermediate_size == 36


def test_float_weights_take_the_dtype_asked_for_and_scales_of_int8_keep_theirs(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(compress.Int8Linear, "pack", lambda self: None)
    compress.apply(fresh, "int8")
    compress.save(fresh, tmp_path, "int8")
    hf = loading.load(tmp_path, CPU, torch.bfloat16).hf
    assert {parameter.dtype for parameter in hf.parameters()} == {torch.bfloat16}
    assert {module.scale.dtype for module in compress.linears(hf).values()} == {torch.float32}
    assert {buffer.dtype for name, buffer in hf.named_buffers() if "inv_freq" in name} == {torch.float32}


def test_weights_of_half_precision_are_rounded_to_the_nearest_step():
    """In bfloat16 the division itself has steps of a half between 64 and 127."""
    linear = torch.nn.Linear(256, 64).bfloat16()
    small = compress.Int8Linear.of(linear)
    assert small.scale.dtype == torch.float32
    restored = small.weight.float() * small.scale[:, None]
    assert ((restored - linear.weight.float()).abs() <= small.scale[:, None] / 2 + 1e-7).all()


@pytest.mark.parametrize("variant", ["float32", "int8", "pruned25", "mlp25", "sparse24", "pruned25_int8", "mlp30_int8", "sparse24_int8"])
def test_saved_and_loaded_is_the_same_model_and_smaller(fresh, vlm, tmp_path, variant, monkeypatch):
    compress.apply(fresh, variant)
    on_disk = compress.save(fresh, tmp_path / variant, variant)
    monkeypatch.setattr(compress.Int8Linear, "pack", lambda self: None)
    loaded = loading.load(tmp_path / variant, CPU)
    ours, theirs = fresh.hf.state_dict(), loaded.hf.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    monkeypatch.undo()
    packed = loading.load(tmp_path / variant, CPU)
    assert compress.memory_bytes(packed) == compress.memory_bytes(fresh)
    plain = compress.save(vlm, tmp_path / "plain", "float32")
    assert (on_disk < plain) == (variant != "float32")
    assert (compress.memory_bytes(fresh) < compress.memory_bytes(vlm)) == ("int8" in variant or "mlp" in variant)
    streamers = [Streamer(m, policy.get("streaming"), CACHE, VIDEO, STREAM) for m in (fresh, loaded)]
    for k in range(6):
        assert len({s.step("test", chunk(k)).text for s in streamers}) == 1


@pytest.mark.parametrize("name", ["int4", "pruned", "pruned5", "mlp25int8", "float32_int8", ""])
def test_only_what_is_implemented_is_accepted(fresh, name):
    with pytest.raises(UserError, match="no compression"):
        compress.apply(fresh, name)
