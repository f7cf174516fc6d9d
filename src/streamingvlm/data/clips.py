"""The real clips of the subset, checked to their last frame, as stream rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamingvlm.base import config, workers
from streamingvlm.media import reader, writer


def clip_rows(data: config.Data, folder: Path, root: Path) -> Iterator[dict]:
    """Check every real clip to its last frame, loop the one that is to be long, and yield their rows. Nobody commented on them: no words."""
    return workers.ordered(_checked_row, [(name, data.loop_s if name == data.loop_clip else None, folder, root) for name in data.clips])


def _checked_row(name: str, loop_s: int | None, folder: Path, root: Path) -> dict:
    path = root / "data" / name
    info = reader.verify(path)
    if loop_s is not None:
        path = folder / f"{path.stem}-loop.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.loop(root / "data" / name, path, loop_s)
        info = reader.verify(path)
    return {"id": path.stem, "video": str(path.relative_to(root)), "title": path.stem, "query": "Commentate on this match", "previous_text": "",
            "start_s": 0.0, "end_s": float(info.duration_s), "fps": float(info.fps), "words": [], "frames": [], "split": "clip"}
