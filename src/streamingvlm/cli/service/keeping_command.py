"""`streamingvlm token` and `streamingvlm data`: who may come in to a service, and what it keeps of whom. Neither needs the service to run; it may.

    streamingvlm token add gatekeeper --role read --cameras gate,yard --until 2027-01-01      # the token alone on standard output, this once
    streamingvlm token list | revoke gatekeeper | log
    streamingvlm data card cameras.yaml
    streamingvlm data export out --store records.sqlite --camera gate --from 2026-11-01 --to 2026-12-01
    streamingvlm data delete --store records.sqlite --camera gate
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from pathlib import Path

from streamingvlm.base.errors import UserError

LOGGED = 200  # rows of the audit log


def token(args: argparse.Namespace) -> None:
    """UserError for what makes no sense."""
    from streamingvlm.serving.access.tokens import Tokens

    if (args.name is None) == (args.verb in {"add", "revoke"}):
        raise UserError(f"`streamingvlm token {args.verb}` takes {'the name of a token' if args.name is None else 'no name'}.")
    tokens = Tokens(args.file)
    if args.verb == "add":
        cameras = args.cameras.split(",") if args.cameras else None
        made = tokens.add(args.name, args.role, cameras, moment(args.until) if args.until else None)
        print(made)
        print("It is shown this once: keep it where only its bearer sees it.", file=sys.stderr)
    elif args.verb == "revoke":
        tokens.revoke(args.name)
        print(f"{args.name!r} is revoked; a running service knows within a second.", file=sys.stderr)
    elif args.verb == "list":
        print("\n".join(_rows(tokens)) or "There is no token yet: `streamingvlm token add NAME` makes one.")
    else:
        print("\n".join(_log(tokens)) or "Nothing is logged yet.")


def moment(text: str) -> float:
    """A day or a time in ISO 8601, UTC where it names no zone -> seconds since 1970. UserError."""
    try:
        told = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{text[:40]!r} is no date: write 2027-01-01, or 2027-01-01T18:00.") from None
    return (told if told.tzinfo else told.replace(tzinfo=datetime.UTC)).timestamp()


def _rows(tokens) -> list[str]:
    now = datetime.datetime.now(datetime.UTC).timestamp()
    return [f"{row.name:24} {row.role:10} {','.join(sorted(row.cameras)) if row.cameras is not None else 'all cameras':24} "
            f"{'revoked ' + _day(row.revoked) if row.revoked else 'for good' if math.isinf(row.until) else 'until ' + _day(row.until)}"
            f"{'' if row.revoked or row.alive(now) else ' (over)'}" for row in tokens.rows().values()]


def _log(tokens) -> list[str]:
    from streamingvlm.serving.access.audit import Audit

    return [f"{_day(row['at'], 'seconds')} {row['count']:5}x {row['who']:20} {row['address']:16} {row['status']:6} {row['what']} {row['cameras']}"
            for row in Audit(tokens.engine).rows(limit=LOGGED)]


def _day(at: float, to: str = "") -> str:
    told = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return told.isoformat(timespec=to) if to else told.date().isoformat()


def data(args: argparse.Namespace) -> None:
    """UserError for what makes no sense."""
    if (args.file is None) != (args.verb == "delete"):
        raise UserError(f"`streamingvlm data {args.verb}` takes {'no file' if args.verb == 'delete' else 'the name of a file or folder'}.")
    if args.verb == "card":
        return print(_card(args), end="")
    if not args.store:
        raise UserError(f"`streamingvlm data {args.verb}` needs --store: the file or address that `service.store` names.")
    start, end = (moment(text) if text else None for text in (args.start, args.end))
    if args.verb == "delete" and not (args.camera or args.start or args.end):
        raise UserError("Say what is to be deleted: --camera, --from or --to; `--from 1970-01-01` is everything.")
    store = _opened(args.store)
    try:
        if args.verb == "delete":
            return print(f"{store.erase(args.camera, start, end)} records are deleted.")
        from streamingvlm.serving.governance import export

        made = export(store, args.camera, start, end, args.file)
        print(f"{made['records']} records and {made['pictures']} pictures are in {args.file}.")
    finally:
        store.close()


def _card(args: argparse.Namespace) -> str:
    from streamingvlm.serving import cameras
    from streamingvlm.serving.governance import card

    settings = cameras.load(args.file)
    where = args.store or settings.service.store
    if not where:
        return card(settings.service, settings.cameras)
    store = _opened(where)
    try:
        return card(settings.service, settings.cameras, store.counted())
    finally:
        store.close()


def _opened(where: str):
    from streamingvlm.serving.store import Store

    if "://" not in where and not Path(where).exists():
        raise UserError(f"There is no {where}: name the store of a service that has run.")
    return Store(where, keep_s=float("inf"))
