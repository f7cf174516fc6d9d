"""The ledger is complete, and only numbers can make it say "reproduced"."""

import json
import math
import re

import pytest

from streamingvlm.base import machine
from streamingvlm.base.errors import UserError
from streamingvlm.evaluation import claims

IDS = [f"P{i}" for i in range(1, 7)] + ["P6R"] + [f"P{i}" for i in range(7, 11)] + [f"A{i}" for i in range(1, 17)]
CONTEXT = {"hardware": "two cores", "dtype": "float32", "model": "tiny", "data": "arena", "command": "make repro"}
GOOD = {
    "stream.minutes": 10.7,
    "stream.streaming.latency_ratio_last_first": 1.04, "stream.full.latency_ratio_last_first": 4.0,
    "stream.streaming.kv_ratio_last_first": 1.0, "stream.full.kv_ratio_last_first": 7.0,
    "stream.full.cost_exponent": 1.7, "stream.streaming.cost_exponent": 1.0,
    "stream.streaming.kv_tokens_max": 97, "stream.streaming.times_real_time": 40.0,
    "stream.streaming.memory_ratio_last_first": 1.0, "ablation.streaming.overlapped.first_quarter.who": 0.97,
    "stream.streaming.chunk_ms_p50": 25.0, "stream.full.chunk_ms_p50": 300.0,
    "ablation.streaming.overlapped.first_quarter.event_f1": 0.95, "ablation.streaming.overlapped.last_quarter.event_f1": 0.94,
    "ablation.full.overlapped.first_quarter.event_f1": 0.60, "ablation.full.overlapped.last_quarter.event_f1": 0.10,
    **{f"ablation.{policy}.{student}.{key}": value for (policy, student), values in {
        ("streaming", "overlapped"): (0.96, 0.97, 0.70, 0.95, 0.96), ("overlap", "overlapped"): (0.97, 0.97, 0.95, 0.96, 0.97),
        ("no_sink", "overlapped"): (0.96, 0.40, 0.60, 0.90, 0.30), ("no_text", "overlapped"): (0.96, 0.60, 0.10, 0.40, 0.60),
        ("window", "overlapped"): (0.96, 0.97, 0.40, 0.90, 0.97), ("growing", "overlapped"): (0.60, 0.50, 0.10, 0.40, 0.30),
        ("streaming", "tiled"): (0.96, 0.90, 0.60, 0.90, 0.85), ("streaming", "base"): (0.90, 0.30, 0.10, 0.50, 0.10),
    }.items() for key, value in zip(("event_f1", "who", "score", "increment", "last_quarter.who"), values, strict=True)},
    "stream.overlap.chunk_ms_p50": 80.0,
    "real_lm.logits_difference": 7e-5, "real_lm.exact_difference": 4e-5, "real_lm.no_sink_over_sink": 1.7,
    "real_lm.sink_contiguous_over_dense_after": 1.15, "real_lm.growing_over_contiguous": 1.01,
    **{f"compress.{variant}.{metric}": value for variant, values in {
        "float32": (0.95, 5_000_000, 5_000_000, 25.0), "int8": (0.95, 2_000_000, 2_000_000, 30.0),
        "pruned25": (0.945, 4_000_000, 4_000_000, 25.0),
        "mlp25": (0.945, 4_000_000, 4_000_000, 22.0), "pruned25_int8": (0.94, 2_000_000, 2_000_000, 30.0),
    }.items() for metric, value in zip(("event_accuracy", "bytes", "memory_bytes", "chunk_ms_p50"), values, strict=True)},
}
BEST = {"P1": claims.REPRODUCED, "P6": claims.REPRODUCED, "P6R": claims.PARTLY,
        "P7": claims.REPRODUCED, "P9": claims.REPRODUCED, "P8": claims.PARTLY, "A9": claims.PARTLY}


def rows(measured):
    return {row["id"]: row for row in claims.ledger(measured, CONTEXT)}


