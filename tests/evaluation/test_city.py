"""The city's table on a network of random weights: every key of the contract, features that are those of a direct run, truth that scores 1."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation import city, city_watch
from streamingvlm.models.multicamera import network as networks
from streamingvlm.models.multicamera.packaged import OTHERWISE, load_memory, load_variant, save_memory
from streamingvlm.training.city.features import across
from streamingvlm.worlds.city import recording
from streamingvlm.worlds.city.world import ANOMALIES, CLASSES

FRAMES = 48
KINDS = {"fall", "pavement", "loiter", "bag", "clone", "surge", "local", "temporal", "cross"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    network = networks.Network(networks.Knobs())
    network.save(folder)
    save_memory(network.memory, folder / "variants" / "no_hrm")
    for each in (folder, *(folder / "variants" / name for name in ("no_hrm", *OTHERWISE))):
        each.mkdir(exist_ok=True)
        (each / "thresholds.json").write_text(json.dumps({
            "thresholds": dict.fromkeys(ANOMALIES, 0.5), "rules": {kind: {"on": 0.6, "off": 0.4, "after": 2, "until": 3} for kind in ANOMALIES}}))
    city.look(folder, city.SEEDS, FRAMES, folder)
    return folder


def test_every_number_of_the_contract_is_there(base):
    for name in ("model", "no_hrm", "shuffled"):
        found = city.scores(base, name, [city.SEEDS], FRAMES, base)
        assert 0 <= found["action"] <= 1
        for each in (found, found["alarms"]):
            assert all(set(each[part]) >= KINDS for part in ("f1", "event_f1", "delay_s", "false_alarms_per_hour"))
    assert set(city.precision([city.SEEDS], FRAMES, base)["by_class"]) == set(CLASSES)
    with pytest.raises(UserError, match="city-base"):
        city.scores(base, "depth9", [city.SEEDS], FRAMES, base)


def test_true_boxes_given_as_found_are_all_right(base, tmp_path):
    tensors, true = load_file(base / f"{city.SEEDS}.safetensors"), city.true_boxes(city.city(city.SEEDS, FRAMES))
    tensors |= {"found.image": torch.from_numpy(true.image), "found.box": torch.from_numpy(true.box), "found.label": torch.from_numpy(true.label),
                "found.score": torch.ones(len(true.image))}
    save_file(tensors, tmp_path / f"{city.SEEDS}.safetensors")
    assert city.precision([city.SEEDS], FRAMES, tmp_path)["map"] == pytest.approx(1.0)


def test_a_compressed_network_is_scored_and_leaves_only_itself(base, tmp_path):
    row = city.compressed(base, "pruned25_int8", [city.SEEDS], FRAMES, tmp_path)
    assert row["bytes"] < (base / "model.safetensors").stat().st_size and set(row["f1"]) >= KINDS and 0 <= row["map50"] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compressed.json", "compressed.safetensors", "config.json"]


def test_a_packaged_memory_is_the_same_to_half_precision(base):
    whole, half = networks.load(base).memory.state_dict(), load_memory(base / "variants" / "no_hrm").state_dict()
    assert all(torch.allclose(whole[name].float(), half[name].float(), atol=2e-3) for name in whole)


def test_the_models_own_weights_can_be_run_otherwise(base):
    whole = load_variant(base, "model")
    for name, knobs in OTHERWISE.items():
        one = load_variant(base, name)
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), whole.state_dict().values(), strict=True))
        assert one.knobs != whole.knobs and all(getattr(one.knobs, key) == value for key, value in knobs.items())


def test_perfect_eyes_miss_only_what_happens_between_two_looks(base):
    world = city.recorded(base, city.SEEDS)
    world.seen.zero_()
    world.meets.zero_()
    world.seen[6:30, 0, 7] = world.seen[10:20, 1, 7] = True  # the same look, together in frames 10 to 19
    world.meets[9:25, :3] = True
    world.anomalies[..., 4:] = across(world.seen, world.meets, world.action.shape[1])
    found = {period: city.ceilings([world], period) for period in (1, 8)}
    assert all(value == 1.0 for kinds in found[1].values() for value in kinds.values())
    # Looks at 8 and 16. The answer of 16 is held until 23, of 8 (only camera 0) until 15: 4 + 4 right of 20, and 4 + 4 too many.
    assert found[8]["answer"]["clone"] == pytest.approx(2 * 8 / (16 + 20))
    # Sought in what was shown at 8: camera 1 finds its own from 10 on; in what was shown at 16: camera 0 until 23, camera 1 until it leaves.
    assert found[8]["others"]["clone"] == pytest.approx(2 * 14 / (18 + 20))
    assert found[8]["answer"]["surge"] == pytest.approx(2 * 27 / (48 + 48)) and found[8]["others"]["surge"] == pytest.approx(2 * 27 / (27 + 48))


def test_files_are_watched_moment_by_moment(base, tmp_path):
    rows = recording.record(city.city(city.SEEDS, 8), tmp_path, tmp_path, "city", "city")
    seen = list(city_watch.watched(networks.load(base), base, rows, tmp_path, frames=5))
    assert len(seen) == 5 and seen[0].frames.shape == (8, 96, 96, 3) and len(seen[0].captions) == len(seen[0].alarms) == 8
    moment = city_watch.look_across(networks.load(base), [city.SEEDS], base)
    assert moment.weights.shape[:2] == moment.seen.shape and np.all(moment.weights >= 0)
