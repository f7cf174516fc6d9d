"""The whole pipeline in miniature: every stage real, with small params, in a scratch copy of the repository. About two minutes."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import preloaded
import pytest
import yaml
from helpers import SMALL

from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import claims
from streamingvlm.workbench import stage_deps

ROOT = repository_root(Path(__file__).parent)
SOURCE = ROOT / "src" / "streamingvlm"
SHARED = ("subset", "sft", "compress", "stream", "many_streams", "live")  # stages whose work is spread over workers
OTHERS = ("tour", "evaluate", "inside_the_cache")  # and those upon which no such stage depends


class Scratch:
    """A copy of the tracked files, a git repository of its own, and an interpreter: another one has another order of sets."""

    def __init__(self, folder: Path, interpreter: str):
        self.folder, self.python = folder, preloaded.python(interpreter)
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / "params.yaml").write_text(SMALL)
        for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "scratch"]):
            self.git(*command)

    def run(self, *command: str, workers: str = "") -> str:
        path = f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PYTHONPATH": str(self.folder / "src"), "PATH": path, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1",
                            "STREAMINGVLM_WORKERS": workers}
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def git(self, *command: str) -> str:
        return self.run("git", *command)

    def repro(self, *more: str, workers: str = "") -> str:
        return self.run(self.python, "-m", "dvc", "repro", *more, workers=workers)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Scratch, Scratch]:
    """Two folders at the same time: the whole pipeline with a worker for every core, and what has work for many with one."""
    many, one = (Scratch(tmp_path_factory.mktemp(name), name) for name in preloaded.NAMES)
    for made in (many, one):
        (made.folder / "dvc.lock").unlink()  # it shall name no stage but those that run here
    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(lambda run: run(), (many.repro, lambda: one.repro(*SHARED, workers="1"))))
    return many, one


@pytest.fixture(scope="module")
def scratch(both) -> Scratch:
    both[0].git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "ran")
    return both[0]


def test_every_stage_leaves_what_it_promises(scratch):
    names = {path.relative_to(scratch.folder).as_posix() for top in ("artifacts", "reports") for path in (scratch.folder / top).rglob("*")}
    wanted = {"artifacts/subset/train.parquet", "artifacts/subset/eval.parquet", "artifacts/sft/model/model.safetensors",
              "artifacts/sft/history.jsonl", "artifacts/compress/mlp25_int8/compressed.safetensors",
              "artifacts/stream/overlapped/long.streaming.vtt", "artifacts/stream/overlapped/long.full.jsonl",
              "artifacts/stream/base/long.streaming.vtt",
              "artifacts/stream/overlapped/bigbuckbunny-loop.streaming.vtt", "artifacts/stream/overlapped/basketball.full.vtt",
              "reports/metrics.json", "reports/timings.json", "reports/timings/wall.json", "reports/claims.md",
              "reports/claims.json", "reports/timings/stream.jsonl", "reports/timings/latency.png", "reports/timings/latency.html",
              "reports/figures/quality.png", "reports/figures/quality.html", "reports/figures/filmstrip.png",
              "artifacts/city/rows.parquet", "artifacts/city-model/city.json", "reports/city/wall.mp4", "reports/timings/city.json",
              "artifacts/live/live.json", "reports/live/capacity.png", "reports/live/load.html", "reports/timings/live.json",
              "reports/inside/film.png", "reports/inside/attention.png", "reports/inside/player.html",
              "reports/inside/positions.png", "reports/inside/explorer.html", "artifacts/stream/questions.jsonl",
              *(f"reports/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))}
    assert wanted <= names, wanted - names
    assert not [name for name in names if name.endswith(".part")]


def test_the_contract_of_a_comment(scratch):
    lines = [json.loads(line) for line in (scratch.folder / "reports/timings/stream.jsonl").read_text().splitlines()]
    for which, policies in (("alone", {"streaming", "full"}), ("in turns", {"streaming", "full", "no_text"})):
        mine = [line for line in lines if line["pass"] == which and line["student"] == "overlapped"]
        assert {line["policy"] for line in mine} == policies
        assert all([line["chunk"] for line in mine if line["policy"] == name] == list(range(12)) for name in policies)
    assert {"stream", "chunk", "start_s", "end_s", "text", "tokens", "kv_tokens", "ms"} <= lines[0].keys()
    assert all(line["ms"]["total"] > 0 for line in lines)
    said = [json.loads(line) for line in (scratch.folder / "artifacts/stream/overlapped/long.streaming.jsonl").read_text().splitlines()]
    timed = [line["text"] for line in lines if line["pass"] == "alone" and line["policy"] == "streaming"]
    assert [line["text"] for line in said[:12]] == timed and len(said) == 24 and "ms" not in said[0], "in a group or alone, the same words"
    loop = (scratch.folder / "artifacts/stream/overlapped/bigbuckbunny-loop.full.jsonl").read_text().splitlines()
    assert [json.loads(line)["start_s"] for line in loop] == list(range(12))


def test_the_metrics_are_numbers_and_the_ledger_is_whole(scratch):
    numbers = json.loads((scratch.folder / "reports/metrics.json").read_text())
    assert set(numbers["compress"]) == {"float32", "pruned25", "mlp25_int8"}
    assert 0 <= numbers["ablation"]["streaming"]["overlapped"]["event_accuracy"] <= 1
    assert set(numbers["ablation"]["streaming"]) == {"overlapped", "tiled", "base"} and set(numbers["ablation"]["no_text"]) == {"overlapped"}
    timings = json.loads((scratch.folder / "reports/timings.json").read_text())
    assert {policy: set(students) for policy, students in timings["ablation"].items()} == {
        policy: set(students) for policy, students in numbers["ablation"].items()}
    assert set(timings["compress"]) == set(numbers["compress"])
    assert all(entry["chunk_ms_p50"] > 0 for students in timings["ablation"].values() for entry in students.values())
    ledger = json.loads((scratch.folder / "reports/claims.json").read_text())
    assert [row["id"] for row in ledger] == list(claims.claims()["claims"])
    assert next(row for row in ledger if row["id"] == "P1")["verdict"] == claims.NOT_MEASURED, "24 seconds prove nothing about endless streams"


def test_the_page_takes_the_run_for_its_own(scratch):
    """It refuses what is of another run; here all is of this one, however small."""
    assert scratch.run(scratch.python, "-m", "streamingvlm.reporting.report_page").endswith("The report: reports/index.html\n")
    page = (scratch.folder / "reports/index.html").read_text()
    assert all(f'id="claim-{name}"' in page for name in claims.claims()["claims"])


def test_a_second_run_runs_nothing_and_git_is_clean(scratch):
    assert "Running stage" not in scratch.repro()
    assert scratch.git("status", "--porcelain") == ""


def test_one_param_reruns_only_the_stages_that_read_it(scratch):
    """The stages that read it are the only ones that DVC calls changed by themselves; later ones follow only if its outputs change."""
    changes = {"evaluate.tolerance_s": ("tolerance_s: 1.0", "tolerance_s: 2.0", ["evaluate"]),
               "cache.restart_rounds": ("restart_rounds: 8", "restart_rounds: 9", ["inside_the_cache", "stream"]),
               "stream.policies": ("policies: [streaming, full]", "policies: [streaming]", ["stream"]),
               "compress.variants": ("pruned25,", "pruned30,", ["compress"])}
    params = scratch.folder / "params.yaml"
    params.write_text(functools.reduce(lambda text, change: text.replace(*change[:2]), changes.values(), SMALL))
    try:
        status = json.loads(scratch.run(scratch.python, "-m", "dvc", "status", "--json"))
    finally:
        params.write_text(SMALL)
    seen = {stage: [name for part in why for name in part["changed deps"]["params.yaml"]] for stage, why in status.items()}
    for name, (_, _, stages) in changes.items():
        assert sorted(stage for stage, names in seen.items() if any(name.startswith(found) for found in names)) == stages, seen
    assert set(seen) == {stage for _, _, stages in changes.values() for stage in stages}


def test_elsewhere_with_one_worker_it_gives_the_same_bytes(both):
    many, one = (locked_outs(made.folder) for made in both)
    ran = {path.name for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem.partition("_")[2] in SHARED}
    assert len(ran) == len(SHARED) and {f"reports/notebooks/{name}" for name in ran} <= set(one)
    assert one == {path: md5 for path, md5 in many.items() if path in one}


def test_forced_again_over_what_is_there_the_other_stages_give_the_same_bytes(both, scratch):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert set(stages) == set(locked(both[1].folder)) | set(OTHERS), "so every stage runs twice"
    before, again = locked_outs(scratch.folder), copy.copy(scratch)
    again.python = both[1].python
    again.repro("-f", "-s", *OTHERS)
    assert locked_outs(scratch.folder) == before and len(before) > 20


def locked(folder: Path) -> dict[str, dict]:
    """Stage -> what dvc.lock says of its last run."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]


