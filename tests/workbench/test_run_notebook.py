"""A notebook as a DVC stage: on throw-away notebooks, in a scratch git and DVC repository, with the real runner."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import preloaded
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.translators import translate_parameters
from ruamel.yaml import YAML

from streamingvlm.base import notebook_file
from streamingvlm.base.notebook_file import METADATA, WIDGET
from streamingvlm.workbench import run_notebook

ROOT = Path(__file__).resolve().parents[2]
QUERY = 'Say "go", \\ tab\t, 日本, {braces} and ${dollars}'
PARAMS = f"""\
video: {{fps: 2000.0, chunk_s: 1e-3, max_pixels: 7056}}
stream: {{policies: [streaming, full], max_new_tokens: 20, repetition_penalty: 1.0000000000000002, query: {json.dumps(QUERY, ensure_ascii=False)}}}
compress: {{variants: [float32]}}
evaluate: {{tolerance_s: 5e-324}}
"""
DVC_YAML = """\
stages:
  strip:
    foreach: [01_first, 02_second]
    do:
      cmd: python -m streamingvlm.workbench.run_notebook --strip ${item}
      deps: ["notebooks/${item}.ipynb"]
      outs: ["artifacts/sources/${item}.ipynb"]
  first:
    cmd: python -m streamingvlm.workbench.run_notebook 01_first
    params: [video, stream, evaluate]
    deps: [artifacts/sources/01_first.ipynb]
    outs: [artifacts/first, reports/notebooks/01_first.ipynb]
  second:
    cmd: python -m streamingvlm.workbench.run_notebook 02_second
    params: [compress]
    deps: [artifacts/sources/02_second.ipynb, artifacts/first]
    outs:
    - artifacts/second
    - reports/notebooks/02_second.ipynb: {persist: true}
"""
FIRST = """\
import json, pathlib
from streamingvlm.base import config
cfg = config.load() if params is None else config.from_dict(params)
out = pathlib.Path("artifacts/first"); out.mkdir(parents=True, exist_ok=True)
(out / "params.json").write_text(json.dumps(params))
for number in range(300):
    print(number, flush=True)
"""
LIVE = """\
import time
from ipywidgets import IntProgress
display(IntProgress())
print(time.perf_counter())
"""
NOISE = """\
import sys, time
print(time.perf_counter(), file=sys.stderr, flush=True)
display(IntProgress())
{"shown": 1}
"""
SECOND = """\
import os, pathlib, time
out = pathlib.Path("artifacts/second"); out.mkdir(parents=True, exist_ok=True)
(out / "pid").write_text(str(os.getpid()))
while pathlib.Path("hang").exists():
    time.sleep(0.05)
