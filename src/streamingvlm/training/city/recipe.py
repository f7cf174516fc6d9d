"""The article's model from nothing: vision on labels, features once, then the look across streams and all that remembers.

    python -m streamingvlm.training.city.recipe          # makes data/city-base; goes on where it was killed

Vision learns from many worlds, a few frames of each; the memory from features of worlds that vision never saw, or it would trust them too much;
thresholds come from a third kind of worlds. All of them have the palettes, looks and street layouts of training: evaluation's are never touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from streamingvlm.base import config, files, progress
from streamingvlm.models.multicamera.memory import VARIANTS, Memory
from streamingvlm.models.multicamera.nets import seeded
from streamingvlm.models.multicamera.network import Knobs, Network
from streamingvlm.training.city.features import Recorded, record
from streamingvlm.training.city.pictures import Pictures
from streamingvlm.training.city.remembering import ACROSS, STATE, Keeper, Lanes
from streamingvlm.training.city.validation import judged
from streamingvlm.training.city.vision import Eyes
from streamingvlm.training.loop import Checkpoint, Phase, Trainer
from streamingvlm.worlds.city.world import City

VISION_SEEDS, MEMORY_SEEDS, VALIDATION_SEEDS = 2_000_000, 3_000_000, 4_000_000  # of the worlds of each stage


@dataclass(frozen=True)
class Vision:
    worlds: int = 300
    steps: int = 1200
    batch: int = 48
    lr: float = 3e-3


@dataclass(frozen=True)
class Remembering:
    worlds: int = 16
    frames: int = 384  # of each world
    across_steps: int = 400
    across_lr: float = 3e-3
    state_steps: int = 600
    state_lr: float = 3e-3
    lanes: Lanes = field(default_factory=Lanes)
    validation_worlds: int = 8
    holds: str = "answer"  # while it learns, whatever the variant does at work: one look in a window instead of one a frame


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    vision: Vision = field(default_factory=Vision)
    memory: Remembering = field(default_factory=Remembering)
    variant: str = "model"


def vision_trainer(network: Network, recipe: Recipe, checkpoint: Path | None = None) -> Trainer:
    """Trains a network's backbone and head, in place."""
    vision, pictures = recipe.vision, Pictures(range(VISION_SEEDS, VISION_SEEDS + recipe.vision.worlds))
    phase = Phase("vision", vision.steps, vision.lr, lambda rng: pictures.draw(rng, vision.batch), lambda eyes: eyes.parameters(), "vision")
    return Trainer(Eyes(network), [phase], recipe.seed, checkpoint and Checkpoint(checkpoint, {"seed": recipe.seed} | asdict(vision)))


def recordings(network: Network, first: int, worlds: int, frames: int, folder: Path | None = None) -> Iterator[Recorded]:
    """Features of cities `first`, `first` + 1, ...; kept in `folder` if there is one, for the next time."""
    for seed in range(first, first + worlds):
        kept = folder and folder / f"{seed}-{frames}.safetensors"
        if kept and kept.is_file():
            yield Recorded.of(load_file(kept))
            continue
        recorded = record(network, City(seed, frames=frames))
        if kept:
            files.write(kept, save({name: tensor.contiguous() for name, tensor in recorded.tensors().items()}))
        yield recorded


def memory_trainer(memory: Memory, recorded: Recorded, recipe: Recipe, checkpoint: Path | None = None) -> Trainer:
    """Trains a memory in place; at the end it holds the running mean of its weights."""
    told, at_work = recipe.memory, memory.knobs
    memory.knobs = replace(at_work, holds=told.holds)
    keeper = Keeper(memory, recorded, told.lanes)
    looks = memory.knobs.hrm != "none"
    phases = [Phase("across", told.across_steps if looks else 0, told.across_lr, keeper.draw, lambda k: k.memory.hrm.parameters(), ACROSS),
              Phase("state", told.state_steps, told.state_lr, keeper.draw, lambda k: k.memory.parameters(), STATE)]
    key = {"seed": recipe.seed, "variant": recipe.variant} | asdict(told)

    def finish() -> None:
        memory.load_state_dict(keeper.mean.state_dict())
        memory.knobs = at_work

    return Trainer(keeper, phases, recipe.seed, checkpoint and Checkpoint(checkpoint, key), finish=finish)


def fresh(recipe: Recipe) -> Memory:
    """An untrained memory of the recipe's variant."""
    return seeded(recipe.seed, lambda: Memory(VARIANTS[recipe.variant]))


def main() -> None:
    root, recipe = config.repository_root(), Recipe()
    torch.set_num_threads(1)
    artifacts = root / "artifacts" / "city"
    network = Network(Knobs(memory=VARIANTS[recipe.variant], seed=recipe.seed))
    eyes = vision_trainer(network, recipe, artifacts / "vision.pt")
    _run(eyes, "learning to see")
    told = recipe.memory
    worlds = [list(progress.bar(recordings(network, first, count, told.frames, artifacts / "features"), count, "looking at cities"))
              for first, count in ((MEMORY_SEEDS, told.worlds), (VALIDATION_SEEDS, told.validation_worlds))]
    known, held = (Recorded.join(recorded) for recorded in worlds)
    network.memory = fresh(recipe)
    keeper = memory_trainer(network.memory, known, recipe, artifacts / "memory.pt")
    _run(keeper, "learning to remember")
    network.memory.eval()
    folder, told = root / "data" / "city-base", judged(network.memory, held)
    network.save(folder)
    files.write(folder / "thresholds.json", told)
    files.write(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for trainer in (eyes, keeper) for row in trainer.history[::10]))
    print(f"The base model is in {folder}: {json.loads(told)['validation']}")


def _run(trainer: Trainer, title: str) -> None:
    for _ in progress.bar(trainer.run(), trainer.steps, title, lambda row: f"loss {row['loss']:.3f}"):
        pass


if __name__ == "__main__":
    main()