def test_every_claim_once_with_every_field():
    ledger = claims.ledger(GOOD, CONTEXT)
    assert [row["id"] for row in ledger] == IDS
    assert {row["source"] for row in ledger} == {"paper", "analytics"}
    for row in ledger:
        assert {"claim", "published", "measured", "metric", "verdict", "why", "notebook", "figure", *claims.CONDITIONS} <= set(row)
        assert row["claim"] and row["metric"] and row["verdict"] and row["why"]


def test_every_claim_has_exactly_one_way_to_a_verdict():
    for name, claim in claims.claims()["claims"].items():
        assert sum(key in claim for key in ("checks", "needs", "not_attempted")) == 1, name
        labels = [check["label"] for check in claim.get("requires", []) + claim.get("checks", []) + claim.get("aside", [])]
        assert len(labels) == len(set(labels)), name
        for check in claim.get("requires", []) + claim.get("checks", []):
            assert {"at_least", "at_most"} & set(check), name


def test_verdicts_of_a_good_run():
    ledger = rows(GOOD)
    assert {name: row["verdict"] for name, row in ledger.items() if "reproduced" in row["verdict"]} == BEST
    assert all("one seed" in ledger[name]["why"] for name in ("P6", "P7", "P9"))
    for name in set(IDS) - set(BEST):
        assert ledger[name]["verdict"] == claims.NOT_ATTEMPTED or ledger[name]["verdict"].startswith("needs "), name


def test_nothing_measured_is_never_reproduced():
    for row in rows({}).values():
        assert "reproduced" not in row["verdict"]
        assert row["measured"] is None and row["hardware"] is None and row["figure"] is None


@pytest.mark.parametrize("verdict", [claims.REPRODUCED, claims.PARTLY])
def test_a_verdict_says_that_it_is_a_direction_on_a_toy(verdict):
    assert "direction" in verdict and "tiny scale" in verdict


@pytest.mark.parametrize(("metric", "value", "claim", "verdict"), [
    ("stream.streaming.latency_ratio_last_first", 2.0, "P1", claims.NOT_REPRODUCED),
    ("stream.streaming.kv_ratio_last_first", 1.5, "P1", claims.NOT_REPRODUCED),
    ("stream.full.latency_ratio_last_first", 1.0, "P1", claims.PARTLY),
    ("ablation.streaming.overlapped.last_quarter.event_f1", 0.80, "P7", claims.NOT_REPRODUCED),
    ("ablation.streaming.overlapped.first_quarter.event_f1", 0.10, "P7", claims.NOT_REPRODUCED),
    ("stream.streaming.memory_ratio_last_first", 1.3, "P1", claims.NOT_REPRODUCED),
    ("ablation.streaming.overlapped.first_quarter.who", 0.4, "P7", claims.NOT_MEASURED),
    ("ablation.no_sink.overlapped.who", 0.97, "P6", claims.PARTLY),
    ("ablation.streaming.overlapped.event_f1", 0.5, "P6", claims.NOT_REPRODUCED),
    ("ablation.streaming.overlapped.who", 0.3, "P6", claims.NOT_MEASURED),
    ("ablation.streaming.tiled.last_quarter.who", 0.96, "P7", claims.PARTLY),
    ("ablation.window.overlapped.score", 0.70, "P9", claims.PARTLY),
    ("stream.overlap.chunk_ms_p50", 30.0, "P9", claims.PARTLY),
    ("real_lm.no_sink_over_sink", 1.0, "P6R", claims.NOT_REPRODUCED),
    ("real_lm.logits_difference", 0.5, "P6R", claims.NOT_MEASURED),
    ("compress.int8.event_accuracy", 0.90, "A9", claims.PARTLY),
    ("compress.float32.event_accuracy", 0.40, "A9", claims.NOT_REPRODUCED),
    ("stream.minutes", 2.0, "P1", claims.NOT_MEASURED),
    ("stream.minutes", 2.0, "P7", claims.NOT_MEASURED),
])
def test_a_broken_value_changes_the_verdict_and_is_named(metric, value, claim, verdict):
    row = rows({**GOOD, metric: value})[claim]
    assert row["verdict"] == verdict
    assert "failed" in row["why"] or "too small" in row["why"]


