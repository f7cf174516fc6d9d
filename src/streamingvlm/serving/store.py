"""Records that outlive the process: SQLite in a file, or any database that SQLAlchemy speaks to. A thread of its own writes; nobody waits for it.

    store = Store("records.sqlite", keep_s=7 * 86400)      # or Store("postgresql+psycopg://user:password@host/name")
    results.listen(store.write)
    store.records(["door"], ["alarm"], start, end, limit=100); store.picture(name); store.status(); store.close()

Records wait in a bounded queue and are written a batch at a time. While that cannot be done (a full disk, a database that is away) the batch waits
and is tried again; what finds the queue full is lost, and counted. Knows no camera and no network door.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from heapq import merge

from sqlalchemy import Connection, MetaData, event, func, insert, select
from sqlalchemy.engine import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.protocol import redacted
from streamingvlm.serving.clock import Clock
from streamingvlm.serving.privacy.redactor import Redacted, jpeg_of, stored
from streamingvlm.serving.privacy.retention import Keep, counted, erased, scrubbed, tidied, within
from streamingvlm.serving.results import Record
from streamingvlm.serving.tables import COLUMNS, TABLES, metadata

log = logging.getLogger(__name__)
QUEUED, BATCH = 4096, 512
PICTURES_BYTES = 32 * 2**20  # of alarms' pictures that may wait
WRITE_S, RETRY_S, TIDY_S = 0.5, 1.0, 60.0
CONNECT_S, CLOSE_S = 5, 5.0

Item = tuple[Record, Redacted | None]


class Store:
    """`keep_s`, `keep_rows`: what is older, or more than so many of one camera in one table, is deleted. UserError where there is no database."""

    def __init__(self, where: str, keep_s: float = 7 * 86_400, keep_rows: int = 1_000_000, queued: int = QUEUED):
        self.url = parsed(where)
        self.place = shown(self.url)
        self.keep_s, self.keep_rows = keep_s, keep_rows
        self.keeps: dict[str, Keep] = {}  # of cameras that have a word of their own
        self.written = self.lost = 0
        self.error: str | None = None
        self._waiting: queue.Queue[Item] = queue.Queue(queued)
        self._batch: list[Item] = []
        self._bytes_in = self._bytes_out = 0  # of pictures; each is changed by one thread only
        self._ending, self._woken = threading.Event(), threading.Event()
        self.clock = Clock()
        self._engine = connected(self.url)
        self.newest = self._newest()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def _newest(self) -> int:
        """The highest number that an earlier run gave to a record, 0 for none."""
        with self._reading() as connection:
            return max(connection.scalar(select(func.max(table.c.seq))) or 0 for table in TABLES.values())

    def write(self, record: Record, picture: Redacted | None = None) -> None:
        """Take a record, or count it as lost where too many wait. Never waits; called by one thread at a time, as `Results` does."""
        size = len(jpeg_of(picture)) if picture is not None else 0
        if self._ending.is_set() or self._bytes_in - self._bytes_out + size > PICTURES_BYTES:
            self.lost += 1
            return
        try:
            self._waiting.put_nowait((record, picture))
            self._bytes_in += size
        except queue.Full:
            self.lost += 1

    def status(self) -> dict:
        """written, lost, waiting, and what is wrong just now or None; where it is, is told to the log alone."""
        return {"written": self.written, "lost": self.lost, "waiting": self._waiting.unfinished_tasks, "error": self.error}

    def flush(self, seconds: float = 5.0) -> bool:
        """Whether all that was taken so far is written, or given up, within this time."""
        until = time.monotonic() + seconds
        while waiting := self.status()["waiting"]:
            if time.monotonic() > until:
                break
            self._woken.set()
            time.sleep(0.01)
        return not waiting

    def close(self) -> None:
        """Write what waits, if that goes quickly; the rest is counted as lost."""
        self.flush(CLOSE_S)
        self._ending.set()
        self._woken.set()
        self._thread.join(CLOSE_S)
        self.lost += self.status()["waiting"]
        self._engine.dispose()

    # What is asked of it, in any thread

    def records(self, streams: Collection[str] | None = None, types: Collection[str] | None = None, start: float | None = None,
                end: float | None = None, limit: int = 1000, newest: bool = False) -> list[dict]:
        """At most `limit` records of [start, end) seconds since 1970: the oldest, or those told last, in rising order. UserError: unreadable."""
        found = []
        with self._reading() as connection:
            for table in (TABLES[type_] for type_ in types or TABLES):
                order = [table.c.seq.desc()] if newest else [table.c.at, table.c.seq]  # a clock that was set back makes nothing older
                asked = select(table.c.record).where(*within(table, streams, start, end)).order_by(*order).limit(limit)
                rows = [json.loads(text) for text in connection.scalars(asked)]
                found.append(rows[::-1] if newest else rows)
        ordered = list(merge(*found, key=lambda record: record["seq"] if newest else (record["at"], record["seq"])))
        return ordered[-limit:] if newest else ordered[:limit]

    def picture(self, name: str, streams: Collection[str] | None = None) -> Redacted | None:
        """An alarm's picture by the name in its record, if it is of one of these cameras."""
        if not name.isdecimal() or int(name) >= 2**63:
            return None
        table = TABLES["alarm"]
        with self._reading() as connection:
            asked = select(table.c.jpeg).where(table.c.seq == int(name), *within(table, streams, None, None))
            jpeg = connection.scalar(asked.order_by(table.c.id.desc()).limit(1))
        return None if jpeg is None else stored(jpeg)

    def erase(self, streams: Collection[str] | None = None, start: float | None = None, end: float | None = None) -> int:
        """Delete the records of these cameras in [start, end), pictures too, so that nothing of them is left in the database's files -> how many.
        What waits to be written is written before. UserError where it can't be done."""
        if not self.flush():
            raise UserError("Nothing was deleted: what waits to be written can't be, and would come behind. Try again.")
        try:
            with self._engine.begin() as connection:
                count = erased(connection, streams, start, end)
            scrubbed(self._engine)
            return count
        except SQLAlchemyError as error:
            raise UserError(f"Not everything was deleted ({reason(error)}): try again.") from None

    def counted(self) -> dict[str, dict[str, dict]]:
        """camera -> table -> {count, from, to}: what is stored now."""
        with self._reading() as connection:
            return counted(connection)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise UserError(f"The records can't be read ({reason(error)}).") from None

    # The thread that writes

    def _run(self) -> None:
        tidied = time.monotonic()
        while not self._ending.is_set():
            self._woken.wait(RETRY_S if self.error else WRITE_S)
            self._woken.clear()
            self.clock.look()
            self._write_waiting()
            if time.monotonic() - tidied > TIDY_S and not self.error:
                self.tidy()
                tidied = time.monotonic()

    def _write_waiting(self) -> None:
        while True:
            while len(self._batch) < BATCH and not self._waiting.empty():
                self._batch.append(self._waiting.get_nowait())
            if not self._batch or not self._written(self._batch):
                return
            for _ in self._batch:
                self._waiting.task_done()
            self._batch = []

    def _written(self, batch: list[Item]) -> bool:
        """Whether the batch is dealt with: written, all of it or without the records that no database would take."""
        try:
            with self._engine.begin() as connection:
                _insert(connection, batch)
            self.written += len(batch)
        except (DataError, IntegrityError, TypeError, ValueError, OverflowError) as error:
            if len(batch) > 1:
                return self._written(batch[: len(batch) // 2]) and self._written(batch[len(batch) // 2 :])
            self.lost += 1
            log.warning("A record of %s can't be stored (%s).", batch[0][0]["stream"], reason(error))
        except SQLAlchemyError as error:
            self._say(f"Records can't be stored ({reason(error)}): they wait, and when too many wait they are lost.")
            return False
        self._bytes_out += sum(len(picture or ()) for _, picture in batch)
        self._say(None)
        return True

    def _say(self, error: str | None) -> None:
        if error and not self.error:
            log.warning("%s: %s", self.place, error)
        self.error = error

    def tidy(self) -> None:
        """Delete what is too old or too much."""
        try:
            with self._engine.begin() as connection:
                tidied(connection, self.keeps, Keep.same(self.keep_s), self.keep_rows, self.clock.ago)
            if self._engine.dialect.name == "sqlite":
                with self._engine.connect() as connection:  # the file gets shorter; `execute` would stop after the first page
                    connection.connection.driver_connection.executescript("PRAGMA incremental_vacuum")
        except SQLAlchemyError as error:
            self._say(f"Old records can't be deleted ({reason(error)}).")


def _insert(connection: Connection, batch: list[Item]) -> None:
    for type_, table in TABLES.items():
        rows = [{"record": record.json} | {name: _plain(record.get(name)) for name in COLUMNS[type_]}
                | ({"jpeg": picture and jpeg_of(picture)} if "jpeg" in table.c else {}) for record, picture in batch if record["type"] == type_]
        if rows:
            connection.execute(insert(table), rows)


def _plain(value):
    """PostgreSQL's text holds no NUL."""
    return value.replace("\0", "") if isinstance(value, str) else value


def shown(url: URL) -> str:
    """A database's address without what is secret in it, in its query neither."""
    return redacted(url.render_as_string(hide_password=True))


def parsed(where: str, what: str = "store") -> URL:
    """A URL as it is, PostgreSQL's by psycopg; anything else is a SQLite file. UserError for neither; `what`: the key that it stood behind."""
    if "://" not in where:
        return URL.create("sqlite", database=where)
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise UserError(f"`{what}` is no database's address: write a file's name, or postgresql://user:password@host/name.") from None
    return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgres", "postgresql"} else url


def connected(url: URL, tables: MetaData = metadata) -> Engine:
    """An engine whose tables are there. UserError where they cannot be."""
    options = {"sqlite": {"timeout": CONNECT_S}, "postgresql": {"connect_timeout": CONNECT_S}}
    try:
        engine = create_engine(url, pool_pre_ping=True, connect_args=options.get(url.get_backend_name(), {}))
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
        tables.create_all(engine)
    except (NoSuchModuleError, ImportError):
        raise UserError(f"No driver for {url.drivername} is installed: use SQLite (a file's name) or postgresql://user:password@host/name.") from None
    except SQLAlchemyError as error:
        raise UserError(f"Records can't be stored at {shown(url)} ({reason(error)}).") from None
    return engine


def _prepare_sqlite(connection, _) -> None:
    """Readers beside the writer, one sync a batch, and what is deleted is overwritten and its place used again."""
    for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def reason(error: Exception) -> str:
    """What the database said, in a line and without its prefixes."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines()
    return said[0].rstrip(".") if said else type(error).__name__
