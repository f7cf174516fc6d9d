"""What tests share: the smallest configurations, made-up chunks, a sentence to the user."""

from __future__ import annotations

import re

import numpy as np

from streamingvlm.base import config
from streamingvlm.base.records import Chunk

TINY = config.Model(seed=0, hidden=64, layers=3, heads=4, kv_heads=2, intermediate=96, vision_hidden=32, vision_depth=2, vision_heads=2,
                    vision_intermediate=48)
VIDEO = config.Video(fps=2.0, chunk_s=1.0, max_pixels=56 * 84)
CACHE = config.Retention(text_sink=4, text_window=12, vision_rounds=3)
STREAM = config.Stream(policies=["streaming"], max_new_tokens=6)
# params.yaml in miniature: the whole pipeline in some two minutes
SMALL = """
data: {seed: 0, clips: [basketball.mp4, bigbuckbunny.mp4], loop_clip: bigbuckbunny.mp4, loop_s: 12, train_matches: 2, train_s: 24, clean_matches: 1,
  eval_matches: 1, eval_s: 12, long_s: 24}
video: {fps: 2.0, chunk_s: 1.0, max_pixels: 3136}
cache: {text_sink: 4, text_window: 16, vision_rounds: 2, pin_query: true, restart_rounds: 8, refresh: none}
model: {seed: 0, hidden: 32, layers: 2, heads: 2, kv_heads: 1, intermediate: 32, vision_hidden: 32, vision_depth: 1, vision_heads: 2,
  vision_intermediate: 32}
pretrain: {seed: 0, document_s: 9, documents: 1, shortest_s: 2, longest_s: 4, clips: 1, asked: 1, reading_steps: 1, moment_steps: 1, clip_steps: 1,
  language_lr: 0.001, matches: 1, match_s: 9, vision_steps: 1, vision_batch: 4, vision_lr: 0.001, both_steps: 1, both_lr: 0.001}
sft: {seed: 0, base: data/tiny-base, window_s: 8, stride_s: 4, starts: grid, questions: 0.25, steps: 4, lr: 0.0005,
  anneal_steps: 2, anneal_lr: 0.0001, batch: 2, accumulate: 1, packed: false, tune: full, lora_rank: 2, tune_vision: false,
  dtype: float32, checkpoint_every: 2}
compress: {variants: [float32, pruned25, mlp25_int8]}
stream: {policies: [streaming, full], ablations: [no_text], controls: [streaming], max_new_tokens: 4, timed_s: 12}
city: {worlds: 1, frames: 32, variants: [baseline_vlm, model, no_hrm, shuffled], compress: [float32, pruned25_int8], compressed_worlds: 1}
live: {budget_ms: 120.0, virtual_s: 10, streams: [2, 24], worlds: 1, slower: [4.0], trial_s: 1}
evaluate: {tolerance_s: 1.0}
run: {device: cpu, threads: 1}
"""


def chunk(k: int, frames: int = 2) -> Chunk:
    """Second k of a video that is all noise: nothing two chunks could share."""
    pixels = np.random.default_rng([7, k]).integers(0, 256, (frames, 56, 84, 3), np.uint8)
    return Chunk(k, float(k), k + 1.0, pixels, tuple(k + j / frames for j in range(frames)))


def one_sentence(stderr: str) -> str:
    assert re.fullmatch(r"streamingvlm: [^\n]+\.\n", stderr) and len(re.findall(r"\.\s", stderr)) == 1, stderr
    return stderr.removeprefix("streamingvlm: ").strip()
