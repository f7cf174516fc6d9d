"""The container is described as the workbench is: what is copied exists, Python and packages are those of the lock, make finds its stamp."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def stages() -> dict[str, list[list[str]]]:
    """Name -> its instructions as words, those of the stage it is built on first; continued lines joined, comments left out."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    found: dict[str, list[list[str]]] = {"": []}
    name = ""
    for line in filter(str.strip, text.replace("\\\n", " ").splitlines()):
        words = [line.split(maxsplit=1)[0], *shlex.split(line)[1:]]
        if words[0] == "FROM":
            name = words[3]
            found[name] = [["FROM", words[1]], *found.get(words[1], [])]
        found[name].append(words)
    return found


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_installs_the_lock_and_then_the_workbench_as_make_does(target):
    words = stages()[target]
    runs = [" ".join(one[1:]) for one in words if one[0] == "RUN"]
    [packages] = [i for i, run in enumerate(runs) if "-r requirements.txt" in run]
    [itself] = [i for i, run in enumerate(runs) if re.search(r"--no-deps --no-build-isolation -e \.", run)]
    assert packages < itself and runs[itself].endswith("touch .venv/.installed")
    makefile = (ROOT / "Makefile").read_text()
    assert "VENV := .venv" in makefile and "STAMP := $(VENV)/.installed" in makefile
    assert "ENV PATH=/workbench/.venv/bin:$PATH" in " ".join(" ".join(one) for one in words)
    assert any("git make" in run for run in runs) and [one[1] for one in words if one[0] == "USER"] == ["1000:1000"]
    order = [one[0] for one in words]
    assert order.index("USER") < order.index("COPY"), "nothing is installed as root but Debian's packages"


def test_only_the_cpu_target_takes_the_index_without_cuda():
    indexes = {target: ["download.pytorch.org/whl/cpu" in " ".join(one) for one in stages()[target] if one[0] == "ENV"] for target in ("cpu", "cuda")}
    assert any(indexes["cpu"]) and not any(indexes["cuda"])
    assert "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu" in (ROOT / "README.md").read_text()


def test_python_is_the_one_of_the_other_environments():
    base = next(words[1] for words in stages()[""] if words[0] == "ARG")
    version = re.fullmatch(r"BASE=python:(\d+\.\d+)-slim-\w+", base)[1]
    assert f"python={version}\n" in (ROOT / "environment.yml").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == f">={version}"
    assert f"--python-version {version} " in (ROOT / "requirements.txt").read_text()


def test_what_is_copied_exists_and_what_is_ignored_is_in_no_commit():
    copied = {word for words in (w for stage in stages().values() for w in stage) if words[0] == "COPY" for word in words[1:-1] if word[:2] != "--"}
    assert copied and all((ROOT / source).exists() for source in copied)
    ignored = [line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    folders = [name for name in ignored if not set(name) & set("*?")]
    assert not [path for path in tracked for name in folders if path == name or path.startswith(f"{name}/")]
    assert ".git" not in ignored, "numbers name the revision that made them"
    assert "reports/*" in ignored and "!reports/reference" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_devcontainer_names_a_target_that_exists():
    folder = ROOT / ".devcontainer"
    told = json.loads((folder / "devcontainer.json").read_text())
    assert told["build"]["target"] == "cpu" and (folder / told["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (folder / told["build"]["context"]).resolve() == ROOT
    assert ["EXPOSE", str(told["forwardPorts"][0])] in stages()["cpu"]
    assert told["workspaceFolder"] == next(words[1] for words in stages()["base"] if words[0] == "WORKDIR")
    user = told["remoteUser"]
    assert any(words[0] == "RUN" and "useradd" in words and user in words for words in stages()["base"])
