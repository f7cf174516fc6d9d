"""The tables of tokens and of the audit log, in a database of their own: who may come in is no record of what was seen. Knows no token's secret.

    engine = opened("access.sqlite")      # or postgresql://user:password@host/name
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import BigInteger, Column, Float, Identity, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.engine import Engine

from streamingvlm.serving.store import connected, parsed

metadata = MetaData()
TOKENS = Table("tokens", metadata, Column("id", String(16), primary_key=True), Column("name", String(100), nullable=False),
               Column("hash", String(200), nullable=False), Column("role", String(20), nullable=False), Column("cameras", Text),
               Column("made", Float(53), nullable=False), Column("until", Float(53)), Column("revoked", Float(53)))
AUDIT = Table("audit", metadata, Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
              Column("at", Float(53), nullable=False), Column("until", Float(53), nullable=False), Column("count", Integer, nullable=False),
              Column("who", String(100), nullable=False), Column("role", String(20), nullable=False), Column("address", String(100), nullable=False),
              Column("what", String(300), nullable=False), Column("cameras", Text, nullable=False), Column("status", String(40), nullable=False),
              Index("audit_at", "at"))


def opened(where: str) -> Engine:
    """An engine whose tables are there; a file that is new is its owner's alone. UserError where it can't be had."""
    url = parsed(where, "tokens")
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        with suppress(OSError):  # `connected` says what is wrong with the place
            os.close(os.open(url.database, os.O_CREAT | os.O_WRONLY, 0o600))
    return connected(url, metadata)
