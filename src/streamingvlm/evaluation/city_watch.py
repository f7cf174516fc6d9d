"""The multi-camera model at work: how long a round of frames takes, who looks at whom, what it makes of files. Scores nothing.

Letters: F frames, B streams, S slots.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from streamingvlm.base.timing import percentiles
from streamingvlm.evaluation import frame_vlm
from streamingvlm.evaluation.city import SEEDS, recorded
from streamingvlm.media import file_index
from streamingvlm.models.multicamera.network import Network
from streamingvlm.models.qwen25 import loading
from streamingvlm.training.city.validation import chosen
from streamingvlm.worlds.alarms import Latch
from streamingvlm.worlds.city.world import ACTIONS, ANOMALIES, CLASSES, City

SURE = 0.4  # of a box that is shown


@torch.inference_mode()
def timed(network: Network, streams: int, rounds: int = 24) -> dict[str, dict[str, float]]:
    """Milliseconds of one round of frames, one from each of `streams` cameras, alone on the machine: percentiles of `see`, `memory` and `both`."""
    here = City(SEEDS - 1, cameras=max(2, streams), frames=rounds + 8)
    frames = torch.stack([torch.from_numpy(here.render(camera)) for camera in range(streams)], 1)  # [F, B, H, W, C]
    state, ms = network.memory.start(streams), {"see": [], "memory": [], "both": []}
    for now in frames:
        begun = time.perf_counter()
        sight, _ = network.see(now)
        seen = time.perf_counter()
        _, state = network.memory(sight.map(lambda x: x[None]), state)
        done = time.perf_counter()
        for name, spent in (("see", seen - begun), ("memory", done - seen), ("both", done - begun)):
            ms[name].append(spent * 1e3)
    return {name: percentiles(each[8:]) for name, each in ms.items()}


def timed_baseline(base: Path) -> dict[str, dict[str, float]]:
    """Milliseconds a frame of the frame-based VLM, asked about one frame and about eight at a time: {"1": {"wall_ms", "cpu_ms"}, "8": ...}."""
    vlm, here = loading.load(base / "frame-vlm", torch.device("cpu"), decode="graph"), City(SEEDS - 1, frames=48)
    frames = np.stack([here.draw(camera, 40) for camera in range(here.cameras)])
    return {str(together): frame_vlm.milliseconds(vlm, frames, together) for together in (1, 8)}


@dataclass(frozen=True)
class Moment:
    """One look across streams: weights [B, S, B, S], who is there `seen` [B, S], and where a clone truly is [B]."""

    weights: np.ndarray
    seen: np.ndarray
    clone: np.ndarray


@torch.inference_mode()
def look_across(network: Network, seeds: Sequence[int], folder: Path) -> Moment:
    """The first look of these cities at which two streams truly show the same look; the first of all if there is none."""
    period, clone = network.memory.knobs.period, ANOMALIES.index("clone")
    for seed in seeds:
        world = recorded(folder, seed)
        ticks = [k for k in range(period, len(world.action), period) if world.anomalies[k, :, clone].any()] or ([period] if seed == seeds[-1] else [])
        if ticks:
            part = world.pick(torch.tensor(ticks[:1]), torch.arange(world.action.shape[1]), world.action.shape[1])
            told = network.memory.told(part.sight, part.followed, torch.ones(part.action.shape, dtype=torch.bool)).map(lambda x: x[0])
            return Moment(network.memory.hrm(told).weights.numpy(), (told.people[..., -1] > 0).numpy(), part.anomalies[0, :, clone].numpy())
    raise ValueError("look_across needs a city.")


@dataclass(frozen=True)
class Watched:
    """One moment of all cameras: frames [B, H, W, 3] uint8; of each camera its boxes (label, [4] px), what is said of it, if there is an alarm."""

    frames: np.ndarray
    boxes: list[list[tuple[str, list[float]]]]
    captions: list[str]
    alarms: list[bool]


@torch.inference_mode()
def watched(network: Network, base: Path, rows: Sequence[dict], root: Path, frames: int) -> Iterator[Watched]:
    """The cameras of these stream rows, read from their files, and what the network makes of them, moment by moment."""
    told = chosen(base)[1]
    latch, state = Latch([told[kind] for kind in ANOMALIES], len(rows)), network.memory.start(len(rows))
    for pictures in islice(zip(*(_pictures(root / row["video"]) for row in rows), strict=False), frames):
        now = np.stack(pictures)  # [B, H, W, 3]
        decisions, things, state = network(torch.from_numpy(now)[None], state)
        alarms = latch(decisions.anomalies[0].sigmoid().numpy())  # [B, 6]
        size = torch.tensor(now.shape[1:3]).flip(0).repeat(2)
        found = zip(things.label[0].tolist(), (things.box[0] * size).tolist(), things.score[0].tolist(), strict=True)
        boxes = [[(CLASSES[label], box) for label, box, score in zip(*each, strict=True) if score > SURE] for each in found]
        kinds = [[kind for kind, on in zip(ANOMALIES, each, strict=True) if on] for each in alarms.tolist()]
        said = [f"{b} {ACTIONS[action]} {' '.join(kinds[b])}" for b, action in enumerate(decisions.action[0].argmax(-1).tolist())]
        yield Watched(now, boxes, said, [bool(wrong) for wrong in kinds])


def _pictures(path: Path) -> Iterator[np.ndarray]:
    for _, frame in file_index.decode(file_index.scan(path)):
        yield file_index.rgb(frame)
