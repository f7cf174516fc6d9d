"""Trains the city's commentator from nothing: language on what is told, vision on what language was told, both together, and last to heed notes.

    python -m streamingvlm.training.city_words.train data/city-commentator     # some 35 minutes of one core; goes on where it was killed
    python -m streamingvlm.training.city_words.train data/city-commentator --only-heed      # the last phase, on the weights that lie there: 2 minutes

A note is what the multi-camera model (`--eyes`) makes of the second. How far to trust it is learned on cities that neither model's vision has seen.
Letters: B seconds, T tokens, N vision tokens of a second, E hidden size.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLForConditionalGeneration

from streamingvlm.base import config, files, progress
from streamingvlm.base.patches import PATCH_PX, TEMPORAL
from streamingvlm.context.dialogue import Dialogue
from streamingvlm.models.multicamera import network as networks
from streamingvlm.models.multicamera.network import Network
from streamingvlm.models.qwen25 import loading, tokenizer
from streamingvlm.models.qwen25.vision import Tower
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.commentator import Settings
from streamingvlm.training.city_words.lessons import ACTIONS, CODE, COUNTED, SORTS, Known, Lesson, Lessons
from streamingvlm.training.city_words.notes import whole
from streamingvlm.training.city_words.towns import town
from streamingvlm.training.loop import LOOK, NAME, TELL, Checkpoint, Phase, Trainer
from streamingvlm.training.windowing import Batch
from streamingvlm.worlds.city import sentences
from streamingvlm.worlds.city.knobs import SHIRTS, TROUSERS

SEEDS, HEED_SEEDS = 5_500_000, 5_600_000  # of its cities; with the palettes, looks and streets of training
SHAPE = config.Model(seed=0, hidden=128, layers=3, heads=4, kv_heads=2, intermediate=256, vision_hidden=128, vision_depth=3, vision_heads=4,
                     vision_intermediate=256)
STREAMED = Settings(config.Video(fps=2.0, chunk_s=1.0, max_pixels=7056), config.Retention(text_sink=4, text_window=16, vision_rounds=1),
                    config.Stream(max_new_tokens=24, query=sentences.QUERY), heeds_notes=True)
ROPE_THETA = 12.0  # few tokens: with Qwen's 1e6, columns of the picture turn by a ten-thousandth and all look alike
HEED = "heed"  # words from pictures and notes; the tower stays as it is
BLIND, HALF_BLIND = 0.7, 0.35  # of the seconds by which notes are learned to be read, and later: without a picture, nothing else to go by
READ_ON = 0.5  # how much vision tokens go on being asked what they know while words are learned from them
BINS = 4  # of a patch's side: where its colours are at the start


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    worlds: int = 200
    tell_steps: int = 300
    tell_batch: int = 32
    tell_lr: float = 3e-3
    name_steps: int = 2600
    name_batch: int = 64
    name_lr: float = 2e-3
    look_steps: int = 900
    look_batch: int = 32
    look_lr: float = 1e-3
    heed_worlds: int = 12
    read_steps: int = 200
    read_lr: float = 2e-3
    heed_steps: int = 430
    heed_batch: int = 16
    heed_lr: float = 1e-3
    model: config.Model = field(default_factory=lambda: SHAPE)


class Student(nn.Module):
    """A Qwen2.5-VL and what it learns by: `told` makes a vision token of a cell's code, `probe` asks vision tokens what they know."""

    def __init__(self, hf: Qwen2_5_VLForConditionalGeneration):
        super().__init__()
        E = hf.config.text_config.hidden_size
        self.hf, self.tower = hf, Tower(hf.model.visual)
        self.sizes = (2, len(SHIRTS), len(TROUSERS), 2, SORTS * (COUNTED + 1), len(SHIRTS) + len(TROUSERS))
        self.told, self.probe, self.judge = nn.Linear(CODE, E), nn.Linear(E, sum(self.sizes)), nn.Linear(E, len(ACTIONS))
        nn.init.normal_(self.told.weight, std=0.2)  # as loud as words and as an untrained tower

    def forward(self, lesson: Lesson, how: str = LOOK) -> tuple[Tensor, dict[str, float]]:
        """Loss and what to log. `tell`: words from labels; `name`: the tower alone, towards what language was told; `look`: words from pictures;
        `heed`: words from pictures and notes, by language alone."""
        if how == TELL:
            return self._words(lesson.told, self.told(lesson.known.codes()))
        if how == HEED:
            with torch.no_grad():
                seen = self.see(lesson.told)
            return self._words(lesson.told, seen)
        seen = self.see(lesson.told)
        read, more = self._read(lesson.known, seen)
        loss, other = self._aim(lesson.known, seen) if how == NAME else self._words(lesson.told, seen)
        return loss + (1.0 if how == NAME else READ_ON) * read, more | other

    def see(self, told: Batch) -> Tensor:
        """Patches of B seconds -> vision tokens [B, N, E]."""
        grids = [tuple(grid) for grid in told.grids.tolist()]
        return self.tower(told.patches, grids).unflatten(0, (len(grids), -1))

    def _words(self, told: Batch, vision: Tensor) -> tuple[Tensor, dict]:
        """Mean cross entropy of the answers' tokens."""
        decoder = self.hf.model.language_model
        x = decoder.embed_tokens(told.ids)  # [B, T, E]
        x = x.masked_scatter(told.is_vision[..., None], vision)
        hidden = decoder(inputs_embeds=x, position_ids=told.positions, attention_mask=None, use_cache=False).last_hidden_state
        target = told.labels[:, 1:]
        learned = target != -100
        logits, target = self.hf.lm_head(hidden[:, :-1][learned]), target[learned]  # [learned, vocabulary], [learned]
        right = logits.argmax(-1) == target
        rows = learned.nonzero()[:, 0]
        wrong = torch.zeros(len(told.ids)).index_add_(0, rows, (~right).float())
        shares = {"accuracy": right, "exact": wrong == 0}
        return F.cross_entropy(logits, target), {name: round(share.float().mean().item(), 4) for name, share in shares.items()}

    def _aim(self, known: Known, vision: Tensor) -> tuple[Tensor, dict]:
        """Every vision token shall be what language was told of its cell."""
        goal = self.told(known.codes()).detach()  # [B, N, E]
        aim = (vision - goal).square().mean() / goal.flatten(0, 1).var(0).mean()
        return aim, {"aim": round(aim.item(), 4)}

    def _read(self, known: Known, vision: Tensor) -> tuple[Tensor, dict]:
        """What is in a cell, and what is going on, shall be easy to read from vision tokens."""
        fall, shirt, trousers, pavement, people, worn = self.probe(vision).split(self.sizes, -1)
        alarms = {"fall": (fall, known.fall.long()), "pavement": (pavement, known.pavement.long())}
        looks = {"shirt": (shirt[known.fall], known.look[known.fall][:, 0]), "trousers": (trousers[known.fall], known.look[known.fall][:, 1])}
        counts = F.cross_entropy(people.unflatten(-1, (SORTS, -1)).flatten(0, 2), known.people.flatten())
        action = self.judge(vision.mean(1))
        loss = counts + 0.3 * F.cross_entropy(action, known.action) + 3 * F.binary_cross_entropy_with_logits(worn, known.worn.float())
        loss = loss + 3 * sum(F.cross_entropy(found.flatten(0, 1), true.flatten()) for found, true in alarms.values())
        loss = loss + 1.0 * sum(_of_named(found, true) for found, true in looks.values())
        more = {name: (found.argmax(-1) == true).all(-1) for name, (found, true) in alarms.items()} | {"action": action.argmax(-1) == known.action}
        more |= {name: (found.argmax(-1) == true)[true >= 0] for name, (found, true) in looks.items()}
        return loss, {"counts": round(counts.item(), 4)} | {name: round(right.float().mean().item(), 4) for name, right in more.items() if len(right)}


