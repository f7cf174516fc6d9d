"""Where in a clone lie what `make real-eyes` fetches and what `streamingvlm learn` writes, for whoever names no folder."""

from __future__ import annotations

from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root

COCO, VIT, LEARNED = "artifacts/real-eyes/coco-ssd", "artifacts/real-eyes/vit-s14", "artifacts/learned"


def in_clone(usual: str, instead: str) -> Path:
    """`usual` in this clone; outside of one a UserError that says what to name `instead`."""
    try:
        return repository_root() / usual
    except UserError:
        raise UserError(f"This folder is not in a clone of the workbench, so there is no {usual}: name {instead}.") from None
