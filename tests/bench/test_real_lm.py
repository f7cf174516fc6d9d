"""Llama's weights in Qwen2.5-VL, and the bench's methods against one masked forward: random, tiny, without the packages of `make real-lm`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import common
import real_lm

from streamingvlm.base.errors import UserError
from streamingvlm.models.qwen25 import gguf
from streamingvlm.models.qwen25.vlm import VLM

HEADS, KV_HEADS = 4, 2
SHAPE = {"vocab_size": 150, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": HEADS,
         "num_key_value_heads": KV_HEADS, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e4}
IDS = torch.randint(SHAPE["vocab_size"], (60,), generator=torch.Generator().manual_seed(1)).tolist()
METHODS = real_lm.methods(sink=3, window=9)


def random_llama(tied: bool, vocabulary: int = SHAPE["vocab_size"]) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": vocabulary}
    rope = {"rope_type": "default", "rope_theta": shape["rope_theta"]}
    llama = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in shape.items() if k != "rope_theta"}, rope_parameters=rope, tie_word_embeddings=tied))
    with torch.no_grad():
        for name, p in llama.named_parameters():
            p.mul_(12 if "q_proj" in name or "k_proj" in name else 3)  # attention that looks somewhere, losses that differ
            if p.ndim == 1:
                p.add_(0.3 * torch.randn_like(p))  # norms that are not all alike
    return llama.eval()


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def as_gguf(llama: LlamaForCausalLM) -> list[tuple[str, np.ndarray]]:
    """Llama's weights as a GGUF file has them."""
    top, layer = ({theirs: ours for ours, theirs in table.items()} for table in (gguf.TOP, gguf.LAYER))
    out = []
    for name, p in llama.named_parameters():
        array, path = p.detach().numpy(), name.removesuffix(".weight")
        if path in top:
            out.append((f"{top[path]}.weight", array))
            continue
        _, _, number, rest = path.split(".", 3)
        heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}.get(rest)
        out.append((f"blk.{number}.{layer[rest]}.weight", permute(array, heads) if heads else array))
    return out


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return VLM(gguf.as_qwen(SHAPE, gguf.llama_weights(as_gguf(random_llama(True)), HEADS, KV_HEADS)), SimpleNamespace())


@pytest.mark.parametrize("heads", [1, 2, 3, 8])
def test_the_permutation_is_undone(heads):
    weight = np.arange(heads * 8 * 5, dtype=np.float32).reshape(heads * 8, 5)
    assert not np.array_equal(permute(weight, heads), weight)
    assert np.array_equal(gguf.unpermute(torch.from_numpy(permute(weight, heads)), heads), weight)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_llamas(tied):
    llama, ids = random_llama(tied), torch.tensor([IDS])
    weights = gguf.llama_weights(as_gguf(llama), HEADS, KV_HEADS)
    assert ("lm_head.weight" in weights) is not tied
    hf = gguf.as_qwen(SHAPE, weights).eval()
    with torch.inference_mode():
        want = llama(ids).logits
        torch.testing.assert_close(hf(input_ids=ids).logits, want, rtol=0, atol=1e-5 * want.abs().max().item())
        as_stored = gguf.as_qwen(SHAPE, weights | {"model.layers.0.self_attn.k_proj.weight": torch.from_numpy(
            permute(weights["model.layers.0.self_attn.k_proj.weight"].numpy(), KV_HEADS))}).eval()
        assert (as_stored(input_ids=ids).logits - want).abs().max() > 0.01 * want.abs().max(), "one layer's keys left as llama.cpp has them"
    found = real_lm.compare_logits(VLM(hf, SimpleNamespace()), llama, IDS, block=7)
    assert max(found["qwen_difference"], found["ours_difference"]) < 1e-4 * found["largest_logit"]


def test_weights_that_do_not_fit_are_refused():
    weights = gguf.llama_weights(as_gguf(random_llama(True)), HEADS, KV_HEADS)
    lacking = {name: weight for name, weight in weights.items() if "layers.2.mlp.up_proj" not in name}
    with pytest.raises(ValueError, match="up_proj"):
        gguf.as_qwen(SHAPE, lacking)
    with pytest.raises(ValueError, match=r"layers\.3"):
        gguf.as_qwen(SHAPE, weights | {"model.layers.3.mlp.up_proj.weight": torch.zeros(96, 64)})


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_token_by_token_through_the_cache_is_the_masked_forward(vlm, method):
    single, cache = real_lm.streamed(vlm, IDS, method, 1)
    assert single.shape == (59,) and cache.length == (method.limit or 60)
    torch.testing.assert_close(single, real_lm.masked(vlm, IDS, method), rtol=0, atol=2e-4)


