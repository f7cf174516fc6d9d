"""Compressed copies of a model: made, scored on held-out streams, timed against each other. What a variant is, `models.qwen25.compress` knows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from torch import Tensor

from streamingvlm.base import config, timing
from streamingvlm.evaluation import runs
from streamingvlm.models.qwen25 import compress, loading

TIMED_CHUNKS = 48  # of each variant, in turn


def make(source: Path, folder: Path, variant: str, norms: dict[str, Tensor], held: Sequence[dict], cfg: config.Config, root: Path) -> dict:
    """Compress the model in `source` into `folder` -> its row of the table: share of zeros, bytes on disk and in memory, scores. A job for
    `base.workers`."""
    device = loading.pick_device(cfg.run.device)
    vlm = loading.load(source, device)
    compress.apply(vlm, variant, norms)
    row = {"variant": variant, "zeros": round(compress.zeros(vlm), 4), "bytes": compress.save(vlm, folder, variant)}
    vlm = loading.load(folder, device, decode=cfg.run.decode)
    return {**row, "memory_bytes": compress.memory_bytes(vlm), **runs.held_out(vlm, held, cfg, root)}


def timed(folders: dict[str, Path], row: dict, cfg: config.Config, root: Path) -> list[dict]:
    """variant -> its folder; milliseconds a chunk of each, alone on the machine and chunk by chunk in turn: p50, p95, p99."""
    device = loading.pick_device(cfg.run.device)
    models = {variant: loading.load(folder, device, decode=cfg.run.decode) for variant, folder in folders.items()}
    chunks = list(islice(runs.chunks_of(row, cfg, root), timing.WARM_CHUNKS + TIMED_CHUNKS))
    streams = [(variant, runs.begin(vlm, row, "streaming", cfg), len(chunks)) for variant, vlm in models.items()]
    ms: dict[str, list[float]] = {variant: [] for variant in folders}
    for variant, comment in runs.interleaved(streams, row["id"], chunks):
        ms[variant].append(comment.ms["total"])
    return [{"variant": variant} | {f"chunk_ms_{q}": value for q, value in timing.percentiles(each[timing.WARM_CHUNKS :] or each).items()}
            for variant, each in ms.items()]
