"""The arrival trace of a live run: what came when, what was lost before, how long the model took. A small file, complete or not there at all.

    with Recorder(path) as recorder:
        recorder.add(Arrival("gate", epoch=0, index=7, pts_s=0.875, captured_at=..., arrived_at=...))
    for row in read(path): ...                                # in the order they were added
    for row in in_real_time(read(path), time.monotonic, time.sleep): ...

gzip of JSON lines: one header, then one array a row, its kind first. Numbers come back bit for bit. Knows no pixels, no scheduler and no clock.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from streamingvlm.base import files
from streamingvlm.base.errors import UserError

FORMAT = "streamingvlm arrivals 1"


class Arrival(NamedTuple):
    """A frame, where it enters the jitter buffer. `arrived_at` in seconds on the receiver's monotonic clock; `captured_at` as the source tells it."""

    stream: str
    epoch: int
    index: int
    pts_s: float
    captured_at: float
    arrived_at: float


class Lost(NamedTuple):
    """Frames that came in and were dropped before the buffer."""

    stream: str
    count: int
    cause: str
    at: float


class Ran(NamedTuple):
    """A batch of so many frames that was done `at`."""

    size: int
    run_ms: float
    at: float


class Setup(NamedTuple):
    """From `at` on: what a scheduler was made of, [size, ms] of its latency curve and its limits by name. Told again where limits change."""

    at: float
    curve: list
    largest: int
    limits: dict


class Handled(NamedTuple):
    """One event that the scheduler was told `at`, by the name of its class, with its fields: what makes a replay exact."""

    at: float
    event: str
    fields: tuple


Row = Arrival | Lost | Ran | Setup | Handled
KINDS: dict[str, type] = {"arrival": Arrival, "lost": Lost, "ran": Ran, "setup": Setup, "handled": Handled}
_NAMES = {kind: name for name, kind in KINDS.items()}


class Recorder:
    """Writes rows as they come; the file gets its name when all of them are in it. UserError where it cannot be written."""

    def __init__(self, path: Path):
        self.path = files.target(path)
        self._part, self._discarded = self.path.with_name(f".{self.path.name}.{os.getpid()}.part"), False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = gzip.open(self._part, "wt", compresslevel=6, encoding="utf-8")  # noqa: SIM115
            self._file.write(json.dumps({"format": FORMAT}) + "\n")
        except OSError as error:
            raise UserError(f"Can't write {path}: {error.strerror or error}.") from None

    def add(self, row: Row) -> None:
        try:
            self._file.write(json.dumps([_NAMES[type(row)], *row]) + "\n")
        except OSError as error:
            self.discard()
            raise UserError(f"Can't write {self.path}: {error.strerror or error}.") from None

    def close(self) -> None:
        """All rows are in it; where they were discarded, nothing is."""
        if self._discarded:
            return
        try:
            self._file.close()
            os.replace(self._part, self.path)
        except OSError as error:
            self.discard()
            raise UserError(f"Can't write {self.path}: {error.strerror or error}.") from None

    def discard(self) -> None:
        """Leave what was there before."""
        self._discarded = True
        try:
            self._file.close()
        except OSError:  # a full disk: what it still held is not wanted
            pass
        finally:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def read(path: Path) -> Iterator[Row]:
    """The rows of a trace, one after the other. UserError where it is none, or damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            if json.loads(next(lines, "null")) != {"format": FORMAT}:
                raise ValueError("it has another header")
            for line in lines:
                kind, *fields = json.loads(line)
                yield KINDS[kind](*fields)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no arrival trace, or it is damaged ({error}); record it again.") from None


def in_real_time(rows: Iterable[Row], clock: Callable[[], float], sleep: Callable[[float], None], speed: float = 1.0) -> Iterator[Row]:
    """The same rows, each no sooner than it came then, counted from the first; times of arrivals and losses are those of `clock`."""
    begun, first = clock(), math.nan
    for row in rows:
        then = row.arrived_at if isinstance(row, Arrival) else row.at
        first = then if math.isnan(first) else first
        due = begun + (then - first) / speed
        if due > clock():
            sleep(due - clock())
        yield row._replace(arrived_at=due) if isinstance(row, Arrival) else row._replace(at=due)
