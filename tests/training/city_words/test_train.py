"""The commentator's school: its phases are one resumable sequence and each teaches its part; a patch's first features are its colours."""

from __future__ import annotations

import pytest
import torch
from helpers import TINY

from streamingvlm.models.qwen25.pixels import CLIP_MEAN, CLIP_STD, to_patches
from streamingvlm.training.city_words import train

RECIPE = train.Recipe(worlds=2, tell_steps=2, tell_batch=2, name_steps=2, name_batch=2, look_steps=2, look_batch=2,
                       heed_worlds=1, heed_batch=2, read_steps=2, heed_steps=2, model=TINY)
SEEN = {"falls": [], "cars": [(0.5, 0.8)], "people": 1, "walk": 0, "action": 1, "fall": 0.0, "pavement": 0.9}


@pytest.fixture(autouse=True)
def spotted(monkeypatch):
    """In place of the multi-camera model: the same in every frame."""
    monkeypatch.setattr(train, "whole", lambda eyes, city: [[SEEN] * city.frames] * city.cameras)


def test_each_phase_teaches_its_part():
    _, school = train.trainer(RECIPE, None)
    before, seen = {name: p.clone() for name, p in school.student.named_parameters()}, {}
    for row in school.run():
        now = {name: p.clone() for name, p in school.student.named_parameters()}
        seen.setdefault(row["phase"], set()).update(name for name in now if not torch.equal(now[name], before[name]))
        before = now
    assert list(seen) == ["tell", "name", "look", "read", "heed"]
    assert "told.weight" in seen["tell"] and not any("visual" in name or "probe" in name for name in seen["tell"])
    assert "probe.weight" in seen["name"] and not any("language_model" in name or "told" in name for name in seen["name"])
    assert any("visual" in name for name in seen["look"]) and any("language_model" in name for name in seen["look"])
    assert any("language_model" in name for name in seen["heed"]) and not any("visual" in name or "probe" in name for name in seen["heed"])


@pytest.mark.parametrize("killed_after", [1, 7])
def test_resumed_equals_uninterrupted(tmp_path, killed_after):
    def school(name):
        made = train.trainer(RECIPE, None, tmp_path / name)[1]
        made.every = 1
        return made

    whole = school("whole")
    rows = list(whole.run())
    broken = school("broken").run()
    for _ in range(killed_after):
        next(broken)
    resumed = school("broken")
    assert len(list(resumed.run())) == len(rows) - killed_after and resumed.history == rows
    assert all(torch.equal(a, b) for a, b in zip(whole.student.parameters(), resumed.student.parameters(), strict=True))


def test_a_patch_begins_as_its_colours():
    weight = train.build(train.SHAPE).hf.model.visual.patch_embed.proj.weight.flatten(1)
    frames = torch.zeros(2, 28, 28, 3, dtype=torch.uint8)
    frames[0, :, :, 0], frames[1, :, :, 2] = 200, 90
    seen = to_patches(frames)[0] @ weight.T  # [4, C]
    colour = lambda k, value: (value / 255 - CLIP_MEAN[k]) / CLIP_STD[k]  # noqa: E731
    expected = torch.tensor([colour(0, 200), colour(1, 0), colour(2, 0), colour(0, 0), colour(1, 0), colour(2, 90)])  # of the first place
    torch.testing.assert_close(seen[:, :6], expected.expand(4, -1).float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[:, 90:96], seen[:, :6], atol=1e-4, rtol=0)
