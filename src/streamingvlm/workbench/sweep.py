"""Runs a sweep file on this machine, one DVC experiment after another; or, for W&B's agent, one of its runs. Both by the same steps.

    python -m streamingvlm.workbench.sweep sweeps/quick.yaml                     # the whole sweep; killed and started again, only what is left
    python -m streamingvlm.workbench.sweep sweeps/quick.yaml --list              # its runs, without running them
    python -m streamingvlm.workbench.sweep --trial '{"cache.text_window": 16}'   # one run: the `command` of every file in sweeps/

A run is `dvc exp run` in a copy of the tracked files as they were when the sweep began: params.yaml, artifacts/ and reports/ stay as they are,
and the code may be edited meanwhile. Stages whose params did not change come out of DVC's cache. A run's name is made of the commit, the code
and all its params; one that DVC knows is done. (DVC's own queue was not taken: a service in the background that outlives what started it, and that
changes params.yaml and stashes what is not committed each time it is given a run.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from streamingvlm.base import config, progress
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.workbench import sweep_spec, tracking

READ = ("src", "notebooks", "data", "dvc.yaml", "reports/reference")  # what stages read, but for params.yaml
TIMINGS = "reports/timings"
COPY = "sweep-"  # how the folders that runs work in begin
IDENTITY = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")  # of the agent's run: no stage within it may log as that run


def offline(path: Path, count: int | None, seed: int, only_list: bool) -> int:
    """The whole sweep. -> the exit status: 1 if a run failed."""
    root, sweep = repository_root(), sweep_spec.read(path)
    params = sweep_spec.as_dict(config.load(root / "params.yaml"))
    wanted = name_all(sweep_spec.runs(sweep, params, count, seed), params, code_of(root), str(path))
    done = finished(root)
    left = {name: one for name, one in wanted.items() if name not in done}
    print(f"{path}: {len(wanted)} runs, {len(wanted) - len(left)} of them done already", flush=True)
    if sweep.stops_early:
        print("`early_terminate` is for W&B's agent: here every run goes to its end.")
    if only_list:
        for name, one in wanted.items():
            print(f"{name}  {'done' if name in done else 'left'}  {say(one, sweep.varied)}")
        return 0
    folder = root / "reports" / "sweeps" / path.stem
    with snapshot(root) as copy:
        steps = work(left, sweep.varied, lambda name, one: execute(root, copy, name, one, folder / "logs" / f"{name}.txt"))
        failed = {name: why for name, why in progress.bar(steps, len(left), path.stem, lambda step: step[0]) if why}
    from streamingvlm.workbench import sweep_report

    print(sweep_report.write(rows(root, wanted, failed), sweep, folder))
    return 1 if failed else 0


def trial(text: str) -> int:
    """One run, as W&B's agent asks for it, and its numbers to W&B. `text`: JSON, nested or with dotted names."""
    from streamingvlm.base.numbers import flat

    root = repository_root()
    try:
        asked = flat(json.loads(text))
    except (ValueError, AttributeError):
        raise UserError("--trial needs the params as one JSON object, such as '{\"cache.text_window\": 16}'.") from None
    params = sweep_spec.as_dict(config.load(root / "params.yaml"))
    (name, one), = name_all([sweep_spec.settled(asked, params, "this run")[1]], params, code_of(root), "this run").items()
    with tracking.run("trial", one, name) as log:
        if name not in finished(root):
            path = root / "reports" / "sweeps" / "trials" / f"{name}.txt"
            print(f"{name}  {say(one, list(one))}\n    as it runs: {path}", flush=True)
            with snapshot(root) as copy:
                why = execute(root, copy, name, one, path, within_agent=True)
            if why:
                raise UserError(f"{name} failed: {why}")
        log({key: value for key, value in measured(root)[name].items() if value is not None})
    return 0


# --- names ---------------------------------------------------------------------------------------------------------------------

