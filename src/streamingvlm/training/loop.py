"""The training loop: phases of steps, one resumable sequence. Knows losses, optimizers and checkpoints; not what a lesson is or where it comes from.

Step n draws its batch from (seed, n) alone, so a killed run that goes on ends with the weights of one that was never killed. On one device
or, under `accelerate launch`, on many: each process then draws its own share of the batch.
Letters: B rows of a batch, W windows, T tokens, E hidden size, N vision tokens of a chunk.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLForConditionalGeneration

from streamingvlm.training.windowing import Batch

LOOK, NAME, TELL = "look", "name", "tell"  # what CommentaryLoss computes


class CommentaryLoss(nn.Module):
    """A Qwen2.5-VL and what it learns by. `labels` [events, E]: each event as one vision token of the language model's own input space.

    `told` its events through `labels`, the language model learns to commentate before it can see; `labels` then are what the vision tower aims at."""

    def __init__(self, hf: Qwen2_5_VLForConditionalGeneration, events: int = 1, seed: int = 0):
        super().__init__()
        self.hf = hf
        self.labels = nn.Embedding(events, hf.config.text_config.hidden_size, device=hf.device)
        nn.init.normal_(self.labels.weight, std=0.3, generator=torch.Generator(hf.device).manual_seed(seed))

    def forward(self, batch: Batch, how: str = LOOK) -> tuple[Tensor, dict[str, float]]:
        """Loss and what to log. `look`: words from pictures; `tell`: words from labels; `name`: labels from pictures, the vision tower alone."""
        return self._name(batch) if how == NAME else self._words(batch, self._seen(batch) if how == LOOK else self._told(batch))

    def _seen(self, batch: Batch) -> Tensor:
        """Vision tokens of all chunks [chunks * N, E]."""
        if batch.seen is not None:
            return batch.seen.to(self.hf.device)
        visual = self.hf.model.visual
        return visual(batch.patches.to(self.hf.device, visual.dtype), grid_thw=batch.grids.to(self.hf.device)).pooler_output

    def _told(self, batch: Batch) -> Tensor:
        return self.labels(batch.events.repeat_interleave(batch.sizes).to(self.hf.device))

    def _words(self, batch: Batch, vision: Tensor) -> tuple[Tensor, dict]:
        """Mean cross entropy of the assistant's tokens, full attention over each window."""
        decoder, device = self.hf.model.language_model, self.hf.device
        x = decoder.embed_tokens(batch.ids.to(device))  # [B, T, E]
        x = x.masked_scatter(batch.is_vision.to(device)[..., None], vision.to(x.dtype))
        mask = None if batch.mask is None else {"full_attention": batch.mask.to(device)}
        hidden = decoder(inputs_embeds=x, position_ids=batch.positions.to(device), attention_mask=mask, use_cache=False).last_hidden_state
        target = batch.labels[:, 1:].to(device)
        learned = target != -100
        logits, target = self.hf.lm_head(hidden[:, :-1][learned]).float(), target[learned]  # [learned, vocabulary], [learned]
        return F.cross_entropy(logits, target), {"accuracy": round((logits.argmax(-1) == target).float().mean().item(), 4)}

    def _name(self, batch: Batch) -> tuple[Tensor, dict]:
        """Every vision token shall be its chunk's label, and the mean of a chunk's be nearest to the right one."""
        sizes, events = batch.sizes.tolist(), batch.events.to(self.hf.device)
        goal = self.labels.weight.detach()  # [events, E]
        vision = self._seen(batch).float()  # [chunks * N, E]
        pooled = torch.stack([tokens.mean(0) for tokens in vision.split(sizes)])  # [chunks, E]
        logits = -torch.cdist(pooled, goal).square() / goal.var()
        aim = F.mse_loss(vision, goal[events.repeat_interleave(batch.sizes.to(events.device))]) / goal.var()
        return F.cross_entropy(logits, events) + aim, {"accuracy": round((logits.argmax(-1) == events).float().mean().item(), 4)}


