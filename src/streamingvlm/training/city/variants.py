"""The ablations of the memory, trained as the model's own is: the same features, steps and seeds, each in a process of its own.

    python -m streamingvlm.training.city.variants [NAME ...]      # into data/city-base/variants; `make city-base` runs it behind the recipe

Thresholds come from the same validation cities. Knows no evaluation city.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from streamingvlm.base import files, progress, workers
from streamingvlm.base.paths import repository_root
from streamingvlm.models.multicamera import network as networks
from streamingvlm.models.multicamera.packaged import save_memory
from streamingvlm.training.city import recipe as recipes
from streamingvlm.training.city.features import Recorded
from streamingvlm.training.city.validation import report, thresholds, watch

NAMES = ("no_hrm", "mean_hrm", "depth0", "depth1", "depth4", "gru", "frame")


def study(base: Path, name: str, recipe: recipes.Recipe, features: Path, checkpoint: Path | None, folder: Path) -> Iterator[dict]:
    """Train one variant on features of `base`'s vision: yields a row a step, and writes it when the last is done. A job for `base.workers`."""
    told, network = recipe.memory, networks.load(base)
    known, held = (Recorded.join(list(recipes.recordings(network, first, count, told.frames, features)))
                   for first, count in ((recipes.MEMORY_SEEDS, told.worlds), (recipes.VALIDATION_SEEDS, told.validation_worlds)))
    own = replace(recipe, variant=name)
    memory = recipes.fresh(own)
    yield from recipes.memory_trainer(memory, known, own, checkpoint).run()
    memory.eval()
    scores = watch(memory, held)
    limits = thresholds(scores, held)
    save_memory(memory, folder)
    files.write(folder / "thresholds.json", json.dumps({"thresholds": limits, "validation": report(scores, held, limits)}, indent=1) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    names, root, recipe = parser.parse_args(argv).names, repository_root(), recipes.Recipe()
    base, artifacts = root / "data" / "city-base", root / "artifacts" / "city"
    jobs = [(base, name, recipe, artifacts / "features", artifacts / f"{name}.pt", base / "variants" / name) for name in names]
    steps = len(jobs) * (recipe.memory.across_steps + recipe.memory.state_steps)
    for _ in progress.bar(workers.spread(study, jobs), steps, "variants", lambda pair: f"{names[pair[0]]} loss {pair[1]['loss']:.3f}"):
        pass


if __name__ == "__main__":
    main()
