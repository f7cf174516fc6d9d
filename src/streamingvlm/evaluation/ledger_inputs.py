"""From what the stages left behind to the numbers the claim ledger reads. Adds nothing that was not measured.

    python -m streamingvlm.evaluation.ledger_inputs      # how the last run's numbers stand to those of our reference run
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamingvlm.base import config, machine, timing
from streamingvlm.base.numbers import flat
from streamingvlm.base.paths import Paths, repository_root
from streamingvlm.context.policy import POLICIES
from streamingvlm.evaluation.runs import STUDENTS, WARM_CHUNKS
from streamingvlm.streaming import captions
from streamingvlm.worlds.match import game, scoring
from streamingvlm.worlds.match.dataset import LONG
from streamingvlm.worlds.match.game import Said

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
    full = lines[max(WARM_CHUNKS, cfg.cache.vision_rounds) :]
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
    model trained to stream."""
    lines = [line for line in lines if line["stream"] == LONG and line["student"] == "overlapped"]
    values = flat({name: numbers[name] for name in ("ablation", "compress")})
    for policy in numbers["ablation"]:
        values |= timing_summary(lines, policy, cfg)
        values["stream.minutes"] = sum(line["policy"] == policy for line in lines) * cfg.video.chunk_s / 60
    return values | {f"compress.{row['variant']}.chunk_ms_p50": row["chunk_ms_p50"] for row in compress_ms}


def chunk_ms(lines: Sequence[dict], compress_ms: Sequence[dict]) -> dict:
    """Median milliseconds per chunk of the long stream for each (policy, student), set up once left out, and of each compressed model: a file of
    its own beside metrics.json, because no two runs agree on it."""
    watched: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        watched.setdefault(line["policy"], {}).setdefault(line["student"], []).append(line["ms"]["total"])
    return {"ablation": {policy: {student: {"chunk_ms_p50": round(float(np.median(ms[WARM_CHUNKS:] or ms)), 2)} for student, ms in of.items()}
                         for policy, of in watched.items()},
            "compress": {row["variant"]: {"chunk_ms_p50": row["chunk_ms_p50"]} for row in compress_ms}}


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


def real_lm(folder: Path) -> tuple[dict[str, float], dict[str, str]]:
    """What `make real-lm` measured when it last ran, as ledger metrics, and where it ran; nothing where `folder` has no real_lm.json."""
    path = folder / "real_lm.json"
    found = json.loads(path.read_text()) if path.exists() else None
    if found is None:
        return {}, {}
    where = {"hardware": found["hardware"]["text"], "dtype": found["dtype"], "model": found["model"], "command": "make real-lm",
             "data": f"{found['text']}, {found['tokens']:,} tokens"}
    return {f"real_lm.{key}": value for key, value in found.items() if isinstance(value, float)}, where


def repeats(folder: Path) -> list[dict[str, float | None]]:
    """What `python bench/ablation.py` measured when it last ran, one flat dict of ledger metrics a seed; none where `folder` has no such file."""
    path = folder / "ablation_seeds.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    seeds: dict[int, dict] = {}
    for row in rows:
        scores = {key: value for key, value in row.items() if key not in {"seed", "policy", "student"}}
        seeds.setdefault(row["seed"], {}).update(flat(scores, f"ablation.{row['policy']}.{row['student']}"))
    return list(seeds.values())


def context(paths: Paths, row: dict, params: dict) -> dict[str, str]:
    """Where and on what the ledger's numbers were measured."""
    facts = machine.provenance(params)
    revision = facts["git"]["revision"][:10] + (" with uncommitted changes" if facts["git"]["dirty"] else "")
    dtype = json.loads((paths.sft / "model" / "config.json").read_text()).get("dtype", "float32")
    return {"hardware": facts["hardware"]["text"], "dtype": dtype, "model": f"tiny Qwen2.5-VL: data/tiny-base, SFT by this run (git {revision})",
            "data": f"arena match `{row['id']}`, {row['end_s']:.0f} s, teams and colours never seen in training", "command": "dvc repro"}


if __name__ == "__main__":
    print(compare(repository_root()))
