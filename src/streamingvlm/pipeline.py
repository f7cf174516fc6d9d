"""What every notebook begins and ends with: params, paths, files that are complete or not there. Each stage itself is its notebook."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamingvlm import config, files


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
    """What every notebook starts with: its params (DVC's, or by hand all of params.yaml) and its paths. Fixes the number of torch threads.

    A model loads within a second: the bar that transformers draws for each would only crowd the lesson."""
    import torch
    from transformers.utils import logging

    cfg = config.from_dict(params) if params else config.load()
    if vars(cfg).get("video", config.Video()).chunk_s != 1:
        raise config.UserError("params.yaml: `video.chunk_s` must be 1.0 in the pipeline: what happens in the arena is labelled second by second.")
    torch.set_num_threads(vars(cfg).get("run", config.Run()).threads)
    logging.disable_progress_bar()
    return cfg, Paths(config.repository_root())


def versions() -> None:
    """Print what computes here: only what the lock pins and the kind of device, so that an executed notebook is the same on every machine."""
    import torch
    import transformers

    print(f"torch {torch.__version__.partition('+')[0]}, transformers {transformers.__version__}")
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only: everything here works without a GPU")


def write_json(value, path: Path) -> None:
    """The same bytes for the same value."""
    files.write(path, json.dumps(value, indent=1) + "\n")


def write_lines(rows: Sequence[dict], path: Path) -> None:
    """JSON lines."""
    files.write(path, "".join(json.dumps(row) + "\n" for row in rows))


def fingerprint(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def show(png: Path, kept: bool = True) -> None:
    """Display a figure in a notebook. `kept`: its pixels become part of the notebook; otherwise (timings) an executed notebook only links to it."""
    from IPython.display import Image, Markdown, display

    if kept:
        display(Image(filename=str(png)))
    else:
        display(Markdown(f"![{png.stem}](../timings/{png.name}) · [interactive](../timings/{png.stem}.html)"))
