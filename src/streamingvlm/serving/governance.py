"""What a service keeps of whom, told; handed over; and taken away for good. Knows a store by what it can be asked, and no door.

    card(settings, cameras, stored)              # a page in Markdown: what is seen, hidden, kept, by whom it can be had
    export(store, ["gate"], start, end, Path("out"))     # records.jsonl, pictures/, manifest.json: all of it or nothing
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from streamingvlm.base.errors import UserError
from streamingvlm.serving import cameras as config
from streamingvlm.serving.privacy.redactor import HIDE, Redacted, jpeg_of
from streamingvlm.serving.privacy.retention import Keep

PAGE = 1000
HEAD = """# Data card of {title}

What this service sees, hides and keeps, and who can have it: printed by the service itself, of its own settings.

| camera | hidden in its pictures | decisions, sentences, states | alarms | pictures of alarms |
|---|---|---|---|---|
"""
FACTS = """
- Pictures live in memory for as long as they are shown; {pictures}. No sound is taken in.
- Before a picture is stored or sent it goes through a redactor, and nothing else can be. What the model misses it does not hide: claim A16 of the
  ledger says how much that is on labelled cities. The packaged model knows made-up cities; for real footage say `hide: everything` until it is
  measured there.
- {who}
- To hand over or delete: `streamingvlm data export`, `streamingvlm data delete`, or `DELETE /api/records`; what is deleted is overwritten, not only
  unlisted.
- No identity is looked for: boxes, an action, scores of anomalies, a sentence a second. Whether two cameras show the same clothes is compared while
  they run, and not stored.
"""


class Stored(Protocol):
    def records(self, streams: Collection[str] | None = None, types: Collection[str] | None = None, start: float | None = None,
                end: float | None = None, limit: int = 1000, newest: bool = False) -> list[dict]: ...

    def picture(self, name: str) -> Redacted | None: ...


def export(store: Stored, streams: Collection[str] | None, start: float | None, end: float | None, out: Path) -> dict:
    """Everything that is stored of these cameras (None: all) in [start, end) -> the manifest. UserError where `out` is there already."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    if out.exists():
        raise UserError(f"There is a {out} already: name a folder that is not there yet.")
    try:
        (part / "pictures").mkdir(parents=True)
        counts = {"records": 0, "pictures": 0}
        with (part / "records.jsonl").open("w", encoding="utf-8") as lines:
            for record in _all(store, streams, start, end):
                lines.write(json.dumps(record) + "\n")
                counts["records"] += 1
                if record["type"] == "alarm" and record.get("picture") and (picture := store.picture(record["picture"])) is not None:
                    (part / "pictures" / f"{record['picture']}.jpg").write_bytes(jpeg_of(picture))
                    counts["pictures"] += 1
        manifest = {"cameras": sorted(streams) if streams is not None else "all", "from": start, "to": end, **counts,
                    "sha256": {path.relative_to(part).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                               for path in sorted(part.rglob("*")) if path.is_file()}}
        (part / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        os.replace(part, out)
    except OSError as error:
        raise UserError(f"Can't write {out}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _all(store: Stored, streams: Collection[str] | None, start: float | None, end: float | None) -> Iterator[dict]:
    """Page by page, each record once: many may be of one moment, so a page that is all of one is asked for anew, larger."""
    at, seen, limit = start, set(), PAGE
    while True:
        page = store.records(streams, None, at, end, limit)
        new = [record for record in page if record["seq"] not in seen]
        yield from new
        if len(page) < limit:
            return
        last = page[-1]["at"]
        limit = PAGE if last != at else 2 * limit
        at, seen = last, {record["seq"] for record in page if record["at"] == last}


def card(settings: config.Service, watched: Iterable[config.Camera], stored: Mapping[str, Mapping[str, Mapping]] | None = None) -> str:
    """The data card, in Markdown. `stored`: what is there now (`retention.counted`), where that can be said."""
    rows = []
    for camera in watched:
        keep = kept(settings, camera) if settings.store else None
        times = [_days(seconds) for seconds in (keep.records_s, keep.events_s, keep.pictures_s)] if keep else ["not stored"] * 3
        rows.append(f"| {camera.name} | {HIDE[camera.privacy.hide]} | {' | '.join(times)} |\n")
    pictures = "only alarms' are stored" if settings.store else "none are stored"
    now = [_told(name, tables) for name, tables in sorted((stored or {}).items())]
    return "".join([HEAD.format(title=settings.title), *rows, FACTS.format(pictures=pictures, who=_who(settings)), *now])


def _told(name: str, tables: Mapping[str, Mapping]) -> str:
    parts = [f"{about['count']} {table}" + (f" ({about['pictures']} pictures)" if about.get("pictures") else "")
             for table, about in sorted(tables.items())]
    first, last = min(about["from"] for about in tables.values()), max(about["to"] for about in tables.values())
    return f"- Stored now of {name}: {', '.join(parts)}, from {_day(first)} to {_day(last)}.\n"


def kept(settings: config.Service, camera: config.Camera) -> Keep:
    """How long a camera's records stay: its own words, or else the service's."""
    told = camera.keep
    return Keep(*(settings.keep_s if one is None else one for one in (told.records_s, told.events_s, told.pictures_s)))


def _who(settings: config.Service) -> str:
    if settings.access is None:
        return "Who can have it: whoever is on this machine; it listens to nobody else."
    return "Who can have it: bearers of tokens, each for its cameras, role and time; the audit log (`streamingvlm token log`) says who did."


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:g} days" if seconds >= 2 * 86_400 else f"{seconds / 3600:g} hours" if seconds >= 7200 else f"{seconds:g} s"


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="minutes")