def locked_outs(folder: Path) -> dict[str, str]:
    """Path -> md5 of every output but the medians of timings."""
    return {out["path"]: out["md5"] for stage in locked(folder).values() for out in stage["outs"] if out["path"] != "reports/timings.json"}


# --- what dvc.yaml says against what the code does ---


def test_every_notebook_is_stripped():
    strip = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["strip"]
    names = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert [strip["deps"], strip["outs"]] == [[f"{folder}/{name}" for name in names] for folder in ("notebooks", "artifacts/sources")]


def test_a_stage_declares_the_code_it_uses(tmp_path):
    assert stage_deps.rewritten(ROOT) == (ROOT / "dvc.yaml").read_text(), "`python -m streamingvlm.workbench.stage_deps` writes them"
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    game = tmp_path / "src" / "streamingvlm" / "worlds" / "match" / "game.py"
    game.write_text(game.read_text().replace("import re\n", "import re\n\nfrom streamingvlm.base import timing\n", 1))
    assert "    - src/streamingvlm/base/timing.py" in stage_deps.rewritten(tmp_path).partition("  subset:")[2].partition("  sft:")[0]


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_source_notebook_is_canonical_and_its_cells_are_short(notebook):
    from streamingvlm.base.notebook_file import canonical, read

    nb = read(notebook)
    assert canonical(nb) == nb
    assert nb.cells[0].cell_type == "markdown" and "You will learn" in nb.cells[0].source
    assert max(len(cell.source.splitlines()) for cell in nb.cells if cell.cell_type == "code") <= 12


def test_the_lock_is_of_this_code():
    """dvc.lock, which git keeps, was written by a run of the code and the notebooks beside it; else a fresh clone's run would change it."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    stages, locked = (yaml.load((ROOT / name).read_text())["stages"] for name in ("dvc.yaml", "dvc.lock"))
    assert set(locked) == set(stages)
    for name, stage in locked.items():
        for dep in stage["deps"]:
            if dep["path"].startswith(("src/", "notebooks/")):
                found = hashlib.md5((ROOT / dep["path"]).read_bytes()).hexdigest()
                assert found == dep["md5"], f"{dep['path']} changed since stage {name} ran: `make repro`, then commit dvc.lock"


def test_a_stage_finds_the_clone_s_environment_without_activation(tmp_path):
    """`.venv/bin/dvc repro` from a fresh terminal."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho ours $@\n")
    python.chmod(0o755)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for command in [stage["cmd"] for stage in stages.values()]:
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True,
                              env={"PATH": "/usr/bin:/bin"})
        assert done.stdout.startswith("ours -m streamingvlm.workbench.run_notebook")
