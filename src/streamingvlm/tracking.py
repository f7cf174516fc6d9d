"""Weights & Biases, off unless `WANDB_MODE` is `online` or `offline`. Never needed, and never a reason for a run to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def run(stage: str, params: dict) -> Iterator[Callable[[dict], None]]:
    """A logger of metric dicts for one stage. Without WANDB_MODE, or where W&B fails to start, it drops what it is given."""
    session = _start(stage, params)
    try:
        yield session.log if session else lambda row: None
    finally:
        if session:
            session.finish()


def _start(stage: str, params: dict):
    if os.environ.get("WANDB_MODE", "disabled") == "disabled":
        return None
    import wandb

    try:
        return wandb.init(project="streamingvlm", job_type=stage, name=stage, config=params)
    except Exception as error:  # whatever its server, its login or its files do, the run goes on and says so
        print(f"W&B could not start ({error}); going on without it.", file=sys.stderr)
        return None
