"""`streamingvlm token`: who may come in. The token itself is printed once, alone on standard output, so that it can be piped to where it is needed.

    streamingvlm token add gatekeeper --role read --cameras gate,yard --until 2027-01-01
    streamingvlm token list        streamingvlm token revoke gatekeeper        streamingvlm token log
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys

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
