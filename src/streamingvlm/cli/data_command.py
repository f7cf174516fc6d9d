"""`streamingvlm data`: what a service keeps of whom, told, handed over, deleted for good. The store need not be in use; it may be.

    streamingvlm data card cameras.yaml
    streamingvlm data export out --store records.sqlite --camera gate --from 2026-11-01 --to 2026-12-01
    streamingvlm data delete --store records.sqlite --camera gate
"""

from __future__ import annotations

import argparse

from streamingvlm.base.errors import UserError
from streamingvlm.cli.token_command import moment


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
    from pathlib import Path

    from streamingvlm.serving.store import Store

    if "://" not in where and not Path(where).exists():
        raise UserError(f"There is no {where}: name the store of a service that has run.")
    return Store(where, keep_s=float("inf"))
