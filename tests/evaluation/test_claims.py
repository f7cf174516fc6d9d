"""The ledger is complete, and only numbers can make it say "reproduced"."""

import json
import math
import re

import pytest

from streamingvlm.base import machine
from streamingvlm.base.errors import UserError
from streamingvlm.evaluation import claims, ledger_text

IDS = ["P0", "P0R", "P1", "P1H", "P2", "P3", "P4", "P5", "P6", "P6R", "P7a", "P7b", "P8", "P9", "P10", *(f"P{i}" for i in range(11, 17)),
       *(f"A{i}" for i in range(1, 5)), "A4R", *(f"A{i}" for i in range(5, 17))]
CONTEXT = {"date": "2026-11-28", "hardware": "two cores", "dtype": "float32", "model": "tiny", "data": "arena", "command": "make repro"}
OF = "ablation.streaming.overlapped"
GOOD = {
    "stream.minutes": 10.7, "timings.noise": 1.2,
    "stream.streaming.latency_ratio_last_first": 1.04, "stream.full.latency_ratio_last_first": 4.0,
    "stream.streaming.kv_ratio_last_first": 1.0, "stream.full.kv_ratio_last_first": 7.0,
    "stream.full.cost_exponent": 1.7, "stream.streaming.cost_exponent": 1.0,
    "stream.streaming.kv_tokens_max": 97, "stream.streaming.times_real_time": 40.0,
    "stream.streaming.memory_ratio_last_first": 1.0, f"{OF}.first_quarter.who": 0.97, f"{OF}.first_quarter.score": 0.90,
    "stream.streaming.chunk_ms_p50": 25.0, "turns.streaming.chunk_ms_p50": 25.0, "stream.full.chunk_ms_p50": 300.0,
    "ablation.full.overlapped.first_quarter.who": 0.60, "ablation.full.overlapped.last_quarter.who": 0.10,
    "ablation.full.overlapped.last_quarter.event_f1": 0.10, "ablation.full.overlapped.score": 0.05, "ablation.full.overlapped.kv_tokens": 4000,
    **{f"ablation.{policy}.{student}.{key}": value for (policy, student), values in {
        ("streaming", "overlapped"): (0.97, 0.94, 0.95, 0.96, 0.90), ("overlap", "overlapped"): (0.97, 0.95, 0.96, 0.97, 0.95),
        ("no_sink", "overlapped"): (0.40, 0.60, 0.90, 0.30, 0.50), ("no_text", "overlapped"): (0.60, 0.10, 0.40, 0.60, 0.10),
        ("window", "overlapped"): (0.97, 0.40, 0.90, 0.97, 0.30), ("growing", "overlapped"): (0.50, 0.10, 0.40, 0.30, 0.20),
        ("streaming", "tiled"): (0.90, 0.60, 0.90, 0.85, 0.50), ("streaming", "base"): (0.30, 0.10, 0.50, 0.10, 0.10),
    }.items() for key, value in zip(("who", "score", "increment", "last_quarter.who", "last_quarter.score"), values, strict=True)},
    **{f"ablation.{policy}.overlapped.event_f1": value for policy, value in (("streaming", 0.97), ("no_vision", 0.5), ("long_vision", 0.97))},
    "ablation.no_vision.overlapped.score": 0.3,
    "ablation.full.overlapped.who": 0.3, "ablation.streaming.tiled.score": 0.6, "ablation.streaming.base.event_f1": 0.3,
    "turns.overlap.chunk_ms_p50": 80.0,
    **{f"asked.{place}.{student}.{way}.{key}": value for place in ("clip", "streaming") for student, right in (("base", 0.5), ("overlapped", 0.6))
       for way in ("free", "chosen") for key, value in (("asked", 90), ("accuracy", right), ("chance", 0.1))},
    "conformance.runs": 8, "conformance.chunks": 216, "conformance.chunks_agreeing": 216, "conformance.tokens": 3000,
    "conformance.hidden_difference": 3e-5, "conformance.kv_difference": 7e-6, "rerun.outputs": 20, "rerun.same": 20,
    "hours.minutes": 120, "hours.kv_ratio": 1.01, "hours.kv_tokens_max": 98,
    "real_lm.logits_difference": 7e-5, "real_lm.exact_difference": 4e-5, "real_lm.no_sink_over_sink": 1.7,
    "real_lm.sink_contiguous_over_dense_after": 1.15, "real_lm.growing_over_contiguous": 1.01,
    "real_eyes.whole_frames": 199, "real_eyes.tiled_frames": 100, "real_eyes.whole_map50": 0.7, "real_eyes.tiled_map50": 0.88,
    "real_eyes.whole_precision": 0.9,
    **{f"city.compress.{variant}.{metric}": value for variant, value in {"float32": 0.88, "int8": 0.875, "pruned25": 0.875}.items()
       for metric in ("map50", "f1.local", "f1.cross")},
    **{f"compress.{variant}.{metric}": value for variant, values in {
        "float32": (0.95, 5_000_000, 5_000_000, 25.0), "int8": (0.95, 2_000_000, 2_000_000, 30.0),
        "pruned25": (0.945, 4_000_000, 4_000_000, 25.0),
        "mlp25": (0.945, 4_000_000, 4_000_000, 22.0), "pruned25_int8": (0.94, 2_000_000, 2_000_000, 31.0),
    }.items() for metric, value in zip(("event_accuracy", "bytes", "memory_bytes", "chunk_ms_p50"), values, strict=True)},
}
REPEATS = {name: [{key: value + shift for key, value in GOOD.items() if key.startswith("ablation.streaming.")} for shift in (0.0, 0.01, -0.01)]
           for name in ("seeds", "hours")}
