"""Sweeps: the runs a file asks for, the same again after a kill, errors before anything runs, and one table for all of it. Nothing is trained."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.workbench import sweep, sweep_report, sweep_spec

ROOT = repository_root(Path(__file__).parent)
PARAMS = sweep_spec.as_dict(config.load(ROOT / "params.yaml"))
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
WANDB = Path(__file__).resolve().parents[1] / "data" / "wandb" / "sweep_schema.json"  # of W&B's `sweeps` 0.3.0


def made(folder: Path, parameters: dict, method: str = "grid", **more) -> sweep_spec.Sweep:
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump({"method": method, "parameters": parameters, **more}))
    return sweep_spec.read(path)


def expand(folder: Path, parameters: dict, method: str = "grid", count: int | None = None, seed: int = 0) -> list[dict]:
    return sweep_spec.runs(made(folder, parameters, method), PARAMS, count, seed)


# --- expansion -----------------------------------------------------------------------------------------------------------------

def test_a_grid_is_every_combination_in_wandbs_order(tmp_path):
    found = expand(tmp_path, {"cache.vision_rounds": {"values": [2, 4]}, "cache.text_window": {"values": [16, 8]}, "sft.steps": {"value": 3}})
    assert [list(one.values()) for one in found] == [[16, 2, 3], [16, 4, 3], [8, 2, 3], [8, 4, 3]]
    assert list(found[0]) == ["cache.text_window", "cache.vision_rounds", "sft.steps"]


def test_nested_and_dotted_names_are_the_same_run(tmp_path):
    nested = expand(tmp_path, {"cache": {"parameters": {"text_window": {"values": [8, 16]}}}, "sft": {"parameters": {"steps": {"value": 3}}}})
    assert nested == expand(tmp_path, {"cache.text_window": {"values": [8, 16]}, "sft.steps": {"value": 3}})


def test_a_grid_of_whole_numbers_and_of_steps(tmp_path):
    assert [one["sft.steps"] for one in expand(tmp_path, {"sft.steps": {"min": 2, "max": 5}})] == [2, 3, 4, 5]
    steps = {"distribution": "q_uniform", "min": 0.1, "max": 0.4, "q": 0.1}  # W&B leaves the upper end out
    assert [one["evaluate.tolerance_s"] for one in expand(tmp_path, {"evaluate.tolerance_s": steps})] == [0.1, 0.2, 0.3]


RANDOM = {"sft.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}, "cache.text_window": {"min": 4, "max": 64},
          "sft.steps": {"distribution": "q_uniform", "min": 10, "max": 90, "q": 20}, "evaluate.tolerance_s": {"min": 0.5, "max": 1.5},
          "sft.batch": {"values": [1, 2, 4], "probabilities": [0, 0.5, 0.5]}, "cache.refresh": {"value": "closing"}}


def test_a_random_sweep_is_the_same_after_a_restart_and_a_larger_one_adds_to_it(tmp_path):
    first = expand(tmp_path, RANDOM, "random", 5)
    assert first == expand(tmp_path, RANDOM, "random", 5) == expand(tmp_path, RANDOM, "random", 20)[:5]
    assert first != expand(tmp_path, RANDOM, "random", 5, seed=1) and len(first) == 5


def test_draws_keep_their_bounds_and_types(tmp_path):
    drawn = expand(tmp_path, RANDOM, "random", 300)
    column = {name: [one[name] for one in drawn] for name in RANDOM}
    assert all(1e-4 <= lr <= 1e-1 for lr in column["sft.lr"]) and 0.4 < sum(lr < 10 ** -2.5 for lr in column["sft.lr"]) / 300 < 0.6
    assert set(column["sft.steps"]) <= {0, 20, 40, 60, 80, 100} and {type(steps) for steps in column["sft.steps"]} == {int}
    windows = column["cache.text_window"]
    assert (min(windows), max(windows)) == (4, 64) and {type(window) for window in windows} == {int}
    assert all(0.5 <= t <= 1.5 for t in column["evaluate.tolerance_s"]) and set(column["sft.batch"]) == {2, 4}
    assert set(column["cache.refresh"]) == {"closing"}


@pytest.mark.parametrize(("spec", "low", "high"), [
    ({"distribution": "log_uniform", "min": -7, "max": -5}, 0.0009, 0.0068),
    ({"distribution": "inv_log_uniform", "min": 5, "max": 7}, 0.0009, 0.0068),
    ({"distribution": "inv_log_uniform_values", "min": 0.1, "max": 0.2}, 0.1, 0.2), ({"distribution": "beta", "a": 2, "b": 3}, 0, 1),
    ({"distribution": "log_normal", "mu": -3, "sigma": 0.1}, 0.02, 0.1), ({"distribution": "normal", "mu": 9, "sigma": 0.1}, 8, 10),
    ({"distribution": "q_log_uniform_values", "min": 1, "max": 9, "q": 2}, 0, 10)])
def test_every_distribution_of_wandb(spec, low, high, tmp_path):
    drawn = [one["evaluate.tolerance_s"] for one in expand(tmp_path, {"evaluate.tolerance_s": spec}, "random", 50)]
    assert all(low <= value <= high for value in drawn) and len(set(drawn)) > 2


def test_no_run_comes_twice(tmp_path):
    assert len(expand(tmp_path, {"cache.vision_rounds": {"values": [2, 4, 2]}, "video.fps": {"values": [2, 2.0]}})) == 2
    assert len(expand(tmp_path, {"cache.vision_rounds": {"values": [2, 4]}}, "random", 50)) == 2


# --- what is wrong is said before anything runs --------------------------------------------------------------------------------

@pytest.mark.parametrize(("parameters", "said"), [
    ({"cache.nope": {"value": 1}}, "unknown key `cache.nope`"), ({"nope.key": {"value": 1}}, "unknown section `nope`"),
    ({"steps": {"value": 1}}, "must be section.key"), ({"sft.steps": {"values": [3, "four"]}}, "`sft.steps` must be int, not 'four'"),
    ({"sft.steps": {"value": 2.5}}, "must be int, not 2.5"), ({"sft.lr": {"values": ["fast"]}}, "must be float, not 'fast'"),
    ({"sft.steps": {"values": []}}, "no values to try"), ({"sft.stride_s": {"value": 99}}, "must be at most"), ({"sft.steps": 4}, "not 4"),
    ({"sft.lr": {"min": 0.1, "max": 0.2}}, "use `method: random`"),
    ({"sft.lr": {"distribution": "zipf", "min": 1, "max": 2}}, "unknown distribution"),
    ({"sft.steps": {"distribution": "int_uniform", "min": 5, "max": 2}}, "`min` below `max`"), ({"sft.steps": {"min": 5}}, "use `method: random`"),
    ({"sft.steps": {"values": [1, 2], "probabilities": [0.5, 0.5]}}, "wants `method: random`"), ({}, "must hold `method` and `parameters`"),
    ({"compress.variants": {"values": [["int9"]]}}, "has no `int9`"), ({"cache": {"parameters": 4}}, "must hold `value`"),
    ({"sft.lr": {"distribution": 5, "min": 1, "max": 2}}, "unknown distribution")])
def test_a_mistake_in_a_file_is_one_sentence(parameters, said, tmp_path):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        expand(tmp_path, parameters)
    assert "\n" not in str(error.value) and "made.yaml" in str(error.value)


@pytest.mark.parametrize(("spec", "said"), [
    ({"distribution": "q_uniform", "min": 1, "max": 2, "q": 0}, "`q` must be a number above 0"),
    ({"distribution": "q_uniform", "min": 1, "max": 2, "q": -1}, "`q` must be a number above 0"),
    ({"distribution": "normal", "mu": "a", "sigma": 1}, "`mu` must be a number"), ({"distribution": "beta", "a": -1, "b": 2}, "`a` must be a number"),
    ({"values": [1.0, 2.0], "probabilities": 3}, "one number for each"), ({"values": [1.0, 2.0], "probabilities": [0, 0]}, "one number for each"),
    ({"distribution": "log_uniform", "min": 1, "max": 8000}, "more than a number can hold"),
    ({"distribution": "q_uniform", "min": 1, "max": float("inf")}, "two numbers")])
def test_a_mistake_in_what_is_drawn_is_one_sentence(spec, said, tmp_path):
    with pytest.raises(UserError, match=re.escape(said)):
        expand(tmp_path, {"sft.lr": spec}, "random", 20)


def test_a_number_without_a_point_is_a_number(tmp_path):
    """To the YAML of W&B `1e-4` is text; to DVC and to whoever wrote it, it is a number."""
    assert [one["sft.lr"] for one in expand(tmp_path, {"sft.lr": {"values": ["1e-4", "5e-4"]}})] == [1e-4, 5e-4]
    between = {"sft.lr": {"distribution": "log_uniform_values", "min": "1e-5", "max": "1e-3"}}
    assert all(1e-5 <= one["sft.lr"] <= 1e-3 for one in expand(tmp_path, between, "random", 5))
    assert sweep_spec.settled({"sft.steps": "1e2"}, sweep_spec.as_dict(config.load(ROOT / "params.yaml")), "x")[1] == {"sft.steps": 100}


@pytest.mark.parametrize("text", ['{"sft.lr": NaN}', '{"sft.lr": Infinity}', '{"sft.lr": 1e999}', '{"sft.lr": "nan"}',
                                  '{"run.threads": 99999999999}'])
def test_a_trial_with_numbers_that_are_none_is_one_sentence(text, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert sweep.main(["--trial", text]) == 2
    assert "must be" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["metric: score", "run_cap: '8'", "run_cap: -1", "method: [grid]"])
def test_a_mistake_beside_the_parameters_is_one_sentence(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "made.yaml").write_text("\n".join([*([] if "method" in line else ["method: grid"]), line, "parameters: {sft.steps: {values: [1]}}"]))
    assert sweep.main([str(tmp_path / "made.yaml"), "--list"]) == 2
    assert line.partition(":")[0] in capsys.readouterr().err


def test_bayes_needs_wandb_and_an_unknown_method_is_named(tmp_path):
    with pytest.raises(UserError, match=r"needs W&B's server.*wandb sweep .*made.yaml"):
        expand(tmp_path, {"sft.steps": {"values": [1, 2]}}, "bayes")
    with pytest.raises(UserError, match="not 'genetic'"):
        expand(tmp_path, {"sft.steps": {"values": [1, 2]}}, "genetic")


@pytest.mark.parametrize("text", ["method: [", "just text", "", "method: grid\nparameters: 4\n"])
def test_a_file_that_is_no_sweep(text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "made.yaml").write_text(text)
    assert sweep.main([str(tmp_path / "made.yaml")]) == 2
    assert sweep.main([str(tmp_path / "absent.yaml")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "made.yaml" in first and "There is no" in second


# --- the files of the repository -----------------------------------------------------------------------------------------------

def test_the_files_are_there():
    assert {"quick", "window", "sink", "fps", "overlap", "compress"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_expands_and_is_what_wandb_accepts(path):
    import jsonschema

    body = yaml.safe_load(path.read_text())
    jsonschema.Draft7Validator(json.loads(WANDB.read_text())).validate(body)
    read = sweep_spec.read(path)
    assert len(sweep_spec.runs(read, PARAMS)) > 1 and read.varied and body["name"] == path.stem and read.metric and "goal" in body["metric"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_wandbs_agent_calls_is_the_same_run(path, monkeypatch):
    """The command as W&B's own agent fills it in, for the params that its server would send."""
    from wandb.sdk.launch.sweeps import utils

    body, seen = yaml.safe_load(path.read_text()), []
    monkeypatch.setattr(sweep, "trial", lambda text: seen.append(text) or 0)
    for one in sweep_spec.runs(sweep_spec.read(path), PARAMS):
        filled = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in one.items()}})
        filled |= {"env": ["/usr/bin/env"], "interpreter": ["python"]}
        words = [word for part in utils.create_sweep_command(list(body["command"])) for word in filled.get(part[2:-1], [part])]
        assert words[:4] == ["/usr/bin/env", "python", "-m", "streamingvlm.workbench.sweep"] and sweep.main(words[4:]) == 0
        assert sweep_spec.settled(json.loads(seen[-1]), PARAMS, "agent")[1] == one


