"""The house's own rules that no linter knows: a module stays within 300 lines, a room within a dozen modules.

    python -m streamingvlm.workbench.house_rules     # says what breaks them; `make lint` runs it beside ruff and import-linter
"""

from __future__ import annotations

import sys
from pathlib import Path

LINES, MODULES = 300, 12


def broken(package: Path) -> list[str]:
    """One sentence for each module that is too long and each folder that holds too many."""
    long = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(package.rglob("*.py"))}
    rooms = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in sorted({path.parent for path in long})}
    return [*(f"{path.relative_to(package)} has {lines} lines, more than {LINES}." for path, lines in long.items() if lines > LINES),
            *(f"{folder.relative_to(package)}/ has {count} modules, more than {MODULES}." for folder, count in rooms.items() if count > MODULES)]


if __name__ == "__main__":
    sys.exit("\n".join(broken(Path(__file__).parents[1])) or 0)
