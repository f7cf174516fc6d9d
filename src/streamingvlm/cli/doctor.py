"""`streamingvlm doctor`: is everything here that is needed? Each check answers with a line: ok, note (one can go on) or problem, and what to do.

Works where half of it is broken, torch included, and outside a clone: a check that cannot be made is a line that says why. Changes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.cli import run_command

# Measured after `make repro` with the default params: outputs of 151 MB, which DVC's cache may hold once more, and reports of 27 MB;
# SFT, which needs most memory, had 1,276 MiB resident at most.
RUN_DISK_BYTES, RUN_MEMORY_BYTES = 329 << 20, 1276 << 20
GPU_7B_BYTES = 24e9  # 16.6 GB of weights in bfloat16, the cache, and what a forward needs beside them
OK, NOTE, PROBLEM = "ok", "note", "problem"
AGAIN = "`pip install -r requirements.txt`, in a fresh environment if that does not help"
COLOURS = {OK: "32", NOTE: "33", PROBLEM: "1;31"}


@dataclass(frozen=True)
class Line:
    """What was found: `state` is ok, note or problem; `text` says what to do if it is not ok."""

    name: str
    state: str
    text: str


Found = Iterator[tuple[str, str]]  # (state, text)


def python() -> Found:
    where = "a virtual environment" if sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ else "no virtual environment"
    fits = sys.version_info >= (3, 11)
    yield (OK, f"{platform.python_version()}, {where}") if fits else (PROBLEM, f"{platform.python_version()}, and 3.11 or newer is needed")


def packages(root: Path) -> Found:
    """What is installed against the lock."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in (root / "requirements.txt").read_text(encoding="utf-8").splitlines() if line and line[0] not in "#-"]
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate()]
    missing, other = [], []
    for need in wanted:
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            missing.append(need.name)
            continue
        if not need.specifier.contains(version, prereleases=True):
            other.append(f"{need.name} {version} instead of {str(need.specifier).removeprefix('==')}")
    if missing:
        yield PROBLEM, f"{len(missing)} of {len(wanted)} are missing ({_some(missing)}): `pip install -r requirements.txt`"
    if other:
        yield NOTE, f"{len(other)} of {len(wanted)} have another version than the lock ({_some(other)}): `pip install -r requirements.txt`"
    if not missing and not other:
        yield OK, f"all {len(wanted)} as in requirements.txt"


def torch_build() -> Found:
    try:
        import torch
    except Exception as error:  # a broken build raises what it likes; without it most of what follows cannot be looked at
        yield PROBLEM, f"it cannot be imported ({type(error).__name__}: {_sentence(str(error))}): {AGAIN}"
        return
    yield OK, f"{torch.__version__}, {f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}"


def gpu() -> Found:
    """The GPU as torch sees it, or why it sees none."""
    import torch

    if not torch.cuda.is_available():
        why = "torch sees no GPU"
        if shutil.which("nvidia-smi") and not torch.version.cuda:
            yield NOTE, "this machine seems to have an NVIDIA GPU, and torch is built without CUDA: install torch from PyPI's index to use it"
        else:
            yield NOTE, f"{why}: the tiny model needs none, the 7B model one of {GPU_7B_BYTES / 1e9:.0f} GB"
        return
    free, total = torch.cuda.mem_get_info()
    name = f"{torch.cuda.get_device_name()}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB of it free"
    yield (OK, f"{name}: room for the 7B model") if free >= GPU_7B_BYTES else (
        NOTE, f"{name}: enough for the tiny model, not for the 7B model, which wants {GPU_7B_BYTES / 1e9:.0f} GB free")


def cpu() -> Found:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = run_command.settings(None).run.threads
    text = f"{cores} of {os.cpu_count()} cores may be used, `run.threads` is {threads}"
    yield (OK, text) if threads <= cores else (NOTE, f"{text}: set it to {cores} at most, or every step waits for a thread")


def memory() -> Found:
    import psutil

    free = psutil.virtual_memory().available
    enough = free >= RUN_MEMORY_BYTES
    text = f"{free / 1e9:.1f} GB free"
    yield (OK, text) if enough else (PROBLEM, f"{text}, and the pipeline takes {RUN_MEMORY_BYTES / 1e9:.1f} GB: close other programs")


def disk(root: Path) -> Found:
    free = shutil.disk_usage(root).free
    text = f"{free / 1e9:.1f} GB free"
    yield (OK, text) if free >= RUN_DISK_BYTES else (
        PROBLEM, f"{text}, and a run of the pipeline writes {RUN_DISK_BYTES / 1e9:.1f} GB: free some room")


def clone(root: Path) -> Found:
    ran = _ask(["git", "log", "-1", "--format=%h"], root)
    changed = _ask(["git", "status", "--porcelain"], root) if ran else None
    if ran:
        yield OK, f"git clone at {ran}, {'with changes of your own' if changed else 'unchanged'}"
    else:
        yield NOTE, "no git clone (or no git here): numbers will not say which code made them, and DVC wants `dvc config core.no_scm true --local`"


def data(root: Path) -> Found:
    """DVC's own answer whether data/ is what data.dvc describes: it takes changed data for new data without a word."""
    try:
        ran = subprocess.run([sys.executable, "-m", "dvc", "status", "--json", "data.dvc"], cwd=root, capture_output=True, text=True, timeout=20,
                             check=False)
    except subprocess.TimeoutExpired:
        yield NOTE, "not checked: DVC did not answer within 20 s"
        return
    if ran.returncode:
        yield NOTE, f"not checked, because DVC says: {_sentence(ran.stderr)}"
    elif json.loads(ran.stdout):
        yield PROBLEM, "data/ is not what data.dvc describes: `git checkout data` brings it back, `dvc commit -f data.dvc` accepts new data"
    else:
        yield OK, "data/ is what data.dvc describes"