EXACT, AGAIN = "reproduced (token for token, tiny weights)", "reproduced (byte for byte, one machine)"
BEST = {"P0": EXACT, "P0R": AGAIN, "P1": claims.REPRODUCED, "P1H": claims.REPRODUCED, "P6": claims.REPRODUCED, "P6R": claims.PARTLY,
        "P7a": claims.REPRODUCED, "P7b": claims.REPRODUCED, "P9": claims.REPRODUCED, "P8": claims.PARTLY, "A9": claims.PARTLY, "A4R": claims.PARTLY,
        **{f"P{i}": claims.REPRODUCED for i in (4, 5, *range(11, 17))}}


def rows(measured, repeats=REPEATS):
    return {row["id"]: row for row in claims.ledger(measured, CONTEXT, repeats)}


def numbers(row):
    return {one["name"]: one for one in row["numbers"]}


def test_every_claim_once_with_every_field():
    ledger = claims.ledger(GOOD, CONTEXT, REPEATS)
    assert [row["id"] for row in ledger] == IDS
    assert {row["source"] for row in ledger} == {"paper", "analytics"}
    for row in ledger:
        assert {"claim", "published", "measured", "metric", "verdict", "why", "notebook", "figure", *claims.CONDITIONS} <= set(row)
        assert row["claim"] and row["metric"] and row["verdict"] and row["why"]


def test_every_claim_has_exactly_one_way_to_a_verdict():
    for name, claim in claims.claims()["claims"].items():
        assert sum(key in claim for key in ("checks", "needs", "not_attempted")) == 1, name
        labels = [claims._name(check) for check in claim.get("requires", []) + claim.get("checks", []) + claim.get("aside", [])]
        assert len(labels) == len(set(labels)), name
        assert sum(check.get("decisive", False) for check in claim.get("checks", [])) == ("checks" in claim), name
        assert 1 <= len(claim["short"].split()) <= (3 if claim["source"] == "paper" else 4), name
        for check in claim.get("checks", []) + claim.get("aside", []):
            assert ("than" in check) == (("minus" in check) or ("over" in check)), f"{name}: a difference is said with both of its numbers"
        for check in claim.get("requires", []) + claim.get("checks", []):
            assert {"at_least", "at_most"} & set(check), name


CITY = {"A3", "A4", "A5", "A12", "A13"}  # measured on the city: no number of the match says anything of them
LIVE = {"A1", "A2", "A6", "A7", "A8", "A10", "A11", "A15", "A16"}  # nor of many live cameras


def test_verdicts_of_a_good_run():
    ledger = rows(GOOD)
    assert {name: row["verdict"] for name, row in ledger.items() if "reproduced" in row["verdict"]} == BEST
    assert all("one seed" in ledger[name]["why"] for name in ("P6", "P9"))
    for name in set(IDS) - set(BEST) - CITY - LIVE:
        assert ledger[name]["verdict"] == claims.NOT_ATTEMPTED or ledger[name]["verdict"].startswith("needs "), name