# --- runs ----------------------------------------------------------------------------------------------------------------------

class Runs:
    """In place of DVC: what has been run, in order; some fail, and after `lives` of them the whole program is killed."""

    def __init__(self, fails: str = "", lives: int = 99):
        self.done, self.order, self.fails, self.lives = set(), [], fails, lives

    def execute(self, root, copy, name, one, log, within_agent=False):
        assert (copy / "params.yaml").is_file() and copy != root
        if len(self.order) == self.lives:
            raise KeyboardInterrupt
        self.order.append(name)
        if self.fails and self.fails in json.dumps(one):
            return "it is broken"
        self.done.add(name)
        return None

    def measured(self, root):
        return {name: {"ablation.streaming.overlapped.score": 0.5, "ablation.streaming.overlapped.chunk_ms_p50": 20.0} for name in self.done}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A commit with params.yaml and a sweep of four; DVC is not asked. -> (root, put `Runs` in DVC's place)."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    made(tmp_path, {"cache.text_window": {"values": [8, 16]}, "cache.vision_rounds": {"values": [2, 4]}})
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)

    def use(runs: Runs) -> Runs:
        monkeypatch.setattr(sweep, "finished", lambda root: set(runs.done))
        monkeypatch.setattr(sweep, "_dvc", lambda root, *words: "/the/cache")
        for name in ("execute", "measured"):
            monkeypatch.setattr(sweep, name, getattr(runs, name))
        return runs
    return tmp_path, use


