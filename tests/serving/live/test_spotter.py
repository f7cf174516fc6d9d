"""The pretrained detector in the analyst's place: the same JSON, boxes as shares, nothing said of what it does not know."""

from __future__ import annotations

import numpy as np
import pytest

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.cli.main import main
from streamingvlm.models.eyes.coco import Things
from streamingvlm.serving import slots
from streamingvlm.serving.live.spotter import Spotter


def frames(count: int) -> list[Frame]:
    return [Frame(Stamp(f"cam{k}", 0, 0, 0.0, 0.0, "receiver", 0.0), np.zeros(slots.DETECTOR_SHAPE, np.uint8)) for k in range(count)]


def test_boxes_are_shares_and_the_unsure_are_left_out():
    spotter = Spotter.__new__(Spotter)
    spotter.usual = None
    spotter.eyes = lambda pictures: [Things(np.float32([[30, 60, 150, 300], [0, 0, 9, 9]]), np.float32([0.9, 0.2]), np.array([0, 0]))
                                     for _ in pictures]
    first, second = spotter.decide(frames(2))
    assert first["boxes"] == second["boxes"] == [{"box": [0.1, 0.2, 0.5, 1.0], "label": "person", "score": 0.9}]
    assert first["people"] == [[0.1, 0.2, 0.5, 1.0], [0.0, 0.0, 0.03, 0.03]]  # who may be there is hidden too
    assert (first["action"], first["anomalies"], first["alarms"], first["event_score"]) == ("", {}, [], 0.0)


def test_a_folder_says_which_size_its_model_takes(tmp_path):
    assert slots.shape(tmp_path) == (96, 96, 3)
    (tmp_path / "model.json").write_text("{}")
    assert slots.shape(tmp_path) == (300, 300, 3)


@pytest.mark.parametrize(("more", "words"), [(["--demo"], "leave out --demo"), ([], "make real-eyes")])
def test_what_does_not_go_with_eyes_is_said(tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.setattr("streamingvlm.cli.footage.places.repository_root", lambda: tmp_path)
    file = tmp_path / "cameras.yaml"
    file.write_text("cameras: []\n")
    assert main(["serve", *(more or [str(file)]), "--eyes", "coco"]) == 2 and words in capsys.readouterr().err
