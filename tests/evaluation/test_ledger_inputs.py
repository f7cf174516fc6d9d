"""From commentaries on disk to the ablation table, and what the several-seeds table makes of it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import ablation

from streamingvlm.base import config, timing
from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import claims, ledger_inputs, runs
from streamingvlm.worlds.match import game, scoring

MATCH = game.Match(4, 120, True)
REFERENCE = repository_root(Path(__file__).parent) / "reports" / "reference"
ROW = MATCH.row("long", "long.mp4") | {"split": "long"}


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "kv_tokens": 40 + k}) + "\n" for k, text in enumerate(texts)))


@pytest.fixture
def watched(tmp_path):
    said = [" ".join(second.words) for second in MATCH.timeline]
    write(tmp_path / "overlapped/long.streaming.jsonl", said)
    write(tmp_path / "overlapped/long.no_text.jsonl", [text.replace(" 1 - ", " 4 - ") for text in said])
    write(tmp_path / "base/long.streaming.jsonl", said[:60] + [""] * 60)
    write(tmp_path / "overlapped/clip.streaming.jsonl", [""])
    return ledger_inputs.commentaries(tmp_path, "long")


def test_the_table_has_a_row_for_each_policy_and_student_the_published_one_first(watched):
    assert next(iter(watched)) == ("streaming", "overlapped") and set(watched) == {
        ("streaming", "overlapped"), ("no_text", "overlapped"), ("streaming", "base")}
    table = ledger_inputs.ablation(watched, scoring.truth_of(ROW), 1.0)
    right, forgot, silent = table["streaming"]["overlapped"], table["no_text"]["overlapped"], table["streaming"]["base"]
    assert right["event_f1"] == right["who"] == right["score"] == right["last_quarter"]["who"] == 1 and right["kv_tokens"] == 159
    assert forgot["event_f1"] == forgot["who"] == 1 and forgot["score"] < 0.8
    assert silent["first_quarter"]["event_f1"] == 1 and silent["last_quarter"]["event_f1"] == 0


def test_the_ledger_reads_every_number_of_the_table_by_its_name(watched):
    numbers = {"ablation": ledger_inputs.ablation(watched, scoring.truth_of(ROW), 1.0), "compress": {"int8": {"bytes": 5}}}
    cfg = SimpleNamespace(video=config.Video(), cache=config.Retention())
    flat = ledger_inputs.measured(numbers, [], [{"variant": "int8", "chunk_ms_p50": 2.0}], cfg)
    assert flat["ablation.streaming.overlapped.who"] == 1 and flat["ablation.streaming.base.last_quarter.event_f1"] == 0
    assert flat["compress.int8.bytes"] == 5 and flat["compress.int8.chunk_ms_p50"] == 2.0
    assert not any(isinstance(value, dict) for value in flat.values())


def test_every_stream_is_watched_as_asked_and_the_controls_watch_the_long_match_only():
    rows = [{"id": "long", "split": "long"}, {"id": "clip", "split": "clip"}]
    jobs = runs.jobs(rows, config.Stream(policies=["streaming", "full"], ablations=["no_sink"], controls=["streaming"]))
    assert [(student, row["id"], name) for student, row, name in jobs] == [
        ("overlapped", "long", "streaming"), ("overlapped", "long", "full"), ("overlapped", "clip", "streaming"), ("overlapped", "clip", "full"),
        ("overlapped", "long", "no_sink"), ("tiled", "long", "streaming"), ("base", "long", "streaming")]


def test_an_interval_is_students_t_over_seeds():
    assert claims.interval([0.5]) == {"mean": 0.5, "half_width": None}
    found = claims.interval([0.8, 0.9, 1.0])
    assert found["mean"] == 0.9 and found["half_width"] == pytest.approx(4.303 * 0.1 / math.sqrt(3), abs=1e-4)


def test_seeds_are_put_together_by_policy_and_student(watched):
    table = ledger_inputs.ablation(watched, scoring.truth_of(ROW), 1.0)
    rows = [{"seed": seed, "policy": "streaming", "student": name, **table["streaming"][name]} for seed in (1, 2) for name in ("overlapped", "base")]
    whole, silent = ablation.summary(rows)
    assert whole["who"] == {"mean": 1.0, "half_width": 0.0} and whole["student"] == "overlapped"
    assert silent["event_f1_last_minus_first"]["mean"] == -1 and "+-" in ablation.readable(silent)["event_f1"]


def test_the_seeds_are_one_flat_row_each_and_the_ledger_takes_differences_within_them(tmp_path):
    assert ledger_inputs.repeats(tmp_path) == {"seeds": [], "hours": []}
    rows = [{"seed": seed, "policy": policy, "student": "overlapped", "who": who + seed / 10, "last_quarter": {"who": None}}
            for seed in (0, 1) for policy, who in (("streaming", 0.9), ("no_sink", 0.1))]
    (tmp_path / "ablation_seeds.json").write_text(json.dumps({"rows": rows}))
    found = ledger_inputs.repeats(tmp_path)
    assert len(found["seeds"]) == 2 and found["seeds"][1]["ablation.no_sink.overlapped.who"] == 0.2
    row = next(row for row in claims.ledger({"ablation.no_sink.overlapped.who": 0.1, "ablation.streaming.overlapped.who": 0.9}, {}, found)
               if row["id"] == "P6")
    spread = {one["label"]: one["spread"] for one in row["numbers"] if one["spread"]}
    assert spread == {"right names": {"mean": 0.95, "half_width": 0.6353, "n": 2, "of": "seeds"},
                      "right names without the sink": {"mean": -0.8, "half_width": 0.0, "n": 2, "of": "seeds"}}
    assert "0.10, with it 0.90 (2 seeds: difference -0.800 ± 0.000)" in row["measured"] and row["verdict"] == claims.NOT_MEASURED


def test_a_median_per_policy_and_student_without_what_is_set_up_once():
    lines = timed("base", [1, 2, 9], "full")
    found = ledger_inputs.chunk_ms(lines, [{"variant": "int8", "chunk_ms_p50": 3.5}])
    assert found == {"ablation": {"full": {"base": {"chunk_ms_p50": 2.0}}}, "compress": {"int8": {"chunk_ms_p50": 3.5}}, "noise": None}


def test_what_other_commands_measured_comes_with_where_it_ran(tmp_path):
    assert ledger_inputs.apart(tmp_path) == ({}, {})
    found = {"dense_ppl": 20.5, "tokens": 4096, "text": "novel.txt", "dtype": "float32", "model": "small.gguf", "hardware": {"text": "two cores"}}
    (tmp_path / "real_lm.json").write_text(json.dumps(found))
    replayed = {"runs": 8, "chunks": 216, "dirty": True, "date": "2026-11-28", "command": "make conformance", "model": "formulas",
                "data": "eight runs", "hardware": {"text": "two cores"}}
    (tmp_path / "conformance.json").write_text(json.dumps(replayed))
    numbers, where = ledger_inputs.apart(tmp_path)
    assert numbers == {"real_lm.dense_ppl": 20.5, "real_lm.tokens": 4096, "conformance.runs": 8, "conformance.chunks": 216}
    assert where["P6R"]["command"] == "make real-lm" and where["P6R"]["data"] == "novel.txt, 4,096 tokens"
    assert where["P0"] == {"date": "2026-11-28", "hardware": "two cores", "dtype": "float32", "model": "formulas", "data": "eight runs",
                           "command": "make conformance"}


def test_what_the_benches_of_cameras_and_of_seeds_left_is_read_by_name(tmp_path):
    rows = [{"part": "trm", "what": "57m", "parameters": 7, "variant": "int8", "streams": 8, "ms": 50.0, "cpu_ms": 48.0}]
    (tmp_path / "cameras.json").write_text(json.dumps({"rows": rows}))
    assert ledger_inputs.apart(tmp_path)[0]["cameras.trm.57m.int8.8.cpu_ms"] == 48.0
    hidden = {"date": "2026-11-29", "command": "python -m bench.privacy", "hardware": {"text": "two cores"}, "access": {"tried": 800, "served": 0},
              "city": {"service": {"visible": 0.0002}}}
    (tmp_path / "privacy.json").write_text(json.dumps(hidden))
    (tmp_path / "profiles.json").write_text(json.dumps({"rows": [{"profile": "edge", "slower": 4, "streams": 14}]}))
    told, where = ledger_inputs.apart(tmp_path)
    assert told["privacy.access.served"] == 0 and told["privacy.city.service.visible"] == 0.0002 and told["profiles.edge.4.streams"] == 14
    assert where["A16"]["command"] == "python -m bench.privacy" and where["A16"]["model"]
    (tmp_path / "ablation_seeds.json").write_text(json.dumps({"rows": [{"seed": 1, "policy": "streaming", "student": "base", "who": 0.5}]}))
    (tmp_path / "city_seeds.json").write_text(json.dumps({"rows": [{"seed": 1, "variant": "model", "f1.clone": 0.7, "by_city": {}}]}))
    assert ledger_inputs.repeats(tmp_path)["seeds"] == [{"ablation.streaming.base.who": 0.5, "city.model.f1.clone": 0.7}]


def test_the_published_files_give_the_ledger_its_seeds_and_its_conformance(tmp_path):
    numbers, where = ledger_inputs.apart(REFERENCE)
    assert numbers["conformance.chunks_agreeing"] == numbers["conformance.chunks"] > 200 and numbers["conformance.runs"] == 8
    assert {"P0", "P6R", "A4R"} <= where.keys() and numbers["real_eyes.tiled_map50"] > numbers["real_eyes.whole_map50"] > 0.6
    assert len(ledger_inputs.repeats(REFERENCE)["seeds"]) == 5
    for name in ("hours", "seeds"):  # of the base before: whatever base, this is how hours are read
        (tmp_path / f"ablation_{name}.json").write_bytes((REFERENCE / f"ablation_{name}_old_base.json").read_bytes())
    numbers, where = ledger_inputs.apart(tmp_path)
    assert numbers["hours.minutes"] == 120 and 0.95 < numbers["hours.kv_ratio"] < 1.05 and numbers["hours.kv_tokens_max"] < 1000
    assert "P1H" in where and len(ledger_inputs.repeats(tmp_path)["hours"]) == 3


def timed(student: str, ms: list[float], policy: str = "streaming") -> list[dict]:
    warm = [900.0] * timing.WARM_CHUNKS
    return [{"policy": policy, "student": student, "pass": "in turns", "chunk": k, "ms": {"total": one}} for k, one in enumerate(warm + ms)]


def test_the_noise_is_how_far_equal_models_are_apart_over_the_chunks_they_share():
    lines = timed("overlapped", [10, 10, 10]) + timed("tiled", [12, 12, 12, 90, 90, 90, 90]) + timed("base", [11, 11, 11])
    assert ledger_inputs.noise(lines) == 1.2
    assert ledger_inputs.noise(lines + timed("base", [99, 99, 99], "full")) == 1.2, "another cache is another cost"
    assert ledger_inputs.noise(timed("overlapped", [10, 10])) is None and ledger_inputs.noise([]) is None
    assert ledger_inputs.noise(lines + [line | {"pass": "alone", "ms": {"total": 99}} for line in timed("base", [1])]) == 1.2, "not in turns"
    assert ledger_inputs.chunk_ms(lines, [])["noise"] == 1.2


def test_only_numbers_beyond_tolerance_are_said_to_have_moved(tmp_path):
    published = {"ablation": {"streaming": {"who": 0.97, "score": None}}, "compress": {"int8": {"bytes": 1_000_000}}}
    assert ledger_inputs.moved(published, published) == []
    near = {"ablation": {"streaming": {"who": 0.955, "score": None}}, "compress": {"int8": {"bytes": 1_015_000}}}
    assert ledger_inputs.moved(near, published) == []
    far = {"ablation": {"streaming": {"who": 0.94, "score": 0.5}}, "compress": {"int8": {"bytes": 1_030_000, "zeros": 0.0}}}
    assert [line.partition(" ")[0].strip(":") for line in ledger_inputs.moved(far, published)] == [
        "ablation.streaming.score", "ablation.streaming.who", "compress.int8.bytes", "compress.int8.zeros"]
    assert "nothing to compare" in ledger_inputs.compare(tmp_path)
    for folder in ("reports", "reports/reference"):
        write_numbers(tmp_path / folder / "metrics.json", published)
    assert "All numbers are within" in ledger_inputs.compare(tmp_path)
    write_numbers(tmp_path / "reports/metrics.json", far)
    assert ledger_inputs.compare(tmp_path).startswith("4 numbers moved")


def write_numbers(path: Path, numbers: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers))