def name_all(runs: list[dict], params: dict, code: str, source: str) -> dict[str, dict]:
    """Experiment name -> its changes. The same for the same code and the same params, whichever file or engine asks."""
    named = {}
    for one in runs:
        whole, _ = sweep_spec.settled(one, params, source)
        text = json.dumps([code, whole], sort_keys=True)
        named[f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:10]}"] = one
    return named


def code_of(root: Path) -> str:
    """The commit, and whatever differs from it in the files that stages read."""
    return _git(root, "rev-parse", "HEAD") + _changes(root, *READ)


def _changes(root: Path, *paths: str) -> str:
    """What is not committed, as a patch, whatever the user's git is set to."""
    plain = ("-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "diff", "--no-ext-diff", "--no-color")
    return _git(root, *plain, "--full-index", "--binary", "HEAD", "--", *paths)


def say(one: dict, names: list[str]) -> str:
    return "  ".join(f"{name}={json.dumps(one[name])}" for name in names) or "nothing varied"


# --- one run -------------------------------------------------------------------------------------------------------------------

def work(left: dict[str, dict], varied: list[str], execute: Callable[[str, dict], str | None]) -> Iterator[tuple[str, str | None]]:
    """Every run that is left, one at a time -> (name, why it failed or None). A failed one stops no other."""
    begin = time.monotonic()
    for number, (name, one) in enumerate(left.items(), start=1):
        print(f"[{number}/{len(left)}] {name}  {say(one, varied)}", flush=True)
        started = time.monotonic()
        why = execute(name, one)
        now = time.monotonic()
        still_s = (now - begin) / number * (len(left) - number)
        print(f"    {f'failed: {why}' if why else 'done'} after {now - started:.0f} s; some {still_s / 60:.0f} min left", flush=True)
        yield name, why


def execute(root: Path, copy: Path, name: str, one: dict, log: Path, within_agent: bool = False) -> str | None:
    """One experiment in a process of its own, its output in `log` -> why it failed, or None."""
    log.parent.mkdir(parents=True, exist_ok=True)
    child = multiprocessing.get_context("spawn").Process(target=_experiment, args=(root, copy, name, one, log, within_agent))
    child.start()
    child.join()
    if child.exitcode == 0:
        head = _git(copy, "rev-parse", "HEAD").strip()
        ref = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
        try:
            _git(root, "fetch", "--quiet", str(copy), f"+{ref}:{ref}")
        except UserError as error:
            return str(error)
        return None
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()] if log.exists() else []
    said = [line for line in lines if not line.startswith("ERROR: failed to reproduce")]
    return f"{(said or lines or ['it said nothing'])[-1][:300]} (all of it: {log.relative_to(root)})"


