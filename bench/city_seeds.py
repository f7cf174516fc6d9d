"""The city's variants over several seeds of training: means with 95 % intervals, and differences to the model taken within each seed.

    python bench/city_seeds.py [--seeds 0,1,2,3,4] [--variants model,no_hrm,mean_hrm] [--save reports/reference/city_seeds.json]

Seed 0 is what data/city-base packages; every other trains the memory anew on the same features of the same vision, and chooses thresholds and rules
on the same validation cities. All are scored on the same evaluation cities, so a seed's differences are pairs. What is trained lies in
artifacts/city-seeds, by recipe, and is not trained again; a killed run goes on there. Intervals are Student's t over seeds. Some four minutes of one
core for each variant and seed; STREAMINGVLM_WORKERS=1 keeps it to one. Features are computed where artifacts/ has none: ten seconds a city.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import common
import torch

from streamingvlm.base import config, files, progress, workers
from streamingvlm.base.machine import provenance
from streamingvlm.base.numbers import flat
from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import city, claims
from streamingvlm.models.multicamera.packaged import variant_folder
from streamingvlm.training.city import variants
from streamingvlm.training.city.features import Recorded
from streamingvlm.training.city.recipe import Recipe

MODEL = "model"
TRAINED = (MODEL, *variants.NAMES)
KINDS = ("local", "temporal", "clone", "surge")
KEYS = ("action", *(f"f1.{kind}" for kind in KINDS), *(f"alarms.event_f1.{kind}" for kind in KINDS),
        *(f"alarms.false_alarms_per_hour.{kind}" for kind in KINDS))


def home(root: Path, base: Path, recipe: Recipe) -> Path:
    """Where the memories of one recipe on one vision lie."""
    told = json.dumps([asdict(recipe.memory), files.fingerprint(base / "model.safetensors")], sort_keys=True)
    return root / "artifacts" / "city-seeds" / hashlib.sha256(told.encode()).hexdigest()[:8]


def trained(seed: int, names: Sequence[str], base: Path, folder: Path, features: Path) -> Path:
    """The base that holds one seed's variants, trained side by side unless they lie there already."""
    if not seed:
        return base
    mine, recipe = folder / f"seed-{seed}", replace(Recipe(), seed=seed)
    missing = [name for name in names if not (variant_folder(mine, name) / "thresholds.json").exists()]
    jobs = [(base, name, recipe, features, folder / f"{name}-{seed}.pt", variant_folder(mine, name)) for name in missing]
    steps = len(jobs) * (recipe.memory.across_steps + recipe.memory.state_steps)
    for _ in progress.bar(workers.spread(variants.study, jobs), steps, f"seed {seed}", lambda pair: f"{missing[pair[0]]} loss {pair[1]['loss']:.3f}"):
        pass
    return mine


def worlds(base: Path, count: int, frames: int, folder: Path) -> list[Recorded]:
    """The evaluation cities as the base's vision sees them, computed unless they lie in `folder` already."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [city.SEEDS + k for k in range(count)]
    jobs = [(base, seed, frames, folder) for seed in seeds if not (folder / f"{seed}.safetensors").exists()]
    for _ in progress.bar(workers.ordered(city.look, jobs), len(jobs), "looking"):
        pass
    return [city.recorded(folder, seed) for seed in seeds]


def summary(rows: Sequence[dict]) -> list[dict]:
    """One row a variant: of each score its interval over the seeds, and of its difference to the model's of the same seed."""
    by_seed = {(row["variant"], row["seed"]): row for row in rows}
    out = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        seeds = [row["seed"] for row in rows if row["variant"] == name]
        whole = {key: claims.interval([by_seed[name, seed][key] for seed in seeds]) for key in KEYS}
        pairs = [seed for seed in seeds if (MODEL, seed) in by_seed]
        apart = {f"{key}_minus_model": claims.interval([by_seed[name, seed][key] - by_seed[MODEL, seed][key] for seed in pairs])
                 for key in KEYS} if pairs and name != MODEL else {}
        out.append({"variant": name, "seeds": len(seeds), **whole, **apart})
    return out


def readable(entry: dict) -> dict[str, str]:
    """A row of the table to read: the frames' F1, and the differences of clone and surge."""
    spread = lambda value: f"{value['mean']:.3f}" + ("" if value["half_width"] is None else f" +- {value['half_width']:.3f}")  # noqa: E731
    shown = ["action", *(f"f1.{kind}" for kind in KINDS), "f1.clone_minus_model", "f1.surge_minus_model"]
    return {"variant": entry["variant"], "seeds": str(entry["seeds"])} | {key: spread(entry[key]) if key in entry else "" for key in shown}


def main(argv: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4", type=lambda text: [int(seed) for seed in text.split(",")], help="0: what is packaged")
    parser.add_argument("--variants", default="model,no_hrm,mean_hrm", type=lambda text: text.split(","), help=f"of {', '.join(TRAINED)}")
    parser.add_argument("--worlds", type=int, help="evaluation cities (default: params.yaml)")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="default: reports/bench/city_seeds.json")
    args = parser.parse_args(argv)
    if len(set(args.seeds)) != len(args.seeds) or len(args.seeds) > max(claims.T_95) + 1:
        parser.error(f"--seeds takes up to {max(claims.T_95) + 1} different numbers.")
    if not set(args.variants) <= set(TRAINED):
        parser.error(f"--variants takes of {', '.join(TRAINED)}.")
    root, cfg = repository_root(), config.load()
    torch.set_num_threads(cfg.run.threads)
    base, count = root / "data" / "city-base", args.worlds or cfg.city.worlds
    folder, features = home(root, base, Recipe()), root / "artifacts" / "city" / "features"
    seen, rows = worlds(base, count, cfg.city.frames, root / "artifacts" / "city-seeds" / f"evaluation-{cfg.city.frames}"), []
    for seed in args.seeds:
        mine = trained(seed, args.variants, base, folder, features)
        for name in args.variants:
            memory, limits = city.memory(mine, name)
            rows.append({"seed": seed, "variant": name, **flat(city.assess(memory, seen, limits, city.rules(mine, name)))})
            print(json.dumps({key: rows[-1][key] for key in ("seed", "variant", *KEYS)}), flush=True)
    table = summary(rows)
    common.table([readable(entry) for entry in table])
    where = provenance({"argv": {key: str(value) for key, value in vars(args).items()}, "recipe": folder.name})
    line = {"bench": "city_seeds", "seeds": args.seeds, "worlds": count, "frames": cfg.city.frames, "date": datetime.date.today().isoformat(),
            "command": "python bench/city_seeds.py", "table": table, "rows": rows, **where}
    files.write_json(line, args.save or root / "reports" / "bench" / "city_seeds.json")
    return line


if __name__ == "__main__":
    common.run(main)
