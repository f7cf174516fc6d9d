"""Which rows have a video one can watch: those that cannot be used are listed, and one goes on with the others. Knows no format.

    checked = check(rows, root); print(checked.summary); checked.good, checked.faults
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.media import reader


@dataclass(frozen=True)
class Fault:
    """A row that cannot be watched. `kind`: missing, empty, unreadable, or short (the video ends before the row begins)."""

    id: str
    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Checked:
    """The rows one can go on with, now with the `fps` of their files, and what is wrong with the others."""

    good: list[dict]
    faults: list[Fault]

    @property
    def summary(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(fault.kind for fault in self.faults).items()))
        left = f"; left out: {kinds}, the first {self.faults[0].path}" if self.faults else ""
        return f"{len(self.good)} of {len(self.good) + len(self.faults)} rows have a video to watch{left}"


def check(rows: Iterable[dict], root: Path, thorough: bool = False) -> Checked:
    """Look at every row's video, each file once. `thorough`: decode it to its last frame, which takes as long as that takes."""
    seen: dict[str, reader.Info | tuple[str, str]] = {}
    checked = Checked([], [])
    for row in rows:
        path = Path(root) / row["video"]
        if str(path) not in seen:
            seen[str(path)] = _look(path, thorough)
        found = seen[str(path)]
        if not isinstance(found, tuple) and row["start_s"] >= found.duration_s:
            found = "short", f"{path} lasts {found.duration_s:.1f} s, and the row begins at {row['start_s']:g} s: fetch the whole video."
        if isinstance(found, tuple):
            checked.faults.append(Fault(row["id"], row["video"], *found))
        else:
            checked.good.append(row | {"fps": float(found.fps)})
    return checked


def _look(path: Path, thorough: bool) -> reader.Info | tuple[str, str]:
    try:
        return (reader.verify if thorough else reader.probe)(path)
    except (UserError, OSError, ValueError) as error:
        kind = "missing" if not os.path.exists(path) else "empty" if os.path.isfile(path) and os.path.getsize(path) == 0 else "unreadable"
        return kind, str(error)
