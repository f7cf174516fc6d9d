"""The claim ledger: what two documents promise, beside what this run measured, and no more than that.

The claims and their rules are data (claims.yaml); this file only applies them. It knows neither models nor streams: it is given a flat
dict of metric -> number. A number that is missing, NaN or not a number makes the verdict "not measured"; nothing but a number can make it
"reproduced". Every computed verdict says of what kind it is: a direction shown on a toy is not the published figure.

    rows = ledger({"stream.minutes": 10.7, ...}, {"hardware": ..., "dtype": ..., "model": ..., "data": ..., "command": ...})
    ledger_text.write(rows, root / "reports")      # claims.md, claims.json
"""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from statistics import fmean, stdev

from streamingvlm.base.numbers import number

SCALE = "direction, tiny scale"
REPRODUCED = f"reproduced ({SCALE})"
PARTLY = f"partly reproduced ({SCALE})"
NOT_REPRODUCED = "not reproduced (tiny scale)"
NOT_MEASURED = "not measured"
NOT_ATTEMPTED = "not attempted at this scale"
NEEDS = "need what isn't here"
KINDS = ("reproduced", "partly reproduced", "not reproduced", NOT_MEASURED, NEEDS, NOT_ATTEMPTED)
CONDITIONS = ("date", "hardware", "dtype", "model", "data", "command")
NOISE = "timings.noise"  # how many times as long one model takes as another of the same shape: the smallest ratio of times that says anything
TIME = "chunk_ms_p50"
PARTS = ("requires", "checks", "aside")
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}  # Student's t, two-sided, by degrees of freedom
Repeats = Mapping[str, Sequence[dict]]  # among what (seeds, hours) -> flat dicts of metric -> number, each of one independent repetition


