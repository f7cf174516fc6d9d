"""Tiny random models and made-up chunks. One thread: two beside other load can be twenty times slower."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm import arena, config, model, tokenizer
from streamingvlm.model import VLM
from streamingvlm.video import Chunk

torch.set_num_threads(1)

TINY = config.Model(seed=0, hidden=64, layers=3, heads=4, kv_heads=2, intermediate=96, vision_hidden=32, vision_depth=2, vision_heads=2,
                    vision_intermediate=48)
VIDEO = config.Video(fps=2.0, chunk_s=1.0, max_pixels=56 * 84)
CACHE = config.Cache(text_sink=4, text_window=12, vision_rounds=3)
STREAM = config.Stream(policies=["streaming"], max_new_tokens=6)


def chunk(k: int, frames: int = 2) -> Chunk:
    """Second k of a video that is all noise: nothing two chunks could share."""
    pixels = np.random.default_rng([7, k]).integers(0, 256, (frames, 56, 84, 3), np.uint8)
    return Chunk(k, float(k), k + 1.0, pixels, tuple(k + j / frames for j in range(frames)))


@pytest.fixture(scope="session")
def words():
    return tokenizer.build(arena.WORDS)


@pytest.fixture(scope="session")
def vlm(words) -> VLM:
    """A random model that talks. As it is built, what it reads last is what it would say next: the end of a turn, always."""
    built = model.build(TINY, words)
    with torch.no_grad():
        built.hf.lm_head.weight.normal_(std=0.125, generator=torch.Generator().manual_seed(3))
    return built
