"""Real weights from a GGUF file: a language model of the Llama family, read into the Qwen2.5-VL that everything here runs on.

With zero q, k and v biases and the same position on all three axes, Qwen2.5-VL's language model computes exactly what Llama computes, so the
cache and the policies meet real weights without a download of 16 GB. The vision tower beside it is a stub with random weights: text only.
Reading needs the package `gguf`, which the lock does not hold: `make real-lm` puts it and a model into artifacts/real-lm.

    vlm = gguf.load(path, torch.device("cpu"))          # a VLM; vlm.tokenizer is the file's own

Letters: H heads of q or k, D head dim, E hidden size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.base.errors import UserError
from streamingvlm.models.qwen25.vlm import VLM

# GGUF's name of a tensor -> Llama's; those of a layer stand behind `blk.N.` and `model.layers.N.`
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}
# The config's key -> GGUF's, behind `llama.`
SHAPE = {"vocab_size": "vocab_size", "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
         "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
         "max_position_embeddings": "context_length", "rms_norm_eps": "attention.layer_norm_rms_epsilon", "rope_theta": "rope.freq_base"}
CONTROL = 3  # GGUF's type of a token that is never text
# What the package raises of a file that is cut, or no GGUF at all, and what a lack of what we look for raises.
BROKEN = (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError, struct.error)


def load(path: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> VLM:
    """A GGUF file of a Llama -> a VLM that computes the same. Raises UserError if the package or the file is not there or not of that kind."""
    try:
        fields, tensors = read(path)
        if fields["general.architecture"] != "llama":
            raise UserError(f"{path} holds a model of type `{fields['general.architecture']}`, not `llama`; name another file.")
        if (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) != ("gpt2", "smollm"):
            raise UserError(f"{path} needs a tokenizer other than SmolLM's, the only one known here; name another file.")
        shape = {key: fields[f"llama.{name}"] for key, name in SHAPE.items()}
        hf = as_qwen(shape, llama_weights(tensors, shape["num_attention_heads"], shape["num_key_value_heads"]))
        return VLM(hf.to(device, dtype), tokenizer(fields))
    except BROKEN as error:
        raise UserError(f"{path} holds no whole GGUF model of the Llama family; run `make real-lm`, or name a file that does.") from error


def read(path: Path) -> tuple[dict, Iterable[tuple[str, np.ndarray]]]:
    """(metadata, pairs of name and dequantised float32 weights [out, in]) as the file has them."""
    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError:
        raise UserError("Reading a GGUF file needs the package `gguf`; run `make real-lm`.") from None
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, ((tensor.name, dequantize(tensor.data, tensor.tensor_type)) for tensor in reader.tensors)


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """[H * D, E], rows of a head as (pair, half): llama.cpp turns neighbours -> as (half, pair): transformers turns row i with row i + D/2."""
    pairs = weight.shape[0] // heads // 2
    return weight.view(heads, pairs, 2, -1).transpose(1, 2).reshape(weight.shape)


def llama_weights(tensors: Iterable[tuple[str, np.ndarray]], heads: int, kv_heads: int) -> dict[str, Tensor]:
    """GGUF's tensors -> weights as transformers' LlamaForCausalLM names and orders them."""
    out = {}
    for name, array in tensors:
        weight, parts = torch.from_numpy(np.array(array, np.float32)), name.removesuffix(".weight").split(".")
        if parts[0] != "blk":
            out[f"{TOP[parts[0]]}.weight"] = weight
            continue
        turned = {"attn_q": heads, "attn_k": kv_heads}.get(parts[2])
        out[f"model.layers.{parts[1]}.{LAYER[parts[2]]}.weight"] = unpermute(weight, turned) if turned else weight
    return out


def as_qwen(shape: dict, weights: dict[str, Tensor]) -> Qwen2_5_VLForConditionalGeneration:
    """Llama's weights under Llama's names -> a Qwen2.5-VL with the same logits. `shape`: the keys of SHAPE. No `lm_head`: the embeddings are it."""
    text = {key: value for key, value in shape.items() if key != "rope_theta"}
    half = shape["hidden_size"] // shape["num_attention_heads"] // 2
    side = half * 3 // 8  # Qwen's own split; text has one position for all three, so any would do
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": shape["rope_theta"], "mrope_section": [half - 2 * side, side, side]}
    text |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": shape["hidden_size"],
              "fullatt_block_indexes": [0], "tokens_per_second": 2, "window_size": 112}
    tied = "lm_head.weight" not in weights
    hf = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied))
    state = {name.replace("model.", "model.language_model.", 1): weight for name, weight in weights.items()}
    for name, weight in list(state.items()):
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):  # Qwen adds a bias where Llama has none
            state[name.replace(".weight", ".bias")] = torch.zeros(weight.shape[0])
    if tied:
        state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
    lost = hf.load_state_dict(state, strict=False)
    if lost.unexpected_keys or any("visual" not in name for name in lost.missing_keys):
        raise ValueError(f"weights do not fit: {lost}")
    return hf


def tokenizer(fields: dict) -> PreTrainedTokenizerFast:
    """Byte-level BPE from the metadata. Text is cut as SmolLM's was: every digit alone, then GPT-2's pattern."""
    names, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    bpe = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    end = names[fields["tokenizer.ggml.eos_token_id"]]
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, pad_token=end)
    fast.add_special_tokens({"additional_special_tokens": [name for name, kind in zip(names, kinds, strict=True) if kind == CONTROL]})
    return fast
