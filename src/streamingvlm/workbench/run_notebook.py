"""Runs one notebook as a DVC stage, so that the same run always leaves the same bytes.

    python -m streamingvlm.workbench.run_notebook --strip               # notebooks/ -> artifacts/sources/: the code alone, what the stages depend on
    python -m streamingvlm.workbench.run_notebook 01_subset             # artifacts/sources/ -> reports/notebooks/: executed with DVC's params
    python -m streamingvlm.workbench.run_notebook --canonical FILE...   # a source notebook in the one form that git keeps

The stage is named as the notebook without its number. Knows notebooks and DVC's params; knows nothing of what a notebook computes.
In a notebook, the cell tagged `parameters` holds `params = None`; a cell tagged `live` shows progress or timings, which are not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import Float

from streamingvlm.base.config import from_dict
from streamingvlm.base.errors import UserError, exit_status
from streamingvlm.base.files import write_json
from streamingvlm.base.notebook_file import canonical, executed, read, stripped, write
from streamingvlm.base.paths import repository_root

if TYPE_CHECKING:
    import nbformat

SOURCES, EXECUTED = Path("artifacts/sources"), Path("reports/notebooks")
WALL = Path("reports/timings/wall.json")  # stage -> seconds, of the last time each ran


class ThisPython(KernelSpecManager):
    """Offers only the interpreter that runs now. A kernel of the same name in the home folder would be another environment."""

    def _kernel_dirs_default(self) -> list[str]:
        return []


class ThisKernel(AsyncKernelManager):
    shutdown_wait_time = Float(0.4)  # all is written when the last cell has run: nobody need wait for a kernel to tidy up

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return ThisPython()


# --- one notebook as a stage ---------------------------------------------------------------------------------------------------

def run(name: str) -> None:
    """Execute artifacts/sources/<name>.ipynb from the repository root, into reports/notebooks/."""
    source, target = SOURCES / f"{name}.ipynb", EXECUTED / f"{name}.ipynb"
    stage = name.partition("_")[2]
    if not source.is_file():
        raise UserError(f"There is no {source}: `dvc repro {stage}` makes it from notebooks/{name}.ipynb.")
    params = params_of(stage)
    from_dict(params)  # a wrong value is reported before a kernel starts
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        # A start-up file in the home folder must not change a result, nor a read-only home stop one.
        os.environ |= {"IPYTHONDIR": scratch, "JUPYTER_RUNTIME_DIR": scratch}
        raw, finished = Path(scratch, "raw.ipynb"), False
        try:
            _execute(name, source, raw, params)
            finished = True
        finally:
            if raw.is_file():
                write(executed(read(raw), failed=not finished), target)
                if not finished:
                    print(f"{name} did not finish; as far as it came it is in {target}.", file=sys.stderr, flush=True)
    walls = json.loads(WALL.read_text()) if WALL.is_file() else {}
    write_json(walls | {stage: round(time.monotonic() - begin, 1)}, WALL)


def params_of(stage: str) -> dict:
    """The params that dvc.yaml declares for a stage, as `dvc.api.params_show` gives them, with DVC's reader of YAML. (DVC would read dvc.lock too,
    which takes over a second.)"""
    from ruamel.yaml import YAML

    declared, params = (YAML(typ="safe").load(Path(name).read_text(encoding="utf-8")) for name in ("dvc.yaml", "params.yaml"))
    found: dict = {}
    for name in declared["stages"][stage].get("params", []):
        *sections, last = name.split(".")
        value, into = params, found
        for section in sections:
            value, into = value[section], into.setdefault(section, {})
        into[last] = value[last]
    return found


def _execute(name: str, source: Path, raw: Path, params: dict) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(str(source), str(raw), parameters={"params": params}, kernel_name="python3", language="python",
                                   kernel_manager_class=ThisKernel, extra_arguments=["--IPKernelApp.log_level=50"],
                                   progress_bar=False, on_cell_start=_progress(name, read(source)),
                                   stdout_file=sys.stdout, stderr_file=sys.stderr)
    except PapermillExecutionError as error:
        if error.ename != "UserError":
            print("\n".join(error.traceback), file=sys.stderr, flush=True)
        raise UserError(error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}") from None
    except DeadKernelError:
        raise UserError(f"The kernel of {name} died; most often it wanted more memory than there is.") from None


def _progress(name: str, nb: nbformat.NotebookNode):
    """A line in the terminal for each cell that starts."""
    total = sum(cell.cell_type == "code" for cell in nb.cells) + 1  # papermill adds the one with the params
    start, number = time.monotonic(), 0

    def on_cell_start(cell, cell_index):
        nonlocal number
        if cell.cell_type == "code":
            number += 1
            first_line = cell.source.partition("\n")[0][:60]
            print(f"{name}  cell {number}/{total}  {time.monotonic() - start:6.1f} s  {first_line}", flush=True)

    return on_cell_start


def _end_with_the_run() -> None:
    """Within a run of DVC, stop as soon as it or the `make` above it is gone: left alone, a kernel would write into the next run's outputs."""
    import psutil

    me, above = psutil.Process(), psutil.Process().parents()
    names = [process.name() for process in above]
    shells = {"sh", "bash", "dash", "zsh", "fish"}
    dvc = next((i for i, found in enumerate(names) if found not in shells), -1)
    make = next((i for i in range(dvc + 1, min(dvc + 3, len(names))) if names[i] in {"make", "gmake"}), dvc)

    def gone(process) -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    def watch():
        while not any(gone(process) for process in above[: make + 1]):
            time.sleep(0.3)
        for process in [*me.children(recursive=True), me]:
            process.kill()

    threading.Thread(target=watch, daemon=True).start()


@exit_status
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m streamingvlm.workbench.run_notebook", description=__doc__.partition("\n")[0])
    parser.add_argument("--strip", action="store_true", help="write the source alone to artifacts/sources/")
    parser.add_argument("--canonical", action="store_true", help="rewrite the named files in the form that git keeps")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a notebook such as 01_subset, or with --canonical a file (--strip: default all)")
    args = parser.parse_args(argv)
    try:
        _main(args)
    except KeyboardInterrupt:
        return 130
    return 0


def _main(args: argparse.Namespace) -> None:
    if args.canonical:
        for file in map(Path, args.names):
            write(canonical(read(file)), file)
        return
    os.chdir(repository_root())
    if "DVC_STAGE" in os.environ:
        _end_with_the_run()
    for name in args.names or (sorted(path.stem for path in Path("notebooks").glob("*.ipynb")) if args.strip else ()):
        if args.strip:
            write(stripped(read(Path("notebooks", f"{name}.ipynb"))), SOURCES / f"{name}.ipynb")
        else:
            run(name)


if __name__ == "__main__":
    sys.exit(main())
