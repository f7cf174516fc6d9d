"""From what the stages left behind to the numbers the claim ledger reads. Adds nothing that was not measured.

    python -m streamingvlm.evaluation.ledger_inputs      # how the last run's numbers stand to those of our reference run
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamingvlm.base import config, machine, timing
from streamingvlm.base.numbers import flat
from streamingvlm.base.paths import STUDENTS, Paths, repository_root
from streamingvlm.context.policy import POLICIES
from streamingvlm.evaluation import claims
from streamingvlm.streaming import captions
from streamingvlm.worlds.match import game, scoring
from streamingvlm.worlds.match.game import Said

LIVE = {"model": "multi-camera model: data/city-base, a million parameters", "data": "made-up cities at 96 x 96 pixels that nobody trained on"}
ON_THE_CITY = ("A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A10", "A11", "A12", "A13", "A15")  # claims that these were measured with
TOLERANCE = 0.02  # of a share, or of a number above 1
Key = tuple[str, str]  # (policy, student)


def commentaries(folder: Path, stream: str) -> dict[Key, list[dict]]:
    """(policy, student) -> the lines of one stream's commentary, in the order of STUDENTS and POLICIES."""
    paths = {(path.name.split(".")[1], path.parent.name): path for path in folder.glob(f"*/{stream}.*.jsonl")}
    ranks, students = list(POLICIES), list(STUDENTS)
    return {key: captions.read(paths[key]) for key in sorted(paths, key=lambda key: (students.index(key[1]), ranks.index(key[0])))}


def ablation(lines: dict[Key, list[dict]], truth: Sequence[Said], tolerance_s: float) -> dict[str, dict[str, dict]]:
    """policy -> student -> its scores, of the whole stream and of its first and last quarter, and the most tokens it had in its cache."""
    out: dict[str, dict[str, dict]] = {}
    for (policy, student), rows in lines.items():
        said = [game.parse(row["text"]) for row in rows]
        out.setdefault(policy, {})[student] = {**scoring.score_all(said, truth, tolerance_s), **scoring.quarters(said, truth, tolerance_s),
                                               "kv_tokens": max(row["kv_tokens"] for row in rows)}
    return out


