"""Labels in MOTChallenge's format, read and written: one's own footage can be scored, and the city's labels be read by others' tools.

A line is `frame, id, left, top, width, height[, confidence[, class[, visibility[, ...]]]]`, 6 to 10 numbers; frames and pixels count from 1.
In a ground truth, confidence 0 means "not to be considered". MOT16 and later number classes; files of 2015 and of detections have -1 or places
in metres there (ten columns), which stand for people. Knows no model and no world; arrays count frames and pixels from 0, as everywhere here.

    tracks = read(Path("gt.txt"))
    row["frames"] = tracks.frames(fps=10, count=795)

Letters for shapes: N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamingvlm.base import files
from streamingvlm.base.errors import UserError

CLASSES = {1: "person", 7: "person", 3: "car", 20: "bag"}  # by MOT16's numbers; 7 is a static person, 20 is ours: theirs end at 13
COLUMNS = (6, 10)


@dataclass(frozen=True)
class Tracks:
    """Boxes over time, sorted by frame."""

    frame: np.ndarray  # [N] int64, from 0
    track: np.ndarray  # [N] int64, -1 in files of detections
    box: np.ndarray  # [N, 4] float64, x0 y0 x1 y1 in px, from 0
    label: np.ndarray  # [N] str
    confidence: np.ndarray  # [N] float64
    visible: np.ndarray  # [N] float64, the share that can be seen; 1 where the file does not say

    def frames(self, fps: float, count: int | None = None) -> list[dict]:
        """As a stream row's `frames`: {t_s, boxes, action, anomaly}, of `count` frames (default: up to the last box). The format has no actions."""
        count = int(self.frame.max(initial=-1)) + 1 if count is None else count
        out = [{"t_s": round(k / fps, 3), "boxes": [], "action": "", "anomaly": False} for k in range(count)]
        for frame, box in zip(self.frame, np.rint(self.box).astype(int).tolist(), strict=True):
            if frame < count:
                out[frame]["boxes"].append(box)
        return out


def read(path: str | Path, ground_truth: bool = True) -> Tracks:
    """Read a file. Boxes of other classes are left out, and with `ground_truth` those that are not to be considered.

    UserError for a file that is not there, and for a line that is not in this format.
    """
    path = Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"Can't read {path}: give a text file in MOTChallenge's format, as gt/gt.txt.") from None
    rows = np.array([_numbers(path, k, line) for k, line in enumerate(lines, start=1) if line.strip()]).reshape(-1, 9)
    numbered = rows[:, 7].astype(int)
    keep = np.isin(numbered, list(CLASSES)) & ((rows[:, 6] != 0) | (not ground_truth))
    rows, label = rows[keep], np.array([CLASSES[number] for number in numbered[keep]], dtype="U6")
    order = np.argsort(rows[:, 0], kind="stable")
    rows, corner = rows[order], rows[order, 2:4] - 1
    return Tracks(rows[:, 0].astype(np.int64) - 1, rows[:, 1].astype(np.int64), np.concatenate([corner, corner + rows[:, 4:6]], 1), label[order],
                  rows[:, 6], rows[:, 8])


def _numbers(path: Path, k: int, line: str) -> list[float]:
    """One line -> its first nine columns, filled up."""
    try:
        values = [float(text) for text in line.strip().rstrip(",").split(",")]
    except ValueError:
        values = []
    whole = len(values) >= COLUMNS[0] and np.isfinite(values).all()
    if not whole or len(values) > COLUMNS[1] or values[0] < 1 or values[0] % 1 or min(values[4:6]) <= 0:
        raise UserError(f"{path} line {k} must hold {COLUMNS[0]} to {COLUMNS[1]} numbers, frame (from 1), id, left, top, width, height, "
                        f"confidence, class, visibility, not {line.strip()[:60]!r}: mend or remove it.")
    placed = len(values) == COLUMNS[1] or (len(values) > 7 and values[7] == -1)  # of 2015: metres, not a class
    class_, visible = (1.0, 1.0) if placed else (values[7] if len(values) > 7 else 1.0, values[8] if len(values) > 8 else 1.0)
    return [*values[:6], values[6] if len(values) > 6 else 1.0, class_, visible]


def write(path: str | Path, tracks: Tracks) -> None:
    """Write nine columns. UserError where that cannot be done, or for a label that has no number here."""
    numbers = {name: number for number, name in reversed(CLASSES.items())}
    if unknown := set(np.unique(tracks.label)) - set(numbers):
        raise UserError(f"MOTChallenge's format has no number for {', '.join(sorted(unknown))} here: leave these boxes out.")
    files.write(Path(path), "".join(_line(tracks, k, numbers) for k in range(len(tracks.frame))))


def _line(tracks: Tracks, k: int, numbers: dict[str, int]) -> str:
    x0, y0, x1, y1 = tracks.box[k].tolist()
    cells: Sequence[float] = (int(tracks.frame[k]) + 1, int(tracks.track[k]), x0 + 1, y0 + 1, x1 - x0, y1 - y0, float(tracks.confidence[k]),
                              numbers[str(tracks.label[k])], float(tracks.visible[k]))
    return ",".join(f"{cell:.6g}" for cell in cells) + "\n"
