"""What a question costs, at its smallest: it runs, and every way of asking has its row."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import ask
import common


def test_every_way_of_asking_has_its_ratio(capsys, monkeypatch):
    monkeypatch.setattr(common, "machine", lambda *_: {"matmul_side": 1024, "matmul_float32_gflops": 100.0, "copy_gb_s": 20.0})
    ask.main(["--config", "tiny", "--device", "cpu", "--threads", "1", "--px", "56", "84", "--rounds", "2", "--sink", "4", "--window", "4",
              "--tokens", "3", "--answer", "3", "--again", "2", "--chunks", "5"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["asked"] for row in line["asks"]] == ["free", "options", "2 s again"]
    assert all(0 < row["ttft_ratio"] < row["ratio"] and row["ms"] > 0 for row in line["asks"]) and line["chunk_ms"] > 0