def _of_named(found: Tensor, true: Tensor) -> Tensor:
    """Mean cross entropy of those [..., classes] that have a name; 0 where nobody has."""
    return F.cross_entropy(found, true, ignore_index=-1, reduction="sum") / (true >= 0).sum().clamp(min=1)


def build(model: config.Model = SHAPE) -> VLM:
    """An untrained model: `loading.tiny_config` with positions that tell columns apart, vision that always attends to the whole picture."""
    words = tokenizer.build(sentences.WORDS)
    shape = loading.tiny_config(model, words)
    half = model.hidden // model.heads // 2
    sections = [half // 8, half // 4, half - half // 8 - half // 4]  # time, rows, columns: which third it is are the columns to say
    shape.text_config.rope_parameters |= {"rope_theta": ROPE_THETA, "mrope_section": sections}
    shape.vision_config.fullatt_block_indexes = list(range(model.vision_depth))
    vlm = loading.build(model, words, shape)
    _see_colours(vlm.hf.model.visual.patch_embed.proj.weight)
    return vlm


@torch.no_grad()
def _see_colours(weight: Tensor) -> None:
    """weight [C, 3, TEMPORAL, PATCH_PX, PATCH_PX]: the first features of a patch are its mean colours in BINS x BINS places of both frames. From
    random ones, colours would have to be found first."""
    place = (torch.arange(PATCH_PX) + 0.5) / PATCH_PX * BINS - 0.5
    bump = (1 - (place - torch.arange(BINS)[:, None]).abs()).clamp(min=0)  # [BINS, PATCH_PX]
    bump = bump / bump.sum(1, keepdim=True)
    each = torch.einsum("ih,jw->ijhw", bump, bump).flatten(0, 1)  # [BINS^2, H, W]
    count = min(len(weight), 3 * TEMPORAL * len(each))
    weight[:count] = 0
    for unit in range(count):
        colour, frame, at = unit % 3, unit // 3 % TEMPORAL, unit // (3 * TEMPORAL)
        weight[unit, colour, frame] = each[at]


def trainer(recipe: Recipe, eyes: Network, checkpoint: Path | None = None, vlm: VLM | None = None) -> tuple[VLM, Trainer]:
    """A model, of random weights unless it is given, and what trains it, in place. `eyes`: whose notes it learns to heed."""
    vlm = vlm or build(recipe.model)
    torch.manual_seed(recipe.seed)
    student, r = Student(vlm.hf), recipe
    talk = Dialogue(vlm.tokenizer, vlm.time_step(STREAMED.video.fps))
    lessons = Lessons([town(SEEDS + k) for k in range(r.worlds)], talk, STREAMED.video, STREAMED.cache)
    heeded = [town(HEED_SEEDS + k) for k in range(r.heed_worlds)]
    told = [whole(eyes, city) for city in progress.bar(heeded, len(heeded), "noting")]
    noted = Lessons(heeded, talk, STREAMED.video, STREAMED.cache, told)
    speech = lambda st: [*st.hf.model.language_model.parameters(), *st.hf.lm_head.parameters()]  # noqa: E731
    language = lambda st: [*speech(st), *st.told.parameters()]  # noqa: E731
    asked = lambda st: [*st.probe.parameters(), *st.judge.parameters()]  # noqa: E731
    tower = lambda st: [*st.hf.model.visual.parameters(), *asked(st)]  # noqa: E731
    phases = [Phase("tell", r.tell_steps, r.tell_lr, lambda rng: lessons.draw(rng, r.tell_batch, look=False), language, TELL),
              Phase("name", r.name_steps, r.name_lr, lambda rng: lessons.draw(rng, r.name_batch, named=False), tower, NAME),
              Phase("look", r.look_steps, r.look_lr, lambda rng: lessons.draw(rng, r.look_batch), lambda st: [*st.hf.parameters(), *asked(st)], LOOK),
              Phase("read", r.read_steps, r.read_lr, lambda rng: noted.draw(rng, r.heed_batch, blind=BLIND), speech, HEED),
              Phase(HEED, r.heed_steps, r.heed_lr, lambda rng: noted.draw(rng, r.heed_batch, blind=HALF_BLIND), speech, HEED)]
    return vlm, Trainer(student, phases, r.seed, checkpoint and Checkpoint(checkpoint, asdict(recipe)), every=25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--eyes", type=Path, default=Path("data/city-base"), help="the multi-camera model whose notes it learns to heed")
    parser.add_argument("--only-heed", action="store_true", help="teach the commentator in the folder to heed notes, and nothing else")
    asked = parser.parse_args()
    folder = asked.folder
    torch.set_num_threads(1)
    checkpoint = config.repository_root() / "artifacts" / "checkpoints" / "city_words.pt"
    before = (folder / "history.jsonl").read_text(encoding="utf-8") if asked.only_heed else ""
    recipe = replace(Recipe(), worlds=1, tell_steps=0, name_steps=0, look_steps=0) if asked.only_heed else Recipe()
    vlm, training = trainer(recipe, networks.load(asked.eyes), checkpoint, loading.load(folder, torch.device("cpu")) if asked.only_heed else None)
    for _ in progress.bar(training.run(), training.steps, "training the commentator", lambda row: f"{row['phase']} loss {row['loss']:.3f}"):
        pass
    vlm.save(folder)
    STREAMED.write(folder)
    files.write(folder / "history.jsonl", before + "".join(json.dumps(row) + "\n" for row in training.history[::10]))
    checkpoint.unlink(missing_ok=True)
    print(f"The commentator is in {folder}; `dvc commit -f data.dvc` tells DVC that it is new.")


if __name__ == "__main__":
    main()
