"""Who saw and changed what: one row for each change, and for what is looked at again and again one a minute, with how often. Knows no door.

    audit = Audit(engine); audit.note(Entry("guard", "read", "192.0.2.7", "GET /api/cameras", "", "200")); audit.flush()
    async with audit.during(doing := Doing(entry), changes=True):      # in the table before the change is made, or it is not made
        ...; doing.status = "204"
    audit.rows(start, end, limit)

Holds names, never a token. What cannot be written waits, a bounded number of rows of it; `lost` counts the rest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, astuple, dataclass, replace

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from streamingvlm.base.errors import UserError
from streamingvlm.serving.access.tables import AUDIT
from streamingvlm.serving.store import reason

FOLD_S = 60.0
ROOM = 4096  # rows that wait
KEPT_S = 365 * 86_400.0


@dataclass(frozen=True)
class Entry:
    """`cameras`: the names that were asked for, empty: all that the token may see. `status`: of HTTP or gRPC, `open` while it lasts."""

    who: str
    role: str
    address: str
    what: str
    cameras: str
    status: str

    def shortened(self) -> dict:
        return {key: value.replace("\0", "")[: 4000 if key == "cameras" else AUDIT.c[key].type.length] for key, value in asdict(self).items()}


class Unwritten(UserError):
    """A change that can't be written down, and so is not made."""


class Doing:
    """What is done just now. `status`: how it ended; `cameras`: those it turned out to be about. Both may be set until it has ended."""

    def __init__(self, entry: Entry, status: str = "cut off"):
        self.entry, self.status, self.cameras = entry, status, set(filter(None, entry.cameras.split(",")))

    def ended(self) -> Entry:
        return replace(self.entry, status=self.status, cameras=",".join(sorted(self.cameras)))


def refused(denied, address: str, what: str) -> Entry:
    """Of a `gate.Denied`. Of whom nobody knows, what they asked for is not kept: they could write whatever they like into the log."""
    who, role = (denied.grant.name, denied.grant.role) if denied.grant else ("nobody", "")
    return Entry(who, role, address, what, "", str(denied.status))


class Audit:
    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time):
        self.engine, self.clock, self.lost = engine, clock, 0
        self._lock = threading.Lock()
        self._folded: dict[tuple, list] = {}  # entry -> [entry, first, last, count]

    def note(self, entry: Entry) -> None:
        """Something was looked at, or refused. Never waits."""
        now = self.clock()
        with self._lock:
            held = self._folded.get(astuple(entry))
            if held:
                held[2], held[3] = now, held[3] + 1
            elif len(self._folded) < ROOM:
                self._folded[astuple(entry)] = [entry, now, now, 1]
            else:
                self.lost += 1

    def flush(self, everything: bool = True) -> None:
        """Write what waits, or only what began a minute ago. What can't be written waits on."""
        now = self.clock()
        with self._lock:
            ready = {key: held for key, held in self._folded.items() if everything or not 0 <= now - held[1] < FOLD_S}
            rows = [held[0].shortened() | {"at": held[1], "until": held[2], "count": held[3]} for held in ready.values()]
            for key in ready:
                del self._folded[key]
        if not rows:
            return
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(AUDIT), rows)
        except SQLAlchemyError:
            with self._lock:
                room = max(ROOM - len(self._folded), 0)
                back = [(key, held) for key, held in ready.items() if key not in self._folded]
                self._folded |= dict(back[:room])
                self.lost += len(ready) - len(back[:room])

    @asynccontextmanager
    async def during(self, doing: Doing, changes: bool, lasts: bool = False) -> AsyncIterator[None]:
        """Around what is done: its row has an end, however it ends. `changes`: written before it begins, or `Unwritten` and it does not begin; what
        only looks is noted at its end, and what `lasts` at its beginning too."""
        done = await asyncio.to_thread(self.change, doing.entry) if changes else None
        if lasts and not changes:
            self.note(doing.entry)
        try:
            yield
        finally:
            if done:
                await asyncio.to_thread(done, doing.ended())
            else:
                self.note(doing.ended())

    def change(self, entry: Entry) -> Callable[[Entry], None]:
        """Write down a change before it is made -> what to call with how it ended. `Unwritten`, and so no change, where that can't be done."""
        row = entry.shortened() | {"at": self.clock(), "until": self.clock(), "count": 1}
        try:
            with self.engine.begin() as connection:
                number = connection.execute(insert(AUDIT).values(row)).inserted_primary_key[0]
        except SQLAlchemyError as error:
            raise Unwritten(f"This was not done, because the audit log can't be written ({reason(error)}).") from None

        def done(ended: Entry) -> None:
            told = ended.shortened()
            try:
                with self.engine.begin() as connection:
                    connection.execute(update(AUDIT).where(AUDIT.c.id == number).values(
                        status=told["status"], cameras=told["cameras"], until=self.clock()))
            except SQLAlchemyError:
                self.lost += 1

        return done

    def rows(self, start: float | None = None, end: float | None = None, limit: int = 1000) -> list[dict]:
        """The newest `limit` of [start, end) seconds since 1970, newest first."""
        self.flush()
        within = [AUDIT.c.at >= start] if start is not None else []
        within += [AUDIT.c.at < end] if end is not None else []
        try:
            with self.engine.connect() as connection:
                found = connection.execute(select(AUDIT).where(*within).order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(limit)).mappings().all()
        except SQLAlchemyError as error:
            raise UserError(f"The audit log can't be read ({reason(error)}).") from None
        return [{key: value for key, value in row.items() if key != "id"} for row in found]

    def tidy(self, kept_s: float = KEPT_S) -> None:
        with self.engine.begin() as connection:
            connection.execute(delete(AUDIT).where(AUDIT.c.until < self.clock() - kept_s))