def timing_summary(lines: Sequence[dict], policy: str, cfg: config.Config) -> dict[str, float]:
    """Latency and cache of one stream's contract lines under one policy, as ledger metrics.

    "first" is the first quarter from the first full window on. `times_real_time`: how many times faster than the clock 99 % of the chunks are."""
    lines = [line for line in lines if line["policy"] == policy]
    full = lines[max(timing.WARM_CHUNKS, cfg.cache.vision_rounds) :]
    if len(full) < 4:
        return {}  # too short to have a first and a last quarter
    ms, kv, memory = [line["ms"]["total"] for line in full], [line["kv_tokens"] for line in full], [line["memory_mb"] for line in full]
    n = len(full) // 4
    spread = timing.percentiles(ms)
    values = {
        "latency_ratio_last_first": np.median(ms[-n:]) / np.median(ms[:n]),
        "kv_ratio_last_first": np.median(kv[-n:]) / np.median(kv[:n]),
        "kv_tokens_max": max(line["kv_tokens"] for line in lines),
        "memory_ratio_last_first": np.median(memory[-n:]) / np.median(memory[:n]),
        "cost_exponent": math.log2(sum(ms) / sum(ms[: len(ms) // 2])),  # of a stream twice as long: 1 is linear, 2 quadratic
        "times_real_time": cfg.video.chunk_s * 1000 / spread["p99"],
        **{f"chunk_ms_{q}": value for q, value in spread.items()},
    }
    return {f"stream.{policy}.{key}": round(float(value), 4) for key, value in values.items()}


def measured(numbers: dict, lines: Sequence[dict], compress_ms: Sequence[dict], cfg: config.Config) -> dict[str, float]:
    """The flat dict of metric -> number: qualities from metrics.json, timings from those contract lines that are of the long stream and of the
    model trained to stream, and the noise of those timings."""
    long, lines = lines, [line for line in lines if line["pass"] == "alone"]
    values = flat({name: numbers[name] for name in ("ablation", "winrate", "asked", "compress", "city", "live") if name in numbers})
    for policy in numbers["ablation"]:
        values |= timing_summary(lines, policy, cfg)
    values["stream.minutes"] = sum(line["policy"] == "streaming" for line in lines) * cfg.video.chunk_s / 60
    turns = chunk_ms(long, [])["ablation"]
    values |= {f"turns.{policy}.chunk_ms_p50": of["overlapped"]["chunk_ms_p50"] for policy, of in turns.items() if "overlapped" in of}
    floor = noise(long)
    values |= {claims.NOISE: floor} if floor else {}
    return values | {f"compress.{row['variant']}.chunk_ms_p50": row["chunk_ms_p50"] for row in compress_ms}


def times(folder: Path) -> dict[str, float]:
    """What the stages of the second system timed when they last ran, `folder` being reports/timings; a file that is missing adds nothing."""
    found = {name: _read(folder / f"{name}.json") or {} for name in ("city", "live")}
    return {key: value for key, value in flat(found, "timings").items() if isinstance(value, int | float)}


def noise(lines: Sequence[dict]) -> float | None:
    """How many times as long the slowest of the three students takes as the fastest, in medians over the chunks that all of them have under
    `streaming`. They have the same shape and the same cache: so far apart are two times that differ by nothing. None without at least two of them."""
    found: dict[str, dict[int, float]] = {}
    for line in lines:
        if line["policy"] == "streaming" and line["pass"] == "in turns":
            found.setdefault(line["student"], {})[line["chunk"]] = line["ms"]["total"]
    shared = sorted(set.intersection(*(set(of) for of in found.values())))[timing.WARM_CHUNKS:] if len(found) > 1 else []
    medians = [float(np.median([of[k] for k in shared])) for of in found.values()] if shared else []
    return round(max(medians) / min(medians), 4) if medians else None


def chunk_ms(lines: Sequence[dict], compress_ms: Sequence[dict]) -> dict:
    """Median milliseconds per chunk of the long stream for each (policy, student), set up once left out, and of each compressed model: a file of
    its own beside metrics.json, because no two runs agree on it. `noise`: as many times as long equal models took."""
    watched: dict[str, dict[str, list[float]]] = {}
    for line in (line for line in lines if line["pass"] == "in turns"):
        watched.setdefault(line["policy"], {}).setdefault(line["student"], []).append(line["ms"]["total"])
    return {"ablation": {policy: {student: {"chunk_ms_p50": round(float(np.median(ms[timing.WARM_CHUNKS:] or ms)), 2)} for student, ms in of.items()}
                         for policy, of in watched.items()},
            "compress": {row["variant"]: {"chunk_ms_p50": row["chunk_ms_p50"]} for row in compress_ms}, "noise": noise(lines)}


def moved(found: dict, reference: dict, tolerance: float = TOLERANCE) -> list[str]:
    """One line for each number of metrics.json that is not where the reference run had it: by more than `tolerance`, of the number itself above 1."""
    ours, theirs = flat(found), flat(reference)
    lines = [f"{key} is new" for key in ours.keys() - theirs.keys()] + [f"{key} is gone" for key in theirs.keys() - ours.keys()]
    for key in ours.keys() & theirs.keys():
        a, b = ours[key], theirs[key]
        if (a is None) != (b is None) or (a is not None and abs(a - b) > tolerance * max(1, abs(b))):
            lines.append(f"{key}: {a} here, {b} in the reference run")
    return sorted(lines)


def compare(root: Path) -> str:
    """What to print after a run: how its numbers stand to those in reports/reference."""
    paths = [root / "reports" / "metrics.json", root / "reports" / "reference" / "metrics.json"]
    if not all(path.exists() for path in paths):
        return "There is nothing to compare with: no reports/metrics.json, or none in reports/reference."
    lines = moved(*(json.loads(path.read_text()) for path in paths))
    if not lines:
        return f"All numbers are within {TOLERANCE:.0%} of those of our reference run (reports/reference; timings apart)."
    head = f"{len(lines)} numbers moved by more than {TOLERANCE:.0%} against our reference run (reports/reference; timings apart):"
    return "\n".join([head, *lines])


# --- what was measured apart from this run: files in reports/reference, and the claim each is for ---


def apart(folder: Path) -> tuple[dict[str, float], dict[str, dict]]:
    """What other commands measured when they last ran -> ledger metrics, and by claim where that was. A file that is missing adds nothing."""
    numbers, where = {}, {}
    for claim, name in (("P0", "conformance"), ("P0R", "rerun"), ("P6R", "real_lm"), ("A4R", "real_eyes")):
        found = _read(folder / f"{name}.json")
        if found:
            numbers |= {f"{name}.{key}": value for key, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}
            where[claim] = {"date": found.get("date"), "hardware": found["hardware"]["text"], "dtype": found.get("dtype", "float32"),
                            "model": found["model"], "data": found.get("data") or f"{found['text']}, {found['tokens']:,} tokens",
                            "command": found.get("command", "make real-lm")}
    for row in (_read(folder / "cameras.json") or {"rows": []})["rows"]:
        name = ".".join(str(row[key]) for key in ("part", "what", "variant", "streams") if key in row)
        numbers |= flat({key: value for key, value in row.items() if isinstance(value, int | float)}, f"cameras.{name}")
    hours, seeds = _read(folder / "ablation_hours.json"), _read(folder / "ablation_seeds.json")
    if hours:
        numbers |= {"hours.minutes": hours["minutes"], "hours.kv_tokens_max": _most_tokens(hours)}
        numbers |= {"hours.kv_ratio": numbers["hours.kv_tokens_max"] / _most_tokens(seeds)} if seeds else {}
        where["P1H"] = {"date": None, "hardware": hours["hardware"]["text"], "command": "python bench/ablation.py --minutes 120",
                        "data": f"arena matches of {hours['minutes']:g} minutes, {len(hours['seeds'])} seeds",
                        "model": f"tiny Qwen2.5-VL, SFT anew for each seed (git {hours['git']['revision'][:10]})"}
    taken = _read(folder / "capacity.json")
    if taken:
        parts = {name: taken[name] for name in ("model", "baseline_vlm") if name in taken}
        numbers |= {f"capacity.{key}": value for key, value in flat(parts).items()
                    if isinstance(value, int | float)}
        where["A7"] = {"date": taken["date"], "hardware": taken["hardware"]["text"], "command": taken["command"], "dtype": "float32"} | LIVE
    if hidden := _read(folder / "privacy.json"):
        parts = {name: hidden[name] for name in ("access", "city", "film") if name in hidden}
        numbers |= {f"privacy.{key}": value for key, value in flat(parts).items() if isinstance(value, int | float)}
        where["A16"] = {"date": hidden["date"], "hardware": hidden["hardware"]["text"], "command": hidden["command"], "dtype": "float32"} | LIVE
    for row in (_read(folder / "profiles.json") or {"rows": []})["rows"]:
        numbers[f"profiles.{row['profile']}.{row['slower']}.streams"] = row["streams"]
    return numbers, where


def repeats(folder: Path) -> dict[str, list[dict[str, float | None]]]:
    """What `python bench/ablation.py` and `bench/city_seeds.py` measured when they last ran: seeds (matches as long as the run's; cities) and hours,
    a flat dict of ledger metrics for each seed; empty where `folder` has no such file."""
    return {name: _by_seed([_read(folder / f"{file}.json") for file in files])
            for name, files in (("seeds", ("ablation_seeds", "city_seeds")), ("hours", ("ablation_hours",)))}


def _by_seed(tables: Sequence[dict | None]) -> list[dict]:
    """What several tables have of a seed, side by side: the two systems share nothing but its number."""
    seeds: dict[int, dict] = {}
    for row in (row for found in tables if found for row in found["rows"]):
        name = f"city.{row['variant']}" if "variant" in row else f"ablation.{row['policy']}.{row['student']}"
        scores = {key: value for key, value in row.items() if key not in {"seed", "policy", "student", "variant", "by_city"}}
        seeds.setdefault(row["seed"], {}).update(flat(scores, name))
    return list(seeds.values())


def _most_tokens(found: dict) -> int:
    return max(row["kv_tokens"] for row in found["rows"] if row["policy"] == "streaming")


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def context(paths: Paths, row: dict, params: dict) -> dict:
    """Where and on what the ledger's numbers were measured; by claim where that differs."""
    facts = machine.provenance(params)
    revision = facts["git"]["revision"][:10] + (" with uncommitted changes" if facts["git"]["dirty"] else "")
    dtype = json.loads((paths.sft / "model" / "config.json").read_text()).get("dtype", "float32")
    return {"date": datetime.date.today().isoformat(), "hardware": facts["hardware"]["text"], "dtype": dtype,
            "model": f"tiny Qwen2.5-VL: data/tiny-base, SFT by this run (git {revision})",
            "data": f"arena match `{row['id']}`, {row['end_s']:.0f} s, teams and colours never seen in training", "command": "dvc repro",
            **{name: LIVE for name in ON_THE_CITY}}


if __name__ == "__main__":
    print(compare(repository_root()))
