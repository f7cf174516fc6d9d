"""The several-seeds table of the city: pairs within a seed, and what it is for in the ledger."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import city_seeds

from streamingvlm.evaluation import ledger_inputs
from streamingvlm.training.city.recipe import Recipe


def row(seed: int, variant: str, clone: float) -> dict:
    return {"seed": seed, "variant": variant, **dict.fromkeys(city_seeds.KEYS, 0.5), "f1.clone": clone}


ROWS = [row(0, "model", 0.7), row(0, "no_hrm", 0.4), row(1, "model", 0.5), row(1, "no_hrm", 0.2), row(2, "model", 0.6)]


def test_a_difference_is_taken_within_a_seed():
    model, without = city_seeds.summary(ROWS)
    assert model["seeds"] == 3 and model["f1.clone"]["mean"] == pytest.approx(0.6) and "f1.clone_minus_model" not in model
    assert without["f1.clone_minus_model"] == {"mean": -0.3, "half_width": 0.0}, "the seeds differ, their differences do not"
    assert "+-" in city_seeds.readable(without)["f1.clone_minus_model"] and city_seeds.readable(model)["f1.clone_minus_model"] == ""


def test_other_cities_might_say_otherwise():
    """One city of four makes all the difference in one pair, each a little in the other."""
    sure, lucky, model = ([[hits, 10, 10] for hits in each] for each in ((6, 6, 6, 6), (0, 8, 8, 8), (8, 8, 8, 8)))
    rows = [{"seed": 0, "variant": name, "by_city": dict.fromkeys(city_seeds.KINDS, counts),
             **{f"f1.{kind}": np.mean(counts, 0)[0] / 10 for kind in city_seeds.KINDS}}
            for name, counts in (("model", model), ("sure", sure), ("lucky", lucky))]
    one, other = (entry["clone"] for entry in city_seeds.over_cities(rows))
    assert one["difference"] == pytest.approx(-0.2) == other["difference"]
    assert one["low"] == one["high"] == pytest.approx(-0.2) and other["low"] < -0.3 and other["high"] == 0


def test_another_recipe_or_another_vision_lies_elsewhere(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"a")
    one = city_seeds.home(tmp_path, tmp_path, Recipe())
    assert one == city_seeds.home(tmp_path, tmp_path, Recipe(seed=3))
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert one != city_seeds.home(tmp_path, tmp_path, Recipe())


def test_rows_of_other_seeds_stay_and_those_of_other_cities_go(tmp_path):
    path, where = tmp_path / "seeds.json", {"worlds": 12, "recipe": "a"}
    assert city_seeds.merged(ROWS, path, where) == ROWS
    path.write_text(json.dumps(where | {"rows": ROWS}))
    both = city_seeds.merged([row(1, "model", 0.9), row(3, "gru", 0.1)], path, where)
    assert [(one["seed"], one["variant"]) for one in both] == [(0, "model"), (0, "no_hrm"), (1, "model"), (1, "no_hrm"), (2, "model"), (3, "gru")]
    assert both[2]["f1.clone"] == 0.9 and city_seeds.merged(ROWS[:1], path, where | {"worlds": 3}) == ROWS[:1]


def test_seed_0_is_what_is_packaged(tmp_path):
    assert city_seeds.trained(0, ["model"], tmp_path / "base", tmp_path, tmp_path) == tmp_path / "base"


def test_the_ledger_reads_each_seed_by_the_names_of_its_metrics(tmp_path):
    (tmp_path / "city_seeds.json").write_text(json.dumps({"rows": ROWS}))
    seeds = ledger_inputs.repeats(tmp_path)["seeds"]
    assert [one.get("city.no_hrm.f1.clone") for one in seeds] == [0.4, 0.2, None] and seeds[2]["city.model.f1.clone"] == 0.6
