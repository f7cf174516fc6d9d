"""How sure the city's rows are: over several seeds of training, and over the cities they are scored on. 95 % intervals, differences in pairs.

    python bench/city_seeds.py [--seeds 0,1,2,3,4] [--variants model,no_hrm,mean_hrm] [--save reports/reference/city_seeds.json]
    python bench/city_seeds.py --seeds 0 --variants model,no_hrm,mean_hrm,held_hrm,depth0,gru     # trains nothing: over cities alone
    python bench/city_seeds.py --seeds 1 --variants plain_hrm,token_hrm,raw,reset,transformer     # rows that nobody packages

Seed 0 is what data/city-base packages; every other trains the memory anew on the same features of the same vision, and chooses thresholds and rules
on the same validation cities. All are scored on the same evaluation cities, so a seed's differences are pairs. What is trained lies in
artifacts/city-seeds, by recipe, and is not trained again; a killed run goes on there. Rows of other seeds and variants that the file has stay in it.
Intervals are Student's t over seeds. Some four minutes of one core for each variant and seed; STREAMINGVLM_WORKERS=1 keeps it to one. Features are
computed where artifacts/ has none: ten seconds a city. Over cities: of each seed, cities are drawn again and again with replacement (a bootstrap),
the same for both of a pair.
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
import numpy as np
import torch

from streamingvlm.base import config, files, progress, workers
from streamingvlm.base.machine import provenance
from streamingvlm.base.numbers import flat
from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import city, claims
from streamingvlm.models.multicamera.memory import VARIANTS
from streamingvlm.models.multicamera.packaged import OTHERWISE, variant_folder
from streamingvlm.training.city import variants
from streamingvlm.training.city.features import Recorded
from streamingvlm.training.city.recipe import Recipe
from streamingvlm.training.city.validation import Scores, chosen, report, watch
from streamingvlm.worlds.city.knobs import ANOMALIES, FAMILIES

MODEL = "model"
PACKAGED = (MODEL, *variants.NAMES)
TRAINED = tuple(name for name in VARIANTS if name not in OTHERWISE)
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


def merged(rows: Sequence[dict], path: Path, where: dict) -> list[dict]:
    """These rows, and those of other seeds and variants that `path` has of the same cities and recipe, seed by seed."""
    old = json.loads(path.read_text()) if path.exists() else {}
    kept = old["rows"] if all(old.get(key) == value for key, value in where.items()) else []
    both = {(row["seed"], row["variant"]): row for row in [*kept, *rows]}
    return sorted(both.values(), key=lambda row: row["seed"])


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


def by_city(scores: Scores, seen: Recorded, limits: dict[str, float], cities: int) -> dict[str, list[list[int]]]:
    """Of each kind and family, in frames, city by city: how many were right, said, true."""
    said = scores.anomalies.numpy() >= np.array([limits[kind] for kind in ANOMALIES])  # [F, B, 6]
    out = {}
    for name in KINDS:
        columns = [ANOMALIES.index(kind) for kind in FAMILIES.get(name, (name,))]
        mine, right = (mask[..., columns].any(-1) for mask in (said, seen.anomalies.numpy()))
        out[name] = [[int(part.sum()) for part in (a & b, a, b)] for a, b in zip(np.split(mine, cities, 1), np.split(right, cities, 1), strict=True)]
    return out


def over_cities(rows: Sequence[dict], draws: int = 2000) -> list[dict]:
    """For each row but a model's own: the difference to the model of its seed in F1 by frame, and the middle 95 % of what other cities might say."""
    models, out = {row["seed"]: row for row in rows if row["variant"] == MODEL}, []
    for row in (row for row in rows if row["variant"] != MODEL and row["seed"] in models):
        entry = {"seed": row["seed"], "variant": row["variant"]}
        for kind in KINDS:
            pair = np.array([row["by_city"][kind], models[row["seed"]]["by_city"][kind]], float)  # [2, cities, 3]
            drawn = np.random.default_rng(0).integers(pair.shape[1], size=(draws, pair.shape[1]))
            hits, said, true = np.moveaxis(pair[:, drawn].sum(2), -1, 0)  # [2, draws] each
            apart = np.subtract(*(2 * hits / np.maximum(said + true, 1)))
            low, high = np.quantile(apart, [0.025, 0.975])
            here = row[f"f1.{kind}"] - models[row["seed"]][f"f1.{kind}"]
            entry[kind] = {"difference": round(here, 4), "low": round(low, 4), "high": round(high, 4)}
        out.append(entry)
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
    parser.add_argument("--trained", action="store_true", help="train nothing: score what lies there")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="default: reports/bench/city_seeds.json")
    args = parser.parse_args(argv)
    if len(set(args.seeds)) != len(args.seeds) or len(args.seeds) > max(claims.T_95) + 1:
        parser.error(f"--seeds takes up to {max(claims.T_95) + 1} different numbers.")
    allowed = [{*PACKAGED, *OTHERWISE} if seed == 0 else {*TRAINED} for seed in args.seeds]
    if not all(set(args.variants) <= names for names in allowed):
        parser.error(f"--variants takes of {', '.join(TRAINED)}; of seed 0 of {', '.join((*PACKAGED, *OTHERWISE))}.")
    root, cfg = repository_root(), config.load()
    torch.set_num_threads(cfg.run.threads)
    base, count = root / "data" / "city-base", args.worlds or cfg.city.worlds
    folder, features = home(root, base, Recipe()), root / "artifacts" / "city" / "features"
    joined, rows = Recorded.join(worlds(base, count, cfg.city.frames, root / "artifacts" / "city-seeds" / f"evaluation-{cfg.city.frames}")), []
    together = joined.action.shape[1] // count
    for seed in args.seeds:
        mine = folder / f"seed-{seed}" if args.trained and seed else trained(seed, args.variants, base, folder, features)
        for name in (name for name in args.variants if not args.trained or (variant_folder(mine, name) / "thresholds.json").exists()):
            memory, limits = city.memory(mine, name)
            scores = watch(memory, joined, together)
            found = flat(report(scores, joined, limits, chosen(mine, name)[1]))
            rows.append({"seed": seed, "variant": name, **found, "by_city": by_city(scores, joined, limits, count)})
            print(json.dumps({key: rows[-1][key] for key in ("seed", "variant", *KEYS)}), flush=True)
    save = args.save or root / "reports" / "bench" / "city_seeds.json"
    rows = merged(rows, save, where := {"worlds": count, "frames": cfg.city.frames, "recipe": folder.name})
    table, pairs = summary(rows), over_cities(rows)
    common.table([readable(entry) for entry in table])
    for entry in pairs:
        print(f"seed {entry['seed']}, {entry['variant']} minus model: " + ", ".join(
            f"{kind} {entry[kind]['difference']:+.3f} [{entry[kind]['low']:+.3f}, {entry[kind]['high']:+.3f}]" for kind in KINDS))
    line = {"bench": "city_seeds", **where, "date": datetime.date.today().isoformat(), "command": "python bench/city_seeds.py", "table": table,
            "over_cities": pairs, "rows": rows, **provenance({"argv": {key: str(value) for key, value in vars(args).items()}})}
    files.write_json(line, save)
    return line


if __name__ == "__main__":
    common.run(main)
