"""What each stage of dvc.yaml depends on, read off the imports: its notebook's, and those of every module below it. Written by one command, so that
nobody lists a module by hand.

    python -m streamingvlm.workbench.stage_deps            # rewrites the `src/` lines of dvc.yaml's deps
    python -m streamingvlm.workbench.stage_deps --check    # says whether they are as the imports make them

Imports inside functions of a module do not count: a stage that needs one imports it itself. Files that a module reads
beside itself (a page, a ledger) do.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from streamingvlm.base import files
from streamingvlm.base.errors import UserError, exit_status
from streamingvlm.base.paths import repository_root

PACKAGE = "streamingvlm"
RUNNER = "workbench/run_notebook.py"
# Progress, tracking, widgets and the figures of timings change no declared output of these stages.
SHOWN = {"base/progress.py", "workbench/tracking.py", "workbench/cache_explorer.py"}
REPORTED = {"reporting/figures.py", "reporting/drawing.py", "evaluation/ledger_inputs.py", "evaluation/claims.py", "evaluation/claims.yaml"}
REPORTING = {"05_evaluate", "06_inside_the_cache"}  # whose figures and ledger are outputs


def imports(tree: ast.Module, source: Path, top_only: bool) -> set[str]:
    """The package's modules that this code imports, as paths below `source`. `top_only`: not those imported inside functions."""
    found = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            folder = source.joinpath(*node.module.split(".")[1:])
            names = [folder.with_suffix(".py")] if folder.with_suffix(".py").is_file() else [folder / f"{alias.name}.py" for alias in node.names]
            found |= {str(path.relative_to(source)) for path in names if path.is_file()}
    return found


def beside(module: Path) -> set[Path]:
    """Files that are no code, lie beside a module and are named in it, or are named as it is."""
    text = module.read_text(encoding="utf-8")
    others = [path for path in module.parent.iterdir() if path.is_file() and path.suffix not in {".py", ".pyc"}]
    return {path for path in others if f'"{path.name}"' in text or path.stem == module.stem}


def of_module(name: str, source: Path) -> tuple[set[str], set[str]]:
    """What a module imports, and the files beside it that it reads, as paths below `source`."""
    path = source / name
    found = imports(ast.parse(path.read_text(encoding="utf-8")), source, top_only=True)
    return found, {str(other.relative_to(source)) for other in beside(path)}


def needed(notebook: Path, source: Path, known: Callable[[str], tuple[set[str], set[str]]]) -> list[str]:
    """All files of the package that decide what a notebook's stage writes, sorted. `known`: `of_module`, by a module's name."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    left, seen = [RUNNER, *imports(ast.parse(code), source, top_only=False)], set()
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += known(name)[0]
    seen |= {path for name in seen for path in known(name)[1]}
    return sorted(seen - SHOWN - (set() if notebook.stem in REPORTING else REPORTED))


def wanted(root: Path) -> dict[str, list[str]]:
    """stage -> the deps of dvc.yaml as they should be: what is not code as it stands there, then the code."""
    from ruamel.yaml import YAML

    stages, out = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"], {}
    source = root / "src" / PACKAGE
    known = cache(partial(of_module, source=source))  # ten notebooks share most of their modules
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        stage = notebook.stem.partition("_")[2]
        if stage not in stages:
            raise UserError(f"dvc.yaml has no stage `{stage}` for notebooks/{notebook.name}: add one (the docstring of workbench/ says how).")
        other = [dep for dep in stages[stage]["deps"] if not dep.startswith(f"src/{PACKAGE}/")]
        out[stage] = other + [f"src/{PACKAGE}/{name}" for name in needed(notebook, source, known)]
    return out


def rewritten(root: Path) -> str:
    """dvc.yaml with these deps; everything else, comments too, stays as it is."""
    lines, out, stage, inside = (root / "dvc.yaml").read_text(encoding="utf-8").splitlines(), [], None, False
    deps = wanted(root)
    for line in lines:
        if line.startswith("  ") and not line.startswith("   ") and line.rstrip().endswith(":"):
            stage = line.strip(" :")
        if inside and line.startswith("    - "):
            continue
        inside = stage in deps and line == "    deps:"
        out.append(line)
        if inside:
            out += [f"    - {dep}" for dep in deps[stage]]
    return "\n".join(out) + "\n"


@exit_status
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 2 where dvc.yaml is not as the imports make it")
    args = parser.parse_args(argv)
    path = repository_root() / "dvc.yaml"
    text = rewritten(path.parent)
    if text == path.read_text(encoding="utf-8"):
        return
    if args.check:
        raise UserError("dvc.yaml's deps are not those of the imports: `python -m streamingvlm.workbench.stage_deps` writes them.")
    files.write(path, text)


if __name__ == "__main__":
    sys.exit(main())
