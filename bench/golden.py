"""What the recorded runs of the released inference were made with: a tiny model and frames that are formulas, and the few words of Qwen's vocabulary
that the layout needs. Knows no recording and no policy; `conformance.py` replays the runs with it.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.base.records import Chunk
from streamingvlm.models.qwen25.vlm import VLM

FPS = 2
SPECIAL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|vision_start|>": 151652, "<|vision_end|>": 151653,
           "<|image_pad|>": 151655, "<|video_pad|>": 151656}
# Of Qwen's vocabulary, the words that the layout is made of; the previous text and the query are read off the recorded prompt.
LAYOUT = {"system\nYou are a helpful assistant.": (8948, 198, 2610, 525, 264, 10950, 17847, 13), "previous text\n": (19702, 1467, 198), "\n": (198,),
          "user\n": (872, 198), "assistant\n": (77091, 198), " ...": (2503,)}
CLOCK = {"Time=": (1462, 28), ".": (13,), "-": (12,), "s": (82,)} | {digit: (15 + int(digit),) for digit in "0123456789"}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of that name: noise whose seed is the name, scaled so that a random model attends somewhere and says different things."""
    r = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF).standard_normal(shape).astype(np.float32)
    if name.endswith(".bias"):
        return np.float32(0.02) * r
    if len(shape) == 1:
        return 1 + np.float32(0.1) * r
    if name.endswith("embed_tokens.weight"):
        return r
    gain = 1.0
    if name == "model.visual.patch_embed.proj.weight" or ("language_model" in name and name.endswith(("q_proj.weight", "k_proj.weight"))):
        gain = 2.0
    elif "language_model" in name and name.endswith("o_proj.weight"):
        gain = 3.0
    return r * np.float32(gain / np.sqrt(np.prod(shape[1:])))


@functools.cache
def golden_model() -> VLM:
    """The tiny model of the recorded runs. It has no tokenizer of its own: every run brings the few words it needs."""
    text = {"vocab_size": 151665, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 128, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}}
    vision = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 64, "hidden_act": "silu", "patch_size": 14,
              "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    tokens = {f"{name}_token_id": SPECIAL[f"<|{mark}|>"] for name, mark in
              (("vision_start", "vision_start"), ("vision_end", "vision_end"), ("image", "image_pad"), ("video", "video_pad"))}
    hf = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens)).float()
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.copy_(torch.from_numpy(weight(name, tuple(parameter.shape))))
    return VLM(hf, None)


def wrong_weights(vlm: VLM, recorded: list[dict]) -> list[str]:
    """The names whose shape, sum or first values are not those recorded, and those that are only on one side."""
    ours = {name: p.detach().numpy() for name, p in vlm.hf.named_parameters()}
    wrong = {*ours} ^ {row["name"] for row in recorded}
    for row in recorded:
        if row["name"] not in wrong:
            w = ours[row["name"]]
            same = list(w.shape) == row["shape"] and np.allclose(w.ravel()[:3], row["first3"], rtol=1e-6, atol=0)
            if not same or abs(w.sum(dtype=np.float64) - row["sum"]) > 1e-6 * max(1.0, row["abs_sum"]):
                wrong.add(row["name"])
    return sorted(wrong)


def frame(n: int) -> np.ndarray:
    """Frame n: a moving pattern with noise on it, [H, W, C] uint8."""
    y, x, c = np.meshgrid(np.arange(140), np.arange(112), np.arange(3), indexing="ij")
    pattern = ((y * (3 + c) + x * (5 - c) + 7 * n * (c + 1)) % 256) * 3 // 4
    return (pattern + np.random.RandomState(1234 + n).randint(0, 64, (140, 112, 3))).astype(np.uint8)


def chunk(i: int, seconds: int) -> Chunk:
    """Chunk i of a stream of chunks that long."""
    n = seconds * FPS
    frames = np.stack([frame(n * i + k) for k in range(n)])  # [F, H, W, C]
    return Chunk(i, float(i * seconds), float((i + 1) * seconds), frames, tuple((n * i + k) / FPS for k in range(n)))


class Vocabulary:
    """As much of Qwen's tokenizer as a run needs: the layout's words, times, and the two texts as they were recorded."""

    def __init__(self, texts: dict[str, tuple[int, ...]]):
        self.texts = LAYOUT | texts

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        return SPECIAL[tokens] if isinstance(tokens, str) else [SPECIAL[token] for token in tokens]

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        if text in self.texts:
            return list(self.texts[text])
        rest = text.removeprefix("Time=")  # Qwen splits a number into its digits
        return [*CLOCK["Time="], *(token for letter in rest for token in CLOCK[letter])]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def forced_end(i: int, step: int) -> int | None:
    """The id that runs with forced ends say in round i at that step whatever the model wants: the turn's end, in odd rounds ` ...` before it."""
    last = (5 * i + 2) % 13
    if step == last:
        return SPECIAL["<|im_end|>"]
    return LAYOUT[" ..."][0] if i % 2 and step == last - 1 else None
