"""Files of a city: videos that read back as drawn, rows that keep the contract, labels that are all there."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from streamingvlm.base import config
from streamingvlm.data import stream_rows
from streamingvlm.evaluation.detection import Boxes, average_precision
from streamingvlm.media import file_index, reader
from streamingvlm.worlds.city import full, recording, sentences
from streamingvlm.worlds.city.world import ACTIONS, CLASSES, SHIRTS, City
from streamingvlm.worlds.match.game import FPS


@pytest.fixture(scope="module")
def city() -> City:
    return City(seed=8, cameras=2, frames=20)


def test_videos_and_rows(city, tmp_path):
    rows = recording.record(city, tmp_path / "videos", tmp_path, "city-8", "train")
    stream_rows.write(rows, tmp_path / "rows.parquet")
    back = stream_rows.read(tmp_path / "rows.parquet")
    assert back == rows and [row["id"] for row in back] == ["city-8-c00", "city-8-c01"]
    for camera, row in enumerate(back):
        index = file_index.scan(tmp_path / row["video"])
        assert (index.info.frames, index.info.fps, index.info.width) == (20, 8.0, 96) and len(row["frames"]) == 20
        for frame, (_, picture) in enumerate(file_index.decode(index)):
            assert np.abs(file_index.rgb(picture).astype(int) - city.draw(camera, frame)).mean() < 8
        assert stream_rows.words_by_chunk(row)[:2] == [" ".join(sentences.say(sentences.second(city.truth, camera, k))) for k in range(2)]
        assert [label["action"] for label in row["frames"]] == [ACTIONS[k] for k in city.truth.action[camera]]
    chunks = list(reader.read_chunks(tmp_path / rows[0]["video"], config.Video(fps=2.0, chunk_s=1.0, max_pixels=84 * 84)))
    assert [len(chunk.frames) for chunk in chunks] == [2, 2, 2]


def test_labels_in_parquet_are_all_of_them(city, tmp_path):
    recording.write_labels(tmp_path / "labels.parquet", {"a": city.truth, "b": city.truth})
    table = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    assert len(table) == 2 * 2 * 20 and table[40]["stream"] == "b-c00" and table[39] | {"stream": "b-c01"} == table[79]
    truth = city.truth
    for k in (3, 25):
        camera, frame = divmod(k, 20)
        line, part = table[k], truth.boxes(camera, frame)
        assert line["action"] == ACTIONS[truth.action[camera, frame]] and line["t_s"] == frame / 8
        assert [[box[side] for side in ("x0", "y0", "x1", "y1")] for box in line["boxes"]] == truth.box[part].tolist()
        assert [box["label"] for box in line["boxes"]] == [CLASSES[what] for what in truth.box_class[part]]
        assert [box["shirt"] for box in line["boxes"]] == [SHIRTS[look] if look >= 0 else None for look in truth.box_look[part, 0]]
    assert any(line["boxes"] for line in table)


def test_the_truth_scored_as_a_detection_is_perfect(city):
    truth = city.truth
    boxes = Boxes(truth.box_at[:, 0] * 20 + truth.box_at[:, 1], truth.box, truth.box_class, np.ones(len(truth.box)))
    assert average_precision(boxes, boxes, 40, CLASSES)["map"] == pytest.approx(1.0)


def test_a_share_of_the_full_set(tmp_path, monkeypatch):
    monkeypatch.setattr(full, "HEIGHT_PX", 144)
    monkeypatch.setattr(full, "WIDTH_PX", 256)
    monkeypatch.setattr(full, "LARGER", 1)
    share = full.Share(cameras=2, city_s=0.5, sport_s=1)
    took = full.make(tmp_path / "full", share)
    rows = stream_rows.read(tmp_path / "full" / "rows.parquet")
    assert [len(row["frames"]) for row in rows] == [15, 15, 30] and took["city_bytes"] > 0 and "GB" in full.whole(took, share)
    for row in rows:
        info = file_index.scan(tmp_path / "full" / row["video"]).info
        assert (info.frames, info.width, info.height) == (len(row["frames"]), 256, 144)
    match = share.sport.row("m", "m.mp4")
    assert [label["action"] for label in rows[-1]["frames"][::30 // FPS]] == [label["action"] for label in match["frames"]]
    across = (256 - 112) // 2
    assert rows[-1]["frames"][7]["boxes"][0][0] == match["frames"][2]["boxes"][0][0] + across
    before = (tmp_path / "full/city-c00.mp4").stat().st_mtime_ns
    full.make(tmp_path / "full", share)
    assert (tmp_path / "full/city-c00.mp4").stat().st_mtime_ns == before
