"""Overlapped-chunk SFT: short windows with full attention that look exactly like a moment of streaming (paper, section 2.2).

Starts from the base model. A window of `window_s` seconds starts every `stride_s`; before it stands the previous text, cut to sink + window as the
`streaming` policy will cut it; the loss falls on the assistant's tokens only. Two stages as in the paper: all windows, then a small clean set at a
lower rate. Two controls: windows that do not overlap (`stride_s` = `window_s`), and windows that start anywhere (`starts: random`). Beyond the paper,
whose SFT is commentary alone: some of the windows may ask (`questions`), so that what the base could answer is not all forgotten.

    accelerate launch --multi_gpu -m streamingvlm.training.sft artifacts/sft-gpus  # the notebook 02_sft on one device, this on several (FSDP: README)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from streamingvlm.base import config, progress, workers
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.context.dialogue import Dialogue, Span
from streamingvlm.data import labelled, stream_rows
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.models.qwen25 import loading
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.training import offline, windowing
from streamingvlm.training.loop import Checkpoint, CommentaryLoss, Phase, Trainer
from streamingvlm.training.windowing import Batch
from streamingvlm.worlds.match.task import MATCH
from streamingvlm.worlds.task import Task

LATEST_CLOCK_S = 7200  # windows are told they start up to two hours into a broadcast: streams are longer than training videos
CLIP = (4, 12)  # chunks, the fewest and the most, of a clip that is asked about
LOOKED_AT = 60  # chunks that are encoded in one pass
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


class Windows:
    """The windows of some lessons, and batches of them. `task`: what can be asked about a lesson, where `sft.questions` wants some asked."""

    def __init__(self, talk: Dialogue, taught: Sequence[LabelledVideo], cfg: config.Config, task: Task = MATCH):
        self.talk, self.lessons, self.cache, self.sft, self.task = talk, taught, cfg.cache, cfg.sft, task
        self.length, stride = (round(s / cfg.video.chunk_s) for s in (cfg.sft.window_s, cfg.sft.stride_s))
        self.at = [(i, start) for i, lesson in enumerate(taught) for start in windowing.window_starts(len(lesson.chunks), self.length, stride)]

    def __len__(self) -> int:
        return len(self.at)

    def draw(self, rng: np.random.Generator) -> Batch:
        """`sft.batch` of them by chance, half with a clock of some later hour."""
        windows = []
        for i, grid in (self.at[j] for j in rng.choice(len(self.at), self.sft.batch)):
            lesson = self.lessons[i]
            anywhere = int(rng.integers(0, max(len(lesson.chunks) - self.length, 0) + 1))
            start = anywhere if self.sft.starts == "random" else grid
            clock = float(rng.integers(0, LATEST_CLOCK_S) * rng.integers(0, 2))
            stop = min(start + self.length, len(lesson.chunks))
            asks = self.sft.questions > 0 and rng.random() < self.sft.questions  # where none is wanted, chance runs on as if there were none
            spans = self._asked(rng, lesson, start, stop, clock) if asks else self._watched(lesson, start, stop, clock)
            windows.append((lesson, spans))
        return windowing.collate(self.talk, windows, packed=self.sft.packed)

    def _watched(self, lesson: LabelledVideo, start: int, stop: int, clock_s: float) -> list[Span]:
        return windowing.window_spans(self.talk, lesson, start, stop, self.cache, clock_s)

    def _asked(self, rng: np.random.Generator, lesson: LabelledVideo, start: int, stop: int, clock_s: float) -> list[Span]:
        """In place of a window: every second time a clip, described and asked about as in pretraining; else its first seconds, and behind them, as
        `Streamer.ask` puts them there, all that can be asked of the match so far."""
        if rng.random() < 0.5:
            end = start + int(rng.integers(min(CLIP[0], stop - start), min(CLIP[1], stop - start) + 1))
            title, (described, *asked) = self.task.told(lesson, start, end)
            return offline.clip(self.talk, lesson, start, end, title, [described, *_shuffled(rng, asked)])
        end = start + int(rng.integers(1, max(1, (stop - start) * 3 // 4) + 1))  # a quarter is room for the questions: no more tokens in all
        _, (_, *asked) = self.task.told(lesson, 0, end)
        spans = self._watched(lesson, start, end, clock_s)
        for question, answer in _shuffled(rng, asked):
            spans += self.talk.aside(end, f" {question}", first=False) + self.talk.answer(end, self.talk.encode(f" {answer}"))
        return spans


def _shuffled(rng: np.random.Generator, items: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [items[i] for i in rng.permutation(len(items))]


def adapt(vlm: VLM, sft: config.Sft) -> object | None:
    """Put LoRA layers into the language model, in place, if the params ask for them -> what `merge` takes."""
    if sft.tune == "full":
        return None
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(sft.seed)
    return get_peft_model(vlm.hf, LoraConfig(r=sft.lora_rank, lora_alpha=2 * sft.lora_rank, target_modules=LORA_TARGETS))


def merge(adapted: object | None) -> None:
    """Fold LoRA layers into the weights they adapt; the model is a plain Qwen2.5-VL again."""
    if adapted is not None:
        adapted.merge_and_unload()


def trainer(vlm: VLM, bulk: Sequence[LabelledVideo], clean: Sequence[LabelledVideo], cfg: config.Config, checkpoint: Checkpoint | None = None,
            merged: bool = True) -> Trainer:
    """Two phases, `windows` of the bulk and `annealing` on the clean matches. `vlm` gets LoRA layers if the params ask for them, and is a plain
    Qwen2.5-VL again when the run has ended, unless `merged` is False: where processes share its weights, none can fold layers into them."""
    sft, talk = cfg.sft, Dialogue(vlm.tokenizer, vlm.time_step(cfg.video.fps))
    if sft.anneal_steps and not clean:
        raise UserError("`sft.anneal_steps` asks for clean matches, and there are none: set it to 0, or `data.clean_matches` above 0.")

    adapted = adapt(vlm, sft)

    def learns(student: CommentaryLoss) -> list[nn.Parameter]:
        vision = "" if sft.tune_vision else "model.visual."
        return [p for name, p in student.hf.named_parameters()
                if not (vision and vision in name) and (sft.tune == "full" or "lora_" in name)]

    phases = [Phase("windows", sft.steps, sft.lr, Windows(talk, bulk, cfg).draw, learns)]
    if sft.anneal_steps:
        phases.append(Phase("annealing", sft.anneal_steps, sft.anneal_lr, Windows(talk, clean, cfg).draw, learns))
    student = CommentaryLoss(vlm.hf, seed=sft.seed)
    finish = (lambda: merge(adapted)) if merged else (lambda: None)
    return Trainer(student, phases, sft.seed, checkpoint, sft.checkpoint_every, sft.accumulate, getattr(torch, sft.dtype), finish)


def recipe(cfg: config.Config, data: str) -> dict:
    """All that decides the weights, for `Checkpoint`: the params read and the fingerprint of the data (base model and lessons)."""
    return {"data": data, **{name: asdict(getattr(cfg, name)) for name in ("video", "cache", "sft")}}


def taught(rows: Sequence[dict], cfg: config.Config, frames: Path) -> tuple[list[LabelledVideo], list[LabelledVideo]]:
    """(bulk, clean) of training rows whose frames `labelled.decode` has put into `frames`."""
    return tuple([labelled.mapped(row, cfg.video, frames) for row in rows if row["split"] == split] for split in ("train", "clean"))


def look_once(names: Sequence[str], cfg: config.Config, frames: Path, root: Path) -> None:
    """Where the tower does not learn, it sees the same in every step of every student: compute it once, on every core, to the same bits, from what
    `labelled.decode` put into `frames` for the rows of these ids, beside it."""
    if not cfg.sft.tune_vision:
        for _ in workers.ordered(_look, [(names[i : i + 6], cfg, frames, root) for i in range(0, len(names), 6)]):
            pass


@torch.no_grad()
def _look(names: Sequence[str], cfg: config.Config, frames: Path, root: Path) -> None:
    visual = loading.load(root / cfg.sft.base, loading.pick_device(cfg.run.device), torch.float32).hf.model.visual
    for name in names:
        chunks, seen = np.load(frames / f"{name}.frames.npy"), []  # [chunks, F, H, W, C]
        for begin in range(0, len(chunks), LOOKED_AT):
            patches, grids = zip(*map(to_patches, chunks[begin : begin + LOOKED_AT]), strict=True)
            seen.append(visual(torch.cat(patches).to(visual.device), grid_thw=torch.tensor(grids, device=visual.device)).pooler_output)
        tokens = torch.cat(seen).cpu().numpy()  # [chunks * N, E]
        np.save(labelled.seen_file(name, frames), tokens.reshape(len(chunks), -1, tokens.shape[-1]))


def study(rows: Sequence[dict], cfg: config.Config, frames: Path, root: Path, data: str, checkpoint: Path | None, folder: Path) -> Iterator[dict]:
    """Teach one student, from the base to a folder: yields a row per step, and writes the model when the last is done. `data`: see `recipe`.

    A whole training in one call, so that several students can learn side by side (`base.workers`)."""
    vlm = loading.load(root / cfg.sft.base, loading.pick_device(cfg.run.device), torch.float32)
    kept = Checkpoint(checkpoint, recipe(cfg, data)) if checkpoint else None
    yield from trainer(vlm, *taught(rows, cfg, frames), cfg, kept).run()
    vlm.save(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Train on `artifacts/subset/train.parquet` with params.yaml and save a model: one process of as many as `accelerate launch` starts."""
    from accelerate import PartialState

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--params", type=Path, help="another params.yaml")
    args = parser.parse_args(argv)
    root, cfg = repository_root(), config.load(args.params)
    torch.set_num_threads(cfg.run.threads)
    rows = stream_rows.read(root / "artifacts" / "subset" / "train.parquet")
    taught: dict[str, list[LabelledVideo]] = {"train": [], "clean": []}
    for row in progress.bar(rows, len(rows), "decoding", lambda row: row["id"]):
        taught[row["split"]].append(labelled.load(row, cfg.video, root))
    device = PartialState(cpu=loading.pick_device(cfg.run.device).type == "cpu").device  # this process's own, where there are several
    vlm = loading.load(root / cfg.sft.base, device, torch.float32)
    training = trainer(vlm, taught["train"], taught["clean"], cfg, merged=False)
    steps = training.run()
    shown = progress.bar(steps, training.steps, "training", lambda row: f"loss {row['loss']:.3f}")
    for _ in shown if training.accelerator.is_main_process else steps:
        pass
    weights = training.accelerator.get_state_dict(training.wrapped)  # every process takes part: each may hold a share of them
    if training.accelerator.is_main_process:
        whole = loading.load(root / cfg.sft.base, torch.device("cpu"), torch.float32)
        adapted = adapt(whole, cfg.sft)
        CommentaryLoss(whole.hf).load_state_dict(weights)
        merge(adapted)
        whole.save(args.folder)
    training.accelerator.end_training()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