def test_killed_and_started_again_only_what_is_left_runs(repository, capsys):
    _, use = repository
    runs = use(Runs(lives=2))
    assert sweep.main(["made.yaml"]) == 130 and len(runs.order) == 2
    runs.lives = 99
    assert sweep.main(["made.yaml"]) == 0
    assert len(runs.order) == len(set(runs.order)) == 4 and "2 of them done already" in capsys.readouterr().out
    assert sweep.main(["made.yaml"]) == 0 and len(runs.order) == 4


def test_a_failed_run_is_told_stops_no_other_and_is_tried_again(repository, capsys):
    root, use = repository
    runs = use(Runs(fails='"cache.text_window": 8, "cache.vision_rounds": 4'))
    assert sweep.main(["made.yaml"]) == 1 and len(runs.done) == 3
    assert "failed: it is broken" in capsys.readouterr().out
    table = json.loads((root / "reports/sweeps/made/runs.json").read_text())
    assert [row["state"] for row in table] == ["done", "failed: it is broken", "done", "done"]
    runs.fails = ""
    assert sweep.main(["made.yaml"]) == 0 and len(runs.order) == 5


def test_a_name_is_of_the_params_and_the_code(repository):
    root, _ = repository
    code, runs = sweep.code_of(root), sweep_spec.runs(sweep_spec.read(Path("made.yaml")), PARAMS)
    names = list(sweep.name_all(runs, PARAMS, code, "x"))
    assert len(set(names)) == 4 and names == list(sweep.name_all(runs, PARAMS, sweep.code_of(root), "x"))
    other = {**PARAMS, "sft": {**PARAMS["sft"], "steps": 1}}
    assert not set(names) & set(sweep.name_all(runs, other, code, "x"))
    (root / "src").mkdir()
    (root / "src" / "new.py").write_text("")
    subprocess.run(["git", "add", "src"], cwd=root, check=True)
    assert not set(names) & set(sweep.name_all(runs, PARAMS, sweep.code_of(root), "x"))


