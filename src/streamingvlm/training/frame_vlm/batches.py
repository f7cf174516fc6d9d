"""What the frame-based model learns from: frames of many cities, mirrored and in other clothes, with their answers. Knows no network.

    batch = Frames(range(5_000_000, 5_000_100), prompt).draw(np.random.default_rng(0), 32)

For a language model that learns before it can see, and for the tower that then aims at what it was told, each vision token's cell has a code: the
things whose middle is in it, from left to right, with their corners as smooth waves.
Letters: B frames, T tokens, N vision tokens of a frame, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamingvlm.training.frame_vlm.grammar import MOST, STEP_PX, STEPS, Said, Thing, say
from streamingvlm.training.frame_vlm.prompt import BORDER_PX, CELLS, SCALE, Prompt
from streamingvlm.worlds.city.knobs import ANOMALIES, SIZE_PX
from streamingvlm.worlds.city.truth import Truth
from streamingvlm.worlds.city.world import City, Wardrobe

FRAMES = 96  # of each city
OTHER_CLOTHES = 0.75  # of the frames
SLOTS = 3  # things told of a cell
KINDS = 5  # stands, walks, lies, car, bag
PERIODS_PX = (14.0, 40.0, 200.0)  # of the waves: the last one says where, the first how exactly
CODE = SLOTS * (KINDS + 4 * 2 * len(PERIODS_PX))


@dataclass(frozen=True)
class Labels:
    """Of one frame: box [things, 4] px, label and kind [things] (see KINDS), action, anomalies [6] bool."""

    box: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    action: int
    anomalies: np.ndarray

    @classmethod
    def of(cls, truth: Truth, camera: int, frame: int) -> Labels:
        mine = truth.boxes(camera, frame)
        label = truth.box_class[mine]
        kind = np.where(label == 0, truth.box_pose[mine], label + 2)
        return cls(truth.box[mine], label, kind, int(truth.action[camera, frame]), truth.anomalies[camera, frame])

    def mirrored(self) -> Labels:
        box = self.box[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [SIZE_PX, 0, SIZE_PX, 0]
        return Labels(box.astype(np.float32), self.label, self.kind, self.action, self.anomalies)

    def said(self) -> Said:
        """The answer: corners on the nearest steps, each box at least one step wide."""
        order = np.lexsort((self.box[:, 1], self.box[:, 0]))[:MOST]
        corners = np.rint(self.box[order] / STEP_PX).astype(int)
        corners[:, :2] = np.minimum(corners[:, :2], STEPS - 1)
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
        things = tuple(Thing(int(label), tuple(box)) for label, box in zip(self.label[order], corners.tolist(), strict=True))
        return Said(self.action, tuple(name for name, wrong in zip(ANOMALIES, self.anomalies, strict=True) if wrong), things)

    def slots(self) -> tuple[np.ndarray, np.ndarray]:
        """kind [N, SLOTS], -1 for none, and box [N, SLOTS, 4] px of each cell."""
        kind, box = np.full((CELLS**2, SLOTS), -1), np.zeros((CELLS**2, SLOTS, 4), np.float32)
        middle = ((self.box[:, :2] + self.box[:, 2:]) / 2 * SCALE + BORDER_PX) * CELLS / (SIZE_PX * SCALE + 2 * BORDER_PX)
        cell = middle.astype(int).clip(0, CELLS - 1)
        used = np.zeros(CELLS**2, int)
        for k in np.argsort(self.box[:, 0], kind="stable"):
            at = cell[k, 1] * CELLS + cell[k, 0]
            if used[at] < SLOTS:
                kind[at, used[at]], box[at, used[at]] = self.kind[k], self.box[k]
                used[at] += 1
        return kind, box


def waves(px: Tensor) -> Tensor:
    """Numbers [...] -> their sines and cosines [..., 2 * periods]."""
    turn = px[..., None] * (2 * torch.pi / torch.tensor(PERIODS_PX))
    return torch.cat((turn.sin(), turn.cos()), -1)


def codes(kind: Tensor, box: Tensor) -> Tensor:
    """kind [..., SLOTS], box [..., SLOTS, 4] -> the code [..., CODE] of each cell, zero where nothing is."""
    there = torch.nn.functional.one_hot(kind.clamp(min=0), KINDS).to(box.dtype)
    return (torch.cat((there, waves(box).flatten(-2)), -1) * (kind >= 0)[..., None]).flatten(-2)


@dataclass(frozen=True)
class Batch:
    """ids, labels [B, T] (labels -100 where nothing is learned), positions [3, T]; kind [B, N, SLOTS], box [B, N, SLOTS, 4]; action [B], anomalies
    [B, 6]; frames [B, H, W, C] uint8, or None for those that are only told."""

    ids: Tensor
    labels: Tensor
    positions: Tensor
    kind: Tensor
    box: Tensor
    action: Tensor
    anomalies: Tensor
    frames: Tensor | None


class Frames:
    """Frames of cities, drawn by chance."""

    def __init__(self, seeds: Sequence[int], prompt: Prompt, cameras: int = 8, frames: int = FRAMES):
        self.cities, self.prompt = [City(seed, cameras, frames) for seed in seeds], prompt

    def draw(self, rng: np.random.Generator, count: int, look: bool = True) -> Batch:
        """`count` frames from all over the cities, half of them mirrored, most of them in other clothes. `look`: with their pictures."""
        pictures, labels = [], []
        for _ in range(count):
            city = self.cities[rng.integers(len(self.cities))]
            camera, frame, mirrored = int(rng.integers(city.cameras)), int(rng.integers(city.frames)), bool(rng.integers(2))
            own = Labels.of(city.truth, camera, frame)
            labels.append(own.mirrored() if mirrored else own)
            if look:
                clothes = Wardrobe.mixed(int(rng.integers(2**31))) if rng.random() < OTHER_CLOTHES else None
                image = city.draw(camera, frame, clothes)
                pictures.append(image[:, ::-1] if mirrored else image)
        return collate(self.prompt, labels, np.stack(pictures) if look else None)


def collate(prompt: Prompt, labels: Sequence[Labels], pictures: np.ndarray | None) -> Batch:
    """Questions with their answers, padded on the right."""
    answers = [prompt.answer(say(own.said())) for own in labels]
    length, first = max(map(len, answers)), len(prompt.ids)
    ids = torch.full((len(labels), first + length), prompt.end)
    learned = torch.full_like(ids, -100)
    ids[:, :first] = torch.tensor(prompt.ids)
    for row, answer in enumerate(answers):
        ids[row, first : first + len(answer)] = learned[row, first : first + len(answer)] = torch.tensor(answer)
    positions = torch.cat((prompt.positions, (prompt.next + torch.arange(length)).expand(3, -1)), 1)
    kind, box = (torch.from_numpy(np.stack(part)) for part in zip(*(own.slots() for own in labels), strict=True))
    action, anomalies = torch.tensor([own.action for own in labels]), torch.from_numpy(np.stack([own.anomalies for own in labels]))
    return Batch(ids, learned, positions, kind, box, action, anomalies, None if pictures is None else torch.from_numpy(pictures))
