"""The ledger to read (claims.md, a head of one line a claim, then each claim with its numbers) and to compute with (claims.json). Judges nothing.

    ledger_text.write(claims.ledger(measured, context, repeats), root / "reports")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from streamingvlm.base import files
from streamingvlm.evaluation import claims

PREFACE = ("A verdict with \"tiny scale\" is about the direction of an effect on a toy model; no published figure of a large model was reproduced. "
           "Where several seeds were run, apart from this run (`python bench/ablation.py`, reports/reference/ablation_seeds.json), their mean and "
           "its 95 % interval stand beside.")
MARKS = {True: "holds", False: "fails", None: "beside"}


def to_json(rows: Sequence[dict]) -> str:
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def one_number(row: dict) -> str | None:
    """The decisive number of a row, in words; None where it has none."""
    return next((claims.said(one) for one in row["numbers"] if one["decisive"] and one["value"] is not None), None)


def one_reason(row: dict) -> str:
    """The first part of why: which checks hold or fail, or what is missing."""
    first = row["why"].partition(";")[0]
    return first.partition(":")[0] if first.startswith(("no number for", "the run is too small")) or "checks failed" in first else first


def counted(rows: Sequence[dict]) -> str:
    """ "1 reproduced, 4 partly reproduced, 5 need what isn't here". """
    return ", ".join(f"{count} {kind}" for kind, count in claims.counts(rows).items()) or "none"


def to_markdown(rows: Sequence[dict], base: str = "../") -> str:
    """`base`: the way from the folder that holds it to the root of the repository, for links."""
    lines, sources = ["# Claim ledger", "", PREFACE, ""], claims.claims()["sources"]
    for source, about in sources.items():
        chosen = [row for row in rows if row["source"] == source]
        lines += [f"## {about['title']}", "", about["about"], "", f"{counted([row for row in chosen if not row['ours']])}.", ""]
        lines += ["| | claim | verdict | one number | one reason |", "| --- | --- | --- | --- | --- |"]
        lines += [_line([row["id"], row["short"] + (" (ours)" if row["ours"] else ""), claims.kind(row["verdict"]), one_number(row), one_reason(row)])
                  for row in chosen] + [""]
    for row in rows:
        lines += ["", *_section(row, base)]
    lines += ["", "## Measured on", ""]
    where = dict.fromkeys(tuple((key, row[key]) for key in claims.CONDITIONS) for row in rows if row["values"])
    for one in where:
        lines.append("- " + "; ".join(f"{key}: {value}" for key, value in one if value))
    return "\n".join(lines if where else [*lines, "Nothing was measured."]) + "\n"


def _section(row: dict, base: str) -> list[str]:
    """One claim with all its numbers."""
    published = "no figure published" if row["published"] is None else f"published: {row['published']}"
    published += "" if row["baseline"] is None else f" (baseline {row['baseline']})"
    links = ", ".join(f"[{key}]({base}{row[key]})" for key in ("notebook", "figure") if row[key])
    lines = [f"### {row['id']} · {_flat(row['claim'])}", "", f"**{row['verdict']}** — {_flat(row['why'])}", "",
             f"{_flat(row['metric'])}; {published}"]
    lines += [f"- {'**decisive** · ' if one['decisive'] else ''}{_flat(claims.said(one))}"
              + (f" — {MARKS[one['holds']]}, wanted {one['wanted']}" if one["wanted"] else "") for one in row["numbers"] if one["value"] is not None]
    return [*lines, *([f"- see {links}"] if links else [])]


def _flat(text: str) -> str:
    return " ".join(str(text).split())


def _line(cells) -> str:
    return "| " + " | ".join("—" if cell is None else _flat(cell).replace("|", "\\|") for cell in cells) + " |"


def write(rows: Sequence[dict], folder: Path, base: str = "../") -> None:
    """claims.md and claims.json, each whole or not at all."""
    files.write(Path(folder) / "claims.md", to_markdown(rows, base))
    files.write(Path(folder) / "claims.json", to_json(rows))
