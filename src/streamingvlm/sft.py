"""Overlapped-chunk SFT: short windows with full attention that look exactly like a moment of streaming (paper, section 3.2).

A window of `window_s` seconds starts every `stride_s`; before it stands the previous text, cut to sink + window as the `streaming` policy will
cut it; the loss falls on the assistant's tokens only. A vision tower that starts from nothing first learns the labels of single seconds.
Letters: B windows, T tokens, E hidden size, F frames, N vision tokens of a chunk.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm import config, dialogue
from streamingvlm.dialogue import Dialogue, Span, ids_of
from streamingvlm.model import VLM
from streamingvlm.subset import words_by_chunk
from streamingvlm.video import Chunk, read_chunks, to_patches

LATEST_CLOCK_S = 7200  # windows are told they start up to two hours into a broadcast: streams are longer than training videos


@dataclass(frozen=True)
class Lesson:
    """One labelled video in memory: `chunks` of uint8 frames, the words and the label of each chunk, and what was said before."""

    chunks: list[Chunk]
    words: list[str]
    labels: list[int]
    previous: str
    query: str


def load_lesson(row: dict, video: config.Video, root: Path, events: Sequence[str]) -> Lesson:
    """Decode a stream row: frames, words and the label of every chunk."""
    chunks = list(read_chunks(root / row["video"], video, row["start_s"], row["end_s"]))
    actions = {int(frame["t_s"] / video.chunk_s): frame["action"] for frame in row["frames"]}
    labels = [events.index(actions[k]) for k in range(len(chunks))]
    return Lesson(chunks, words_by_chunk(row, video.chunk_s)[: len(chunks)], labels, row["previous_text"], row["query"])


def window_starts(chunks: int, window: int, stride: int) -> list[int]:
    """First chunk of every window, overlapping by window - stride; the last one ends with the video."""
    return sorted({*range(0, max(chunks - window, 0) + 1, stride), max(chunks - window, 0)})


def window_spans(talk: Dialogue, lesson: Lesson, start: int, stop: int, cache: config.Cache, clock_s: float = 0.0) -> list[Span]:
    """The spans of chunks [start, stop), as the cache would hold them if it had been streaming up to `start`. `clock_s` is added to the clock."""
    before = [talk.encode(lesson.previous)] + [talk.spoken(words)[: -len(talk.silence)] for words in lesson.words[:start]]
    previous = [token for ids in before for token in ids]
    if len(previous) > cache.text_sink + cache.text_window:
        previous = previous[: cache.text_sink] + previous[len(previous) - cache.text_window :]
    spans = talk.header(previous)
    for k in range(start, stop):
        chunk = lesson.chunks[k]
        grid = (math.ceil(len(chunk.frames) / dialogue.TEMPORAL_PATCH), chunk.frames.shape[1] // 14, chunk.frames.shape[2] // 14)
        query = lesson.query if k == start else ""
        spans += talk.question(k, chunk.start_s + clock_s, chunk.end_s + clock_s, grid, query, first=k == start)
        spans += talk.answer(k, talk.spoken(lesson.words[k]))
    return spans


@dataclass(frozen=True)
class Batch:
    """ids, labels [B, T] (labels -100 where nothing is learned), positions [3, B, T], is_vision [B, T], patches [P, 1176], grids [chunks, 3]."""

    ids: Tensor
    labels: Tensor
    positions: Tensor
    is_vision: Tensor
    patches: Tensor
    grids: Tensor


def collate(talk: Dialogue, windows: Sequence[tuple[Lesson, list[Span]]]) -> Batch:
    """Pad windows (lesson, spans) on the right; causal attention needs no mask then."""
    length = max(len(ids_of(spans)) for _, spans in windows)
    ids = torch.full((len(windows), length), talk.im_end)
    labels, positions = torch.full_like(ids, -100), torch.zeros(3, *ids.shape, dtype=torch.long)
    is_vision = torch.zeros_like(ids, dtype=torch.bool)
    patches, grids = [], []
    for b, (lesson, spans) in enumerate(windows):
        flat = torch.tensor(ids_of(spans))
        learned = torch.tensor([s.role in {dialogue.SAID, dialogue.DOTS, dialogue.END} for s in spans for _ in s.ids])
        ids[b, : len(flat)], labels[b, : len(flat)] = flat, torch.where(learned, flat, -100)
        positions[:, b, : len(flat)] = torch.from_numpy(talk.positions(spans))
        is_vision[b, : len(flat)] = flat == talk.video_pad
        rounds = [span.round for span in spans if span.grid]
        same = to_patches(np.concatenate([lesson.chunks[k].frames for k in rounds]))[0]
        patches.append(same)
        grids += [span.grid for span in spans if span.grid]
    return Batch(ids, labels, positions, is_vision, torch.cat(patches), torch.tensor(grids))


def loss_of(vlm: VLM, batch: Batch) -> Tensor:
    """Mean cross entropy of the assistant's tokens, full attention over each window."""
    decoder, device = vlm.hf.model.language_model, vlm.device
    x = decoder.embed_tokens(batch.ids.to(device))  # [B, T, E]
    seen = vlm.hf.model.visual(batch.patches.to(device, x.dtype), grid_thw=batch.grids.to(device)).pooler_output  # [chunks * N, E]
    x = x.masked_scatter(batch.is_vision.to(device)[..., None], seen.to(x.dtype))
    hidden = decoder(inputs_embeds=x, position_ids=batch.positions.to(device), use_cache=False).last_hidden_state  # [B, T, E]
    target = batch.labels[:, 1:].to(device)
    learned = target != -100
    return F.cross_entropy(vlm.hf.lm_head(hidden[:, :-1][learned]).float(), target[learned])