def test_the_methods_differ_where_they_should(vlm):
    lost = {method.name: real_lm.masked(vlm, IDS, method) for method in METHODS}
    torch.testing.assert_close(lost["no_sink_contiguous"], lost["no_sink_growing"], rtol=0, atol=2e-4)
    for a, b in (("dense", "no_sink_growing"), ("dense", "sink_contiguous"), ("no_sink_growing", "sink_growing"),
                 ("sink_contiguous", "sink_growing")):
        assert torch.allclose(lost[a][:12], lost[b][:12], atol=1e-4), "until something leaves, all are the same"
        assert (lost[a] - lost[b])[12:].abs().max() > 0.02, (a, b)


@pytest.mark.parametrize("method", [m for m in METHODS if not m.contiguous or not m.window], ids=lambda method: method.name)
def test_the_masked_forward_is_llamas_under_that_mask(vlm, method):
    at = torch.arange(len(IDS))
    age = at[:, None] - at
    seen = (age >= 0) if not method.window else (age >= 0) & ((age < method.window) | (at < method.sink))
    bias = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
    with torch.inference_mode():
        logits = random_llama(True)(torch.tensor([IDS]), attention_mask=bias).logits[0, :-1]
    want = torch.nn.functional.cross_entropy(logits, torch.tensor(IDS[1:]), reduction="none")
    torch.testing.assert_close(real_lm.masked(vlm, IDS, method), want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("block", [4, 7])
def test_blocks_never_exceed_the_limit_and_the_sink_stays(vlm, block, monkeypatch):
    lengths, method = [], METHODS[3]
    forward = vlm.forward
    monkeypatch.setattr(vlm, "forward", lambda feeds: (forward(feeds), lengths.append(feeds[0].cache.length))[0])
    _, cache = real_lm.streamed(vlm, IDS, METHODS[4], block)
    assert max(lengths) == method.limit
    last = cache.positions[0, : cache.length].tolist()
    assert last == [0, 1, 2, *range(len(IDS) - 9, len(IDS))], "growing positions are places in the text"
    _, cache = real_lm.streamed(vlm, IDS, method, block)
    assert cache.positions[:, : cache.length].tolist() == [list(range(12))] * 3
    dense = real_lm.streamed(vlm, IDS, METHODS[0], block)[0]
    torch.testing.assert_close(dense, real_lm.masked(vlm, IDS, METHODS[0]), rtol=0, atol=2e-4)


def test_standard_errors():
    flat = real_lm.perplexities(torch.full((2, 1000), 2.0))
    assert flat[1] == pytest.approx({"ppl": np.exp(2), "se": 0, "over_dense": 1, "over_dense_se": 0}, abs=1e-9)
    noise = torch.randn(64_000, generator=torch.Generator().manual_seed(3))
    found = real_lm.perplexities(torch.stack((3 + noise, 3.5 + noise)))
    assert found[0]["se"] == pytest.approx(found[0]["ppl"] / 64_000**0.5, rel=0.1), "independent tokens: sigma / sqrt(n), times e to the mean"
    assert found[1]["over_dense"] == pytest.approx(np.exp(0.5)) and found[1]["over_dense_se"] < 1e-9, "what both share is no doubt about the ratio"
    runs = noise[:1000].repeat_interleave(64)
    assert real_lm.perplexities(runs[None])[0]["se"] > 6 * real_lm.perplexities(noise[None])[0]["se"], "tokens that go together count once"


def fields() -> dict:
    """A tokenizer's metadata: every byte, one merge, two control tokens."""
    names = ["<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "Ġa"]
    return {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": names,
            "tokenizer.ggml.token_type": [3, 3] + [1] * 258, "tokenizer.ggml.merges": ["1 2", "Ġ a"], "tokenizer.ggml.eos_token_id": 1,
            **{f"llama.{name}": SHAPE[key] for key, name in gguf.SHAPE.items()}, "llama.vocab_size": 260}


def test_the_tokenizer_parts_digits_and_knows_its_control_tokens():
    words = gguf.tokenizer(fields())
    names = [words.convert_ids_to_tokens(i) for i in words.encode("<|im_start|>b a 12<|im_end|>", add_special_tokens=False)]
    assert names == ["<|im_start|>", "b", "Ġa", "Ġ", "1", "2", "<|im_end|>"]
    for text in ("naïve — 你好\n\n\ta  b 3.14 <|im_", ""):
        assert words.decode(words.encode(text, add_special_tokens=False)) == text


def test_a_file_becomes_a_model(monkeypatch, tmp_path):
    monkeypatch.setattr(gguf, "read", lambda path: (fields(), as_gguf(random_llama(True, 260))))
    loaded = gguf.load(tmp_path / "some.gguf", torch.device("cpu"))
    assert loaded.text.vocab_size == 260 and len(loaded.tokenizer) == 260
    assert loaded.hf.lm_head.weight is loaded.hf.model.language_model.embed_tokens.weight
    for key, value, reason in (("general.architecture", "qwen2", "type `qwen2`"), ("tokenizer.ggml.pre", "llama-bpe", "tokenizer"),
                               ("llama.block_count", 4, "no whole GGUF")):
        monkeypatch.setattr(gguf, "read", lambda path, key=key, value=value: (fields() | {key: value}, as_gguf(random_llama(True, 260))))
        with pytest.raises(UserError, match=reason):
            gguf.load(tmp_path / "some.gguf", torch.device("cpu"))


def test_what_is_missing_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(real_lm, "PACKAGES", tmp_path)
    with pytest.raises(UserError, match="make real-lm"):
        real_lm.main([])
    with pytest.raises(UserError, match="name another"):
        real_lm.main(["--gguf", str(tmp_path / "none.gguf")])
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match="make real-lm"):
        gguf.load(tmp_path / "none.gguf", torch.device("cpu"))
    with pytest.raises(SystemExit):
        real_lm.main(["--block", "300"])


def test_the_text_is_unwrapped():
    text = real_lm.read_text(real_lm.TEXT)
    assert text.startswith("The Time Machine, by H. G. Wells [1898]\n\nI\n\nThe Time Traveller (for so it will be convenient to speak of him) was")
    assert "\n\n\n" not in text and len(text) > 58_000


def test_the_bench_from_end_to_end(monkeypatch, tmp_path, capsys):
    fast = {"matmul_side": 1024, "matmul_float32_gflops": 100.0, "copy_gb_s": 20.0}
    monkeypatch.setattr(common, "machine", lambda *_: fast)
    monkeypatch.setattr(gguf, "read", lambda path: (fields(), as_gguf(random_llama(True, 260))))
    monkeypatch.setattr(real_lm, "reference", lambda path: random_llama(True, 260))
    (tmp_path / "some.gguf").write_bytes(b"")
    small = ["--gguf", str(tmp_path / "some.gguf"), "--folder", str(tmp_path), "--device", "cpu", "--threads", "1", "--sink", "3", "--window", "9",
             "--block", "4", "--masked", "60", "--exact", "40"]
    real_lm.main([*small, "--tokens", "160"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line == json.loads((tmp_path / "real_lm.json").read_text())
    assert [row["method"] for row in line["methods"]] == [row["method"] for row in line["checks"]] == [m.name for m in METHODS]
    assert [row["kv_tokens"] for row in line["methods"]] == [160, 12, 12, 12, 12]
    assert line["exact_difference"] < 1e-3 and line["logits_difference"] < 1e-3 and line["no_sink_positions_difference"] < 1e-3
    assert line["sink_contiguous_over_dense"] == pytest.approx(line["sink_contiguous_ppl"] / line["dense_ppl"])
    assert line["growing_over_contiguous"] == pytest.approx(line["sink_growing_ppl"] / line["sink_contiguous_ppl"])
    assert line["no_sink_over_sink"] == pytest.approx(line["no_sink_contiguous_ppl"] / line["sink_contiguous_ppl"])
    with pytest.raises(UserError, match="tokens"):
        real_lm.main([*small, "--tokens", "99999"])
