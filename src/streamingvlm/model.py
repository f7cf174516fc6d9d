"""Build or load a Qwen2.5-VL; encode a chunk; one forward over new tokens against a `KVCache`. Knows no chat token, no policy and no clock.

The weights and modules are transformers' own `Qwen2_5_VLForConditionalGeneration`, from the tiny model to the 7B; only the loop over the
decoder's layers is ours, because the cache keeps keys before RoPE. Letters: T new tokens, S cached tokens, E hidden size, H heads, K kv heads,
D head dim, P patches, N vision tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm import config
from streamingvlm.cache import KVCache, Room, Rope, rotate
from streamingvlm.config import UserError

# What transformers, safetensors and torch raise of a folder whose files are missing, cut or do not fit together.
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, StrictDataclassError)


@dataclass(frozen=True)
class Feed:
    """New tokens of one stream: embeddings x [T, E], positions [3, T], and the cache they join. `again` [R]: see `KVCache.extend`."""

    x: Tensor
    positions: Tensor
    cache: KVCache
    again: Tensor | None = None


class VLM:
    """A vision-language model and its tokenizer, ready to stream."""

    def __init__(self, hf: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase):
        self.hf, self.tokenizer = hf.eval(), tokenizer
        text = hf.config.text_config
        self.text, self.heads, self.kv_heads = text, text.num_attention_heads, text.num_key_value_heads
        self.head_dim = text.hidden_size // text.num_attention_heads
        self.device, self.dtype = hf.device, hf.model.language_model.embed_tokens.weight.dtype
        self.rope = Rope(self.head_dim, text.rope_parameters["rope_theta"], text.rope_parameters["mrope_section"], self.device)

    def time_step(self, fps: float) -> int:
        """How far the temporal position moves per time slice of two frames (Qwen2.5-VL: tokens per second x seconds per slice)."""
        return int(self.hf.config.vision_config.tokens_per_second * 2 / fps)

    def new_cache(self) -> KVCache:
        return KVCache(self.text.num_hidden_layers, self.kv_heads, self.head_dim, self.rope, self.dtype, self.device)

    @torch.inference_mode()
    def encode(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """patches [P, 1176] of one chunk -> vision tokens [N, E]."""
        grid_thw = torch.tensor([grid], device=self.device)
        return self.hf.model.visual(patches.to(self.device, self.dtype), grid_thw=grid_thw).pooler_output

    @torch.inference_mode()
    def embed(self, ids: list[int]) -> Tensor:
        """ids [T] -> embeddings [T, E]."""
        return self.hf.model.language_model.embed_tokens(torch.tensor(ids, device=self.device))

    @torch.inference_mode()
    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """New tokens of one or many streams -> their final hidden states [T, E] each, after the last norm. Their keys and values join their caches.

        All that is per token runs once for all streams; only attention is each stream's own, against its own cache."""
        rooms = [feed.cache.extend(feed.positions.to(self.device), feed.again) for feed in feeds]
        groups = self.heads // self.kv_heads
        biases = [room.bias(feed.cache.length, groups, feed.x) for feed, room in zip(feeds, rooms, strict=True)]
        sizes = [len(feed.x) for feed in feeds]
        x = torch.cat([feed.x for feed in feeds])  # [sum of T, E]
        decoder = self.hf.model.language_model
        for i, layer in enumerate(decoder.layers):
            attn = layer.self_attn
            h = layer.input_layernorm(x)
            projected = [part.split(sizes) for part in (attn.q_proj(h), attn.k_proj(h), attn.v_proj(h))]
            mixed = [self._attend(i, feed.cache, room, bias, qkv)
                     for feed, room, bias, qkv in zip(feeds, rooms, biases, zip(*projected, strict=True), strict=True)]
            x = x + attn.o_proj(torch.cat(mixed))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return list(decoder.norm(x).split(sizes))

    def _attend(self, layer: int, cache: KVCache, room: Room, bias: Tensor | None, qkv: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """One layer's attention of T new tokens over all that is cached -> [T, H * D]."""
        T, K, D = len(qkv[0]), self.kv_heads, self.head_dim
        q = qkv[0].view(T, K, -1, D).permute(1, 2, 0, 3)  # [K, H/K, T, D]
        k, v = (part.view(T, K, D).transpose(0, 1) for part in qkv[1:])  # [K, T, D]
        keys, values = cache.write(layer, k, v, room)  # [K, S, D]
        # The query heads that share a kv head stand one after another as rows of one attention: no key is ever copied per head.
        q = rotate(q, room.cos, room.sin).reshape(1, K, -1, D)  # [1, K, H/K * T, D]
        out = F.scaled_dot_product_attention(q, keys[None], values[None], attn_mask=bias)  # [1, K, H/K * T, D]
        return out.view(K, -1, T, D).permute(2, 0, 1, 3).reshape(T, -1)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., E] -> logits [..., vocabulary], float32."""
        return self.hf.lm_head(hidden).float()

    def save(self, folder: Path) -> None:
        self.hf.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


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


def build(m: config.Model, tokenizer: PreTrainedTokenizerBase) -> VLM:
    """A randomly initialised tiny model; `m.seed` decides every weight."""
    torch.manual_seed(m.seed)
    return VLM(Qwen2_5_VLForConditionalGeneration(tiny_config(m, tokenizer)), tokenizer)


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> a device that is really there."""
    if name not in {"auto", "cpu", "cuda"}:
        raise UserError(f"There is no device `{name}`; choose auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("No CUDA device can be seen here; use `--device cpu`, or set `run.device: auto`.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def load(name: str | Path, device: torch.device, dtype: torch.dtype | None = None) -> VLM:
    """A folder written by `VLM.save` (plain or compressed), or a name on the hub.

    Raises UserError if the folder holds no whole Qwen2.5-VL, or the hub cannot be reached."""
    from streamingvlm import compress

    folder = Path(name) if os.path.isdir(name) else _from_hub(str(name))
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type", "unknown")
        if kind != "qwen2_5_vl":  # transformers would build one all the same, of random weights
            raise UserError(f"{name} holds a model of type `{kind}`, not `qwen2_5_vl`; name a Qwen2.5-VL.")
        vlm = compress.load(folder, device) if compress.is_compressed(folder) else _from_folder(folder, device, dtype)
    except BROKEN as error:
        raise UserError(f"{name} holds no complete Qwen2.5-VL model; run `make repro`, or name a folder that does.") from error
    if vlm.tokenizer.convert_tokens_to_ids("<|video_pad|>") != vlm.hf.config.video_token_id:  # where files are missing, transformers makes one up
        raise UserError(f"{name} lacks its tokenizer's files, or they are another model's; name a folder that has them.")
    return vlm


def _from_folder(folder: Path, device: torch.device, dtype: torch.dtype | None) -> VLM:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    hf, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    if found["missing_keys"]:
        raise ValueError(f"weights are missing: {sorted(found['missing_keys'])}")
    return VLM(hf.to(device), tokenizer)


def _from_hub(name: str) -> Path:
    """The folder into which the hub's model was downloaded, now or earlier. One question without retries first: offline, the answer comes at once."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download

    try:
        HfApi().model_info(name, timeout=10)
        reachable = True
    except (OSError, ValueError, httpx.HTTPError):
        reachable = False
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"], local_files_only=not reachable))
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise UserError(f"There is no model folder `{name}`, and the hub has no such model or cannot be reached from here; "
                        "name a local folder, or connect and try again.") from error
