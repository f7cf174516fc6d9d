"""Trains the frame-based model from nothing: language on labels, vision on what language was told, then both together.

    python -m streamingvlm.training.frame_vlm.train data/city-base/frame-vlm      # about 12 minutes of one core; goes on where it was killed

Letters: B frames, T tokens, N vision tokens of a frame, E hidden size.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLForConditionalGeneration

from streamingvlm.base import config, files, progress
from streamingvlm.models.qwen25 import loading, tokenizer
from streamingvlm.models.qwen25.vision import Tower
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.training.frame_vlm.batches import CODE, KINDS, SLOTS, Batch, Frames, codes, waves
from streamingvlm.training.frame_vlm.grammar import STEP_PX, STEPS, WORDS
from streamingvlm.training.frame_vlm.prompt import BORDER_PX, CELLS, GRID, SCALE, Prompt, patches
from streamingvlm.training.loop import LOOK, NAME, TELL, Checkpoint, Phase, Trainer
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, SIZE_PX

SEEDS = 5_000_000  # of its cities; with the palettes, looks and streets of training
SHAPE = config.Model(seed=0, hidden=128, layers=3, heads=4, kv_heads=2, intermediate=288, vision_hidden=96, vision_depth=3, vision_heads=3,
                     vision_intermediate=192)
ROPE_THETA = 12.0  # few tokens: with Qwen's 1e6, columns turn by a ten-thousandth and all look alike
READ_ON = 0.25  # how much vision tokens go on being asked what they know while words are learned from them
NEAR_PX = 16.0  # the unit of what the probe is asked for


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    worlds: int = 300
    tell_steps: int = 250
    tell_batch: int = 32
    tell_lr: float = 3e-3
    name_steps: int = 600
    name_batch: int = 32
    name_lr: float = 2e-3
    look_steps: int = 560
    look_batch: int = 32
    look_lr: float = 1.5e-3
    model: config.Model = field(default_factory=lambda: SHAPE)


class Student(nn.Module):
    """A Qwen2.5-VL and what it learns by: `told` makes a vision token of a cell's code, `probe` and `judge` ask vision tokens what they know."""

    def __init__(self, hf: Qwen2_5_VLForConditionalGeneration):
        super().__init__()
        E = hf.config.text_config.hidden_size
        self.hf, self.tower = hf, Tower(hf.model.visual)
        self.told, self.probe, self.judge = nn.Linear(CODE, E), nn.Linear(E, SLOTS * (KINDS + 1 + 4)), nn.Linear(E, len(ACTIONS) + len(ANOMALIES))
        nn.init.normal_(self.told.weight, std=0.2)  # as loud as words and as an untrained tower

    def forward(self, batch: Batch, how: str = LOOK) -> tuple[Tensor, dict[str, float]]:
        """Loss and what to log. `tell`: words from labels; `name`: the tower alone, towards what language was told; `look`: words from pictures."""
        if how == TELL:
            return self._words(batch, self.told(codes(batch.kind, batch.box)))
        seen = self.see(batch.frames)
        read, more = self._read(batch, seen)
        loss, other = self._aim(batch, seen) if how == NAME else self._words(batch, seen)
        return loss + (1.0 if how == NAME else READ_ON) * read, more | other

    def see(self, frames: Tensor) -> Tensor:
        """Frames [B, 96, 96, 3] -> vision tokens [B, N, E]."""
        return self.tower(patches(frames), [GRID] * len(frames)).unflatten(0, (len(frames), -1))

    def _words(self, batch: Batch, vision: Tensor) -> tuple[Tensor, dict]:
        """Mean cross entropy of the answers' tokens."""
        decoder, (rows, length) = self.hf.model.language_model, batch.ids.shape
        start = batch.ids[0].eq(self.hf.config.image_token_id).nonzero()[0, 0]
        x = decoder.embed_tokens(batch.ids)  # [B, T, E]
        x = torch.cat((x[:, :start], vision, x[:, start + vision.shape[1] :]), 1)
        positions = batch.positions[:, None].expand(3, rows, length)
        hidden = decoder(inputs_embeds=x, position_ids=positions, attention_mask=None, use_cache=False).last_hidden_state
        target = batch.labels[:, 1:]
        learned = target != -100
        logits, target = self.hf.lm_head(hidden[:, :-1][learned]), target[learned]  # [learned, vocabulary], [learned]
        return F.cross_entropy(logits, target), {"accuracy": round((logits.argmax(-1) == target).float().mean().item(), 4)}

    def _aim(self, batch: Batch, vision: Tensor) -> tuple[Tensor, dict]:
        """Every vision token shall be what language was told of its cell, full cells and empty ones counting the same."""
        goal = self.told(codes(batch.kind, batch.box)).detach()  # [B, N, E]
        full = (batch.kind >= 0).any(-1)  # [B, N]
        apart = (vision - goal).square().mean(-1) / goal[full].var()
        aim = apart[full].mean() + apart[~full].mean()
        return aim, {"aim": round(aim.item(), 4)}

    def _read(self, batch: Batch, vision: Tensor) -> tuple[Tensor, dict]:
        """What is in a cell, and what is going on, shall be easy to read from vision tokens."""
        kinds, corners = self.probe(vision).unflatten(-1, (SLOTS, -1)).split((KINDS + 1, 4), -1)
        there = batch.kind >= 0
        kind = F.cross_entropy(kinds.flatten(0, 2), (batch.kind + 1).flatten(), reduction="none").sum() / there.sum().clamp(min=1)
        corner = (corners - self._near(batch.box))[there].abs().sum() / (4 * there.sum().clamp(min=1))
        action, alarms = self.judge(vision.mean(1)).split((len(ACTIONS), len(ANOMALIES)), -1)
        judged = F.cross_entropy(action, batch.action) + F.binary_cross_entropy_with_logits(alarms, batch.anomalies.float())
        return kind + 2 * corner + 0.5 * judged, {"corner_px": round(corner.item() * NEAR_PX, 3),
                                                  "action": round((action.argmax(-1) == batch.action).float().mean().item(), 4)}

    @staticmethod
    def _near(box: Tensor) -> Tensor:
        """box [B, N, SLOTS, 4] px -> how far each corner is from the middle of its cell."""
        middle = ((torch.arange(CELLS) + 0.5) * (SIZE_PX * SCALE + 2 * BORDER_PX) / CELLS - BORDER_PX) / SCALE
        x, y = middle.repeat(CELLS), middle.repeat_interleave(CELLS)
        return (box - torch.stack((x, y, x, y), -1)[:, None]) / NEAR_PX


