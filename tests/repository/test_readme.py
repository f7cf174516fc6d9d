"""The README stays short, its map is of the rooms there are, and what it names exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
MADE = ("reports/", ".venv")  # by a run


def test_it_fits_a_reader():
    lines = TEXT.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 160


def test_the_map_is_of_the_rooms_there_are_in_their_order():
    rooms = re.findall(r"^\| `(\w+)/` \| \S.* \|$", TEXT.partition("## The rooms")[2], re.MULTILINE)
    package = ROOT / "src" / "streamingvlm"
    assert set(rooms) == {path.parent.name for path in package.glob("*/__init__.py")} and len(rooms) == len(set(rooms))
    layers = re.search(r"^layers = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert rooms == [name.strip(' "') for name in reversed(layers.split(","))], "each knows only those above it"


def test_what_it_names_exists():
    tracked = set(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert links and all(target.rstrip("/") in tracked or (ROOT / target).is_dir() for target in links), links
    code = "\n".join(re.findall(r"`([^`\n]+)`", TEXT) + re.findall(r"```\n(.*?)```", TEXT, re.DOTALL))
    paths = set(re.findall(r"(?<![\w./])(?:[\w-]+/)*[\w.-]+(?:\.(?:py|ya?ml|json|md)|/)(?![\w/])", code))
    here = {path for path in paths if (ROOT / path).exists() or path.startswith(MADE) or list(ROOT.glob(f"src/streamingvlm/**/{path}"))}
    assert paths - here == set()


def test_every_make_target_it_names_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^|=\S+ )make ([a-z][a-z-]+)", TEXT, re.MULTILINE)) - {"repro"} <= targets and "repro" in targets


def test_pictures_have_words():
    pictures = re.findall(r"!\[([^\]]*)\]", TEXT)
    assert pictures and all(len(words) > 20 for words in pictures)
