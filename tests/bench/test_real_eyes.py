"""What is computed on real footage, on made-up numbers: which patches are people, and how well they are told apart. Downloads nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.data.mot import Tracks

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import real_eyes


def test_a_patch_is_a_person_from_half_on():
    box = np.array([[0, 0, 56, 28], [100, 100, 104, 104], [0, 0, 448, 448]], float)  # of a picture of 448 px: 28 px a patch
    tracks = Tracks(np.array([3, 3, 5]), np.arange(3), box, np.array(["person", "person", "car"]), np.ones(3), np.ones(3))
    got = real_eyes.person_in(tracks, np.array([3, 5]), 448, 448)
    assert got.shape == (2, 256) and got[0].nonzero().flatten().tolist() == [0, 1] and not got[1].any()


def test_precision_is_of_the_order():
    truth = torch.tensor([True, False, True, False])
    assert real_eyes.average_precision(torch.tensor([4.0, 2, 3, 1]), truth) == 1
    assert real_eyes.average_precision(torch.tensor([3.0, 4, 1, 2]), truth) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_a_probe_finds_what_is_there_and_nothing_in_noise():
    torch.manual_seed(1)
    y = torch.rand(10, 64) < 0.2
    noise = torch.randn(10, 64, 4)
    train, test = torch.arange(10) < 6, torch.arange(10) >= 7
    told = torch.cat((noise, y[..., None] + 0.1 * torch.randn(10, 64, 1)), 2)
    assert real_eyes.probe(told, y, train, test, steps=60) > 0.95
    assert real_eyes.probe(noise, y, train, test, steps=60) < 0.5


def test_without_the_weights_it_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(real_eyes, "EYES", tmp_path)
    with pytest.raises(UserError, match="make real-eyes"):
        real_eyes.main([])
