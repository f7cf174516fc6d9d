"""Learning from one's own cameras: a picture a second of each, one that fails does not hold up the others, nothing half-written."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from helpers import one_sentence

from streamingvlm.cli import main
from streamingvlm.models.eyes import ordinary
from streamingvlm.training import ordinary as training


@pytest.fixture
def eyes(monkeypatch):
    """A ViT that costs nothing; thirty pictures a second, and nothing to train."""
    shapes = []

    def embeddings(vit, pictures):
        shapes.extend(picture.shape for picture in pictures)
        return torch.stack([torch.from_numpy(np.resize(picture.mean((0, 1)), 256).astype(np.float32)) for picture in pictures])

    monkeypatch.setattr(ordinary, "eyes", lambda folder: None)
    monkeypatch.setattr(ordinary, "embeddings", embeddings)
    monkeypatch.setattr(ordinary, "EVERY_S", 0.03)
    monkeypatch.setattr(training, "_fit", lambda *told: None)
    monkeypatch.setattr(training, "LEAST", 60)
    return shapes


def cameras(path, *lines):
    path.write_text("cameras:\n" + "".join(f"  - {line}\n" for line in lines))
    return str(path)


def test_a_film_is_read_once_fast_and_what_was_seen_is_told(film, tmp_path, eyes, capsys):
    told = cameras(tmp_path / "cameras.yaml", f"{{name: gate, url: 'file:{film}?loop=1'}}", f"{{name: yard, url: '{film}'}}")
    assert main.main(["learn", told, "--eyes", "vit", "--out", "learned", "--minutes", "1"]) == 0
    written = json.loads((tmp_path / "here" / "learned" / "ordinary.json").read_text())
    expected = written["cameras"]["yard"]["pictures"]
    assert written["cameras"]["gate"]["pictures"] == expected and expected >= 60 and set(eyes) == {(300, 300, 3)}
    assert set(ordinary.load(tmp_path / "here" / "learned").usual) == {"gate", "yard"} and "serve" in capsys.readouterr().out


def test_a_camera_of_which_too_little_came_is_named_and_nothing_written(film, tmp_path, eyes, capsys):
    told = cameras(tmp_path / "cameras.yaml", f"{{name: gate, url: '{film}'}}", "{name: yard, url: 'file:nowhere.mp4'}")
    assert main.main(["learn", told, "--eyes", "vit", "--out", "learned"]) == 2
    out = capsys.readouterr()
    assert "yard (0)" in out.err and "gate" not in out.err and "nowhere.mp4" in out.out and not os.path.exists("learned")


def test_a_live_camera_that_sends_nothing_ends_with_the_time(film, tmp_path, eyes, capsys):
    told = cameras(tmp_path / "cameras.yaml", f"{{name: gate, url: '{film}'}}", "{name: yard, url: 'rtsp://127.0.0.1:1/none'}")
    assert main.main(["learn", told, "--eyes", "vit", "--out", "learned", "--minutes", "0.02"]) == 2
    assert "yard (0)" in capsys.readouterr().err and not os.path.exists("learned")


def test_what_it_cannot_do_is_said(tmp_path, capsys):
    told = cameras(tmp_path / "cameras.yaml", "{name: gate, url: 'pattern:64x64@8'}")
    assert main.main(["learn", told, "--eyes", str(tmp_path)]) == 2
    assert "make real-eyes" in one_sentence(capsys.readouterr().err)
    assert main.main(["learn", told, "--minutes", "0"]) == 2
    assert main.main(["serve", told, "--learned", str(tmp_path)]) == 2
    assert "--eyes coco" in capsys.readouterr().err
