"""Build a tiny Qwen2.5-VL, or load one from a folder or the hub. What is wrong with a folder, it says in one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.models import checkpoint, hub
from streamingvlm.models.qwen25.vlm import VLM

# What transformers, safetensors and torch raise of a folder whose files are missing, cut or do not fit together.
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, StrictDataclassError)


def tiny_config(m: config.Model, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """The tiny model's shape: Qwen2.5-VL's classes and code path, a few million parameters."""
    token = dict(zip(("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
                     tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]), strict=True))
    half = m.hidden // m.heads // 2
    side = half * 3 // 8  # Qwen's own split: 16 + 24 + 24 of 64
    text = {"vocab_size": len(tokenizer), "hidden_size": m.hidden, "num_hidden_layers": m.layers, "num_attention_heads": m.heads,
            "num_key_value_heads": m.kv_heads, "intermediate_size": m.intermediate, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [half - 2 * side, side, side]},
            "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = {"depth": m.vision_depth, "hidden_size": m.vision_hidden, "num_heads": m.vision_heads, "intermediate_size": m.vision_intermediate,
              "out_hidden_size": m.hidden, "fullatt_block_indexes": [m.vision_depth - 1], "tokens_per_second": 2, "window_size": 112}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **token)


def build(m: config.Model, tokenizer: PreTrainedTokenizerBase, shape: Qwen2_5_VLConfig | None = None) -> VLM:
    """A randomly initialised tiny model; `m.seed` decides every weight. `shape`: `tiny_config(m, tokenizer)` with something changed."""
    hf = Qwen2_5_VLForConditionalGeneration(shape or tiny_config(m, tokenizer))
    _initialise(hf, torch.Generator().manual_seed(m.seed))
    return VLM(hf, tokenizer)


@torch.no_grad()
def _initialise(hf: Qwen2_5_VLForConditionalGeneration, chance: torch.Generator) -> None:
    """Weights by the width of what they read. transformers' 0.02 is made for models thirty times as wide: at 128 it drowns a token in what the
    layers add to it, and copying a name from the context was not learned in 900 steps; like this it takes 200."""
    for name, weight in hf.named_parameters():
        if weight.ndim > 1:
            residual = name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight"))
            weight.normal_(std=(0.5 if residual else 1.0) * weight[0].numel() ** -0.5, generator=chance)
    words = hf.model.language_model.embed_tokens.weight
    words.normal_(std=0.3, generator=chance)
    hf.lm_head.weight.copy_(0.3 * words)  # what is looked up is what is said: copying starts half learned


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> a device that is really there."""
    if name not in {"auto", "cpu", "cuda"}:
        raise UserError(f"There is no device `{name}`; choose auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("No CUDA device can be seen here; use `--device cpu`, or set `run.device: auto`.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def load(name: str | Path, device: torch.device, dtype: torch.dtype | None = None, decode: str = "auto", weights: str = "whole") -> VLM:
    """A folder written by `VLM.save` (plain or compressed), or a name on the hub. `decode`: see `Decoder`; `weights`: see `VLM.lighten`.

    Raises UserError if the folder holds no whole Qwen2.5-VL, or the hub cannot be reached."""
    from streamingvlm.models.qwen25 import compress

    folder = Path(name) if os.path.isdir(name) else hub.folder(str(name))
    checkpoint.check(folder, name)
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type", "unknown")
        if kind != "qwen2_5_vl":  # transformers would build one all the same, of random weights
            raise UserError(f"{name} holds a model of type `{kind}`, not `qwen2_5_vl`; name a Qwen2.5-VL.")
        vlm = compress.load(folder, device, dtype) if compress.is_compressed(folder) else _from_folder(folder, device, dtype)
    except torch.OutOfMemoryError as error:  # a RuntimeError too, but the folder is whole
        raise UserError(f"{name} does not fit into the memory of {device}: free some of it, or take a smaller or a compressed model.") from error
    except BROKEN as error:
        raise UserError(f"{name} holds no complete Qwen2.5-VL model, or files that do not fit together: copy or download it again, "
                        "or, if it is the workbench's own, run `make repro`.") from error
    if vlm.tokenizer.convert_tokens_to_ids("<|video_pad|>") != vlm.hf.config.video_token_id:  # where files are missing, transformers makes one up
        raise UserError(f"{name} lacks its tokenizer's files, or they are another model's; name a folder that has them.")
    if broken := _not_finite(vlm.hf):
        raise UserError(f"{name} holds numbers that are not finite, in {broken}: its training diverged or the file is damaged; name another model.")
    vlm = VLM(vlm.hf, vlm.tokenizer, decode)
    vlm.lighten(weights)
    return vlm


def _not_finite(hf: torch.nn.Module) -> str | None:
    """The name of the first weight with a NaN or an infinity in it: a model with one says nothing, for ever. One pass; the sum tells."""
    for name, weight in (*hf.named_parameters(), *hf.named_buffers()):
        if weight.is_floating_point() and not torch.isfinite(weight.sum(dtype=torch.float32)) and not torch.isfinite(weight).all():
            return name
    return None


def _from_folder(folder: Path, device: torch.device, dtype: torch.dtype | None) -> VLM:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    hf, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    if found["missing_keys"]:
        raise ValueError(f"weights are missing: {sorted(found['missing_keys'])}")
    return VLM(hf.to(device), tokenizer)