def claims() -> dict:
    """claims.yaml as it stands: {sources: {name: {title, about}}, claims: {id: row}}."""
    return copy.deepcopy(_parsed(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")))


@functools.cache
def _parsed(text: str) -> dict:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text)


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean of a few independent repetitions (at most 8) and half the width of its 95 % interval; None for one alone."""
    half = T_95[len(values) - 1] * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": round(fmean(values), 4), "half_width": half if half is None else round(half, 4)}


def kind(verdict: str) -> str:
    """The verdict in a few words, one of KINDS: to count and to filter by."""
    return NEEDS if verdict.startswith("needs") else verdict.partition(" (")[0]


def counts(rows: Sequence[dict]) -> dict[str, int]:
    """How many rows of each kind, in the order of KINDS, those there are none of left out."""
    found = Counter(kind(row["verdict"]) for row in rows)
    return {name: found[name] for name in KINDS if found[name]}


def ledger(measured: dict, context: dict, repeats: Repeats | None = None) -> list[dict]:
    """One row per claim, in the order of claims.yaml. `context`: the CONDITIONS; a dict at `context[claim id]` goes before them.

    `repeats["seeds"]` and `["hours"]`: flat dicts like `measured`, each of one independent repetition. A number that all seeds have gets its mean
    and 95 % interval there; a difference is taken within each, so that what they share cancels. Verdicts are of `measured`, but for checks that
    say `among`: those are of the repetitions."""
    return [_row(name, claim, measured, context, repeats or {}) for name, claim in claims()["claims"].items()]


def _row(name: str, claim: dict, measured: dict, context: dict, repeats: Repeats) -> dict:
    numbers = [_number(check, role, measured, repeats) for role in PARTS for check in claim.get(role, [])]
    known = [one for one in numbers if one["value"] is not None]
    verdict, why = _verdict(claim, numbers)
    here = {**context, **context.get(name, {})} if known else {}
    return {
        "id": name, **{key: claim.get(key) for key in ("source", "short", "claim", "metric", "published", "baseline", "direction")},
        "ours": bool(claim.get("ours")), "numbers": numbers, "values": {one["name"]: one["value"] for one in known},
        "measured": "; ".join(said(one) for one in known) or None,
        **{key: here.get(key) for key in CONDITIONS}, "verdict": verdict, "why": why,
        "notebook": claim.get("notebook") if known else None, "figure": claim.get("figure") if known else None,
    }


def _number(check: dict, role: str, measured: dict, repeats: Repeats) -> dict:
    """A check as the ledger shows it: its words, its numbers, what was wanted and whether it holds (None: nothing was wanted, or no number)."""
    among = check.get("among")
    found = [value for one in repeats.get(among or "seeds", ()) if (value := _value(check, one)) is not None]
    spread = interval(found) | {"n": len(found), "of": among or "seeds"} if len(found) > 1 else None
    value = (spread and spread["mean"]) if among else _value(check, measured)
    one = {"role": role, "label": check["label"], "than": check.get("than"), "name": _name(check), "value": value, "spread": spread,
           "among": among, "parts": _parts(check, repeats.get(among, ()) if among else [measured]) if value is not None else [],
           "sign": "minus" if "minus" in check else "over" if "over" in check else None, "wanted": _wanted(check),
           "decisive": bool(check.get("decisive")), "essential": bool(check.get("essential")), "noise": _within_noise(check, value, measured)}
    return one | {"holds": None if value is None or one["wanted"] is None else _holds(check, one)}


def _name(check: dict) -> str:
    """What the value of a check is called where only its value stands."""
    than = check.get("than", "of")
    return check["label"] if than == "of" else f"{check['label']} {'minus' if 'minus' in check else 'over'} {than}"


def said(one: dict) -> str:
    """A number in plain words: "right names without the sink: 0.01, with it 1.00"."""
    if one["value"] is None:
        return f"{one['label']}: not measured"
    first, other = [*map(number if one["than"] == "of" else _plain, one["parts"]), None][:2] if one["than"] else (_plain(one["value"]), None)
    text = f"{one['label']}: {first}" + (f", {one['than']} {other}" if one["than"] and one["than"] != "of" else f" of {other}" if other else "")
    if one["sign"] == "over" and one["than"] != "of" and other:
        text += f" ({number(one['value'])} times)"
    spread = one["spread"]
    if spread:
        what = {"minus": "difference ", "over": "ratio "}.get(one["sign"], "") if one["than"] else ""
        text += f" ({spread['n']} {'seeds' if spread['of'] == 'seeds' else 'matches'}: {what}{spread['mean']:.3f} ± {spread['half_width']:.3f})"
    return text + (" (within this machine's noise)" if one["noise"] else "")


def _plain(value: float) -> str:
    """Shares with two digits always, 1.00 beside 0.01, and three where two would read as all or nothing."""
    if not 0.001 <= abs(value) <= 1:
        return "0.00" if value == 0 else number(value)
    return f"{value:.2f}" if value == 1 or 0.005 <= abs(value) < 0.995 else f"{value:.3f}"


def _verdict(claim: dict, numbers: list[dict]) -> tuple[str, str]:
    """-> (verdict, reason). The only place where a measured number becomes a judgement."""
    if "needs" in claim:
        return f"needs {claim['needs']}", claim["why"]
    if "checks" not in claim:
        return NOT_ATTEMPTED, claim["why"]
    requires, checks = ([one for one in numbers if one["role"] == role] for role in PARTS[:2])
    missing = [one["name"] for one in requires + checks if one["value"] is None]
    if missing:
        return NOT_MEASURED, f"no number for: {', '.join(missing)}"
    too_small = [one for one in requires if not one["holds"]]
    if too_small:
        return NOT_MEASURED, f"the run is too small to tell: {_missed(too_small)}"
    failed = [one for one in checks if not one["holds"]]
    caveats, scale = [claim[key] for key in ("limit", "caveat") if key in claim], claim.get("scale", SCALE)
    if failed:
        lost = len(failed) == len(checks) or any(one["essential"] for one in failed)
        verdict = f"not reproduced ({scale.removeprefix('direction, ')})" if lost else f"partly reproduced ({scale})"
        return verdict, "; ".join([f"{len(failed)} of {len(checks)} checks failed: {_missed(failed)}", *caveats])
    if "limit" in claim:
        caveats[0] = f"only partly, because: {caveats[0]}"
    holds = f"all {len(checks)} checks hold" if len(checks) > 1 else "the check holds"
    return f"{'partly ' if 'limit' in claim else ''}reproduced ({scale})", "; ".join([holds, *caveats])


def _missed(numbers: list[dict]) -> str:
    return "; ".join(f"{said(one)}, wanted {one['wanted']}" for one in numbers)


def _parts(check: dict, rows: Sequence[dict]) -> list[float]:
    """The numbers behind a value: of several repetitions, their means."""
    keys = [check[key] for key in ("metric", "minus", "over") if key in check]
    return [round(fmean(row[key] for row in rows if _value(check, row) is not None), 9) for key in keys]


def _value(check: dict, measured: dict) -> float | None:
    """metric, metric - minus or metric / over; None unless every part is a finite number."""
    parts = [measured.get(check[key]) for key in ("metric", "minus", "over") if key in check]
    if not all(isinstance(part, Real) and not isinstance(part, bool) and math.isfinite(part) for part in parts):
        return None
    if "over" in check and parts[1] <= 0:
        return None
    # Rounded, so that 0.94 - 0.95 does not miss a bound of -0.01 by one bit.
    return round(float(parts[0] / parts[1] if "over" in check else parts[0] - parts[1] if "minus" in check else parts[0]), 9)


def _within_noise(check: dict, value: float | None, measured: dict) -> bool:
    """Whether this is a ratio of two times that equal models reach too."""
    floor = measured.get(NOISE)
    times = "over" in check and all(check[key].endswith(TIME) for key in ("metric", "over"))
    return bool(times and value and floor) and 1 / floor <= value <= floor


def _holds(check: dict, one: dict) -> bool:
    """Of repetitions: only if all of the interval is within the bound. A ratio within the noise shows nothing."""
    reach = one["spread"]["half_width"] if one["among"] else 0.0
    return not one["noise"] and check.get("at_least", -math.inf) <= one["value"] - reach and one["value"] + reach <= check.get("at_most", math.inf)


def _wanted(check: dict) -> str | None:
    """The rule in words: of a difference "lower by 0.1 or more", of a ratio "at least 2 times", of a number its bounds."""
    low, high = check.get("at_least"), check.get("at_most")
    if low is None and high is None:
        return None
    text = _bounds(low, high)
    if "minus" in check:
        bound = low if high is None else high
        side, other = ("higher", "lower") if high is None else ("lower", "higher")
        text = side if bound == 0 else f"{side} by {number(abs(bound))} or more" if (bound > 0) == (high is None) \
            else f"at most {number(abs(bound))} {other}"
    elif "over" in check:
        text = f"{text} times" if check.get("than") != "of" else "all"
    return f"{text}, by the whole interval" if "among" in check else text


def _bounds(low: float | None, high: float | None) -> str:
    return f"at most {number(high)}" if low is None else f"at least {number(low)}" if high is None else f"{number(low)} to {number(high)}"