def videos(root: Path) -> Found:
    """Each file of the data and of the pipeline, its packets and its first frame."""
    from streamingvlm.media import integrity

    found = [path for folder in ("data", "artifacts/subset/videos") for kind in ("*.mp4", "*.avi") for path in sorted((root / folder).glob(kind))]
    checked = integrity.check([{"id": path.stem, "video": str(path.relative_to(root)), "start_s": 0.0} for path in found], root)
    yield (PROBLEM, f"{checked.summary}: {checked.faults[0].reason}") if checked.faults else (OK, f"{len(found)} can be read")


def decoders(root: Path) -> Found:
    """A first frame from each decoder."""
    import av

    from streamingvlm.media import reader

    clips = sorted((root / "data").glob("*.mp4"))
    if not clips:
        yield NOTE, f"PyAV {av.__version__}; there is no clip in data/ to try it on"
        return
    for name, backend in (("PyAV", "pyav"), ("decord", "decord")):
        try:
            next(reader.read_chunks(clips[0], config.Video(), backend=backend))
            yield OK, f"{name} reads {clips[0].name}"
        except UserError as error:
            yield (PROBLEM, str(error)) if backend == "pyav" else (NOTE, "decord is not here or cannot read: PyAV reads everything")


def model(root: Path) -> Found:
    """The model that `run` and `watch` use by default."""
    folder = root / run_command.DEFAULT_MODEL
    if not folder.is_dir():
        yield NOTE, f"{run_command.DEFAULT_MODEL} is not there yet: `make repro` trains it, or name another with --model"
        return
    import torch
    from transformers.utils import logging

    from streamingvlm.models.qwen25 import loading

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    vlm = loading.load(folder, torch.device("cpu"))
    yield OK, f"{run_command.DEFAULT_MODEL} loads, {sum(p.numel() for p in vlm.hf.parameters()) / 1e6:.1f} million parameters"


def tracking() -> Found:
    from streamingvlm.workbench import tracking as wandb

    mode = wandb.mode()
    if mode == "disabled":
        yield OK, "Weights & Biases is off; WANDB_MODE=offline or online turns it on"
    elif mode in ("offline", "online"):
        yield OK, f"Weights & Biases is {mode}"
    else:
        yield NOTE, f"WANDB_MODE is `{mode}`: Weights & Biases knows online, offline and disabled"


EVERYWHERE = (("python", python), ("torch", torch_build), ("GPU", gpu), ("CPU", cpu), ("memory", memory), ("tracking", tracking))
IN_A_CLONE = (("packages", packages), ("clone", clone), ("disk", disk), ("data", data), ("videos", videos), ("decoders", decoders), ("model", model))
WITH_TORCH = ("GPU", "videos", "decoders", "model")


def examine(root: Path | None) -> Iterator[Line]:
    """Every check, one after another. `root`: the clone's folder, None where this is none."""
    checks = [*EVERYWHERE, *((name, lambda check=check: check(root)) for name, check in IN_A_CLONE if root is not None)]
    broken = False
    for name, check in checks:
        if broken and name in WITH_TORCH:
            yield Line(name, NOTE, "not looked at: torch cannot be imported")
            continue
        for line in _guarded(name, check):
            broken = broken or (line.name, line.state) == ("torch", PROBLEM)
            yield line
    if root is None:
        yield Line("clone", NOTE, f"this folder is in no clone of the workbench, so {', '.join(name for name, _ in IN_A_CLONE if name != 'clone')} "
                                  "were not looked at: run this inside one")


def _guarded(name: str, check: Callable[[], Found]) -> Iterator[Line]:
    """The lines of one check. Whatever breaks in it is what was to be found out."""
    try:
        yield from (Line(name, state, text) for state, text in check())
    except UserError as error:
        yield Line(name, PROBLEM, str(error).rstrip("."))
    except ImportError as error:
        yield Line(name, PROBLEM, f"a package cannot be imported ({_sentence(str(error))}): {AGAIN}")
    except Exception as error:
        yield Line(name, PROBLEM, f"this check broke off ({type(error).__name__}: {_sentence(str(error))})")


def _ask(command: list[str], root: Path) -> str | None:
    """The first line a program prints, None where it is not here or fails."""
    try:
        ran = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if ran.returncode else (ran.stdout.splitlines() or [""])[0]


def _sentence(text: str) -> str:
    """The first line of an error, short."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line.removeprefix("ERROR: ").rstrip(".")[:200]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def doctor(args: argparse.Namespace) -> int:
    """Print the lines as they are found -> 0 unless one is a problem, then 1."""
    try:
        root = repository_root()
    except UserError:
        root = None
    lines = []
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in examine(root):
        lines.append(line)
        if not args.json:
            mark = f"\x1b[{COLOURS[line.state]}m{line.state:8}\x1b[0m" if coloured else f"{line.state:8}"
            print(f"{mark}{line.name:9} {line.text}", flush=True)
    problems = sum(line.state == PROBLEM for line in lines)
    if args.json:
        print(json.dumps({"ok": not problems, "checks": [asdict(line) for line in lines]}, indent=1))
    else:
        print(f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    return int(problems > 0)
