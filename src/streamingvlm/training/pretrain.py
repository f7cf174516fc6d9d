"""Trains the base model in data/tiny-base from nothing, as a VLM is trained: language on narration (first on short drills), vision on labels, then
both together.

    make pretrain      # python -m streamingvlm.training.pretrain; about half an hour; goes on where it was killed

The base commentates a match from its kickoff on. It never saw a previous text that was cut.
In the first two phases each second's vision tokens are its label's learned embedding; the vision tower then aims at these embeddings, so that the
language model understands it from the first step with pictures on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from streamingvlm.base import config, progress
from streamingvlm.base.paths import repository_root
from streamingvlm.context.dialogue import Dialogue
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.models.qwen25 import loading, tokenizer
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.training import windowing
from streamingvlm.training.loop import NAME, TELL, Checkpoint, CommentaryLoss, Phase, Trainer
from streamingvlm.training.sft import LATEST_CLOCK_S
from streamingvlm.training.windowing import Batch
from streamingvlm.worlds.match.task import MATCH
from streamingvlm.worlds.task import Task

SEEDS = 1_000_000  # matches of the base's own: no seed of the pipeline's data comes near


class PretrainBatches:
    """Draws the batches of all phases from the videos of a task."""

    def __init__(self, talk: Dialogue, cfg: config.Config, task: Task = MATCH):
        self.talk, self.video, self.settings, self.task = talk, cfg.video, cfg.pretrain, task

    def drill(self, rng: np.random.Generator) -> Batch:
        """Short windows from the kickoff of lively matches: a name is asked for in most seconds, with little said to confuse it."""
        length = max(1, self.settings.window_s // 2)
        seeds = [SEEDS + int(rng.integers(2**40)) for _ in range(2 * self.settings.batch)]
        return self._windows(rng, [self.task.blind_video(seed, 2 * length, self.video, lively=True) for seed in seeds], length, look=False)

    def narration(self, rng: np.random.Generator) -> Batch:
        """Windows of matches that were never drawn, half of them lively: fresh ones in every step."""
        s = self.settings
        seeds = [SEEDS + int(rng.integers(2**40)) for _ in range(s.batch)]
        videos = [self.task.blind_video(seed, s.latest_s + s.window_s, self.video, lively=bool(i % 2)) for i, seed in enumerate(seeds)]
        return self._windows(rng, videos, s.window_s, look=False)

    def drawn(self) -> list[LabelledVideo]:
        """The matches that the second and the third phase look at."""
        s = self.settings
        numbers = progress.bar(range(s.matches), s.matches, "drawing matches")
        return [self.task.drawn_video(SEEDS + i, s.match_s, self.video) for i in numbers]

    def both(self, rng: np.random.Generator, drawn: Sequence[LabelledVideo]) -> Batch:
        return self._windows(rng, [drawn[i] for i in rng.choice(len(drawn), self.settings.batch)], self.settings.window_s, look=True)

    def seconds(self, rng: np.random.Generator, drawn: Sequence[LabelledVideo]) -> Batch:
        """Single seconds, nothing but their vision tokens; every label equally often: goals are rare, and no rarer to learn."""
        picked = []
        for label in rng.choice(len(self.task.labels), self.settings.vision_batch):
            lesson = drawn[rng.integers(len(drawn))]
            found = [k for k, at in enumerate(lesson.labels) if at == label] or range(len(lesson.labels))
            k = int(rng.choice(found))
            picked.append((lesson, [span for span in windowing.window_spans(self.talk, lesson, k, k + 1, None) if span.grid]))
        return windowing.collate(self.talk, picked)

    def _windows(self, rng: np.random.Generator, taught: Sequence[LabelledVideo], length: int, look: bool) -> Batch:
        windows = []
        for lesson in taught:
            start = int(rng.integers(0, min(len(lesson.chunks) - length, self.settings.latest_s) + 1))
            clock = float(rng.integers(0, LATEST_CLOCK_S) * rng.integers(0, 2))
            windows.append((lesson, windowing.window_spans(self.talk, lesson, start, start + length, None, clock)))
        return windowing.collate(self.talk, windows, look)


def phases(batches: PretrainBatches) -> list[Phase]:
    s, drawn = batches.settings, batches.drawn()
    language = lambda st: [*st.hf.model.language_model.parameters(), *st.hf.lm_head.parameters(), *st.labels.parameters()]  # noqa: E731
    return [Phase("drill", s.drill_steps, s.narration_lr, batches.drill, language, TELL),
            Phase("narration", s.narration_steps, s.narration_lr, batches.narration, language, TELL),
            Phase("vision", s.vision_steps, s.vision_lr, lambda rng: batches.seconds(rng, drawn), lambda st: st.hf.model.visual.parameters(), NAME),
            Phase("both", s.both_steps, s.both_lr, lambda rng: batches.both(rng, drawn), lambda st: st.hf.parameters())]


def trainer(cfg: config.Config, checkpoint: Path | None, task: Task = MATCH) -> tuple[VLM, Trainer]:
    """A model of random weights and what trains it."""
    vlm = loading.build(cfg.model, tokenizer.build(task.words))
    vlm = VLM(vlm.hf.to(loading.pick_device(cfg.run.device)), vlm.tokenizer)
    recipe = {name: asdict(getattr(cfg, name)) for name in ("video", "model", "pretrain")}
    student = CommentaryLoss(vlm.hf, len(task.labels), cfg.pretrain.seed)
    batches = PretrainBatches(Dialogue(vlm.tokenizer, vlm.time_step(cfg.video.fps)), cfg, task)
    return vlm, Trainer(student, phases(batches), cfg.pretrain.seed, checkpoint and Checkpoint(checkpoint, recipe))


def main() -> None:
    root = repository_root()
    cfg = config.load(root / "params.yaml")
    torch.set_num_threads(cfg.run.threads)
    checkpoint = root / "artifacts" / "checkpoints" / "pretrain.pt"
    vlm, training = trainer(cfg, checkpoint)
    for _ in progress.bar(training.run(), training.steps, "pretraining", lambda row: f"{row['phase']} loss {row['loss']:.3f}"):
        pass
    folder = root / "data" / "tiny-base"
    vlm.save(folder)
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in training.history[::10]))
    checkpoint.unlink(missing_ok=True)
    print(f"The base model is in {folder}; `dvc commit -f data.dvc` tells DVC that it is new.")


if __name__ == "__main__":
    main()