class Checkpoint:
    """Where training stands, on disk. A file of another recipe (other params, other data) is ignored; a half-written one cannot exist."""

    def __init__(self, path: Path, recipe: dict):
        self.path, self.key = path, hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    def load(self) -> dict | None:
        if not self.path.exists():
            return None
        state = torch.load(self.path, weights_only=True)
        return state["state"] if state["key"] == self.key else None

    def save(self, state: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save({"key": self.key, "state": state}, part)
        os.replace(part, self.path)


class Trainer:
    """Two phases, `warm_up` then `windows`, as one resumable sequence of steps. Step n draws its batch from (seed, n) alone."""

    def __init__(self, vlm: VLM, lessons: Sequence[Lesson], cfg: config.Config, checkpoint: Checkpoint | None = None):
        self.vlm, self.lessons, self.sft, self.cache, self.checkpoint = vlm, lessons, cfg.sft, cfg.cache, checkpoint
        self.talk = Dialogue(vlm.tokenizer, vlm.time_step(cfg.video.fps))
        window, stride = (round(s / cfg.video.chunk_s) for s in (cfg.sft.window_s, cfg.sft.stride_s))
        self.windows = [(i, s, min(s + window, len(x.chunks))) for i, x in enumerate(lessons) for s in window_starts(len(x.chunks), window, stride)]
        self.seconds = [(i, k) for i, x in enumerate(lessons) for k in range(len(x.chunks))]
        classes = 1 + max(label for x in lessons for label in x.labels)
        generator = torch.Generator().manual_seed(cfg.sft.seed)
        self.head = nn.Linear(vlm.text.hidden_size, classes).to(vlm.device)
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.head.bias)
        self.history: list[dict] = []

    @property
    def steps(self) -> int:
        return self.sft.warmup_steps + self.sft.steps

    def run(self) -> Iterator[dict]:
        """Train, yielding a row per step: phase, step, loss (and accuracy in the warm-up). Starts where the checkpoint stands."""
        start = self._resume()
        for step in range(start, self.steps):
            if step == self.sft.warmup_steps:
                self.optimizer = self._optimizer()
            row = self._step(step)
            self.history.append(row)
            if self.checkpoint and (step + 1) % self.sft.checkpoint_every == 0 and step + 1 < self.steps:
                self.checkpoint.save({"step": step + 1, "model": self.vlm.hf.state_dict(), "head": self.head.state_dict(),
                                      "optimizer": self.optimizer.state_dict(), "history": self.history})
            yield row
        self.vlm.hf.eval()

    def _resume(self) -> int:
        state = self.checkpoint.load() if self.checkpoint else None
        self.optimizer = self._optimizer()
        if state is None:
            return 0
        self.vlm.hf.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]
        return state["step"]

    def _optimizer(self) -> torch.optim.Optimizer:
        parameters = [*self.vlm.hf.parameters(), *self.head.parameters()]
        return torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.95), weight_decay=0.01)

    def _step(self, step: int) -> dict:
        warm = step < self.sft.warmup_steps
        rng = np.random.default_rng([self.sft.seed, step])
        at, total, peak = (step, self.sft.warmup_steps, self.sft.warmup_lr) if warm else (
            step - self.sft.warmup_steps, self.sft.steps, self.sft.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = peak * schedule(at, total)
        self.vlm.hf.train()
        row = {"phase": "warm_up" if warm else "windows", "step": step}
        loss, more = self._seconds_loss(rng) if warm else (self._windows_loss(rng), {})
        loss.backward()
        nn.utils.clip_grad_norm_(self.vlm.hf.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return row | {"loss": round(loss.item(), 6)} | more

    def _seconds_loss(self, rng: np.random.Generator) -> tuple[Tensor, dict]:
        """The vision tower alone: a linear head on a second's mean vision token names the second's label."""
        drawn = [self.seconds[i] for i in rng.choice(len(self.seconds), self.sft.warmup_batch)]
        packed = [to_patches(self.lessons[i].chunks[k].frames) for i, k in drawn]
        grids = torch.tensor([grid for _, grid in packed], device=self.vlm.device)
        patches = torch.cat([p for p, _ in packed]).to(self.vlm.device)
        seen = self.vlm.hf.model.visual(patches, grid_thw=grids).pooler_output  # [seconds * N, E]
        sizes = (grids.prod(-1) // dialogue.MERGE**2).tolist()
        pooled = torch.stack([tokens.mean(0) for tokens in seen.split(sizes)])  # [seconds, E]
        target = torch.tensor([self.lessons[i].labels[k] for i, k in drawn], device=self.vlm.device)
        logits = self.head(pooled)
        return F.cross_entropy(logits, target), {"accuracy": round((logits.argmax(-1) == target).float().mean().item(), 4)}

    def _windows_loss(self, rng: np.random.Generator) -> Tensor:
        drawn = [self.windows[i] for i in rng.choice(len(self.windows), self.sft.batch)]
        clocks = rng.integers(0, LATEST_CLOCK_S, len(drawn)) * rng.integers(0, 2, len(drawn))
        windows = [(self.lessons[i], window_spans(self.talk, self.lessons[i], start, stop, self.cache, float(clock)))
                   for (i, start, stop), clock in zip(drawn, clocks, strict=True)]
        return loss_of(self.vlm, collate(self.talk, windows))


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: a short rise, then a cosine down to a tenth."""
    rise = max(1, steps // 20)
    return min(1.0, (step + 1) / rise) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def recipe(cfg: config.Config, data: str) -> dict:
    """All that decides the weights, for `Checkpoint`: the params read and the fingerprint of the data."""
    return {"data": data, **{name: asdict(getattr(cfg, name)) for name in ("video", "cache", "model", "sft")}}

