"""What vision learns from is what is true, mirrored or not; a head that says the truth loses nothing and is read as the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm.models.multicamera.heads import GRID, SIZE, Dense, detections, looks
from streamingvlm.training.city import pictures, vision
from streamingvlm.training.city.pictures import Pictures, labelled
from streamingvlm.worlds.city.wardrobe import PLAIN
from streamingvlm.worlds.city.world import City


@pytest.fixture(scope="module")
def some() -> Pictures:
    return Pictures(range(2), cameras=4, frames=24)


def truthful(batch) -> Dense:
    """What a perfect head would say."""
    heat, cell = vision.spots(batch)
    channels = {"box": 4, "pose": 3, "shirts": 8, "trousers": 6}
    maps = {name: torch.zeros(len(batch.frames), count, GRID, GRID) for name, count in channels.items()}
    middle, size = (batch.box[:, :2] + batch.box[:, 2:]) / 2, batch.box[:, 2:] - batch.box[:, :2]
    for k in range(len(batch.at)):
        for x, y in [(int(cell[k, 0]) + i, int(cell[k, 1]) + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
            if (0 <= x < GRID and 0 <= y < GRID and heat[batch.at[k], batch.label[k], y, x] < 1) or (x, y) == tuple(cell[k].tolist()):
                maps["box"][batch.at[k], :, y, x] = torch.cat((middle[k] * GRID - torch.tensor([x + 0.5, y + 0.5]), (size[k] / SIZE).log()))
        if batch.label[k] == 0:
            maps["pose"][batch.at[k], batch.pose[k], cell[k, 1], cell[k, 0]] = 20
    alarms = torch.where(batch.alarms, 20.0, -30.0)[:, :, None, None].expand(-1, -1, GRID, GRID)
    action = 20 * torch.nn.functional.one_hot(batch.action, 6).float()
    return Dense(torch.logit(heat.clamp(1e-6, 1 - 1e-6)), maps["box"], maps["pose"], alarms, maps["shirts"], maps["trousers"], action,
                 40 * vision._where(batch) - 20)


def test_a_head_that_says_the_truth_loses_next_to_nothing_and_is_read_as_the_truth(some):
    batch = some.draw(np.random.default_rng(1), 12)
    dense = truthful(batch)
    lost = vision.losses(dense, batch)
    for name in ("heat", "pose", "alarm", "action", "where"):
        assert lost[name] < 0.05, name
    found = detections(dense)
    alone = [k for k in range(len(batch.at)) if (batch.at == batch.at[k]).sum() == 1]
    assert alone
    for k in alone:
        frame = batch.at[k]
        assert found.label[frame, 0] == batch.label[k] and found.score[frame, 0] > 0.99
        torch.testing.assert_close(found.box[frame, 0], batch.box[k], atol=1e-4, rtol=0)


def test_a_mirrored_picture_has_mirrored_labels():
    city = City(3, cameras=2, frames=60)
    frame = max(range(60), key=lambda f: len(city.truth.box[city.truth.boxes(0, f)]))
    plain, mirrored = (pictures.collate([pictures._picture(city, 0, frame, flag, None)]) for flag in (False, True))
    assert torch.equal(mirrored.frames[0], plain.frames[0].flip(1))
    torch.testing.assert_close(mirrored.box[:, [2, 0]], 1 - plain.box[:, [0, 2]])
    assert torch.equal(mirrored.box[:, [1, 3]], plain.box[:, [1, 3]])


def test_colours_are_read_where_clothes_are():
    """On a map that holds the picture's own colours, people's shirts and trousers are found in the right order, standing, walking or lying."""
    city = City(5, cameras=2, frames=160)
    batch = labelled(city, 1, range(160))
    chosen = (batch.label == 0) & (batch.look >= 0).all(1) & (batch.box[:, 0] > 0.1) & (batch.box[:, 2] < 0.9)
    colours = torch.nn.functional.interpolate(batch.frames.permute(0, 3, 1, 2).float(), (GRID, GRID), mode="area")
    empty = torch.zeros(0)
    dense = Dense(empty, empty, empty, empty, colours, colours, empty, empty)
    right = []
    for k in torch.nonzero(chosen)[:, 0].tolist():
        box = torch.zeros(len(batch.frames), 1, 4)
        box[batch.at[k], 0] = batch.box[k]
        shirt, trousers = (part[batch.at[k], 0] for part in looks(dense, box))
        own = [torch.from_numpy(PLAIN[tuple(batch.look[k])][garment]).float() for garment in (0, 1)]
        right.append((shirt - own[0]).abs().sum() + (trousers - own[1]).abs().sum() <= (shirt - own[1]).abs().sum() + (trousers - own[0]).abs().sum())
    assert len(right) > 20 and np.mean(right) > 0.9


def test_a_step_is_drawn_from_its_own_chance(some):
    one, two, other = (some.draw(np.random.default_rng(seed), 4) for seed in (7, 7, 8))
    assert torch.equal(one.frames, two.frames) and torch.equal(one.box, two.box)
    assert not torch.equal(one.frames, other.frames)
