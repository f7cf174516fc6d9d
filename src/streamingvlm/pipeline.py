"""What the notebooks share: where things lie, and the few calls that more than one stage makes. Each stage itself is its notebook."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamingvlm import arena, captions, config, metrics, policy
from streamingvlm.model import VLM
from streamingvlm.stream import Comment, Streamer
from streamingvlm.video import read_chunks

WARM_CHUNKS = 5  # the first chunks of a stream pay for what is set up once; timings leave them out


@dataclass(frozen=True)
class Paths:
    """Every folder of the pipeline, below the repository root."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        known = {"data": "data", "subset": "artifacts/subset", "sft": "artifacts/sft", "compress": "artifacts/compress", "stream": "artifacts/stream",
                 "checkpoints": "artifacts/checkpoints", "figures": "reports/figures", "timings": "reports/timings", "reports": "reports"}
        if name not in known:
            raise AttributeError(name)
        return self.root / known[name]


def begin(params: dict | None) -> tuple[config.Config, Paths]:
    """What every notebook starts with: its params (DVC's, or by hand all of params.yaml) and its paths. Fixes the number of torch threads."""
    import torch

    cfg = config.from_dict(params) if params else config.load()
    torch.set_num_threads(vars(cfg).get("run", config.Run()).threads)
    return cfg, Paths(config.repository_root())


def write_json(value, path: Path) -> None:
    """JSON, complete or not at all, the same bytes for the same value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


def write_lines(rows: Sequence[dict], path: Path) -> None:
    """JSON lines, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(part, path)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def watch(vlm: VLM, row: dict, name: str, cfg: config.Config, root: Path) -> Iterator[Comment]:
    """Stream one row's video through the model under the policy `name`."""
    streamer = Streamer(vlm, policy.get(name), cfg.cache, cfg.video, cfg.stream)
    streamer.start(row["previous_text"], row["query"])
    return streamer.watch(row["id"], read_chunks(root / row["video"], cfg.video, row["start_s"], row["end_s"]))


def score(texts: Sequence[str], row: dict, tolerance_s: float = 1.0) -> dict:
    """Score what was said, chunk by chunk, against what happened."""
    said = [arena.parse(text) for text in texts]
    return metrics.score(said, metrics.truth_of(row)[: len(said)], tolerance_s)


def held_out(vlm: VLM, rows: Sequence[dict], cfg: config.Config, root: Path) -> tuple[dict, list[float]]:
    """Stream every row with the `streaming` policy -> (mean scores, seconds weighing alike; milliseconds of every chunk after the first few)."""
    results, ms = [], []
    for row in rows:
        comments = list(watch(vlm, row, "streaming", cfg, root))
        results.append(score([c.text for c in comments], row))
        ms += [c.ms["total"] - c.ms["read"] for c in comments[WARM_CHUNKS:]]
    mean = {key: [r[key] for r in results if r[key] is not None] for key in results[0]}
    return {key: round(float(np.mean(values)), 4) if values else None for key, values in mean.items()}, ms


def record(vlm: VLM, row: dict, name: str, cfg: config.Config, paths: Paths) -> Iterator[Comment]:
    """Stream one row and leave <id>.<policy>.vtt and .jsonl (without timings: those bytes must not change) in artifacts/stream."""
    paths.stream.mkdir(parents=True, exist_ok=True)
    stem = f"{row['id']}.{name}"
    return captions.record(watch(vlm, row, name, cfg, paths.root), paths.stream / f"{stem}.vtt", paths.stream / f"{stem}.jsonl", timed=False)


def show(png: Path, kept: bool = True) -> None:
    """Display a figure in a notebook. `kept`: its pixels become part of the notebook; otherwise (timings) an executed notebook only links to it."""
    from IPython.display import Image, Markdown, display

    if kept:
        display(Image(filename=str(png)))
    else:
        display(Markdown(f"![{png.stem}](../timings/{png.name}) · [interactive](../timings/{png.stem}.html)"))
