"""The claim ledger: what two documents promise, beside what this run measured, and no more than that.

The claims and their rules are data (claims.yaml); this file only applies them. It knows neither models nor streams: it is given a flat
dict of metric -> number. A number that is missing, NaN or not a number makes the verdict "not measured"; nothing but a number can make it
"reproduced". Every computed verdict carries the words "tiny scale": a direction shown on a toy is not the published figure.

    rows = ledger({"stream.minutes": 10.7, ...}, {"hardware": ..., "dtype": ..., "model": ..., "data": ..., "command": ...})
    write(rows, root / "reports")      # claims.md, claims.json
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from statistics import fmean, stdev

from streamingvlm.base import files
from streamingvlm.base.numbers import number

REPRODUCED = "reproduced (direction, tiny scale)"
PARTLY = "partly reproduced (direction, tiny scale)"
NOT_REPRODUCED = "not reproduced (tiny scale)"
NOT_MEASURED = "not measured"
NOT_ATTEMPTED = "not attempted at this scale"
CONDITIONS = ("hardware", "dtype", "model", "data", "command")
PREFACE = ("What the two source documents claim, and what this run measured. A verdict with \"tiny scale\" is about the direction of an "
           "effect on a toy model; no published figure of a large model was reproduced. Where several seeds were run, apart from this run "
           "(`python bench/ablation.py`, reports/reference/ablation_seeds.json), their mean and its 95 % interval stand beside.")
COLUMNS = {"id": "", "claim": "claim", "metric": "metric", "published": "published", "measured": "measured here", "verdict": "verdict",
           "why": "why", "see": "see"}


def claims() -> dict:
    """claims.yaml as it stands: {sources: {name: title}, claims: {id: row}}."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))


