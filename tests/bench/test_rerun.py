"""Two runs by their locks: what differs is named, and runs of different code are not compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import rerun

LOCK = """
stages:
  first:
    params: {{params.yaml: {{seed: {seed}}}}}
    deps: [{{path: code.py, md5: aaa}}]
    outs: [{{path: out, md5: {out}}}]
  second:
    deps: [{{path: out, md5: {out}}}]
    outs: [{{path: said, md5: ccc}}, {{path: reports/timings.json, md5: {timed}}}]
"""


def write(path: Path, seed: int = 0, out: str = "bbb", timed: str = "t") -> str:
    path.write_text(LOCK.format(seed=seed, out=out, timed=timed))
    return str(path)


def test_the_same_bytes_but_for_timings(tmp_path, capsys):
    save = tmp_path / "rerun.json"
    assert rerun.main([write(tmp_path / "a.lock"), write(tmp_path / "b.lock", timed="u"), "--save", str(save)]) == 0
    assert "2 of 2 outputs have the same bytes" in capsys.readouterr().out
    found = json.loads(save.read_text())
    assert (found["outputs"], found["same"], found["differ"]) == (2, 2, []) and found["hardware"]["text"] and found["date"] and found["model"]


def test_what_differs_is_named(tmp_path, capsys):
    assert rerun.main([write(tmp_path / "a.lock"), write(tmp_path / "b.lock", out="xxx")]) == 1
    assert capsys.readouterr().out.splitlines() == ["1 of 2 outputs have the same bytes", "differs: out"]


def test_other_params_or_no_lock_is_a_sentence(tmp_path, capsys):
    first = write(tmp_path / "a.lock")
    assert rerun.main([first, write(tmp_path / "b.lock", seed=1)]) == 2 and "same commit" in capsys.readouterr().err
    (tmp_path / "c.lock").write_text("nothing")
    assert rerun.main([first, str(tmp_path / "c.lock")]) == 2 and "cannot be read" in capsys.readouterr().err