(out / "pid").write_text("done")
"""
FAILING = """\
from streamingvlm.base.config import UserError
print("before")
raise UserError("The clip is empty: name another one.")
"""


def cell(source: str, *tags: str):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def save(path: Path, *cells) -> nbformat.NotebookNode:
    path.parent.mkdir(parents=True, exist_ok=True)
    nb = notebook_file.canonical(new_notebook(cells=[new_markdown_cell("# A lesson"), cell("params = None", "parameters"), *cells]))
    notebook_file.write(nb, path)
    return nb


class Scratch:
    """A repository with two notebook stages."""

    def __init__(self, root: Path):
        self.root = root
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
        self.environment = environment | {"PYTHONPATH": str(ROOT / "src"), "PATH": f"{Path(preloaded.python()).parent}:{os.environ['PATH']}"}
        subprocess.run(["git", "init", "-q", root], check=True)
        self.python("-m", "dvc", "init", "-q")
        (root / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
        (root / ".gitignore").write_text("/artifacts/\n/reports/\n")
        (root / "params.yaml").write_text(PARAMS)
        (root / "dvc.yaml").write_text(DVC_YAML)
        save(root / "notebooks/01_first.ipynb", cell(FIRST), cell(LIVE, "live"), cell(NOISE))
        save(root / "notebooks/02_second.ipynb", cell(SECOND))

    def python(self, *args: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess:
        result = subprocess.run([preloaded.python(), *args], cwd=cwd or self.root, env=self.environment, capture_output=True, text=True,
                                timeout=120, check=False)
        assert result.returncode == 0 or not check, result.stdout + result.stderr
        return result

    def repro(self, *args: str) -> set[str]:
        """The stages that ran."""
        lines = self.python("-m", "dvc", "repro", *args).stdout.splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    def snapshot(self) -> dict[str, bytes]:
        files = [*self.root.glob("artifacts/first/*"), *self.root.glob("reports/**/*.ipynb"), *self.root.glob("artifacts/sources/*")]
        return {str(file): file.read_bytes() for file in files} | {"lock": (self.root / "dvc.lock").read_bytes()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Scratch:
    made = Scratch(tmp_path_factory.mktemp("pipeline") / "ein schöner Platz")
    assert made.repro() == {"strip@01_first", "strip@02_second", "first", "second"}
    return made


def test_params_arrive_exactly(scratch):
    given_to_it = json.loads((scratch.root / "artifacts/first/params.json").read_text())
    wanted = {name: section for name, section in YAML(typ="safe").load(PARAMS).items() if name != "compress"}
    assert repr(given_to_it) == repr(wanted)
    assert given_to_it["video"]["chunk_s"] == 0.001 and given_to_it["stream"]["query"] == QUERY


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(st.text("abc_"), plain | st.lists(plain)))
def test_any_params_arrive_exactly(values):
    namespace = {}
    exec(translate_parameters("python3", "python", {"params": values}, "Parameters"), namespace)
    assert repr(namespace["params"]) == repr(values)


def test_repro_again_runs_nothing_and_forced_gives_the_same_bytes(scratch):
    assert scratch.repro() == set()
    before = scratch.snapshot()
    assert scratch.repro("-f", "-s", "first", "second") == {"first", "second"}
    assert scratch.snapshot() == before


def test_the_executed_notebook_keeps_results_and_drops_noise(scratch):
    nb = notebook_file.read(scratch.root / "reports/notebooks/01_first.ipynb")
    by_tag = {tag: found for found in nb.cells for tag in found.metadata.get("tags", [])}
    assert by_tag["live"].outputs == [] and by_tag["live"].source == LIVE
    work, noise = nb.cells[3], nb.cells[5]
    assert [output.text for output in work.outputs] == ["".join(f"{number}\n" for number in range(300))]
    assert [output.get("data") for output in noise.outputs] == [{"text/plain": "{'shown': 1}"}]
    text = (scratch.root / "reports/notebooks/01_first.ipynb").read_text()
    assert not [word for word in ("papermill", str(scratch.root), WIDGET, "execution\"") if word in text]
    assert not list(scratch.root.rglob("*.partial"))


def test_saving_a_run_notebook_runs_no_notebook_stage(scratch):
    source = scratch.root / "notebooks/02_second.ipynb"
    kept = source.read_bytes()
    nb = notebook_file.read(source)
    nb.cells[2].outputs, nb.cells[2].execution_count = [new_output("stream", text="seen")], 7
    nb.metadata["language_info"] = {"name": "python", "version": "3.99"}
    nbformat.write(nb, source)
    assert scratch.repro() == {"strip@02_second"}
    source.write_bytes(kept)
    assert not scratch.repro() & {"first", "second"}


def test_one_param_runs_only_the_stages_that_read_it(scratch):
    params = scratch.root / "params.yaml"
    params.write_text(PARAMS.replace("variants: [float32]", "variants: [int8]"))
    assert scratch.repro() == {"second"}
    params.write_text(PARAMS)
    assert scratch.repro() == {"second"}  # and back: `persist` keeps a stage that measures time from being taken out of DVC's run cache


def test_a_wrong_param_is_one_sentence_before_anything_runs(scratch, monkeypatch, capsys):
    params = scratch.root / "params.yaml"
    params.write_text(PARAMS.replace("variants: [float32]", "variants: many"))
    monkeypatch.chdir(scratch.root / "notebooks")
    code = run_notebook.main(["02_second"])
    params.write_text(PARAMS)
    assert code == 2 and capsys.readouterr() == ("", "params.yaml: `compress.variants` must be list[str], not 'many'.\n")


def test_a_failure_leaves_its_notebook_and_ends_with_its_sentence(scratch):
    save(scratch.root / "artifacts/sources/02_second.ipynb", cell(FAILING), cell("print('never')"))
    result = scratch.python("-m", "streamingvlm.workbench.run_notebook", "02_second", check=False, cwd=scratch.root / "notebooks")
    scratch.python("-m", "dvc", "checkout", "-q", "-f", "strip@02_second")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "The clip is empty: name another one."
    assert "reports/notebooks/02_second.ipynb" in result.stderr
    nb = notebook_file.read(scratch.root / "reports/notebooks/02_second.ipynb")
    assert [output.ename for found in nb.cells for output in found.get("outputs", []) if output.output_type == "error"] == ["UserError"]


def test_killed_in_mid_stage_then_finished(scratch):
    hang, pid_file = scratch.root / "hang", scratch.root / "artifacts/second/pid"
    hang.touch()
    pid_file.unlink(missing_ok=True)
    plain = scratch.environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # of a fork, DVC is no ancestor
    first = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-f", "-s", "second"], cwd=scratch.root, env=plain,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert _within(60, lambda: pid_file.exists() and pid_file.read_text().isdigit())
    kernel = int(pid_file.read_text())
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert _within(15, lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE)
    hang.unlink()
    assert scratch.repro() == {"second"}
    assert pid_file.read_text() == "done" and scratch.repro() == set()


def _within(seconds: float, condition) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_strip_is_the_same_for_a_source_and_its_execution(scratch):
    source = notebook_file.read(scratch.root / "notebooks/01_first.ipynb")
    ran = notebook_file.read(scratch.root / "reports/notebooks/01_first.ipynb")
    assert nbformat.writes(notebook_file.stripped(source)) == nbformat.writes(notebook_file.stripped(ran))


def test_canonical_is_idempotent_and_keeps_what_a_person_wrote(tmp_path):
    figure = {"a.png": {"image/png": "AAAA"}}
    cells = [new_markdown_cell("![](attachment:a.png)", attachments=figure, metadata={"collapsed": True}), cell("1 + 1", "live")]
    cells[1].outputs, cells[1].metadata["scrolled"] = [new_output("display_data", {"text/plain": "2"})], True
    kernel = {"name": "mine", "display_name": "Mine"}
    once = notebook_file.canonical(new_notebook(cells=cells, metadata={"widgets": {"state": {}}, "kernelspec": kernel}))
    assert once == notebook_file.canonical(once) and once.metadata == METADATA
    assert once.cells[0].attachments == figure and once.cells[0].metadata == {}
    assert once.cells[1].metadata == {"tags": ["live"]} and once.cells[1].outputs == []
    assert [found.id for found in once.cells] == [found.id for found in cells]
    path = tmp_path / "lesson.ipynb"
    notebook_file.write(once, path)
    assert run_notebook.main(["--canonical", str(path)]) == 0 and path.read_text() == nbformat.writes(once) + "\n"


def test_canonical_numbers_cells_without_or_with_the_same_id():
    old = new_notebook(cells=[new_code_cell("1"), new_code_cell("2")])
    for found in old.cells:
        found.pop("id")
    assert [found.id for found in notebook_file.canonical(old | {"nbformat_minor": 4}).cells] == ["cell-00", "cell-01"]


@pytest.mark.parametrize("content", [None, "", "not a notebook", "{}"])
def test_a_bad_file_is_one_sentence(tmp_path, capsys, content):
    path = tmp_path / "bad.ipynb"
    if content is not None:
        path.write_text(content)
    assert run_notebook.main(["--canonical", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("path", sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_shows_progress_is_not_kept(path):
    """A cell that follows something, or calls a function of the notebook that does, is tagged `live`: how often a bar moves is chance."""
    shows = {"follow", "run", "explore"}  # live.follow, tracking.run, inside_view.explore
    for cell in notebook_file.read(path).cells:
        if cell.cell_type != "code":
            continue
        called, defined = set(), {}
        for node in ast.parse(cell.source).body:
            names = {call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                     for call in ast.walk(node) if isinstance(call, ast.Call)}
            if isinstance(node, ast.FunctionDef):
                defined[node.name] = names
            else:
                called |= names
        shows |= {name for name, inside in defined.items() if inside & shows}
        assert not called & shows or "live" in cell.metadata.get("tags", []), cell.source
