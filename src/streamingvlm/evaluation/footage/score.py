"""Boxes found in a video against a ground truth in MOTChallenge's format: average precision, recall and precision. Knows no camera and no service.

    tracks = mot.read("gt.txt")
    found = seen(Coco(folder), Path("film.avi"), every=4)          # or: decided(Path("decisions.jsonl"), Path("film.avi"))
    score(tracks, found)["by_class"]["person"]["map50"]

Only frames that were looked at count, of both sides. Frame k of the video, from 0, is the truth's frame k + 1.
Letters: N boxes, F frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamingvlm.base import progress
from streamingvlm.base.errors import UserError
from streamingvlm.data.mot import CLASSES, Tracks
from streamingvlm.evaluation.detection import Boxes, at_threshold, average_precision
from streamingvlm.media import file_index
from streamingvlm.models.eyes.coco import GROUPS, NAMES, WHOLE, Things, Tiles

LABELS = tuple(dict.fromkeys(CLASSES.values()))  # of the truth
Eyes = Callable[[Sequence[np.ndarray], Tiles], list[Things]]


@dataclass(frozen=True)
class Found:
    """Boxes by the video's frames, which ones were looked at [F], and how many the video has."""

    boxes: Boxes  # `image`: a frame of the video; `label`: a number into LABELS
    frames: np.ndarray
    total: int


def seen(eyes: Eyes, video: Path, tiles: Tiles = WHOLE, every: int = 1) -> Found:
    """Look at every `every`-th frame. UserError for a file that is no video."""
    index, rows, frames = file_index.scan(video), [], []
    decoded = progress.bar(enumerate(file_index.decode(index)), index.info.frames, "looking", lambda one: f"frame {one[0] + 1}")
    for k, (_, frame) in decoded:
        if k % every == 0:
            things, = eyes([file_index.rgb(frame, index.turn)], tiles)
            frames.append(k)
            rows += [(k, *box, NAMES[label], score) for box, score, label in
                     zip(things.box.tolist(), things.score.tolist(), things.label.tolist(), strict=True)]
    return Found(_boxes(rows), np.array(frames), index.info.frames)


def decided(decisions: Path, video: Path, stream: str | None = None) -> Found:
    """What a service decided about `video`, one JSON line each: {stream, pts_s, boxes: [{box in shares of the picture, label, score}]}. Each belongs
    to the frame whose time is nearest. UserError for lines of several streams where none is named, and for what is no such file."""
    index = file_index.scan(video)
    scale, rows, frames, streams = np.array([index.info.width, index.info.height] * 2), [], [], set()
    try:
        for line in filter(str.strip, decisions.read_text(encoding="utf-8").splitlines()):
            told = json.loads(line)
            if stream not in (None, told["stream"]):
                continue
            k = int(np.abs(index.times_s - float(told["pts_s"])).argmin())
            streams.add(told["stream"])
            frames.append(k)
            rows += [(k, *(np.array(one["box"], float) * scale), one["label"], float(one["score"])) for one in told["boxes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{decisions} can't be read as decisions, a JSON line each ({type(error).__name__}: {error}): name another file.") from None
    if len(streams) != 1:
        raise UserError(f"{decisions} holds decisions of {', '.join(sorted(streams)) or 'no such stream'}: name one with --stream.")
    if len(set(frames)) < len(frames):
        raise UserError(f"{decisions} decides some frames of {video} twice: the video was played more than once, or is another.")
    return Found(_boxes(rows), np.array(frames), index.info.frames)


def score(tracks: Tracks, found: Found, threshold: float = 0.5) -> dict:
    """{"frames", "of", "threshold", "map50", "map", "by_class": {name: {"map50", "map", "recall", "precision", "boxes"}}} of the classes that the
    truth has. Recall and precision at `threshold`, IoU .5. UserError where the truth is of a longer video, or has nothing in the frames that were
    seen."""
    if tracks.frame.max(initial=-1) >= found.total:
        raise UserError(f"The truth goes to frame {tracks.frame.max() + 1} and the video has {found.total}: they do not belong together.")
    classes = [name for name in LABELS if np.any(tracks.label[np.isin(tracks.frame, found.frames)] == name)]
    if not classes:
        raise UserError("The truth has no box in the frames that were looked at: there is nothing to score.")
    place, numbers = {int(frame): k for k, frame in enumerate(found.frames)}, {name: k for k, name in enumerate(classes)}
    known = [k for k in range(len(tracks.frame)) if int(tracks.frame[k]) in place and tracks.label[k] in numbers]
    truth = Boxes(np.array([place[int(tracks.frame[k])] for k in known]), tracks.box[known], np.array([numbers[tracks.label[k]] for k in known]))
    told = [k for k, label in enumerate(found.boxes.label) if LABELS[label] in numbers]
    mine = Boxes(np.array([place[int(found.boxes.image[k])] for k in told], int), found.boxes.box[told],
                 np.array([numbers[LABELS[found.boxes.label[k]]] for k in told], int), found.boxes.score[told])
    means = average_precision(truth, mine, len(place), classes) if told else _nothing(classes)
    points = at_threshold(truth, mine, threshold, classes)
    return {"frames": len(place), "of": found.total, "threshold": threshold, "map50": means["map50"], "map": means["map"],
            "by_class": {name: means["by_class"][name] | points[name] for name in classes}}


def _boxes(rows: Sequence[tuple]) -> Boxes:
    """Rows of frame, corners, name, score; what falls in none of the truth's classes is left out."""
    kept = [(row[0], *row[1:5], LABELS.index(GROUPS.get(row[5], row[5])), row[6]) for row in rows if GROUPS.get(row[5], row[5]) in LABELS]
    table = np.array(kept, float).reshape(-1, 7)
    return Boxes(table[:, 0].astype(int), table[:, 1:5], table[:, 5].astype(int), table[:, 6])


def _nothing(classes: Sequence[str]) -> dict:
    """Where nothing was found at all."""
    return {"map50": 0.0, "map": 0.0, "by_class": {name: {"map50": 0.0, "map": 0.0} for name in classes}}
