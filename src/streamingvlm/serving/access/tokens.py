"""Tokens: made once, shown once, kept as a hash. Knows no door.

    tokens = Tokens("access.sqlite"); tokens.add("gatekeeper", "read", ["gate"], until=None)   # the token itself, for the only time
    tokens.rows()          # {id: Token}, those that are over too
    matches(row, text)     # whether `text` is this token

A token is `svlm_<id>_<secret>`; the id finds the row, of the secret only a hash by argon2 is kept (argon2-cffi). The secret has 256 random bits: no
guesser reaches it, so the hash takes little memory and milliseconds, where a password's would have to be slow.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from streamingvlm.base.errors import UserError
from streamingvlm.serving.access.needs import ROLES
from streamingvlm.serving.access.tables import TOKENS, opened
from streamingvlm.serving.cameras import NAME
from streamingvlm.serving.store import reason

FORM = re.compile(r"svlm_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
HASHER = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)  # KiB


@dataclass(frozen=True)
class Token:
    """`cameras` None: all. Times in seconds since 1970; `until` infinite where it has no end."""

    id: str
    name: str
    hash: str
    role: str
    cameras: frozenset[str] | None
    made: float
    until: float
    revoked: float | None

    def alive(self, now: float) -> bool:
        return self.revoked is None and now < self.until


class Tokens:
    """`where`: a file or a database's address. UserError where it can't be used."""

    def __init__(self, where: str):
        self.engine = opened(where)

    def add(self, name: str, role: str, cameras: Sequence[str] | None, until: float | None, now: float | None = None) -> str:
        """The new token, which nobody can be shown again. UserError for a role, a name or a time that makes no sense."""
        now = time.time() if now is None else now
        if role not in ROLES:
            raise UserError(f"There is no role {role!r}: {', '.join(ROLES)}.")
        for word in (name, *(cameras or ())):
            if not re.fullmatch(NAME, word):
                raise UserError(f"{word[:60]!r} is no name: letters, digits, spaces, dots, - and _, beginning with a letter or a digit.")
        if until is not None and until <= now:
            raise UserError("The token's end has passed already: name a later day.")
        if any(row.name == name and row.alive(now) for row in self.rows().values()):
            raise UserError(f"There is a token {name!r} already: revoke it first, or choose another name.")
        number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        row = {"id": number, "name": name, "hash": HASHER.hash(secret), "role": role, "made": now, "until": until,
               "cameras": None if cameras is None else ",".join(sorted(set(cameras)))}
        with _said(), self.engine.begin() as connection:
            connection.execute(insert(TOKENS).values(row))
        return f"svlm_{number}_{secret}"

    def rows(self) -> dict[str, Token]:
        with _said(), self.engine.connect() as connection:
            found = connection.execute(select(TOKENS).order_by(TOKENS.c.made)).mappings().all()
        return {row["id"]: Token(**dict(row) | {"cameras": None if row["cameras"] is None else frozenset(row["cameras"].split(",")),
                                                "until": math.inf if row["until"] is None else row["until"]}) for row in found}

    def revoke(self, name: str, now: float | None = None) -> None:
        """UserError where no token of this name is alive."""
        now = time.time() if now is None else now
        alive = [row.id for row in self.rows().values() if row.name == name and row.revoked is None]
        if not alive:
            raise UserError(f"There is no token {name!r} that could be revoked: `streamingvlm token list` shows those there are.")
        with _said(), self.engine.begin() as connection:
            connection.execute(update(TOKENS).where(TOKENS.c.id.in_(alive)).values(revoked=now))


def matches(row: Token, text: str) -> bool:
    """Takes milliseconds, and as long for a wrong secret as for the right one."""
    found = FORM.fullmatch(text)
    try:
        return bool(found) and found[1] == row.id and HASHER.verify(row.hash, found[2])
    except (Argon2Error, InvalidHashError):
        return False


@contextmanager
def _said():
    try:
        yield
    except SQLAlchemyError as error:
        raise UserError(f"The tokens can't be read or changed ({reason(error)}).") from None
