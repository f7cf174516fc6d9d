"""The ablations of the memory, trained as the model's own is: the same features, steps and seeds, each in a process of its own.

    python -m streamingvlm.training.city.variants [NAME ...]      # into data/city-base/variants; `make city-base` runs it behind the recipe
    python -m streamingvlm.training.city.variants --judge         # trains nothing: thresholds and rules anew, of these and of the model itself

Thresholds come from the same validation cities. Knows no evaluation city.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from streamingvlm.base import files, progress, workers
from streamingvlm.base.paths import repository_root
from streamingvlm.models.multicamera import network as networks
from streamingvlm.models.multicamera.memory import Memory
from streamingvlm.models.multicamera.packaged import OTHERWISE, load_memory, load_variant, save_memory, variant_folder
from streamingvlm.training.city import recipe as recipes
from streamingvlm.training.city.features import Recorded
from streamingvlm.training.city.validation import judged

NAMES = ("no_hrm", "mean_hrm", "depth0", "depth1", "depth4", "gru", "frame")


def study(base: Path, name: str, recipe: recipes.Recipe, features: Path, checkpoint: Path | None, folder: Path) -> Iterator[dict]:
    """Train one variant on features of `base`'s vision: yields a row a step, and writes it when the last is done. A job for `base.workers`."""
    told, own = recipe.memory, replace(recipe, variant=name)
    known = Recorded.join(list(recipes.recordings(networks.load(base), recipes.MEMORY_SEEDS, told.worlds, told.frames, features)))
    memory = recipes.fresh(own)
    yield from recipes.memory_trainer(memory, known, own, checkpoint).run()
    save_memory(memory, folder)
    judge({folder: load_memory(folder)}, held(base, recipe, features))


def held(base: Path, recipe: recipes.Recipe, features: Path) -> Recorded:
    """The validation cities, as `base`'s vision sees them."""
    told = recipe.memory
    return Recorded.join(list(recipes.recordings(networks.load(base), recipes.VALIDATION_SEEDS, told.validation_worlds, told.frames, features)))


def judge(memories: Mapping[Path, Memory], recorded: Recorded) -> None:
    """Choose where the scores of each memory become alarms, and write that into its folder."""
    for folder, memory in memories.items():
        files.write(folder / "thresholds.json", judged(memory, recorded))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--judge", action="store_true", help="choose thresholds and rules anew of what is packaged")
    args, root, recipe = parser.parse_args(argv), repository_root(), recipes.Recipe()
    base, artifacts, names = root / "data" / "city-base", root / "artifacts" / "city", args.names
    if args.judge:
        torch.set_num_threads(1)
        memories = {variant_folder(base, name): load_variant(base, name) for name in ("model", *OTHERWISE, *names)}
        judge(memories, held(base, recipe, artifacts / "features"))
        return
    jobs = [(base, name, recipe, artifacts / "features", artifacts / f"{name}.pt", base / "variants" / name) for name in names]
    steps = len(jobs) * (recipe.memory.across_steps + recipe.memory.state_steps)
    for _ in progress.bar(workers.spread(study, jobs), steps, "variants", lambda pair: f"{names[pair[0]]} loss {pair[1]['loss']:.3f}"):
        pass


if __name__ == "__main__":
    main()
