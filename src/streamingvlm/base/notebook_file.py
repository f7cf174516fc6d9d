"""The forms of a notebook file: the source that git keeps, what a stage depends on, an execution that is the same each time. Runs nothing."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from streamingvlm.base import files
from streamingvlm.base.errors import UserError


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """Within this, a module that was not imported before cannot be."""
    missing = name not in sys.modules
    if missing:
        sys.modules[name] = None
    yield
    if missing:
        del sys.modules[name]


with _without("rfc3987_syntax"):  # a grammar of international addresses, which jsonschema would compile for two seconds; no notebook has one
    import nbformat

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"


def canonical(nb: dict) -> nbformat.NotebookNode:
    """The source alone: no outputs, no counters, no metadata but tags. What git keeps and what saving in JupyterLab writes."""
    nb = nbformat.reads(json.dumps(nb), as_version=4)
    had_ids = nb.nbformat_minor >= 5
    nb.metadata, nb.nbformat_minor = nbformat.from_dict(METADATA), 5
    seen = set()
    for number, cell in enumerate(nb.cells):
        if not had_ids or cell.get("id", "") in {"", *seen}:
            cell.id = f"cell-{number:02d}"
        seen.add(cell.id)
        _only_tags(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def stripped(nb: dict) -> nbformat.NotebookNode:
    """What a stage depends on: `canonical` less what names cells or was injected, so it is the same for a source and its execution."""
    nb = canonical(nb)
    nb.cells = [cell for cell in nb.cells if "injected-parameters" not in _tags(cell)]
    return _numbered(nb)


def executed(nb: nbformat.NotebookNode, failed: bool = False) -> nbformat.NotebookNode:
    """An executed notebook without what differs from run to run. A failed one keeps every output: it is read, not compared."""
    nb.metadata = nbformat.from_dict(METADATA)
    for cell in nb.cells:
        _only_tags(cell)
        if cell.cell_type == "code" and not failed:
            cell.outputs = [] if "live" in _tags(cell) else _repeatable(cell.outputs)
    return _numbered(nb)


def _repeatable(outputs: list) -> list:
    kept = []
    for output in outputs:
        stream = output.output_type == "stream"
        if WIDGET in output.get("data", {}) or (stream and output.name == "stderr"):
            continue
        if stream and kept and kept[-1].output_type == "stream":  # how a stream is cut into messages is chance
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _tags(cell: dict) -> list[str]:
    return cell.metadata.get("tags", [])


def _only_tags(cell: dict) -> None:
    cell.metadata = nbformat.from_dict({"tags": _tags(cell)} if _tags(cell) else {})


def _numbered(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    for number, cell in enumerate(nb.cells):
        cell.id = f"cell-{number:02d}"
    return nb


def write(nb: nbformat.NotebookNode, path: Path) -> None:
    """Whole or not at all, and only if it differs."""
    text = nbformat.writes(nb).rstrip("\n") + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    files.write(path, text)


def read(path: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise UserError(f"There is no {path}: check the name.") from None
    except Exception:  # nbformat raises whatever the JSON beneath it does
        raise UserError(f"{path} is not a Jupyter notebook.") from None