def test_nothing_measured_is_never_reproduced():
    for row in rows({}, {}).values():
        assert "reproduced" not in row["verdict"]
        assert row["measured"] is None and row["hardware"] is None and row["figure"] is None


@pytest.mark.parametrize("verdict", [claims.REPRODUCED, claims.PARTLY])
def test_a_verdict_says_that_it_is_a_direction_on_a_toy(verdict):
    assert "direction" in verdict and "tiny scale" in verdict


@pytest.mark.parametrize(("metric", "value", "claim", "verdict"), [
    ("stream.streaming.latency_ratio_last_first", 2.0, "P1", claims.NOT_REPRODUCED),
    ("stream.streaming.kv_ratio_last_first", 1.5, "P1", claims.NOT_REPRODUCED),
    ("stream.full.latency_ratio_last_first", 1.0, "P1", claims.PARTLY),
    (f"{OF}.last_quarter.who", 0.80, "P7a", claims.NOT_REPRODUCED),
    (f"{OF}.last_quarter.score", 0.50, "P7a", claims.PARTLY),
    ("ablation.streaming.base.last_quarter.score", 0.90, "P7a", claims.PARTLY),
    ("stream.streaming.memory_ratio_last_first", 1.3, "P1", claims.NOT_REPRODUCED),
    (f"{OF}.first_quarter.who", 0.4, "P7a", claims.NOT_MEASURED),
    ("ablation.no_sink.overlapped.who", 0.97, "P6", claims.PARTLY),
    ("asked.clip.overlapped.chosen.accuracy", 0.4, "P4", claims.NOT_REPRODUCED),
    ("asked.streaming.overlapped.free.accuracy", 0.5, "P5", claims.PARTLY),
    ("ablation.full.overlapped.score", 0.9, "P11", claims.NOT_REPRODUCED), ("ablation.overlap.overlapped.who", 1.0, "P13", claims.PARTLY),
    ("ablation.no_vision.overlapped.event_f1", 0.97, "P15", claims.PARTLY),
    ("ablation.no_vision.overlapped.score", 0.9, "P15", claims.NOT_REPRODUCED),
    ("ablation.long_vision.overlapped.event_f1", 0.9, "P15", claims.PARTLY),
    ("ablation.growing.overlapped.who", 0.97, "P6", claims.PARTLY),
    ("ablation.overlap.overlapped.score", 0.99, "P6", claims.PARTLY),
    (f"{OF}.who", 0.3, "P6", claims.NOT_MEASURED),
    ("ablation.streaming.tiled.last_quarter.who", 0.96, "P7b", claims.PARTLY),
    ("ablation.window.overlapped.score", 0.93, "P9", claims.PARTLY),
    ("turns.overlap.chunk_ms_p50", 45.0, "P9", claims.PARTLY),
    ("conformance.chunks_agreeing", 215, "P0", "not reproduced (token for token, tiny weights)"),
    ("conformance.hidden_difference", 1e-3, "P0", "partly reproduced (token for token, tiny weights)"),
    ("conformance.runs", 1, "P0", claims.NOT_MEASURED),
    ("rerun.same", 19, "P0R", "not reproduced (byte for byte, one machine)"),
    ("hours.kv_ratio", 2.0, "P1H", claims.NOT_REPRODUCED),
    ("real_lm.no_sink_over_sink", 1.0, "P6R", claims.NOT_REPRODUCED),
    ("real_eyes.whole_map50", 0.4, "A4R", claims.NOT_REPRODUCED),
    ("real_eyes.tiled_frames", 4, "A4R", claims.NOT_MEASURED),
    ("real_lm.logits_difference", 0.5, "P6R", claims.NOT_MEASURED),
    ("compress.int8.event_accuracy", 0.90, "A9", claims.PARTLY),
    ("compress.float32.event_accuracy", 0.40, "A9", claims.NOT_REPRODUCED),
    ("stream.minutes", 2.0, "P1", claims.NOT_MEASURED),
    ("stream.minutes", 2.0, "P7b", claims.NOT_MEASURED),
])
def test_a_broken_value_changes_the_verdict_and_is_named(metric, value, claim, verdict):
    row = rows({**GOOD, metric: value})[claim]
    assert row["verdict"] == verdict
    assert "failed" in row["why"] or "too small" in row["why"]