def test_runs_work_in_a_copy_of_what_is_there_and_leave_nothing_behind(repository):
    root, use = repository
    use(Runs())
    (root / "made.yaml").write_text("changed: 1\n")
    (root / "new.txt").write_text("added, not committed")
    subprocess.run(["git", "add", "new.txt"], cwd=root, check=True)
    (root / "reports" / "timings").mkdir(parents=True)
    (root / "reports" / "timings" / "stream.jsonl").write_text("{}")
    left = root / ".dvc" / "tmp" / "sweep-999999999-killed"
    left.mkdir(parents=True)
    before = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, check=True).stdout
    with sweep.snapshot(root) as copy:
        assert (copy / "made.yaml").read_text() == "changed: 1\n" and (copy / "new.txt").is_file() and not left.exists()
        assert (copy / "reports" / "timings" / "stream.jsonl").is_file() and "/the/cache" in (copy / ".dvc" / "config.local").read_text()
        assert sweep.code_of(copy) == sweep.code_of(root)
        (copy / "params.yaml").write_text("run: {}\n")
    assert not copy.exists() and (root / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert before == subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, check=True).stdout


def test_without_a_commit_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    made(tmp_path, {"cache.text_window": {"values": [8, 16]}})
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    assert sweep.main(["made.yaml"]) == 2 and "needs a git repository with a commit" in capsys.readouterr().err


def test_the_list_runs_nothing(repository, capsys):
    _, use = repository
    runs = use(Runs())
    assert sweep.main(["made.yaml", "--list"]) == 0 and not runs.order
    assert capsys.readouterr().out.count(" left ") == 4


def test_a_trial_logs_the_numbers_of_its_run_once_it_ran(repository, monkeypatch, capsys):
    from contextlib import contextmanager

    _, use = repository
    runs, logged = use(Runs()), []

    @contextmanager
    def run(stage, params, name):
        yield logged.append
    monkeypatch.setattr(sweep.tracking, "run", run)
    for text in ('{"cache": {"text_window": 8.0}}', '{"cache.text_window": 8}'):  # as W&B may nest and type it; done once, told twice
        assert sweep.main(["--trial", text]) == 0
    assert len(runs.order) == 1 and [row["ablation.streaming.overlapped.score"] for row in logged] == [0.5, 0.5]
    runs.fails = "16"
    assert sweep.main(["--trial", '{"cache.text_window": 16}']) == 2 and "it is broken" in capsys.readouterr().err
    assert sweep.main(["--trial", "[1]"]) == sweep.main(["--trial", "{"]) == 2


