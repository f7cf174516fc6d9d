"""Published annotation files -> entries, and where a video is. A file that is not the published one: one sentence that names the missing field.

    for entry in entries(folder, ("ovo_bench_new.json", "data/ovo_bench_new.json")):
        entry.text("question"), entry.number_of("realtime"), entry.options("options")
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.harness.protocol import LETTERS

USUAL = 4  # options of a question whose list is whole


@dataclass(frozen=True)
class Entry:
    """One entry of an annotation file; what it lacks is said with the file's name and the entry's number."""

    path: Path
    number: int
    data: dict

    def wrong(self, name: str, wanted: str) -> UserError:
        missing = f"the field `{name}` is missing" if name not in self.data else f"`{name}` must be {wanted}, not {repr(self.data[name])[:60]}"
        return UserError(f"{self.path}, entry {self.number}: {missing}; name the folder with the file as it was published.")

    def text(self, name: str) -> str:
        value = self.data.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.wrong(name, "text")
        return str(value)

    def number_of(self, name: str) -> float:
        value = self.data.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "a number")
        return float(value)

    def whole(self, name: str, below: int | None = None) -> int:
        value = self.number_of(name)
        if value != int(value) or value < 0 or (below is not None and value >= below):
            raise self.wrong(name, f"a whole number{'' if below is None else f' below {below}'}")
        return int(value)

    def seconds(self, name: str) -> float:
        """"00:03:10", "03:10" or a number."""
        value = self.data.get(name)
        if isinstance(value, str) and re.fullmatch(r"(\d+:){1,2}\d+(\.\d+)?", value):
            return sum(float(part) * 60**k for k, part in enumerate(reversed(value.split(":"))))
        return self.number_of(name)

    def options(self, name: str, rejoin: bool = False) -> tuple[str, ...]:
        """The options without their letters. `rejoin`: see `rejoined`; only where the right one is named by its letter."""
        value = self.data.get(name)
        value = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(value, list | tuple) or len(value) < 2 or not all(isinstance(each, str | int | float) for each in value):
            raise self.wrong(name, "a list of options")
        texts = [str(each) for each in value]
        return unlettered(rejoined(texts) if rejoin else texts)

    def entries(self, name: str) -> list[Entry]:
        """A list of objects inside this one."""
        value = self.data.get(name)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.wrong(name, "a list of objects")
        return [Entry(self.path, self.number, each) for each in value]

    def letter(self, name: str, count: int) -> str:
        value = self.text(name)
        if value not in LETTERS[:count]:
            raise self.wrong(name, f"one of {', '.join(LETTERS[:count])}")
        return value


def unlettered(options: Sequence[str]) -> tuple[str, ...]:
    """"A. red" -> "red", where every option carries the letter of its place."""
    found = [re.match(rf"\s*\(?{letter}[.):]\s*(.*)", option, re.DOTALL) for letter, option in zip(LETTERS, options, strict=False)]
    return tuple(one.group(1) for one in found if one) if found and all(found) else tuple(options)


def rejoined(options: Sequence[str]) -> list[str]:
    """Options in the order of their letters; those that were cut into pieces of a longer list, joined again: what does not begin with the next
    letter belongs to the one before. As they are where their letters tell nothing."""
    letters = [found[1] if (found := re.match(r"\s*([A-H])[.):]", option)) else "" for option in options]
    if sorted(letters) == list(LETTERS[: len(options)]):
        return [option for _, option in sorted(zip(letters, options, strict=True))]
    if letters[0] != "A" or len(options) <= USUAL:
        return list(options)
    found: list[str] = []
    for letter, option in zip(letters, options, strict=True):
        if letter == LETTERS[len(found)]:
            found.append(option)
        else:
            found[-1] = ", ".join(filter(None, (found[-1], option)))
    return found


def entries(folder: Path, names: Sequence[str]) -> list[Entry]:
    """The entries of the first of `names` that is in the folder: JSON, JSON lines or parquet. UserError unless each is an object."""
    path, found = rows(folder, names)
    if not all(isinstance(row, dict) for row in found):
        raise UserError(f"{path} must be a list of objects: name the folder with the file as it was published.")
    return [Entry(path, number, row) for number, row in enumerate(found, 1)]


def rows(folder: Path, names: Sequence[str]) -> tuple[Path, list]:
    """The first of `names` that is in the folder, and what it lists."""
    path = find(folder, names)
    try:
        found = _parsed(path)
    except (ValueError, UnicodeDecodeError, RecursionError, OSError):
        raise UserError(f"{path} cannot be read as {path.suffix.lstrip('.')}: fetch the file again.") from None
    if not isinstance(found, list) or not found:
        raise UserError(f"{path} must be a list of objects: name the folder with the file as it was published.")
    return path, found


def _parsed(path: Path) -> list:
    if path.suffix == ".parquet":
        import pandas as pd

        return pd.read_parquet(path).to_dict("records")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return json.loads(path.read_text(encoding="utf-8"))


def find(folder: Path, names: Sequence[str]) -> Path:
    """The first of `names` (glob patterns too) in the folder; UserError that names the first of them."""
    if not Path(folder).is_dir():
        raise UserError(f"There is no folder {folder}: name the one the benchmark was downloaded to with --data.")
    for name in names:
        if found := sorted(Path(folder).glob(name)):
            return found[0]
    raise UserError(f"There is no {names[0]} in {folder}: name the folder the benchmark was downloaded to with --data.")


def video(folder: Path, names: Sequence[str]) -> str:
    """The first of `names` that is a file in the folder; the first of them where none is, to be reported as missing."""
    return next((name for name in names if (Path(folder) / name).is_file()), names[0])
