"""Build or load a Qwen2.5-VL; encode chunks; one forward over new tokens against a `KVCache`. Knows no chat token, no policy and no clock.

The weights and modules are transformers' own `Qwen2_5_VLForConditionalGeneration`, from the tiny model to the 7B; only the loop over the
decoder's layers is ours, because the cache keeps keys before RoPE, and that over the vision tower's (`vision`), for speed. Letters: B streams,
T new tokens, R of them computed again, S cached tokens, E hidden size, H heads, K kv heads, D head dim, P patches, N vision tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from streamingvlm.context.cache import KVCache, Rope, WriteSlots, rotate
from streamingvlm.models.compression import HalfLinear, linears
from streamingvlm.models.qwen25.decode import Decoder, DecodeToken
from streamingvlm.models.qwen25.fused import Block
from streamingvlm.models.qwen25.head import PAYS, QuickHead
from streamingvlm.models.qwen25.vision import Grid, Tower

Pixels = tuple[Tensor, Grid]  # patches [P, 1176] of one chunk and their grid


@dataclass(frozen=True)
class Prefill:
    """New tokens of one stream: embeddings x [T, E], positions [3, T], and the cache they join. `again` [R]: see `KVCache.extend`."""

    x: Tensor
    positions: Tensor
    cache: KVCache
    again: Tensor | None = None


class VLM:
    """A vision-language model and its tokenizer, ready to stream. `decode`: how single words are computed, see `Decoder`."""

    def __init__(self, hf: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, decode: str = "auto"):
        self.hf, self.tokenizer = hf.eval(), tokenizer
        text = hf.config.text_config
        self.text, self.heads, self.kv_heads = text, text.num_attention_heads, text.num_key_value_heads
        self.head_dim = text.hidden_size // text.num_attention_heads
        self.device, self.dtype = hf.device, hf.model.language_model.embed_tokens.weight.dtype
        self.rope = Rope(self.head_dim, text.rope_parameters["rope_theta"], text.rope_parameters["mrope_section"], self.device)
        self.blocks = [Block(layer) for layer in hf.model.language_model.layers]
        self.tower, self.decoder = Tower(hf.model.visual), Decoder(hf.model.language_model, self.rope, self.blocks, decode)
        self.lower_right = self.device.type == "cuda"  # prefill without a mask in memory; on a CPU the mask is faster
        if self.device.type == "cuda":  # torch's first choice on Hopper, cuDNN, builds a plan for each new length of a cache: 0.1-0.4 s a word
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.side = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.quick: QuickHead | None = None
        self.on_attention: Callable[[int, Tensor, Tensor], None] | None = None  # (layer, the last new token's query [H, D], all keys [K, S, D])

    def time_step(self, fps: float) -> int | float:
        """How far the temporal position moves per time slice of two frames: tokens per second x seconds per slice, a fraction above 4 FPS.

        As in the released StreamingVLM; transformers rounds down, which puts all slices of a fast second at one moment."""
        step = self.hf.config.vision_config.tokens_per_second * 2 / fps
        return int(step) if step.is_integer() else step

    def new_cache(self) -> KVCache:
        return KVCache(self.text.num_hidden_layers, self.kv_heads, self.head_dim, self.rope, self.dtype, self.device)

    @torch.inference_mode()
    def encode(self, chunks: Sequence[Pixels]) -> list[Tensor]:
        """Patches and grids of chunks, of one stream or of many -> vision tokens [N, E] of each, in one pass."""
        patches = torch.cat([patches.to(self.device, self.dtype) for patches, _ in chunks])
        grids = [grid for _, grid in chunks]
        cell = self.tower.visual.spatial_merge_unit
        return list(self.tower(patches, grids).split([t * h * w // cell for t, h, w in grids]))

    @torch.inference_mode()
    def encode_aside(self, pixels: Callable[[], Pixels]) -> Callable[[], tuple[Pixels, Tensor]]:
        """Begin to encode one chunk beside whatever is launched from now on -> a call that hands over its pixels and vision tokens [N, E].

        On CUDA on a stream of its own, behind what was launched before; on a CPU at once."""
        here = torch.cuda.current_stream(self.device) if self.side else None
        with torch.cuda.stream(self.side):
            (patches, grid) = pixels()  # copies to the GPU make Python wait for this stream, so they come before this stream waits for the other
            if self.side:
                self.side.wait_stream(here)
            tokens = self.encode([(patches, grid)])[0]
            done = self.side.record_event() if self.side else None

        def hand_over() -> tuple[Pixels, Tensor]:
            if done:
                now = torch.cuda.current_stream(self.device)
                now.wait_event(done)
                for tensor in (patches, tokens):
                    tensor.record_stream(now)
            return (patches, grid), tokens

        return hand_over

    @torch.inference_mode()
    def embed(self, ids: list[int]) -> Tensor:
        """ids [T] -> embeddings [T, E]."""
        return self.hf.model.language_model.embed_tokens(torch.tensor(ids, device=self.device))

    @torch.inference_mode()
    def forward(self, feeds: Sequence[Prefill | DecodeToken]) -> list[Tensor]:
        """New tokens of one or many streams -> their final hidden states [T, E] each, after the last norm. Their keys and values join their caches.

        All that is per token runs once for all streams; only attention is each stream's own, against its own cache. Words alone, of caches that
        were prepared together, go through the static step."""
        if self.decoder.ready(feeds):
            return self.decoder(feeds)
        x, positions = self._entering(feeds)  # [sum of T, E], [3, sum of T]
        sizes = [1 if isinstance(feed, DecodeToken) else len(feed.x) for feed in feeds]
        caches = [feed.cache for feed in feeds]
        slots = [cache.extend(part, None if isinstance(feed, DecodeToken) else feed.again)
                 for cache, part, feed in zip(caches, positions.split(sizes, dim=1), feeds, strict=True)]
        biases = [slot.bias(cache.length, self.heads // self.kv_heads, x, self.lower_right) for cache, slot in zip(caches, slots, strict=True)]
        cos, sin = (part[:, None].to(x.dtype) for part in self.rope.angles(positions))  # [sum of T, 1, D]
        H, K = self.heads, self.kv_heads
        for i, block in enumerate(self.blocks):
            qkv = block.project(x).view(len(x), H + 2 * K, self.head_dim)
            turned = rotate(qkv[:, : H + K], cos, sin)
            new = torch.stack((qkv[:, H : H + K], turned[:, H:], qkv[:, H + K :])).split(sizes, dim=1)  # [3, T, K, D] of each stream
            mixed = [self._attend(i, *own) for own in zip(caches, slots, biases, turned[:, :H].split(sizes), new, strict=True)]
            x = block.finish(x, torch.cat(mixed))
        return list(self.hf.model.language_model.norm(x).split(sizes))

    def _entering(self, feeds: Sequence[Prefill | DecodeToken]) -> tuple[Tensor, Tensor]:
        """Embeddings [sum of T, E] and positions [3, sum of T] of all that is fed; single tokens are looked up together."""
        tokens = [feed for feed in feeds if isinstance(feed, DecodeToken)]
        if tokens:
            ids = torch.tensor([token.id for token in tokens], device=self.device)
            places = torch.tensor([token.position for token in tokens], dtype=torch.float32, device=self.device).expand(3, -1)
            embedded = self.hf.model.language_model.embed_tokens(ids)
            if len(tokens) == len(feeds):
                return embedded, places
            rows, columns = iter(embedded.split(1)), iter(places.split(1, dim=1))
        parts = [(next(rows), next(columns)) if isinstance(feed, DecodeToken) else (feed.x, feed.positions.to(self.device)) for feed in feeds]
        return torch.cat([x for x, _ in parts]), torch.cat([positions for _, positions in parts], dim=1)

    def _attend(self, layer: int, cache: KVCache, slots: WriteSlots, bias: Tensor | None, q: Tensor, new: Tensor) -> Tensor:
        """One layer's attention of T new tokens, q [T, H, D] rotated, over all that is cached -> [T, H * D]; `new` [3, T, K, D] is cached first."""
        keys, values = cache.write(layer, new, slots)  # [K, S, D]
        if self.on_attention:
            self.on_attention(layer, q[-1], keys)
        T, K, D = len(q), self.kv_heads, self.head_dim
        if T == 1:
            return F.scaled_dot_product_attention(q.view(1, K, -1, D), keys[None], values[None]).view(1, -1)
        q = q.view(T, K, -1, D).permute(1, 2, 0, 3)  # [K, H/K, T, D]
        R = 0 if slots.again is None else len(slots.again)
        if not self.lower_right:
            out = _shared(q, keys, values, bias)
        else:  # flash attention: what is new sees all before it, and the few tokens computed again have a mask of their own
            fresh = q[:, :, R:].flatten(0, 1)  # [H, T - R, D]
            out = _lower_right(fresh, keys, values).view(K, -1, T - R, D)
            out = torch.cat((_shared(q[:, :, :R], keys, values, bias), out), dim=2) if R else out
        return out.permute(2, 0, 1, 3).reshape(T, -1)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., E] -> logits [..., vocabulary], float32."""
        return (self.quick or self.hf.lm_head)(hidden).float()

    def lighten(self, weights: str) -> None:
        """Read fewer bytes a word from now on, on a CPU, in layers that are not int8 already; for a GPU all are `whole`.

        `quick`: the output layer as a `QuickHead`. `half`: that, and the decoder's weights in float16, which cannot be saved then. `auto`: `quick`
        where it pays. `whole`: nothing."""
        if self.device.type != "cpu" or weights == "whole":
            return
        if type(self.hf.lm_head) is nn.Linear and (weights != "auto" or self.hf.lm_head.out_features >= PAYS):
            self.quick = QuickHead(self.hf.lm_head)
        language_model = self.hf.model.language_model
        for name, linear in linears(language_model).items() if weights == "half" else ():
            if type(linear) is nn.Linear:
                parent, _, leaf = name.rpartition(".")
                setattr(language_model.get_submodule(parent), leaf, HalfLinear(linear))

    def save(self, folder: Path) -> None:
        self.hf.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _lower_right(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of the newest tokens q [H, T, D] over all keys and values [K, S, D], each up to itself, without a mask in memory -> [H, T, D].

    In half precision the flash kernel is called by its name: `CausalBias` chooses the same, but reserves 2 * T * S floats on the CPU to be made."""
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0:
        return torch.ops.aten._scaled_dot_product_flash_attention(q[None], keys[None], values[None], 0.0, True)[0][0]
    return F.scaled_dot_product_attention(q[None], keys[None], values[None], causal_lower_right(q.shape[1], keys.shape[1]), enable_gqa=True)[0]


def _shared(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of q [K, H/K, T, D] over keys and values [K, S, D] with a mask [H/K * T, S] -> [K, H/K, T, D].

    The query heads that share a kv head stand one after another as rows of one attention: no key is ever copied per head."""
    rows = q.flatten(1, 2)  # [K, H/K * T, D]
    return F.scaled_dot_product_attention(rows[None], keys[None], values[None], attn_mask=bias).view(q.shape)