# --- table and figure ----------------------------------------------------------------------------------------------------------

ROWS = [{"run": f"sweep-{k}", "state": "done", "params": {"cache.text_window": w, "compress.variants": v, "sft.steps": 4},
         "metrics": {"a.score": 0.1 * k, "a.who": None if k == 1 else 0.5 * k, "a.chunk_ms_p50": 20 + k, "a.same": 1.0, "b.other": 7.0,
                     "a.deep.er": 1.0}}
        for k, (w, v) in enumerate([(8, ["int8"]), (16, ["int8"]), (8, ["mlp25", "int8"]), (16, ["mlp25", "int8"])])]
BROKEN = {"run": "sweep-9", "state": "failed: no memory", "params": {**ROWS[0]["params"], "cache.text_window": 64}, "metrics": {}}


@pytest.fixture
def swept(tmp_path):
    return made(tmp_path, {"cache.text_window": {"values": [8, 16]}, "compress.variants": {"values": [["int8"], ["mlp25", "int8"]]},
                           "sft.steps": {"value": 4}}, metric={"name": "a.score", "goal": "maximize"})


def test_the_table_has_every_run_and_the_metric_first(swept, tmp_path):
    text = sweep_report.write([*ROWS, BROKEN], swept, tmp_path / "out")
    head, *lines = text.splitlines()
    assert head.split() == ["run", "cache.text_window", "compress.variants", "score", "who", "chunk_ms_p50", "same", "state"]
    assert lines[2].split() == ["sweep-2", "8", "mlp25+int8", "0.2", "1", "22", "1", "done"] and lines[4].endswith("failed: no memory")
    with (tmp_path / "out" / "runs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["b.other"] for row in table] == ["7.0"] * 4 + [""] and json.loads(table[3]["compress.variants"]) == ["mlp25", "int8"]


def test_the_figure_has_two_twins_that_need_no_network_and_the_same_bytes_twice(swept, tmp_path):
    for name in "ab":
        sweep_report.write([*ROWS, BROKEN], swept, tmp_path / name)
    page = (tmp_path / "a" / "coordinates.html").read_text()
    assert 'src="plotly.min.js"' in page and 'src="http' not in page and "4 of 5 runs; best a.score: 0.3, with cache.text_window 16" in page
    assert '"label":"score"' in page and '"label":"same"' not in page and '"label":"who"' not in page
    for file in ("coordinates.html", "coordinates.png", "runs.csv", "runs.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_equals_are_not_called_best(swept, tmp_path):
    sweep_report.write([{**row, "metrics": {"a.score": 1.0}} for row in ROWS], swept, tmp_path)
    assert "best a.score: 1, in 4 runs" in (tmp_path / "coordinates.html").read_text()


def test_a_metric_that_no_run_has_is_said_and_no_empty_figure_is_drawn(swept, tmp_path):
    rows = [{**row, "metrics": {"b.other": 1.0}} for row in ROWS]
    assert "No run has a number called a.score" in sweep_report.write(rows, swept, tmp_path / "out")
    assert not list((tmp_path / "out").glob("coordinates.*"))


def test_the_last_variant_has_a_name_that_all_runs_share_and_a_killed_run_none(monkeypatch):
    data = {"params": {"params.yaml": {"data": {"compress": {"variants": ["float32", "mlp25"]}}}},
            "metrics": {"m.json": {"data": {"compress": {"mlp25": {"bytes": 7}}}}, "t.json": {"data": {"compress": {"mlp25": {"ms": 8}}}}}}
    shown = [{"rev": "workspace"}, {"rev": "1", "experiments": [{"revs": [{"name": "sweep-1", "data": data}]}, {"revs": None},
              {"revs": [{"name": "sweep-1", "data": {}}], "executor": {"state": "running"}}]}]
    monkeypatch.setattr(sweep, "_dvc", lambda *words: json.dumps(shown))
    assert sweep.measured(Path()) == {"sweep-1": {"compress.mlp25.bytes": 7, "compress.mlp25.ms": 8, "compress.last.bytes": 7, "compress.last.ms": 8}}