def test_all_of_full_attentions_failings_absent_is_not_reproduced():
    fine = {"stream.full.latency_ratio_last_first": 1.0, "stream.full.cost_exponent": 1.0,
            **dict.fromkeys(("ablation.full.overlapped.first_quarter.who", "ablation.full.overlapped.last_quarter.who"), 0.95)}
    assert rows({**GOOD, **fine})["P8"]["verdict"] == claims.NOT_REPRODUCED


def test_flat_at_nothing_is_not_stable_quality():
    flat = dict.fromkeys((f"{OF}.first_quarter.who", f"{OF}.last_quarter.who"), 0.0)
    assert rows({**GOOD, **flat})["P7a"]["verdict"] == claims.NOT_MEASURED


def test_overlap_that_seeds_cannot_tell_is_not_reproduced_and_sft_is_held_against_its_last_quarter():
    """Seeds whose mean is for overlap and whose interval is not, and a run in which the last quarter is better without overlap and without SFT."""
    contrary = {f"{OF}.last_quarter.score": 0.53, "ablation.streaming.tiled.last_quarter.score": 0.72,
                "ablation.streaming.base.last_quarter.score": 0.69, "ablation.streaming.tiled.last_quarter.who": 0.96}
    seeds = [{f"{OF}.score": ours, "ablation.streaming.tiled.score": tiled, "ablation.streaming.base.score": base}
             for ours, tiled, base in ((0.95, 0.80, 0.50), (0.85, 0.90, 0.60), (0.90, 0.80, 0.40), (0.88, 0.85, 0.70), (0.87, 0.86, 0.60))]
    ledger = rows({**GOOD, **contrary}, {"seeds": seeds, "hours": REPEATS["hours"]})
    assert ledger["P7b"]["verdict"] == claims.NOT_REPRODUCED and "3 of 3 checks failed" in ledger["P7b"]["why"]
    decisive = next(one for one in ledger["P7b"]["numbers"] if one["decisive"])
    assert decisive["spread"]["n"] == 5 and decisive["value"] > 0 > decisive["value"] - decisive["spread"]["half_width"]
    assert decisive["holds"] is False, "above zero on average is not above zero"
    assert ledger["P7a"]["verdict"] == claims.PARTLY and "0.53, without SFT 0.69" in ledger["P7a"]["why"]
    assert next(one for one in ledger["P7a"]["numbers"] if one["decisive"])["holds"], "SFT itself: beyond its interval"


def test_overlap_that_helps_in_every_seed_and_quarter_is_reproduced():
    assert rows(GOOD)["P7b"]["verdict"] == claims.REPRODUCED
    one = {"seeds": REPEATS["seeds"][:1], "hours": []}
    assert rows(GOOD, one)["P7b"]["verdict"] == claims.NOT_MEASURED, "one seed has no interval"


@pytest.mark.parametrize(("times", "noise", "grey"), [
    (30.0, 1.25, True), (30.0, 1.15, False), (20.0, 1.26, True), (20.0, 1.2, False), (30.0, None, False)])
def test_a_ratio_of_times_within_the_noise_is_grey(times, noise, grey):
    row = rows({**GOOD, "compress.int8.chunk_ms_p50": times, "timings.noise": noise})["A9"]
    one = numbers(row)["ms per chunk, int8 over float32"]
    assert one["noise"] is grey and ("within this machine's noise" in claims.said(one)) is grey
    assert not any(one["noise"] for name, one in numbers(row).items() if "ms per chunk" not in name), "bytes have no noise"


def test_a_check_does_not_hold_by_a_ratio_within_the_noise():
    row = rows({**GOOD, "timings.noise": 4.0})["P9"]
    assert row["verdict"] == claims.PARTLY and "within this machine's noise" in row["why"]


def test_numbers_are_said_with_both_sides():
    said = claims.said(numbers(rows(GOOD, {})["P6"])["right names without the sink minus with it"])
    assert said == "right names without the sink: 0.40, with it 0.97"
    assert claims.said(next(one for one in rows(GOOD)["P0"]["numbers"] if one["decisive"])).endswith("token and position: 216 of 216")
    plain = {1: "1.00", 0: "0.00", 0.00617: "0.01", 0.0042: "0.004", 0.9958: "0.996", 1.04: "1.04", 40925: "40,925"}
    assert {value: claims._plain(value) for value in plain} == plain


