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
from streamingvlm.models.multicamera.packaged import load_memory, save_memory
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
    for each in (folder, folder / "variants" / "no_hrm"):
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


def test_files_are_watched_moment_by_moment(base, tmp_path):
    rows = recording.record(city.city(city.SEEDS, 8), tmp_path, tmp_path, "city", "city")
    seen = list(city_watch.watched(networks.load(base), base, rows, tmp_path, frames=5))
    assert len(seen) == 5 and seen[0].frames.shape == (8, 96, 96, 3) and len(seen[0].captions) == len(seen[0].alarms) == 8
    moment = city_watch.look_across(networks.load(base), [city.SEEDS], base)
    assert moment.weights.shape[:2] == moment.seen.shape and np.all(moment.weights >= 0)
