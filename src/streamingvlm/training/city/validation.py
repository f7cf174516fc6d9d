"""Where a score becomes an alarm: thresholds from validation cities, and the frame-level scores to watch while training. Knows no evaluation city.

    scores = watch(memory, recorded); limits = thresholds(scores, recorded)
    report(scores, recorded, limits)

Letters: F frames, B streams.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamingvlm.models.multicamera.memory import Memory
from streamingvlm.training.city.features import Recorded
from streamingvlm.worlds import alarms
from streamingvlm.worlds.city.world import ANOMALIES, FPS


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
        told = memory.told(part.sight, part.followed, present)
        asked = told
        if others:
            late = recorded.pick((at + others) % len(recorded.action), torch.arange(streams), together)
            asked = memory.told(late.sight, late.followed, present)
        decisions, state = memory.decide(part.sight, part.followed, present, state, told, asked, groups=streams // together)
        out.append((decisions.action.argmax(-1), decisions.anomalies.sigmoid(), decisions.event.sigmoid(), decisions.clocks))
    return Scores(*(torch.cat(part) for part in zip(*out, strict=True)))


def thresholds(scores: Scores, recorded: Recorded) -> dict[str, float]:
    """Kind of anomaly -> the threshold of its best F1."""
    return {kind: alarms.threshold(scores.anomalies[..., k].numpy(), recorded.anomalies[..., k].numpy()) for k, kind in enumerate(ANOMALIES)}


def report(scores: Scores, recorded: Recorded, limits: dict[str, float], fps: float = FPS) -> dict:
    """Action top-1, and `alarms.report` of every kind and family."""
    found = alarms.report(*(part.transpose(0, 1).numpy() for part in (scores.anomalies, recorded.anomalies)), limits, fps)
    return {"action": (scores.action == recorded.action).float().mean().item(), **found}