def _experiment(root: Path, copy: Path, name: str, one: dict, log: Path, within_agent: bool) -> None:
    """In the child."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    # `src` is looked up in each run's own copy: a run computes with the code that its experiment records.
    os.environ |= {"PYTHONPATH": "src", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                   "WANDB_DIR": os.environ.get("WANDB_DIR", str(root)), "WANDB_RUN_GROUP": name}
    if within_agent:
        os.environ["WANDB_MODE"] = "disabled"
        for key in IDENTITY:
            os.environ.pop(key, None)
    from dvc.cli import main

    # --temp: in a further copy, into which DVC first puts what earlier runs left in its cache; here that would count as missing.
    copied = ["--copy-paths", TIMINGS] if Path(TIMINGS).is_dir() else []
    changes = [word for key, value in one.items() for word in ("-S", f"{key}={json.dumps(value)}")]
    sys.exit(main(["exp", "run", "--temp", "-n", name, *copied, *changes]))


def _end_with_the_parent() -> None:
    """A run that outlived a killed sweep would work beside its own repetition."""
    import psutil

    multiprocessing.parent_process().join()
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


@contextmanager
def snapshot(root: Path) -> Iterator[Path]:
    """A clone of the repository as it stands, changes not committed included, that shares its objects and DVC's cache.

    `dvc exp run` stashes, edits params.yaml and resets where it is called: a kill at that moment, or a file saved then, must hit nobody's work.
    """
    _remove_left_over(root)
    cache = _dvc(root, "cache", "dir").strip()
    (root / ".dvc" / "tmp").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / ".dvc" / "tmp", prefix=f"{COPY}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder)
        _git(root, "clone", "--quiet", "--shared", str(root), folder)
        if changes := _changes(root):
            _git(copy, "apply", "--index", "--whitespace=nowarn", said=changes)
        (copy / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
        # A stage that DVC need not run again leaves no timings: those of its last run, beside the lock that says so, are valid still.
        if (root / TIMINGS).is_dir():
            shutil.copytree(root / TIMINGS, copy / TIMINGS)
        yield copy


def _remove_left_over(root: Path) -> None:
    """The copies of sweeps that were killed; each has the number of its process in its name."""
    import psutil

    for folder in (root / ".dvc" / "tmp").glob(f"{COPY}*"):
        if not psutil.pid_exists(int(folder.name.split("-")[1])):
            shutil.rmtree(folder, ignore_errors=True)


# --- what git and DVC know -----------------------------------------------------------------------------------------------------

def _git(folder: Path, *words: str, said: str | None = None) -> str:
    try:
        return subprocess.run(["git", *words], cwd=folder, input=said, capture_output=True, check=True, encoding="utf-8",
                              errors="surrogateescape").stdout
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise UserError(f"A sweep needs a git repository with a commit, and here `git {words[0]}` says: {why}") from None


def _dvc(root: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(words)}` failed: {(done.stderr.strip() or 'it said nothing').splitlines()[-1]}")
    return done.stdout


def finished(root: Path) -> set[str]:
    """Names of the experiments on this commit whose numbers are still in DVC's cache."""
    return {name for name, numbers in measured(root).items() if numbers}


def measured(root: Path) -> dict[str, dict[str, float | None]]:
    """Experiment -> its numbers by dotted name, of every metrics file. `compress.last` is the last of its compress.variants, whatever its name."""
    from streamingvlm.base.numbers import flat

    found = {}
    for commit in json.loads(_dvc(root, "exp", "show", "--json")):
        ended = [one for one in commit.get("experiments") or [] if not one.get("executor")]  # else it runs, or was killed
        for revision in (entry for one in ended for entry in one["revs"] or []):
            data = revision.get("data") or {}
            numbers = {}
            for file in (data.get("metrics") or {}).values():
                numbers |= flat(file.get("data") or {})
            params = ((data.get("params") or {}).get("params.yaml") or {}).get("data") or {}
            variants = params.get("compress", {}).get("variants")
            last = f"compress.{variants[-1]}." if variants else None
            found[revision["name"]] = numbers | {f"compress.last.{key.removeprefix(last)}": value
                                                for key, value in numbers.items() if last and key.startswith(last)}
    return found


def rows(root: Path, wanted: dict[str, dict], failed: dict[str, str]) -> list[dict]:
    """One row per run: {run, state, params: {}, metrics: {}}."""
    known = measured(root)
    return [{"run": name, "state": "done" if name in known else f"failed: {failed.get(name, 'no experiment')}", "params": one,
             "metrics": known.get(name, {})} for name, one in wanted.items()]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m streamingvlm.workbench.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", help="a sweep file such as sweeps/quick.yaml")
    parser.add_argument("--count", type=int, metavar="N",
                        help=f"how many runs (default: a whole grid; run_cap or {sweep_spec.COUNT} of a random sweep)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of a random sweep (default: 0); the same seed, the same runs")
    parser.add_argument("--list", action="store_true", help="say which runs there are and which are left, and run none")
    parser.add_argument("--trial", metavar="JSON", help="one run with these params, logged to W&B: what `wandb agent` calls")
    args = parser.parse_args(argv)
    try:
        if args.trial is not None:
            return trial(args.trial)
        if args.file is None or (args.count is not None and args.count < 1):
            raise UserError("Name a sweep file, such as sweeps/quick.yaml." if args.file is None else "--count must be at least 1.")
        return offline(args.file, args.count, args.seed, args.list)
    except UserError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep: stopped; the same command goes on with what is left.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
