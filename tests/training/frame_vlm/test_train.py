"""The frame-based model's school: labels and pictures agree, codes stand where vision tokens will, its phases are one resumable sequence."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import TINY

from streamingvlm.models.qwen25 import tokenizer
from streamingvlm.training.frame_vlm import train
from streamingvlm.training.frame_vlm.batches import CODE, Frames, Labels, codes
from streamingvlm.training.frame_vlm.grammar import STEP_PX, WORDS, parse
from streamingvlm.training.frame_vlm.prompt import CELLS, GRID, Prompt, patches
from streamingvlm.training.loop import LOOK, NAME, TELL
from streamingvlm.worlds.city.world import ANOMALIES, City

RECIPE = train.Recipe(worlds=2, tell_steps=2, tell_batch=2, name_steps=2, name_batch=2, look_steps=2, look_batch=2, model=TINY)


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames(range(600, 602), Prompt(tokenizer.build(WORDS)), cameras=2, frames=64)


def test_a_batch_says_what_is_true(frames):
    city = frames.cities[0]
    for camera, frame in [(0, 5), (1, 40), (1, 63)]:
        own = Labels.of(city.truth, camera, frame)
        said = own.said()
        assert said.action == city.truth.action[camera, frame]
        assert [kind in said.anomalies for kind in ANOMALIES] == city.truth.anomalies[camera, frame].tolist()
        box = own.box[np.lexsort((own.box[:, 1], own.box[:, 0]))][: len(said.things)]
        assert np.abs(np.array([thing.corners for thing in said.things]).reshape(-1, 4) * STEP_PX - box).max(initial=0) <= STEP_PX / 2


def test_answers_in_a_batch_can_be_read(frames):
    batch = frames.draw(np.random.default_rng(0), 12)
    talk = frames.prompt.talk
    for row in range(12):
        assert parse(talk.decode(batch.labels[row][batch.labels[row] >= 0].tolist()).split()).action == batch.action[row]
    told = frames.draw(np.random.default_rng(0), 12, look=False)
    assert told.frames is None and batch.frames.shape == (12, 96, 96, 3)


def test_mirrored_labels_fit_the_mirrored_picture():
    """Whoever is mirrored twice is as before; once, the box holds the mirrored pixels."""
    city = City(600, 2, 64)
    camera, frame = city.truth.box_at[0]
    own, image = Labels.of(city.truth, camera, frame), city.draw(camera, frame)
    other = own.mirrored()
    assert np.array_equal(other.mirrored().box, own.box)
    (x0, y0, x1, y1), (u0, v0, u1, v1) = own.box[0].astype(int), other.box[0].astype(int)
    assert np.array_equal(image[y0:y1, x0:x1], image[:, ::-1][v0:v1, u0:u1][:, ::-1])


def test_each_thing_is_told_in_its_cell(frames):
    own = Labels(np.array([[0, 0, 8, 8], [88, 88, 96, 96]], np.float32), np.array([0, 2]), np.array([1, 4]), 2, np.zeros(6, bool))
    kind, box = own.slots()
    assert kind[0, 0] == 1 and kind[-1, 0] == 4 and (kind >= 0).sum() == 2 and np.array_equal(box[-1, 0], own.box[1])
    code = codes(torch.from_numpy(kind), torch.from_numpy(box))
    assert code.shape == (CELLS**2, CODE) and code.any(-1).nonzero().flatten().tolist() == [0, CELLS**2 - 1]


def test_patches_are_of_one_frame_each():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    together = patches(pictures).chunk(3)
    assert all(torch.equal(patches(picture[None]), own) for picture, own in zip(pictures, together, strict=True))
    assert together[0].shape == (GRID[1] * GRID[2], 1176)


def test_each_phase_teaches_its_part():
    _, school = train.trainer(RECIPE)
    before, seen = {name: p.clone() for name, p in school.student.named_parameters()}, {}
    for row in school.run():
        now = {name: p.clone() for name, p in school.student.named_parameters()}
        seen.setdefault(row["phase"], set()).update(name for name in now if not torch.equal(now[name], before[name]))
        before = now
    assert list(seen) == [TELL, NAME, LOOK]
    assert not any("visual" in name for name in seen[TELL]) and "told.weight" in seen[TELL]
    assert not any("language_model" in name or "told" in name for name in seen[NAME]) and any("visual" in name for name in seen[NAME])
    assert any("visual" in name for name in seen[LOOK]) and any("language_model" in name for name in seen[LOOK])


@pytest.mark.parametrize("killed_after", [1, 4])
def test_resumed_equals_uninterrupted(tmp_path, killed_after):
    def trainer(name):
        made = train.trainer(dataclasses.replace(RECIPE, worlds=1), tmp_path / name)[1]
        made.every = 1
        return made

    whole = trainer("whole")
    rows = list(whole.run())
    broken = trainer("broken").run()
    for _ in range(killed_after):
        next(broken)
    resumed = trainer("broken")
    assert len(list(resumed.run())) == len(rows) - killed_after and resumed.history == rows
    assert all(torch.equal(a, b) for a, b in zip(whole.student.parameters(), resumed.student.parameters(), strict=True))
