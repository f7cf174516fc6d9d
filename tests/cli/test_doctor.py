"""The doctor's lines on what is broken: made-up clones in which one thing is wrong each. Whatever is wrong, there is a line and no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import preloaded
import psutil
import pytest
from video_files import make

from streamingvlm.cli import doctor, main

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"(ok|note|problem) +(\S+) +(\S.*)")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    (folder / "params.yaml").write_text("run: {threads: 1}\n")
    (folder / "requirements.txt").write_text("# the lock\nnumpy\npip>=1\nnosuch==1 ; python_version < '3'\n")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (folder / "data").mkdir()
    make(folder / "data" / "clip.mp4", 30)
    (folder / "data.dvc").write_text("outs:\n- path: data\n  cache: false\n  hash: md5\n")
    subprocess.run([preloaded.python(), "-m", "dvc", "commit", "--force", "--quiet", "data.dvc"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def clone(template, tmp_path, monkeypatch) -> Path:
    """A folder like a clone: params, lock, data as DVC describes it. The command runs inside."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def states(found: Iterable[tuple[str, str]]) -> list[str]:
    return [state for state, _ in found]


def only(found: Iterable[tuple[str, str]], state: str) -> str:
    """The text of the one line found, which must be in that state."""
    [(is_, text)] = found
    assert is_ == state
    return text


@pytest.fixture
def roomy(monkeypatch) -> None:
    """Memory and disk enough, whatever this machine has left just now."""
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: doctor.shutil._ntuple_diskusage(10**12, 0, 10**12))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**11}))


def test_a_sound_clone_has_no_problem(clone, roomy, capsys):
    status = main.main(["doctor"])
    *lines, last = capsys.readouterr().out.splitlines()
    rows = [LINE.fullmatch(line).groups() for line in lines]
    assert last == "no problems" and status == 0 and {row[0] for row in rows} <= {"ok", "note"}
    assert [name for name, _ in (*doctor.EVERYWHERE, *doctor.IN_A_CLONE)] == list(dict.fromkeys(row[1] for row in rows))
    assert "make repro" in next(text for _, name, text in rows if name == "model")


def test_json_tells_the_same(clone, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda root: iter([doctor.Line("a", "ok", "fine"), doctor.Line("b", "note", "so so")]))
    assert main.main(["doctor", "--json"]) == 0
    checks = [{"name": "a", "state": "ok", "text": "fine"}, {"name": "b", "state": "note", "text": "so so"}]
    assert json.loads(capsys.readouterr().out) == {"ok": True, "checks": checks}


def test_packages_are_held_against_the_lock(clone):
    assert "all 2" in only(doctor.packages(clone), "ok")
    (clone / "requirements.txt").write_text("numpy==0.0.1\nno-such-package==1.0\n")
    (missing, first), (other, second) = doctor.packages(clone)
    assert (missing, other) == ("problem", "note") and "no-such-package" in first and "numpy" in second and "instead of 0.0.1" in second


def test_a_changed_data_file_is_a_problem(clone):
    only(doctor.data(clone), "ok")
    (clone / "data" / "clip.mp4").write_bytes(b"another")
    before = (clone / "data.dvc").read_bytes()
    assert "git checkout data" in only(doctor.data(clone), "problem") and (clone / "data.dvc").read_bytes() == before


def test_data_that_cannot_be_checked_is_said_to_be_unchecked(clone):
    (clone / "data.dvc").write_text("outs: [")
    assert "not checked" in only(doctor.data(clone), "note")


def test_a_broken_video_is_a_problem(clone):
    assert "1 can be read" in only(doctor.videos(clone), "ok")
    (clone / "data" / "clip.mp4").write_bytes((clone / "data" / "clip.mp4").read_bytes()[:500])
    assert "clip.mp4" in only(doctor.videos(clone), "problem")
    assert states(doctor.decoders(clone))[0] == "problem"


def test_a_model_that_does_not_load_is_a_problem(clone, vlm, capsys, monkeypatch):
    assert "make repro" in only(doctor.model(clone), "note")
    vlm.save(clone / "artifacts" / "sft" / "model")
    assert "million parameters" in only(doctor.model(clone), "ok")
    (clone / "artifacts" / "sft" / "model" / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(doctor, "IN_A_CLONE", [("model", doctor.model)])
    assert main.main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"] and [row["name"] for row in told["checks"] if row["state"] == "problem"] == ["model"]


def test_too_little_room_and_too_many_threads(clone, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: doctor.shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    assert "free some room" in only(doctor.disk(clone), "problem")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**6}))
    assert "close other programs" in only(doctor.memory(), "problem")
    (clone / "params.yaml").write_text("run: {threads: 4096}\n")
    assert "set it to" in only(doctor.cpu(), "note")
    monkeypatch.setenv("WANDB_MODE", "onlin")
    assert "`onlin`" in only(doctor.tracking(), "note")


def test_whatever_breaks_in_a_check_is_a_line(clone, monkeypatch):
    (clone / "params.yaml").write_text("run: {threads: many}\n")
    [line] = doctor._guarded("CPU", doctor.cpu)
    assert line.state == "problem" and "run.threads" in line.text
    (clone / "requirements.txt").unlink()
    assert [line.state for line in doctor._guarded("packages", lambda: doctor.packages(clone))] == ["problem"]
    assert "broke off (FileNotFoundError" in next(doctor._guarded("packages", lambda: doctor.packages(clone))).text


def test_outside_a_clone_it_says_so(tmp_path, roomy, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["doctor"]) == 0
    assert "in no clone of the workbench, so packages, disk, data, videos, decoders, model were not looked at" in capsys.readouterr().out


@pytest.mark.parametrize(("package", "error"), [("torch", "OSError('libtorch.so: no such file')"), ("numpy", "ImportError('no numpy')")])
def test_it_works_where_a_package_is_broken(clone, package, error):
    (clone / "broken" / package).mkdir(parents=True)
    (clone / "broken" / package / "__init__.py").write_text(f"raise {error}\n")
    ran = subprocess.run([sys.executable, "-m", "streamingvlm.cli", "doctor"], cwd=clone, capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": f"{clone / 'broken'}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"})
    rows = [LINE.fullmatch(line).groups() for line in ran.stdout.splitlines()[:-1]]
    assert not ran.stderr and "Traceback" not in ran.stdout
    assert {name for _, name, _ in rows} == {name for name, _ in (*doctor.EVERYWHERE, *doctor.IN_A_CLONE)}
    assert ran.returncode == 1 and ("problem", "torch") in {row[:2] for row in rows}
