"""How long what is stored stays, by camera and kind, and how it goes so that it is gone. Works on a database's tables; knows no queue and no door.

    tidied(connection, keeps, Keep.same(7 * 86400), keep_rows, clock.ago)  # what is too old or too much
    erased(connection, ["gate"], start, end)                            # a camera's, or a time's; then:
    scrubbed(engine)                                                    # nothing of it is left in the file
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Table, delete, func, select, text, true, update
from sqlalchemy.engine import Engine

from streamingvlm.serving.tables import TABLES


@dataclass(frozen=True)
class Keep:
    """Seconds that stay: `records` (decisions, sentences, states), `events` (alarms), `pictures` (theirs)."""

    records_s: float
    events_s: float
    pictures_s: float

    @classmethod
    def same(cls, seconds: float) -> Keep:
        return cls(seconds, seconds, seconds)

    def of(self, type_: str) -> float:
        return self.events_s if type_ == "alarm" else self.records_s


def within(table: Table, streams: Collection[str] | None, start: float | None, end: float | None) -> list:
    """Conditions: of these streams (None: all), in [start, end) seconds since 1970."""
    return [true() if streams is None else table.c.stream.in_(streams), true() if start is None else table.c.at >= start,
            true() if end is None else table.c.at < end]


def tidied(connection: Connection, keeps: Mapping[str, Keep], usual: Keep, keep_rows: int, ago: Callable[[float], float]) -> None:
    """Delete what is older than its camera's `Keep` says, and all but `keep_rows` of a camera in one table. `ago(seconds)`: since 1970."""
    for type_, table in TABLES.items():
        for stream in connection.scalars(select(table.c.stream).distinct()).all():
            of_stream, keep = table.c.stream == stream, keeps.get(stream, usual)
            connection.execute(delete(table).where(of_stream, table.c.at < ago(keep.of(type_))))
            if "jpeg" in table.c:
                old = (of_stream, table.c.at < ago(keep.pictures_s), table.c.jpeg.is_not(None))
                connection.execute(update(table).where(*old).values(jpeg=None))
            last = connection.scalar(select(table.c.at).where(of_stream).order_by(table.c.at.desc()).offset(keep_rows).limit(1))
            if last is not None:
                connection.execute(delete(table).where(of_stream, table.c.at <= last))


def erased(connection: Connection, streams: Collection[str] | None, start: float | None, end: float | None) -> int:
    """Delete records, pictures with them -> how many."""
    return sum(connection.execute(delete(table).where(*within(table, streams, start, end))).rowcount for table in TABLES.values())


def scrubbed(engine: Engine) -> None:
    """Write the database anew without what was deleted: no page, no log of SQLite holds it; PostgreSQL's files are rewritten, its archived log is not
    ours to reach. Takes the tables for as long as that takes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "sqlite":
            for pragma in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.execute(text(pragma)).close()
        elif engine.dialect.name == "postgresql":
            for table in TABLES.values():
                connection.execute(text(f'VACUUM (FULL) "{table.name}"'))


def counted(connection: Connection) -> dict[str, dict[str, dict]]:
    """camera -> table -> {count, from, to} of what is stored, and `pictures` how many."""
    found: dict[str, dict[str, dict]] = {}
    for table in TABLES.values():
        columns = [table.c.stream, func.count(), func.min(table.c.at), func.max(table.c.at)]
        columns += [func.count(table.c.jpeg)] if "jpeg" in table.c else []
        for stream, count, first, last, *more in connection.execute(select(*columns).group_by(table.c.stream)):
            found.setdefault(stream, {})[table.name] = {"count": count, "from": first, "to": last} | ({"pictures": more[0]} if more else {})
    return found
