"""The bench of many streams: its sharing of cores against schedules drawn by hand, and its table of times that are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import common
import streams


def test_two_kinds_share_one_core_and_have_one_each_of_two():
    jobs = {"frame": [(0.0, 10.0), (100.0, 10.0)], "sentence": [(0.0, 30.0)]}
    late = streams.shared(jobs, 1)  # half a core each until 20, then the sentence alone until 40
    assert late["frame"] == pytest.approx([20.0, 10.0]) and late["sentence"] == pytest.approx([40.0])
    late = streams.shared(jobs, 2)
    assert late["frame"] == pytest.approx([10.0, 10.0]) and late["sentence"] == pytest.approx([30.0])


def test_a_kind_that_is_slower_than_its_clock_falls_behind_for_good():
    late = streams.shared({"frame": [(k * 10.0, 15.0) for k in range(20)], "sentence": []}, 2)["frame"]
    assert late == pytest.approx([15.0 + 5 * k for k in range(20)])


def test_the_table_of_a_known_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "machine", lambda *_: {"matmul_side": 1024, "matmul_float32_gflops": 100.0, "copy_gb_s": 20.0})
    known = {"frame": {"1": [10.0], "8": [130.0]}, "sentence": {"1": [40.0], "8": [200.0]}, "mid": {"1": [500.0], "8": [2000.0]}}
    (tmp_path / "known.json").write_text(json.dumps({"measured_cpu_ms": known}))
    line = streams.main(["--measured", str(tmp_path / "known.json"), "--save", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text())["at_once"] == line["at_once"]
    assert {(row["cores"], row["streams"]): row["fits"] for row in line["at_once"]} == {(1, 1): True, (1, 8): False, (2, 1): True, (2, 8): False}
    assert [(row["engine"], row["streams"], row["a_second"]) for row in line["alone"]][-1] == ("mid", 8, 4.0)
