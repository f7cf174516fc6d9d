"""Around the detector: parts of a picture, back into its pixels, one box for each thing. A graph of our own stands in for the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.models.eyes import coco


def test_coco_has_eighty_names_by_their_numbers():
    assert len(coco.NAMES) == 90 and len(set(coco.NAMES) - {"-"}) == 80
    assert [coco.NAMES[k - 1] for k in (1, 3, 8, 27, 31, 33, 90)] == ["person", "car", "truck", "backpack", "handbag", "suitcase", "toothbrush"]
    assert set(coco.GROUPS) < set(coco.NAMES)


@pytest.mark.parametrize("tiles", [coco.WHOLE, coco.Tiles(3, 2), coco.Tiles(2, 1, 0.0), coco.Tiles(4, 4, 0.5)])
def test_parts_cover_a_picture_and_share_what_they_should(tiles):
    parts = tiles.parts(576, 768)
    cover = np.zeros((576, 768), int)
    for x0, y0, x1, y1 in parts:
        assert 0 <= x0 < x1 <= 768 and 0 <= y0 < y1 <= 576
        cover[y0:y1, x0:x1] += 1
    assert cover.min() >= min(len(parts), 2) and parts[-1] == (0, 0, 768, 576)
    assert len(parts) == tiles.columns * tiles.rows + (tiles.columns * tiles.rows > 1)
    if tiles.columns > 1:
        assert parts[0][2] - parts[1][0] == pytest.approx(tiles.shared * (parts[0][2] - parts[0][0]), abs=2)


def test_of_two_that_overlap_the_surer_stays_but_only_within_a_label():
    box = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 4], [20, 0, 30, 10]])
    kept = coco.suppressed(box, torch.tensor([0.5, 0.9, 0.4, 0.3, 0.8]), torch.tensor([0, 0, 1, 0, 0]))
    assert kept.tolist() == [1, 4, 2, 3]


class Bright:
    """In the graph's place: one person where a picture is brightest, sure by its brightness, and background everywhere else."""

    def __call__(self, pictures):
        assert pictures.shape[1:] == (300, 300, 3) and pictures.min() >= -1 and pictures.max() <= 1
        scores, boxes = torch.zeros(len(pictures), 2, 91), torch.zeros(len(pictures), 2, 1, 4)
        scores[:, :, 0] = 0.9
        for k, one in enumerate(pictures):
            lit = (one[..., 0] > 0).nonzero().float() / 300
            if len(lit):
                scores[k, 0, 1] = 0.8 if len(lit) > 40 else 0.6  # smaller when the whole is looked at
                boxes[k, 0, 0] = torch.cat((lit.amin(0), lit.amax(0) + 1 / 300))
        return scores, boxes


@pytest.mark.parametrize("tiles", [coco.WHOLE, coco.Tiles(3, 2)])
def test_a_box_comes_back_where_it_is(tiles):
    eyes = coco.Coco.__new__(coco.Coco)
    eyes.graph = Bright()
    dark, lit = np.zeros((240, 320, 3), np.uint8), np.zeros((480, 640, 3), np.uint8)
    lit[100:160, 40:64] = 255
    nothing, things = eyes([dark, lit], tiles)
    assert len(nothing.box) == 0 and things.label.tolist() == [0] and things.score[0] == pytest.approx(0.8)
    np.testing.assert_allclose(things.box[0], [40, 100, 64, 160], atol=3)


def test_without_the_weights_it_says_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match="make real-eyes"):
        coco.Coco(tmp_path)
