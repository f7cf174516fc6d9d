"""What vision makes of whole cities, computed once, beside the truth: all that the training of the memory needs. Knows no loss.

    recorded = Recorded.join([record(network, City(seed)) for seed in seeds])

Streams of different cities may be put together: what is true across them is computed again (`Recorded.pick`).
Letters: F frames, B streams, S slots, G columns of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from streamingvlm.models.multicamera import slots
from streamingvlm.models.multicamera.heads import GRID, Sight
from streamingvlm.models.multicamera.memory import Followed, follow
from streamingvlm.models.multicamera.network import Network
from streamingvlm.worlds.city.world import CLASSES, City, CityKnobs, Truth, cross

LOCAL_AND_TEMPORAL = 4  # the anomalies that one stream decides come first


@dataclass(frozen=True)
class Recorded:
    """Sight and followed people [F, B, ...], and the truth: action [F, B], anomalies [F, B, 6] bool, clocks [F, B, 2] and the same of each column,
    `waits` [F, B, 2, G], which looks are visible [F, B, 48] bool, whether a crowd stands there [F, B] bool. Floats are kept in half precision."""

    sight: Sight
    followed: Followed
    action: Tensor
    anomalies: Tensor
    clocks: Tensor
    waits: Tensor
    seen: Tensor
    meets: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a file."""
        parts = {f"sight.{part.name}": getattr(self.sight, part.name) for part in fields(Sight)}
        parts |= {f"followed.{part.name}": getattr(self.followed, part.name) for part in fields(Followed)}
        return parts | {part.name: getattr(self, part.name) for part in fields(self) if part.name not in {"sight", "followed"}}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Recorded:
        whole = [kind(*(tensors[f"{name}.{part.name}"] for part in fields(kind))) for name, kind in (("sight", Sight), ("followed", Followed))]
        return cls(*whole, *(tensors[part.name] for part in fields(cls)[2:]))

    @classmethod
    def join(cls, recordings: Sequence[Recorded]) -> Recorded:
        """Streams of several recordings side by side."""
        parts = [recording.tensors() for recording in recordings]
        return cls.of({name: torch.cat([part[name] for part in parts], 1) for name in parts[0]})

    def pick(self, frames: Tensor, streams: Tensor, together: int) -> Recorded:
        """frames [F'], or [F', B'] where each stream has its own, of streams [B']; each `together` of these see each other, and what is true across
        them is found again."""
        frames = frames[:, None] if frames.dim() == 1 else frames
        part = Recorded.of({name: tensor[frames, streams].float() if tensor.is_floating_point() else tensor[frames, streams]
                            for name, tensor in self.tensors().items()})
        part.anomalies[..., LOCAL_AND_TEMPORAL:] = across(part.seen, part.meets, together)
        return part


def across(seen: Tensor, meets: Tensor, together: int) -> Tensor:
    """Clone and surge [F, B, 2] bool among each `together` neighbouring streams."""
    groups = [cross(seen[:, k:k + together].transpose(0, 1).numpy(), meets[:, k:k + together].T.numpy()) for k in range(0, seen.shape[1], together)]
    return torch.from_numpy(np.concatenate(groups)).transpose(0, 1)


def columns(truth: Truth, knobs: CityKnobs | None = None) -> np.ndarray:
    """How long somebody has stood in each column of a picture, or a bag been alone: [cameras, F, 2, G], 1.0 where it becomes an anomaly."""
    knobs = knobs or CityKnobs()
    out = np.zeros((*truth.action.shape, 2, GRID), np.float32)
    column = ((truth.box[:, 0] + truth.box[:, 2]) / 2 / truth.size_px[1] * GRID).astype(int).clip(0, GRID - 1)
    for k, (label, limit_s) in enumerate((("person", knobs.standing_limit_s), ("bag", knobs.bag_limit_s))):
        mine = truth.box_class == CLASSES.index(label)
        np.maximum.at(out[:, :, k], (*truth.box_at[mine].T, column[mine]), truth.box_waits[mine] / limit_s)
    return out


@torch.inference_mode()
def record(network: Network, city: City, batch: int = 32) -> Recorded:
    """All frames of a city through vision, and its people followed."""
    parts = []
    for camera in range(city.cameras):
        frames = torch.from_numpy(city.render(camera))
        seen = [network.see(some)[0] for some in frames.split(batch)]
        parts.append([torch.cat([getattr(one, part.name) for one in seen]) for part in fields(Sight)])
    sight = Sight(*(torch.stack(part, 1) for part in zip(*parts, strict=True)))
    followed, _ = follow(sight.people, slots.start(city.cameras), torch.ones(city.frames, city.cameras, dtype=torch.bool))
    truth, half = city.truth, lambda x: x.half() if x.is_floating_point() else x
    told = (torch.from_numpy(np.ascontiguousarray(np.swapaxes(part, 0, 1))) for part in (
        truth.action, truth.anomalies, truth.clocks, columns(truth), truth.seen(), truth.meets))
    return Recorded(sight.map(half), Followed(half(followed.people), followed.new), *(half(part) for part in told))
