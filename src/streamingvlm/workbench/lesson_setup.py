"""What every notebook begins and ends with: params, paths, files that are complete or not there. Each stage itself is its notebook."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import Paths, repository_root


def begin(params: dict | None) -> tuple[config.Config, Paths]:
    """What every notebook starts with: its params (DVC's, or by hand all of params.yaml) and its paths. Fixes the number of torch threads.

    Where models run: each loads within a second, and the bar that transformers draws for it would only crowd the lesson."""
    import torch

    cfg = config.from_dict(params) if params else config.load()
    if vars(cfg).get("video", config.Video()).chunk_s != 1:
        raise UserError("params.yaml: `video.chunk_s` must be 1.0 in the pipeline: what happens in the arena is labelled second by second.")
    torch.set_num_threads(vars(cfg).get("run", config.Run()).threads)
    if "run" in vars(cfg):
        from transformers.utils import logging

        logging.disable_progress_bar()
    return cfg, Paths(repository_root())


def versions() -> None:
    """Print what computes here: only what the lock pins and the kind of device, so that an executed notebook is the same on every machine."""
    import torch

    print(f"torch {torch.__version__.partition('+')[0]}, transformers {metadata.version('transformers')}")  # not imported: not every lesson needs it
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only: everything here works without a GPU")


def show(png: Path, kept: bool = True) -> None:
    """Display a figure in a notebook. `kept`: its pixels become part of the notebook; otherwise (timings) an executed notebook only links to it."""
    from IPython.display import Image, Markdown, display

    if kept:
        display(Image(filename=str(png)))
    else:
        display(Markdown(f"![{png.stem}](../timings/{png.name}) · [interactive](../timings/{png.stem}.html)"))
