"""Who words a question: we do, or a file of the user's. `--template FILE` is a text with {question} and {options} in it, or the Python file in which
a benchmark's repository keeps its prompts: its string constants are read, nothing in it is run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.harness.protocol import CHOICE, Benchmark, Item, Templates, fill_plain, prompt


def read(path: Path) -> Templates:
    """The texts in a file by name; the only one of a text file stands under ""."""
    try:
        text = path.read_text(encoding="utf-8")
        return _constants(text) if path.suffix == ".py" else {"": text}
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
        raise UserError(f"{path} cannot be read as {'Python' if path.suffix == '.py' else 'text'}: name another file with --template.") from None


def _constants(text: str) -> dict[str, str]:
    return {node.targets[0].id: node.value.value for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)}


def wording(benchmark: Benchmark, path: Path | None) -> Callable[[Item], str]:
    """Item -> prompt. A plain text serves multiple choice; questions of another kind keep our words."""
    if path is None:
        return prompt
    templates = read(path)
    if "" in templates:
        if "{question}" not in templates[""]:
            raise UserError(f"{path} has no {{question}} in it: write where the question goes, and with {{options}} where the options go.")
        return lambda item: fill_plain(item, templates) if item.kind == CHOICE else prompt(item)
    if benchmark.fill is None:
        raise UserError(f"The text of {benchmark.name} cannot be taken out of a Python file: name a text file with {{question}} and {{options}}.")

    def fill(item: Item) -> str:
        try:
            return benchmark.fill(item, templates)
        except (KeyError, IndexError) as error:
            raise UserError(f"{path} lacks what {benchmark.name} asks with ({error.args[0]}): name the file of its repository.") from None

    return fill