def test_all_of_full_attentions_failings_absent_is_not_reproduced():
    fine = {"stream.full.latency_ratio_last_first": 1.0, "stream.full.cost_exponent": 1.0,
            **dict.fromkeys(("ablation.full.overlapped.first_quarter.event_f1", "ablation.full.overlapped.last_quarter.event_f1"), 0.95)}
    assert rows({**GOOD, **fine})["P8"]["verdict"] == claims.NOT_REPRODUCED


def test_flat_at_nothing_is_not_stable_quality():
    flat = {"ablation.streaming.overlapped.first_quarter.event_f1": 0.0, "ablation.streaming.overlapped.last_quarter.event_f1": 0.0}
    assert rows({**GOOD, **flat})["P7"]["verdict"] == claims.NOT_REPRODUCED


def test_one_point_of_loss_is_within_one_point():
    assert 0.94 - 0.95 < -0.01    # the float that would have failed
    assert "failed" not in rows(GOOD)["A9"]["why"]


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, "1.0", True])
@pytest.mark.parametrize(("metric", "claim"), [
    ("stream.streaming.latency_ratio_last_first", "P1"), ("stream.minutes", "P7"), ("ablation.full.overlapped.last_quarter.event_f1", "P8"),
    ("compress.float32.bytes", "A9")])
def test_a_missing_number_is_not_measured(metric, claim, nothing):
    row = rows({**GOOD, metric: nothing})[claim]
    assert row["verdict"] == claims.NOT_MEASURED and "no number for" in row["why"]
    assert rows({key: value for key, value in GOOD.items() if key != metric})[claim]["verdict"] == claims.NOT_MEASURED


def test_the_tiny_models_speed_is_an_aside():
    fast = rows({**GOOD, "stream.streaming.times_real_time": 1000.0})["P2"]
    assert fast["verdict"].startswith("needs ") and "tiny model only" in fast["measured"] and "1,000" in fast["measured"]


def test_context_of_one_claim():
    ledger = {row["id"]: row for row in claims.ledger(GOOD, {**CONTEXT, "A9": {"data": "held-out matches"}})}
    assert ledger["A9"]["data"] == "held-out matches" and ledger["P1"]["data"] == "arena" and ledger["A1"]["data"] is None


@pytest.mark.parametrize("measured", [GOOD, {}])
def test_markdown_tables_are_well_formed(measured):
    text = claims.to_markdown(claims.ledger(measured, {**CONTEXT, "model": "tiny | odd\nname"}))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(claims.COLUMNS) + 1}
    assert [line.split("|")[1].strip() for line in table if re.match(r"\| [PA]\d", line)] == IDS
    assert ("Nothing was measured" in text) == (not measured)


def test_written_whole_and_the_same_twice(tmp_path):
    ledger = claims.ledger(GOOD, CONTEXT)
    claims.write(ledger, tmp_path / "new")
    first = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    claims.write(claims.ledger(GOOD, CONTEXT), tmp_path / "new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == first
    assert set(first) == {"claims.md", "claims.json"} and json.loads(first["claims.json"]) == ledger


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Can't write"):
        claims.write(claims.ledger({}, {}), tmp_path / "file")


def test_provenance():
    found = machine.provenance({"sft": {"lr": 1e-3}})
    assert found["hardware"]["cores"] >= 1 and found["hardware"]["text"] and found["versions"]["torch"]
    assert found["params_hash"] == machine.provenance({"sft": {"lr": 0.001}})["params_hash"] != machine.provenance({})["params_hash"]
    json.dumps(found)


@pytest.mark.parametrize("missing", ["git", "repository"])
def test_without_git_the_revision_is_unknown(tmp_path, monkeypatch, missing):
    (tmp_path / "params.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH" if missing == "git" else "GIT_CEILING_DIRECTORIES", str(tmp_path if missing == "git" else tmp_path.parent))
    assert machine.revision() == {"revision": "unknown", "dirty": "unknown"}
