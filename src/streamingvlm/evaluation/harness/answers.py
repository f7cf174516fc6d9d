"""Answers on disk, as they come: JSON lines that a killed run goes on with. The first line holds the settings; with others nothing is mixed.

    answers = Answers(path, {"benchmark": "ovo", "fps": 2.0, ...}, revision)
    if not answers.has("stream", item.id): answers.add("stream", item, response)
"""

from __future__ import annotations

import json
from pathlib import Path

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.harness.protocol import Item


class Answers:
    """`(way, question) -> response`. `settings`: all that changes an answer. `revision`: of the code, noted whenever a run begins or goes on."""

    def __init__(self, path: Path, settings: dict, revision: str):
        self.path, self.settings = path, settings
        self.said: dict[tuple[str, str], str] = {}
        self.revisions: list[str] = []
        lines = self._whole_lines()
        if lines:
            self._check(lines[0])
            self._take(lines[1:])
        if revision not in self.revisions:
            self.revisions.append(revision)
            lines.append({"revision": revision})
        files.write_lines(lines if "settings" in lines[0] else [{"settings": settings}, *lines], path)

    def _whole_lines(self) -> list[dict]:
        """The lines of the file; the last one is dropped where a kill left half of it. Empty where there is no file."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{self.path} is there and cannot be read: name another file with --out.") from None
        try:
            found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        except ValueError:
            found = [None]
        if not all(isinstance(one, dict) for one in found) or (found and "settings" not in found[0]) or (text and not found):
            raise UserError(f"{self.path} is there and holds no answers of a benchmark: name another file with --out.")
        return found

    def _check(self, first: dict) -> None:
        before = first["settings"]
        changed = [key for key in {**before, **self.settings} if before.get(key) != self.settings.get(key)]
        if changed:
            key = changed[0]
            raise UserError(f"{self.path} was begun with {key} {before.get(key)!r}, not {self.settings.get(key)!r}: name another file with --out, or "
                            "go on with the settings it has.")

    def _take(self, lines: list[dict]) -> None:
        for line in lines:
            if "revision" in line:
                self.revisions.append(line["revision"])
            else:
                self.said[line["way"], line["id"]] = line["response"]

    def has(self, way: str, name: str) -> bool:
        return (way, name) in self.said

    def add(self, way: str, item: Item, response: str) -> None:
        """On disk before the next is asked."""
        line = {"way": way, "id": item.id, "video": item.video, "ask_at_s": item.ask_at_s, "answer": item.answer, "response": response}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.said[way, item.id] = response
