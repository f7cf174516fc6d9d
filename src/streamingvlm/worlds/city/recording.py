"""A city -> files: one H.264 video a camera, a stream row for each, and every label in parquet. Knows no model; `world` knows what to write.

    rows = record(City(7), folder, root=folder, name="city-7", split="train")
    write_labels(folder / "labels.parquet", {"city-7": city.truth})

The labels' parquet has one row a camera and frame: stream (the row's id), frame, t_s, action, one bool column a kind of anomaly, `standing` and
`bag_alone` (1.0 is where the anomaly begins), `crowd`, and boxes [{x0, y0, x1, y1, label, track, shirt, trousers, pose, visible}].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamingvlm.base import files
from streamingvlm.media import writer
from streamingvlm.worlds.city import sentences
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES, FAMILIES, POSES, SHIRTS, TROUSERS
from streamingvlm.worlds.city.truth import Truth
from streamingvlm.worlds.city.world import City

if TYPE_CHECKING:
    import pyarrow


def stream_id(name: str, camera: int) -> str:
    """What one camera's stream is called."""
    return f"{name}-c{camera:02d}"


def record(city: City, folder: Path, root: Path, name: str, split: str, kinds: Iterable[str] = FAMILIES["local"]) -> list[dict]:
    """Write one video a camera into `folder` and return their stream rows, paths relative to `root`; `kinds` are those that are spoken of."""
    kinds, rows = tuple(kinds), []
    for camera in range(city.cameras):
        path = film(city, camera, folder / f"{stream_id(name, camera)}.mp4")
        rows.append(row(city, camera, stream_id(name, camera), str(path.relative_to(root)), kinds) | {"split": split})
    return rows


def film(city: City, camera: int, path: Path) -> Path:
    """Write one camera's video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.empty((*city.size_px, 3), np.uint8)  # one for all: the writer is done with a frame before it asks for the next
    writer.write_h264(path, (city.draw(camera, frame, out=picture) for frame in range(city.frames)), city.fps)
    return path


def row(city: City, camera: int, name: str, video: str, kinds: Iterable[str] = FAMILIES["local"]) -> dict:
    """One camera as a stream row, without its split: a sentence in the second half of each whole second, a label for every frame."""
    kinds, words = tuple(kinds), []
    for k in range(int(city.frames / city.fps + 1e-6)):
        said = sentences.say(sentences.second(city.truth, camera, k, kinds))
        for j, word in enumerate(said):
            start_s, end_s = (round(k + 0.5 + 0.5 * edge / len(said), 3) for edge in (j, j + 1))
            words.append({"start_s": start_s, "end_s": end_s, "text": word})
    return {"id": name, "video": video, "title": f"camera {camera}", "query": sentences.QUERY, "previous_text": "", "start_s": 0.0,
            "end_s": city.frames / city.fps, "fps": float(city.fps), "words": words, "frames": frame_labels(city.truth, camera)}


def frame_labels(truth: Truth, camera: int) -> list[dict]:
    """The `frames` of a stream row: {t_s, boxes, action, anomaly: whether there is any}."""
    wrong, boxes = truth.anomalies[camera].any(-1).tolist(), truth.box.astype(int).tolist()
    out = []
    for frame, action in enumerate(truth.action[camera].tolist()):
        out.append({"t_s": round(frame / truth.fps, 3), "boxes": boxes[truth.boxes(camera, frame)], "action": ACTIONS[action],
                    "anomaly": wrong[frame]})
    return out


def labels_table(name: str, truth: Truth) -> pyarrow.Table:
    """Every label of a city as a table, one row a camera and frame."""
    import pyarrow as pa

    cameras, frames = truth.action.shape
    streams = pa.array([stream_id(name, camera) for camera in range(cameras)])
    columns = {"stream": pa.DictionaryArray.from_arrays(pa.array(np.repeat(np.arange(cameras, dtype=np.int32), frames)), streams),
               "frame": np.tile(np.arange(frames, dtype=np.int32), cameras), "t_s": np.tile(np.round(np.arange(frames) / truth.fps, 3), cameras),
               "action": _named(truth.action.ravel(), ACTIONS)}
    columns |= {kind: truth.anomalies[..., k].ravel() for k, kind in enumerate(ANOMALIES)}
    columns |= {"standing": truth.clocks[..., 0].ravel(), "bag_alone": truth.clocks[..., 1].ravel(), "crowd": truth.meets.ravel()}
    parts = {**{side: truth.box[:, k] for k, side in enumerate(("x0", "y0", "x1", "y1"))}, "label": _named(truth.box_class, CLASSES),
             "track": truth.box_track, "shirt": _named(truth.box_look[:, 0], SHIRTS), "trousers": _named(truth.box_look[:, 1], TROUSERS),
             "pose": _named(truth.box_pose, POSES), "visible": truth.box_visible}
    boxes = pa.StructArray.from_arrays([pa.array(part) for part in parts.values()], list(parts))
    return pa.table(columns | {"boxes": pa.ListArray.from_arrays(pa.array(truth.box_starts.astype(np.int32)), boxes)})


def _named(indices: np.ndarray, names: tuple[str, ...]) -> pyarrow.Array:
    """Numbers -> names, -1 -> null."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int8), mask=indices < 0), pa.array(names))


def write_labels(path: Path, truths: Mapping[str, Truth]) -> None:
    """Labels of cities by name -> one parquet file, complete or not at all. UserError where that cannot be done."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables([labels_table(name, truth) for name, truth in truths.items()]), sink, compression="zstd")
    files.write(Path(path), sink.getvalue().to_pybytes())
