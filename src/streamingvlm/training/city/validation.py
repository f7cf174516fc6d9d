"""Where a score becomes an alarm: thresholds from validation cities, and the frame-level scores to watch while training. Knows no evaluation city.

    scores = watch(memory, recorded); limits = thresholds(scores.anomalies, recorded.anomalies)
    report(scores, recorded, limits)

Letters: F frames, B streams.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamingvlm.models.multicamera.heads import Sight
from streamingvlm.models.multicamera.memory import Memory
from streamingvlm.training.city.features import Recorded
from streamingvlm.worlds.city.world import ANOMALIES, FAMILIES


@dataclass(frozen=True)
class Scores:
    """Of all frames of all streams: action [F, B] as an index, anomalies [F, B, 6] and event [F, B] as probabilities, clocks [F, B, 2]."""

    action: Tensor
    anomalies: Tensor
    event: Tensor
    clocks: Tensor


@torch.inference_mode()
def watch(memory: Memory, recorded: Recorded, together: int = 8, others: int = 0, frames: int = 96) -> Scores:
    """Run a memory over recordings from their first frame on, each `together` streams seeing each other. `others`: see `Memory.forward`."""
    streams = recorded.action.shape[1]
    state, out = memory.start(streams), []
    for start in range(0, len(recorded.action), frames):
        at = torch.arange(start, min(start + frames, len(recorded.action)))
        part = recorded.pick(at, torch.arange(streams), together)
        present = torch.ones(part.action.shape, dtype=torch.bool)
        told = memory.told(Sight(*(getattr(part.sight, name) for name in Sight.__dataclass_fields__)), part.followed, present)
        asked = told
        if others:
            late = recorded.pick((at + others) % len(recorded.action), torch.arange(streams), together)
            asked = memory.told(late.sight, late.followed, present)
        decisions, state = memory.decide(part.sight, part.followed, present, state, told, asked, groups=streams // together)
        out.append((decisions.action.argmax(-1), decisions.anomalies.sigmoid(), decisions.event.sigmoid(), decisions.clocks))
    return Scores(*(torch.cat(part) for part in zip(*out, strict=True)))


def f1(said: Tensor, true: Tensor) -> float:
    """Of bools of one shape; 1.0 where there was nothing to find and nothing was said."""
    hits, all_of_them = (said & true).sum().item(), said.sum().item() + true.sum().item()
    return 2 * hits / all_of_them if all_of_them else 1.0


def thresholds(scores: Tensor, true: Tensor) -> list[float]:
    """Of each of the K kinds [..., K] the threshold with the best F1: the middle between the scores it parts."""
    return [threshold(*columns) for columns in zip(scores.flatten(0, -2).unbind(1), true.flatten(0, -2).unbind(1), strict=True)]


def threshold(scores: Tensor, true: Tensor) -> float:
    order = scores.argsort(descending=True)
    scores, hits = scores[order].double(), true[order].cumsum(0).double()
    said = torch.arange(1, len(scores) + 1)
    quality = 2 * hits / (said + hits[-1])
    quality[:-1][scores[:-1] == scores[1:]] = -1  # a cut cannot part equal scores
    best = int(quality.argmax())
    below = scores[best + 1] if best + 1 < len(scores) else torch.zeros(())
    return float((scores[best] + below) / 2)


def report(scores: Scores, recorded: Recorded, limits: list[float]) -> dict[str, float]:
    """Action top-1, frame F1 of every kind, and of each family with its kinds' hits and misses pooled."""
    said = scores.anomalies > torch.tensor(limits)
    out = {"action": (scores.action == recorded.action).float().mean().item()}
    out |= {name: f1(said[..., k], recorded.anomalies[..., k]) for k, name in enumerate(ANOMALIES)}
    for family, kinds in FAMILIES.items():
        of = [ANOMALIES.index(kind) for kind in kinds]
        out[family] = f1(said[..., of], recorded.anomalies[..., of])
    return {name: round(value, 4) for name, value in out.items()}
