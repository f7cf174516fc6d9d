"""Pictures of the city: the wall of cameras with boxes and alarms, as a picture and as a film, and who looks at whom. Draws what it is given.

    Image.fromarray(wall(frames, boxes, alarms))          # frames [B, H, W, 3] uint8
    film(path, walls, fps)

Letters for shapes: B streams, H W pixels, F frames, S slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from streamingvlm.media import writer

COLOURS = {"person": (86, 180, 233), "car": (230, 159, 0), "bag": (204, 121, 167)}  # told apart without red and green
ALARM, QUIET, MARGIN = (213, 94, 0), (40, 40, 40), 2
Shown = tuple[str, Sequence[float]]  # label, box in px of the frame


def wall(frames: np.ndarray, boxes: Sequence[Sequence[Shown]], captions: Sequence[str], alarms: Sequence[bool], scale: int = 2) -> np.ndarray:
    """Frames [B, H, W, 3] of one moment, four in a row, enlarged; what is found in each, a line below, a border where something is wrong ->
    [H', W', 3] uint8, even sizes."""
    columns = min(4, len(frames))
    high, wide = (side * scale for side in frames.shape[1:3])
    line = 16
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (wide + 2 * MARGIN), rows * (high + line + 2 * MARGIN)), QUIET)
    draw = ImageDraw.Draw(sheet)
    for k, frame in enumerate(frames):
        x, y = k % columns * (wide + 2 * MARGIN) + MARGIN, k // columns * (high + line + 2 * MARGIN) + MARGIN
        sheet.paste(Image.fromarray(frame).resize((wide, high), Image.NEAREST), (x, y))
        for label, box in boxes[k]:
            draw.rectangle([x + box[0] * scale, y + box[1] * scale, x + box[2] * scale - 1, y + box[3] * scale - 1], outline=COLOURS[label])
        if alarms[k]:
            draw.rectangle([x - MARGIN, y - MARGIN, x + wide + MARGIN - 1, y + high + line + MARGIN - 1], outline=ALARM, width=MARGIN)
        draw.text((x + 2, y + high + 2), captions[k], fill=ALARM if alarms[k] else (220, 220, 220))
    return np.asarray(sheet)[: sheet.height // 2 * 2, : sheet.width // 2 * 2]


def film(path: Path, walls: Iterable[np.ndarray], fps: float) -> Path:
    """Walls, one after another, as an H.264 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_h264(path, walls, fps)
    return path


def attention(path: Path, weights: np.ndarray, seen: np.ndarray, alarms: Sequence[bool]) -> Path:
    """Who looks at whom across streams: weights [B, S, B, S], `seen` [B, S] bool -> a PNG, one row and column a person, streams parted by lines."""
    from matplotlib.figure import Figure

    at = np.argwhere(seen)  # [people, 2]
    shares = weights[at[:, 0], at[:, 1]][:, at[:, 0], at[:, 1]]  # [people, people]
    figure = Figure(figsize=(6.4, 5.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="cividis")
    edges = np.flatnonzero(np.diff(at[:, 0])) + 0.5
    for edge in edges:
        axis.axhline(edge, color="white", linewidth=0.6)
        axis.axvline(edge, color="white", linewidth=0.6)
    middles = [(k, float(np.flatnonzero(at[:, 0] == k).mean())) for k in np.unique(at[:, 0])]
    names = [f"camera {k}" + (" !" if alarms[k] else "") for k, _ in middles]
    axis.set_yticks([middle for _, middle in middles], names)
    axis.set_xticks([middle for _, middle in middles], [str(k) for k, _ in middles])
    axis.set(xlabel="looked at", title="At a clone, attention falls on who looks the same")
    figure.colorbar(image, label="share of attention")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
