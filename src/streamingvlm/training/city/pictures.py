"""Labelled pictures of many cities for vision to learn from: many worlds, few frames of each, mirrored, in clothes mixed anew. Knows no network.

    pictures = Pictures(range(100, 300)); batch = pictures.draw(np.random.default_rng(0), 48)

Letters: F frames, H W pixels, C channels, N boxes of all frames together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamingvlm.worlds.city.knobs import LOOKS, TROUSERS
from streamingvlm.worlds.city.world import ANOMALIES, City, Wardrobe

FRAMES = 96  # of each world
LIE = 2
LOCAL = [ANOMALIES.index("fall"), ANOMALIES.index("pavement")]


@dataclass(frozen=True)
class Labelled:
    """frames [F, H, W, 3] uint8; action [F]; alarms [F, 2] bool; of N things: their frame `at`, box as shares of the picture, class, pose, look
    [N, 2] (-1: none to be learned)."""

    frames: Tensor
    action: Tensor
    alarms: Tensor
    at: Tensor
    box: Tensor
    label: Tensor
    pose: Tensor
    look: Tensor


class Pictures:
    def __init__(self, seeds: Sequence[int], cameras: int = 8, frames: int = FRAMES, evaluation: bool = False):
        self.cities = [City(seed, cameras, frames, evaluation) for seed in seeds]
        for city in self.cities:
            _ = city.truth  # now, not in the first steps

    def draw(self, rng: np.random.Generator, count: int) -> Labelled:
        """Frames from all over the cities: half of them mirrored, most of them in other clothes."""
        chosen = [(self.cities[rng.integers(len(self.cities))], rng) for _ in range(count)]
        return collate([_picture(city, int(rng.integers(city.cameras)), int(rng.integers(city.frames)), bool(rng.integers(2)),
                                 Wardrobe.mixed(int(rng.integers(2**31))) if rng.random() < 0.75 else None) for city, rng in chosen])


def labelled(city: City, camera: int, frames: Sequence[int]) -> Labelled:
    """Frames of one camera as they are."""
    return collate([_picture(city, camera, frame, False, None) for frame in frames])


def _picture(city: City, camera: int, frame: int, mirrored: bool, wardrobe: Wardrobe | None) -> dict:
    truth, image = city.truth, city.draw(camera, frame, wardrobe)
    mine = truth.boxes(camera, frame)
    box, look, pose = truth.box[mine] / np.tile(np.array(image.shape[1::-1], np.float32), 2), truth.box_look[mine], truth.box_pose[mine]
    look = look if wardrobe is None else wardrobe.labels(look)
    if mirrored:
        image, box = image[:, ::-1], box[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
        look = np.where((pose == LIE)[:, None], -1, look)  # who lies has the head on the left
    return {"frames": image, "action": truth.action[camera, frame], "alarms": truth.anomalies[camera, frame, LOCAL], "box": box.astype(np.float32),
            "label": truth.box_class[mine], "pose": pose, "look": look}


def collate(pictures: Sequence[dict]) -> Labelled:
    counts = torch.tensor([len(picture["box"]) for picture in pictures])
    stacked = [torch.from_numpy(np.stack([picture[name] for picture in pictures])) for name in ("frames", "action", "alarms")]
    joined = [torch.from_numpy(np.concatenate([picture[name] for picture in pictures])) for name in ("box", "label", "pose", "look")]
    return Labelled(*stacked, torch.arange(len(pictures)).repeat_interleave(counts), *joined)


assert LOOKS % len(TROUSERS) == 0
