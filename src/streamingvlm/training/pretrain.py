"""Trains the base in data/tiny-base from nothing, as an offline VLM is trained: it reads, then is told of clips, then sees them. Never a stream.

    make pretrain      # python -m streamingvlm.training.pretrain; about half an hour; goes on where it was killed

Reading whole commentaries, the language model learns to keep names and to count a score on. Short clips, all frames first, are described and asked
about (`offline`). In the first three phases each second's vision tokens are its label's learned embedding; the vision tower then aims at these
embeddings, so that the language model understands it from the first step with pictures on. What a stream is, the base never learns: SFT teaches it.
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
from streamingvlm.training import offline, windowing
from streamingvlm.training.loop import NAME, TELL, Checkpoint, CommentaryLoss, Phase, Trainer
from streamingvlm.training.windowing import Batch, Window
from streamingvlm.worlds.match.task import MATCH
from streamingvlm.worlds.task import Task

SEEDS = 1_000_000  # matches of the base's own: no seed of the pipeline's data comes near
MOMENT_S = 3  # of the first clips, at most
DESCRIBED = 0.7  # of all clips; the others are only asked about


class PretrainBatches:
    """Draws the batches of all phases from the videos of a task: documents to read, clips, single seconds."""

    def __init__(self, talk: Dialogue, cfg: config.Config, task: Task = MATCH):
        self.talk, self.video, self.settings, self.task = talk, cfg.video, cfg.pretrain, task

    def reading(self, rng: np.random.Generator) -> Batch:
        """Whole commentaries of lively matches, fresh ones in every step: names and scores in nearly every second."""
        n = 2 * self.settings.documents
        return windowing.collate(self.talk, self._documents(self._blind(rng, n, lively=1)), look=False)

    def moments(self, rng: np.random.Generator) -> Batch:
        """The shortest clips, told and not drawn: what a second's vision tokens mean."""
        return self._told(rng, self.settings.clips * 3 // 2, 1, MOMENT_S)

    def clips(self, rng: np.random.Generator) -> Batch:
        """Clips as long as they will be, told and not drawn."""
        return self._told(rng, self.settings.clips, self.settings.shortest_s, self.settings.longest_s)

    def drawn(self) -> list[LabelledVideo]:
        """The matches that the last two phases look at."""
        s = self.settings
        numbers = progress.bar(range(s.matches), s.matches, "drawing matches")
        return [self.task.drawn_video(SEEDS + i, s.match_s, self.video) for i in numbers]

    def seconds(self, rng: np.random.Generator, drawn: Sequence[LabelledVideo]) -> Batch:
        """Single seconds, nothing but their vision tokens; every label equally often: goals are rare, and no rarer to learn."""
        picked = []
        for label in rng.choice(len(self.task.labels), self.settings.vision_batch):
            lesson = drawn[rng.integers(len(drawn))]
            found = [k for k, at in enumerate(lesson.labels) if at == label] or range(len(lesson.labels))
            k = int(rng.choice(found))
            picked.append((lesson, [span for span in windowing.window_spans(self.talk, lesson, k, k + 1, None) if span.grid]))
        return windowing.collate(self.talk, picked)

    def both(self, rng: np.random.Generator, drawn: Sequence[LabelledVideo]) -> Batch:
        """Clips as they look, beside commentaries to read."""
        s = self.settings
        shown = self._clips(rng, [drawn[i] for i in rng.choice(len(drawn), s.clips)], s.shortest_s, s.longest_s)
        return windowing.collate(self.talk, self._documents(self._blind(rng, s.documents)) + shown)

    def _told(self, rng: np.random.Generator, clips: int, shortest_s: int, longest_s: int) -> Batch:
        documents = self._documents(self._blind(rng, self.settings.documents))
        return windowing.collate(self.talk, documents + self._clips(rng, self._blind(rng, clips), shortest_s, longest_s), look=False)

    def _blind(self, rng: np.random.Generator, matches: int, lively: int = 2) -> list[LabelledVideo]:
        """Matches that were never drawn, one in `lively` of them a lively one."""
        seeds = [SEEDS + int(rng.integers(2**40)) for _ in range(matches)]
        return [self.task.blind_video(seed, self.settings.document_s, self.video, lively=i % lively == 0) for i, seed in enumerate(seeds)]

    def _documents(self, videos: Sequence[LabelledVideo]) -> list[Window]:
        return [(video, offline.document(self.talk, video, self.settings.document_s)) for video in videos]

    def _clips(self, rng: np.random.Generator, videos: Sequence[LabelledVideo], shortest_s: int, longest_s: int) -> list[Window]:
        """A clip of each video, from anywhere in it: most are described first, then asked about."""
        out = []
        for video in videos:
            seconds = int(rng.integers(shortest_s, longest_s + 1))
            start = int(rng.integers(0, len(video.chunks) - seconds + 1))
            title, (described, *asked) = self.task.told(video, start, start + seconds)
            picked = [asked[i] for i in rng.choice(len(asked), min(len(asked), self.settings.asked), replace=False)]
            turns = [described, *picked] if rng.random() < DESCRIBED or not picked else picked
            out.append((video, offline.clip(self.talk, video, start, start + seconds, title, turns)))
        return out


def phases(batches: PretrainBatches) -> list[Phase]:
    s, drawn = batches.settings, batches.drawn()
    language = lambda st: [*st.hf.model.language_model.parameters(), *st.hf.lm_head.parameters(), *st.labels.parameters()]  # noqa: E731
    return [Phase("reading", s.reading_steps, s.language_lr, batches.reading, language, TELL),
            Phase("moments", s.moment_steps, s.language_lr, batches.moments, language, TELL),
            Phase("clips", s.clip_steps, s.language_lr, batches.clips, language, TELL),
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
