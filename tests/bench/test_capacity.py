"""The bench of capacity on run times that are given: it counts streams, draws its curve and says where it was run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import capacity


def test_it_counts_the_streams_of_a_known_machine(tmp_path):
    known = {"model": {"cpu_ms": {"1": [10.0], "8": [80.0]}, "wall_ms": {"1": [10.0], "8": [80.0]}}}
    (tmp_path / "known.json").write_text(json.dumps({"measured": known}))
    line = capacity.main(["--measured", str(tmp_path / "known.json"), "--budget-ms", "120", "--seconds", "10", "--most", "16", "--no-quality",
                          "--save", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == line and line.keys() >= {"hardware", "versions", "git", "params_hash"}
    [row] = line["capacity"]
    assert 6 <= row["streams"] <= 12 and row["p99_ms"] <= 120, "10 ms a frame, 8 frames a second and stream"
    assert [one["streams"] for one in line["curve"]] == [1, 2, 3, 4, 6, 8, 12, 16] and line["quality"] == []