T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}  # Student's t, two-sided, by degrees of freedom


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean of a few independent repetitions (at most 8) and half the width of its 95 % interval; None for one alone."""
    half = T_95[len(values) - 1] * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": round(fmean(values), 4), "half_width": half if half is None else round(half, 4)}


def ledger(measured: dict, context: dict, repeats: Sequence[dict] = ()) -> list[dict]:
    """One row per claim, in the order of claims.yaml. `context`: the CONDITIONS; a dict at `context[claim id]` goes before them.

    `repeats`: flat dicts like `measured`, each of one independent repetition (a seed). A number that all of them have gets its mean and 95 %
    interval there; a difference is taken within each, so that what they share cancels. Verdicts are of `measured` alone."""
    return [_row(name, claim, measured, context, repeats) for name, claim in claims()["claims"].items()]


def _row(name: str, claim: dict, measured: dict, context: dict, repeats: Sequence[dict]) -> dict:
    checks, asides = claim.get("requires", []) + claim.get("checks", []), claim.get("aside", [])
    values = {check["label"]: _value(check, measured) for check in checks + asides}
    known = {label: value for label, value in values.items() if value is not None}
    again = {check["label"]: [value for one in repeats if (value := _value(check, one)) is not None] for check in checks + asides}
    spread = {label: interval(found) | {"n": len(found)} for label, found in again.items() if len(found) > 1}
    verdict, why = _verdict(claim, values)
    here = {**context, **context.get(name, {})} if known else {}
    return {
        "id": name, **{key: claim.get(key) for key in ("source", "claim", "metric", "published", "baseline", "direction")},
        "measured": "; ".join(f"{label} {number(value)}{_spread(spread.get(label))}" for label, value in known.items()) or None,
        "values": known, "intervals": spread,
        **{key: here.get(key) for key in CONDITIONS}, "verdict": verdict, "why": why,
        "notebook": claim.get("notebook") if known else None, "figure": claim.get("figure") if known else None,
    }


def _verdict(claim: dict, values: dict) -> tuple[str, str]:
    """-> (verdict, reason). The only place where a measured number becomes a judgement."""
    if "needs" in claim:
        return f"needs {claim['needs']}", claim["why"]
    if "checks" not in claim:
        return NOT_ATTEMPTED, claim["why"]
    requires, checks = claim.get("requires", []), claim["checks"]
    missing = [check["label"] for check in requires + checks if values[check["label"]] is None]
    if missing:
        return NOT_MEASURED, f"no number for: {', '.join(missing)}"
    too_small = [check for check in requires if not _holds(check, values)]
    if too_small:
        return NOT_MEASURED, f"the run is too small to tell: {_wanted(too_small, values)}"
    failed = [check for check in checks if not _holds(check, values)]
    caveats = [claim[key] for key in ("limit", "caveat") if key in claim]
    if failed:
        lost = len(failed) == len(checks) or any(check.get("essential") for check in failed)
        return NOT_REPRODUCED if lost else PARTLY, "; ".join([f"failed: {_wanted(failed, values)}", *caveats])
    bounds = ", ".join(f"{check['label']} {_bounds(check)}" for check in checks)
    if "limit" in claim:
        caveats[0] = f"only partly, because: {caveats[0]}"
    return PARTLY if "limit" in claim else REPRODUCED, "; ".join([f"all hold: {bounds}", *caveats])


def _value(check: dict, measured: dict) -> float | None:
    """metric, metric - minus or metric / over; None unless every part is a finite number."""
    parts = [measured.get(check[key]) for key in ("metric", "minus", "over") if key in check]
    if not all(isinstance(part, Real) and not isinstance(part, bool) and math.isfinite(part) for part in parts):
        return None
    if "over" in check and parts[1] <= 0:
        return None
    # Rounded, so that 0.94 - 0.95 does not miss a bound of -0.01 by one bit.
    return round(float(parts[0] / parts[1] if "over" in check else parts[0] - parts[1] if "minus" in check else parts[0]), 9)


def _holds(check: dict, values: dict) -> bool:
    return check.get("at_least", -math.inf) <= values[check["label"]] <= check.get("at_most", math.inf)


def _bounds(check: dict) -> str:
    low, high = (number(check[key]) if key in check else None for key in ("at_least", "at_most"))
    return f"{low} to {high}" if low and high else f">= {low}" if low else f"<= {high}"


def _wanted(checks: list[dict], values: dict) -> str:
    return ", ".join(f"{check['label']} is {number(values[check['label']])}, wanted {_bounds(check)}" for check in checks)


def _spread(found: dict | None) -> str:
    return f" ({found['n']} seeds: {found['mean']:.3f} ± {found['half_width']:.3f})" if found else ""


def to_json(rows: list[dict]) -> str:
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(rows: list[dict], base: str = "../") -> str:
    """The ledger to read. `base`: the way from the folder that holds it to the root of the repository, for links."""
    kinds = Counter("need what isn't here" if row["verdict"].startswith("needs") else row["verdict"] for row in rows)
    tested = {tuple(row[key] for key in CONDITIONS) for row in rows if row["measured"]}
    lines = ["# Claim ledger", "", PREFACE, "", "; ".join(f"{count} {kind}" for kind, count in kinds.items()) + "."]
    for source, title in claims()["sources"].items():
        chosen = [row for row in rows if row["source"] == source]
        lines += ["", f"## {title}", "", _line(COLUMNS.values()), "|" + " --- |" * len(COLUMNS)]
        lines += [_line(_readable(row, base)[key] for key in COLUMNS) for row in chosen]
    lines += ["", "## Measured on", ""]
    for where in sorted(tested, key=str):
        lines.append("- " + "; ".join(f"{key}: {value or 'unknown'}" for key, value in zip(CONDITIONS, where, strict=True)))
    return "\n".join(lines if tested else [*lines, "Nothing was measured."]) + "\n"


def _line(cells) -> str:
    texts = ("—" if cell is None else " ".join(str(cell).replace("|", "\\|").split()) for cell in cells)
    return "| " + " | ".join(texts) + " |"


def _readable(row: dict, base: str) -> dict:
    links = [f"[{key}]({base}{row[key]})" for key in ("notebook", "figure") if row[key]]
    published = row["published"] if row["baseline"] is None else f"{row['published']} (baseline {row['baseline']})"
    return {**row, "published": published, "see": ", ".join(links) or None}


def write(rows: list[dict], folder: Path, base: str = "../") -> None:
    """claims.md and claims.json, each whole or not at all."""
    files.write(Path(folder) / "claims.md", to_markdown(rows, base))
    files.write(Path(folder) / "claims.json", to_json(rows))