@pytest.mark.parametrize(("check", "wanted"), [
    ({"at_least": 0.9}, "at least 0.9"), ({"at_least": 0.75, "at_most": 1.33}, "0.75 to 1.33"),
    ({"minus": "b", "at_most": -0.1}, "lower by 0.1 or more"),
    ({"minus": "b", "at_least": -0.02}, "at most 0.02 lower"), ({"minus": "b", "at_least": 0.05}, "higher by 0.05 or more"),
    ({"minus": "b", "at_least": 0.0, "among": "seeds"}, "higher, by the whole interval"),
    ({"over": "b", "at_least": 2}, "at least 2 times"), ({}, None)])
def test_a_rule_in_words(check, wanted):
    assert claims._wanted(check) == wanted


def test_one_point_of_loss_is_within_one_point():
    assert 0.94 - 0.95 < -0.01    # the float that would have failed
    assert "failed" not in rows(GOOD)["A9"]["why"]


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, "1.0", True])
@pytest.mark.parametrize(("metric", "claim"), [
    ("stream.streaming.latency_ratio_last_first", "P1"), ("stream.minutes", "P7a"), ("ablation.full.overlapped.last_quarter.who", "P8"),
    ("compress.float32.bytes", "A9")])
def test_a_missing_number_is_not_measured(metric, claim, nothing):
    row = rows({**GOOD, metric: nothing})[claim]
    assert row["verdict"] == claims.NOT_MEASURED and "no number for" in row["why"]
    assert rows({key: value for key, value in GOOD.items() if key != metric})[claim]["verdict"] == claims.NOT_MEASURED


def test_the_tiny_models_speed_is_an_aside():
    fast = rows({**GOOD, "stream.streaming.times_real_time": 1000.0})["P2"]
    assert fast["verdict"].startswith("needs ") and "tiny model only" in fast["measured"] and "1,000" in fast["measured"]


def test_context_of_one_claim():
    ledger = {row["id"]: row for row in claims.ledger(GOOD, {**CONTEXT, "A9": {"data": "held-out matches"}}, REPEATS)}
    assert ledger["A9"]["data"] == "held-out matches" and ledger["P1"]["data"] == "arena" and ledger["A1"]["data"] is None


@pytest.mark.parametrize("measured", [GOOD, {}])
def test_the_ledger_as_text_has_a_head_of_a_line_a_claim(measured):
    text = ledger_text.to_markdown(claims.ledger(measured, {**CONTEXT, "model": "tiny | odd\nname"}, REPEATS if measured else {}))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}
    assert [line.split("|")[1].strip() for line in table if re.match(r"\| [PA]\d", line)] == IDS
    assert max(map(len, table)) < 330, "a line to read, not a cell of 900 characters"
    assert [line.split()[1] for line in text.splitlines() if line.startswith("### ")] == IDS
    assert ("Nothing was measured" in text) == (not measured)
    for about in claims.claims()["sources"].values():
        assert about["title"] in text and about["about"] in text


def test_the_papers_claims_are_counted_apart_from_ours_and_from_the_second_document():
    text = ledger_text.to_markdown(claims.ledger(GOOD, CONTEXT, REPEATS))
    paper, second = text.split("\n## ")[1:3]
    assert "13 reproduced, 1 partly reproduced, 3 need what isn't here." in paper and "16" not in paper.partition("| |")[0]
    assert "1 partly reproduced, 14 not measured, 1 need what isn't here." in second


def test_written_whole_and_the_same_twice(tmp_path):
    ledger = claims.ledger(GOOD, CONTEXT, REPEATS)
    ledger_text.write(ledger, tmp_path / "new")
    first = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    ledger_text.write(claims.ledger(GOOD, CONTEXT, REPEATS), tmp_path / "new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == first
    assert set(first) == {"claims.md", "claims.json"} and json.loads(first["claims.json"]) == ledger


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Can't write"):
        ledger_text.write(claims.ledger({}, {}), tmp_path / "file")


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
