"""The ablation table over several seeds: data, SFT and the long match all drawn anew for each, means with 95 % confidence intervals.

    python bench/ablation.py [--seeds 0,1,2] [--minutes 20] [--policies streaming,overlap,...] [--controls streaming,...|none]

Each seed renders training matches and one held-out match of its own, trains the base model in data/tiny-base with overlapped windows, with windows
that do not overlap, with windows that start anywhere and with questions among them, as many steps each, and lets them (and the base) watch that
match. What is done stays in artifacts/ablation, by seed and params, and is not done again; a killed run goes on there.
Intervals are Student's t over seeds. Writes reports/bench/ablation.json and prints the table; some 25 minutes a seed on one core.
With `--minutes 120` the same students watch two hours; leave out `full` then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import common
import torch

from streamingvlm.base import config, files, progress, workers
from streamingvlm.base.machine import provenance
from streamingvlm.base.paths import repository_root
from streamingvlm.context import policy
from streamingvlm.data import labelled, stream_rows
from streamingvlm.evaluation import claims, ledger_inputs, runs
from streamingvlm.streaming import captions
from streamingvlm.training import sft
from streamingvlm.worlds.match import dataset, scoring
from streamingvlm.worlds.match.dataset import LONG

KEYS = ("event_f1", "who", "score", "increment")
CONTROLS = ("tiled", "random", "asked", "base")
ASKED = 0.3  # of the windows of `asked` are questions
POLICIES = "streaming,streaming_closing,streaming_all_text,overlap,full,window,growing,no_sink,no_text"


def matches(cfg: config.Config, folder: Path, root: Path, splits: Sequence[str], name: str) -> list[dict]:
    """The rows of some matches of a seed, rendered unless they lie in `folder` already."""
    if not (folder / name).exists():
        made = dataset.match_rows(cfg.data, folder / "videos", root, splits)
        total = sum(split in splits for split, _, _ in dataset.matches(cfg.data))
        stream_rows.write(list(progress.bar(made, total, f"seed {cfg.data.seed}: rendering", lambda row: row["id"])), folder / name)
    return stream_rows.read(folder / name)


def trained(seed: int, cfg: config.Config, folder: Path, root: Path) -> dict[str, Path]:
    """Where the students of one seed are, trained side by side unless they lie in `folder` already."""
    tiled = cfg.having("sft", stride_s=cfg.sft.window_s)
    variants = {"overlapped": cfg, "tiled": tiled, "random": tiled.having("sft", starts="random"),
                "asked": cfg.having("sft", questions=ASKED)}
    missing = [name for name in variants if not (folder / name / "model.safetensors").exists()]
    if missing:
        rows, frames = matches(cfg, folder, root, ("train", "clean"), "train.parquet"), folder / "frames"
        for _ in progress.bar(labelled.decode(rows, cfg.video, root, frames), len(rows), f"seed {seed}: decoding"):
            pass
        sft.look_once([row["id"] for row in rows], cfg, frames, root)
        jobs = [(rows, variants[name], frames, root, str(seed), None, folder / f"{name}.part") for name in missing]
        steps = len(missing) * (cfg.sft.steps + cfg.sft.anneal_steps)
        for _ in progress.bar(workers.spread(sft.study, jobs), steps, f"seed {seed}: training", lambda pair: f"loss {pair[1]['loss']:.3f}"):
            pass
        for name in missing:
            (folder / f"{name}.part").rename(folder / name)
        shutil.rmtree(frames)
    return {"base": root / cfg.sft.base, **{name: folder / name for name in variants}}


def watched(seed: int, cfg: config.Config, args: argparse.Namespace, root: Path) -> Iterator[dict]:
    """A row of scores for every (policy, student) of one seed."""
    taught = [cfg.data.train_matches, cfg.data.train_s, cfg.data.clean_matches, files.fingerprint(root / cfg.sft.base / "model.safetensors")]
    recipe = json.dumps(sft.recipe(cfg, json.dumps(taught)), sort_keys=True)
    folder = root / "artifacts" / "ablation" / f"seed-{seed}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    name = f"{LONG}-{cfg.data.long_s}"
    long = matches(cfg, folder / name, root, (LONG,), "row.parquet")[0] | {"id": name}
    truth, students = scoring.truth_of(long), trained(seed, cfg, folder, root)
    wanted = [("overlapped", name) for name in args.policies] + [(student, name) for student in CONTROLS for name in args.controls]
    paths = {(student, name): folder / "said" / student / f"{long['id']}.{name}.jsonl" for student, name in wanted}
    groups = runs.grouped([(student, long, name) for student, name in wanted if not paths[student, name].exists()])
    frames = folder / name / "frames"
    for _ in labelled.decode([long], cfg.video, root, frames) if groups else ():
        pass
    jobs = [(students[student], row, names, cfg, frames, folder / "said" / student) for student, row, names in groups]
    total = len(groups) * round(cfg.data.long_s / cfg.video.chunk_s)
    for _ in progress.bar(workers.spread(runs.stream_group, jobs), total, f"seed {seed}: watching", lambda pair: pair[1][0].text or "..."):
        pass
    shutil.rmtree(frames, ignore_errors=True)
    for (student, name), path in paths.items():
        scores = ledger_inputs.ablation({(name, student): captions.read(path)}, truth, cfg.evaluate.tolerance_s)[name][student]
        yield {"seed": seed, "policy": name, "student": student, **scores}


def summary(rows: Sequence[dict]) -> list[dict]:
    """One row per (policy, student): of each score its interval, how much the last quarter differs from the first, and how much the whole differs
    from what the `overlapped` model says under `streaming` in the same match: pairs, so that easy and hard matches cancel."""
    out = []
    for student, name in dict.fromkeys((row["student"], row["policy"]) for row in rows):
        its = [row for row in rows if (row["student"], row["policy"]) == (student, name)]
        whole = {key: claims.interval([row[key] for row in its if row[key] is not None] or [math.nan]) for key in KEYS}
        fall = {f"{key}_last_minus_first": claims.interval([row["last_quarter"][key] - row["first_quarter"][key] for row in its
                                                     if None not in (row["last_quarter"][key], row["first_quarter"][key])] or [math.nan])
                for key in KEYS}
        plain = {row["seed"]: row for row in rows if (row["student"], row["policy"]) == ("overlapped", "streaming")}
        apart = {f"{key}_minus_streaming": claims.interval([row[key] - plain[row["seed"]][key] for row in its
                                                     if row["seed"] in plain and None not in (row[key], plain[row["seed"]][key])] or [math.nan])
                 for key in KEYS}
        out.append({"policy": name, "student": student, **whole, **fall, **apart, "kv_tokens": max(row["kv_tokens"] for row in its)})
    return out


def readable(entry: dict) -> dict[str, str]:
    """A row of the table to read: 0.97 +- 0.01."""
    spread = lambda value: f"{value['mean']:.3f}" + ("" if value["half_width"] is None else f" +- {value['half_width']:.3f}")  # noqa: E731
    return {key: spread(value) if isinstance(value, dict) else str(value) for key, value in entry.items() if "last" not in key and (
        "minus" not in key or key.startswith(("who", "score")))}


def main(argv: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", type=lambda text: [int(seed) for seed in text.split(",")],
                        help="with commas between; 0 has the pipeline's training matches, and another long one")
    parser.add_argument("--minutes", type=float, default=20, help="length of the match that is watched")
    parser.add_argument("--policies", default=POLICIES, type=lambda text: [policy.get(name).name for name in text.split(",")])
    parser.add_argument("--controls", default=POLICIES, type=lambda text: [policy.get(name).name for name in text.split(",") if name != "none"],
                        help="policies under which the models trained otherwise, and not at all, watch")
    args = parser.parse_args(argv)
    if len(set(args.seeds)) != len(args.seeds) or len(args.seeds) > max(claims.T_95) + 1:
        parser.error(f"--seeds takes up to {max(claims.T_95) + 1} different numbers.")
    cfg, root, rows = config.load(), repository_root(), []
    torch.set_num_threads(cfg.run.threads)
    for seed in args.seeds:
        own = cfg.having("data", seed=seed, long_s=round(args.minutes * 60), eval_matches=1).having("sft", seed=seed)
        for row in watched(seed, own, args, root):
            rows.append(row)
            print(json.dumps({key: value for key, value in row.items() if "quarter" not in key}), flush=True)
    table = summary(rows)
    common.table([readable(entry) for entry in table])
    where = provenance({"argv": vars(args), "params": files.fingerprint(root / "params.yaml")})
    line = {"bench": "ablation", **vars(args), "table": table, "rows": rows, **where}
    files.write_json(line, root / "reports" / "bench" / "ablation.json")
    return line


if __name__ == "__main__":
    common.run(main)
