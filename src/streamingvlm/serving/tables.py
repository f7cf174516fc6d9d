"""The tables of stored records, one a type: the record as it was published, and beside it the columns that people search by. Knows no database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Identity, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()
COLUMNS = {
    "decision": ("stream", "seq", "at", "epoch", "frame", "pts_s", "action", "event_score"),
    "alarm": ("stream", "seq", "at", "kind", "state", "frame", "score"),
    "comment": ("stream", "seq", "at", "start_s", "end_s", "text"),
    "state": ("stream", "seq", "at", "state", "reason", "epoch"),
}
_NAMES = {"decision": "decisions", "alarm": "events", "comment": "comments", "state": "states"}
_KINDS = {"seq": BigInteger, "at": Float(53), "epoch": BigInteger, "frame": BigInteger, "pts_s": Float(53), "event_score": Float(53),
          "score": Float(53), "start_s": Float(53), "end_s": Float(53), "text": Text, "reason": Text}
_NEEDED = {"stream", "seq", "at"}


def _table(type_: str) -> Table:
    name = _NAMES[type_]
    columns = [Column(column, _KINDS.get(column, String(200)), nullable=column not in _NEEDED) for column in COLUMNS[type_]]
    pictures = [Column("jpeg", LargeBinary)] if type_ == "alarm" else []
    return Table(name, metadata, Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True), *columns,
                 Column("record", Text, nullable=False), *pictures,
                 Index(f"{name}_stream_at", "stream", "at"), Index(f"{name}_at", "at"), Index(f"{name}_seq", "seq"))


TABLES = {type_: _table(type_) for type_ in COLUMNS}