@dataclass(frozen=True)
class Phase:
    """`steps` of one kind: `draw` makes a batch from a source of chance, `how` the student computes its loss, `learns` what changes."""

    name: str
    steps: int
    lr: float
    draw: Callable[[np.random.Generator], Batch]
    learns: Callable[[CommentaryLoss], Iterable[nn.Parameter]]
    how: str = LOOK


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
    """Runs phases one after another; each has its own optimizer and its own rise and fall of the learning rate."""

    def __init__(self, student: CommentaryLoss, phases: Sequence[Phase], seed: int, checkpoint: Checkpoint | None = None, every: int = 100,
                 accumulate: int = 1, dtype: torch.dtype = torch.float32, finish: Callable[[], None] = lambda: None):
        from accelerate import Accelerator

        self.phases, self.seed, self.checkpoint, self.every = [p for p in phases if p.steps], seed, checkpoint, every
        self.accumulate, self.dtype, self.finish = accumulate, dtype, finish
        self.accelerator = Accelerator(cpu=next(student.parameters()).device.type == "cpu")
        self.student = student
        self.history: list[dict] = []

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def run(self) -> Iterator[dict]:
        """Train, yielding a row per step: phase, step, loss and the accuracy of what is learned. Starts where the checkpoint stands."""
        state = self.checkpoint.load() if self.checkpoint else None
        done = state["step"] if state else 0
        if state:
            self.student.load_state_dict(state["student"])
            self.history = state["history"]
        first = 0
        for phase in self.phases:
            yield from self._phase(phase, first, done, state)
            first += phase.steps
        self.student.eval()
        self.finish()

    def _phase(self, phase: Phase, first: int, done: int, state: dict | None) -> Iterator[dict]:
        start = max(first, done)
        if start >= first + phase.steps:
            return
        learned = list(phase.learns(self.student))
        self.student.requires_grad_(False)
        for parameter in learned:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(learned, lr=0.0, betas=(0.9, 0.95), weight_decay=0.01)
        if state and first < done:
            optimizer.load_state_dict(state["optimizer"])
        # Wrapped only now: where gradients are shared between devices, what learns must be known.
        self.wrapped, optimizer = self.accelerator.prepare(self.student, optimizer)
        for step in range(start, first + phase.steps):
            for group in optimizer.param_groups:
                group["lr"] = phase.lr * schedule(step - first, phase.steps)
            row = {"phase": phase.name, "step": step} | self._step(phase, step, optimizer, learned)
            self.history.append(row)
            if self.checkpoint and (step + 1) % self.every == 0 and step + 1 < self.steps and self.accelerator.is_main_process:
                ends = step + 1 == first + phase.steps  # the next phase starts with an optimizer of its own
                self.checkpoint.save({"step": step + 1, "student": self.student.state_dict(), "history": self.history,
                                      "optimizer": None if ends else optimizer.state_dict()})
            yield row

    def _step(self, phase: Phase, step: int, optimizer: torch.optim.Optimizer, learned: list[nn.Parameter]) -> dict:
        self.wrapped.train()
        total, more = 0.0, {}
        for micro in range(self.accumulate):
            # Two devices draw what one that accumulates two batches would.
            rng = np.random.default_rng([self.seed, step, micro + self.accumulate * self.accelerator.process_index])
            with torch.autocast(self.accelerator.device.type, self.dtype, enabled=self.dtype != torch.float32):
                loss, more = self.wrapped(phase.draw(rng), phase.how)
            self.accelerator.backward(loss / self.accumulate)
            total += loss.item() / self.accumulate
        self.accelerator.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": round(total, 6)} | more


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: a short rise, then a cosine down to a tenth."""
    rise = max(1, steps // 20)
    return min(1.0, (step + 1) / rise) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))
