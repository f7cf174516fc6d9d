"""The memory's training: streams put together get their own truth, and killed is uninterrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamingvlm.models.multicamera.memory import Memory
from streamingvlm.models.multicamera.network import Knobs, Network
from streamingvlm.training.city.features import Recorded, record
from streamingvlm.training.city.recipe import Recipe, Remembering, Vision, fresh, memory_trainer, recordings, vision_trainer
from streamingvlm.training.city.remembering import Lanes
from streamingvlm.training.city.validation import report, watch
from streamingvlm.worlds import alarms
from streamingvlm.worlds.city.truth import together
from streamingvlm.worlds.city.world import ANOMALIES, City

FRAMES, CAMERAS = 48, 4


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(Knobs())


@pytest.fixture(scope="module")
def cities() -> list[City]:
    return [City(seed, CAMERAS, FRAMES) for seed in (1, 2)]


@pytest.fixture(scope="module")
def recorded(network, cities) -> Recorded:
    return Recorded.join([record(network, city) for city in cities])


def test_features_are_of_their_frames_and_truth_is_the_citys(network, cities, recorded):
    picture = torch.from_numpy(cities[1].draw(2, 17))[None]
    with torch.inference_mode():
        sight, _ = network.see(picture)
    torch.testing.assert_close(recorded.sight.embedding[17, CAMERAS + 2].float(), sight.embedding[0], atol=5e-3, rtol=0)
    assert torch.equal(recorded.anomalies[:, CAMERAS:], torch.from_numpy(cities[1].truth.anomalies).transpose(0, 1))


def test_streams_put_together_get_the_truth_of_their_own_company(cities, recorded):
    chosen = torch.tensor([0, CAMERAS + 1, 3, CAMERAS + 2])
    part = recorded.pick(torch.arange(FRAMES), chosen, together=4)
    wanted = together([(cities[0].truth, 0), (cities[1].truth, 1), (cities[0].truth, 3), (cities[1].truth, 2)])
    assert torch.equal(part.anomalies, torch.from_numpy(wanted).transpose(0, 1))


def test_recordings_are_kept(network, tmp_path, monkeypatch):
    first = [next(recordings(network, 5, 1, 16, tmp_path))]
    monkeypatch.setattr("streamingvlm.training.city.recipe.record", None)
    again = next(recordings(network, 5, 1, 16, tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(first[0].tensors().values(), again.tensors().values(), strict=True))


RECIPE = Recipe(memory=Remembering(across_steps=3, state_steps=4, lanes=Lanes(groups=3, together=CAMERAS, frames=16, moments=8)),
                vision=Vision(worlds=1, steps=4, batch=2))




def killed_after(trainer, steps: int) -> None:
    trainer.every = 1
    for row in trainer.run():
        if row["step"] == steps:
            return


@pytest.mark.parametrize("steps", [1, 4])
def test_a_killed_memory_training_goes_on_as_if_nothing_had_been(recorded, tmp_path, steps):
    recipe = replace(RECIPE, variant="raw" if steps == 4 else "model")
    straight = fresh(recipe)
    rows = list(memory_trainer(straight, recorded, recipe).run())
    killed_after(memory_trainer(fresh(recipe), recorded, recipe, tmp_path / "memory.pt"), steps)
    resumed = fresh(recipe)
    rest = list(memory_trainer(resumed, recorded, recipe, tmp_path / "memory.pt").run())
    assert rest == rows[-len(rest):] and 0 < len(rest) < len(rows)
    assert all(torch.equal(a, b) for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_a_killed_vision_training_goes_on_as_if_nothing_had_been(tmp_path):
    straight = Network(Knobs())
    rows = list(vision_trainer(straight, RECIPE).run())
    killed_after(vision_trainer(Network(Knobs()), RECIPE, tmp_path / "vision.pt"), 2)
    resumed = Network(Knobs())
    rest = list(vision_trainer(resumed, RECIPE, tmp_path / "vision.pt").run())
    assert rest == rows[-len(rest):] and 0 < len(rest) < 4
    assert torch.equal(straight.head.maps.weight, resumed.head.maps.weight)


def test_each_part_of_the_loss_teaches_each_part_of_the_memory(recorded):
    recipe = replace(RECIPE, memory=replace(RECIPE.memory, across_steps=0, state_steps=2))
    memory = fresh(recipe)
    before = {name: value.clone() for name, value in memory.named_parameters()}
    trainer = memory_trainer(memory, recorded, recipe)
    list(trainer.run())
    after = dict(trainer.student.memory.named_parameters())
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert still <= {"person.0.bias"}, "an untrained vision may see nobody"


@torch.inference_mode()
def test_watching_in_pieces_is_watching(recorded):
    memory: Memory = fresh(RECIPE).eval()
    whole, pieces = (watch(memory, recorded, CAMERAS, frames=frames) for frames in (FRAMES, 20))
    torch.testing.assert_close(whole.anomalies, pieces.anomalies, rtol=1e-4, atol=1e-4)
    limits = dict.fromkeys(ANOMALIES, 0.5)
    scores = report(whole, recorded, limits)
    assert scores["f1"]["fall"] == alarms.f1(whole.anomalies[..., 0].numpy() >= 0.5, recorded.anomalies[..., 0].numpy())["f1"]
    assert scores["action"] == (whole.action == recorded.action).float().mean().item()