def build(model: config.Model = SHAPE) -> VLM:
    """An untrained model: `loading.tiny_config` with slower turns of the text's positions, and vision that always attends to the whole picture."""
    words = tokenizer.build(WORDS)
    shape = loading.tiny_config(model, words)
    shape.text_config.rope_parameters["rope_theta"] = ROPE_THETA
    shape.vision_config.fullatt_block_indexes = list(range(model.vision_depth))
    vlm = loading.build(model, words, shape)
    _count(vlm, model.seed)
    return vlm


@torch.no_grad()
def _count(vlm: VLM, seed: int) -> None:
    """Numbers that are near each other start alike, as waves, like the corners that are told: 49 unrelated words take twice as long to learn."""
    numbers = [vlm.tokenizer.tokenize(f" {k}")[0] for k in range(STEPS + 1)]
    ids = torch.tensor(vlm.tokenizer.convert_tokens_to_ids(numbers))
    chance = torch.Generator().manual_seed(seed)
    waves_of = waves(STEP_PX * torch.arange(STEPS + 1.0))  # [49, waves]
    own = 0.1 * torch.randn(len(ids), vlm.text.hidden_size, generator=chance)
    words = own + 0.3 * (2 / waves_of.shape[1]) ** 0.5 * waves_of @ torch.randn(waves_of.shape[1], vlm.text.hidden_size, generator=chance)
    vlm.hf.model.language_model.embed_tokens.weight[ids] = words
    vlm.hf.lm_head.weight[ids] = 0.3 * words


def trainer(recipe: Recipe, checkpoint: Path | None = None) -> tuple[VLM, Trainer]:
    """A model of random weights and what trains it, in place."""
    vlm = build(recipe.model)
    torch.manual_seed(recipe.seed)
    student, r = Student(vlm.hf), recipe
    frames = Frames(range(SEEDS, SEEDS + r.worlds), Prompt(vlm.tokenizer))
    language = lambda st: [*st.hf.model.language_model.parameters(), *st.hf.lm_head.parameters(), *st.told.parameters()]  # noqa: E731
    asked = lambda st: [*st.probe.parameters(), *st.judge.parameters()]  # noqa: E731
    eyes = lambda st: [*st.hf.model.visual.parameters(), *asked(st)]  # noqa: E731
    phases = [Phase("tell", r.tell_steps, r.tell_lr, lambda rng: frames.draw(rng, r.tell_batch, look=False), language, TELL),
              Phase("name", r.name_steps, r.name_lr, lambda rng: frames.draw(rng, r.name_batch), eyes, NAME),
              Phase("look", r.look_steps, r.look_lr, lambda rng: frames.draw(rng, r.look_batch), lambda st: [*st.hf.parameters(), *asked(st)], LOOK)]
    return vlm, Trainer(student, phases, r.seed, checkpoint and Checkpoint(checkpoint, asdict(recipe)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    checkpoint = config.repository_root() / "artifacts" / "checkpoints" / "frame_vlm.pt"
    vlm, training = trainer(Recipe(), checkpoint)
    for _ in progress.bar(training.run(), training.steps, "training the frame-based model", lambda row: f"{row['phase']} loss {row['loss']:.3f}"):
        pass
    vlm.save(folder)
    files.write(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in training.history[::10]))
    checkpoint.unlink(missing_ok=True)
    print(f"The frame-based model is in {folder}.")


if __name__ == "__main__":
    main()
