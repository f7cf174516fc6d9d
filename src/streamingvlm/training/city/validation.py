"""Where a score becomes an alarm: thresholds from validation cities, and the frame-level scores to watch while training. Knows no evaluation city.

    scores = watch(memory, recorded); chosen = choose(scores, recorded)
    report(scores, recorded, *chosen)

Letters: F frames, B streams.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.memory import Memory
from streamingvlm.models.multicamera.packaged import variant_folder
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


def choose(scores: Scores, recorded: Recorded, fps: float = FPS) -> tuple[dict[str, float], dict[str, alarms.Rule]]:
    """Kind of anomaly -> the threshold of its best F1 by frame, and the rule of its best by event."""
    pairs = [(kind, *(part[..., k].T.numpy() for part in (scores.anomalies, recorded.anomalies))) for k, kind in enumerate(ANOMALIES)]
    return {kind: alarms.threshold(score, true) for kind, score, true in pairs}, {kind: alarms.rule(score, true, fps) for kind, score, true in pairs}


def report(scores: Scores, recorded: Recorded, limits: dict[str, float], rules: dict[str, alarms.Rule] | None = None, fps: float = FPS) -> dict:
    """Action top-1, and `alarms.report` of every kind and family."""
    found = alarms.report(*(part.transpose(0, 1).numpy() for part in (scores.anomalies, recorded.anomalies)), limits, fps, rules)
    return {"action": (scores.action == recorded.action).float().mean().item(), **found}


def judged(memory: Memory, recorded: Recorded) -> str:
    """What a memory's `thresholds.json` holds: where its scores become alarms, and the scores on the cities that chose it."""
    scores = watch(memory, recorded)
    limits, rules = choose(scores, recorded)
    told = {"thresholds": limits, "rules": {kind: asdict(one) for kind, one in rules.items()}, "validation": report(scores, recorded, limits, rules)}
    return json.dumps(told, indent=1) + "\n"


def chosen(base: Path, name: str = "model") -> tuple[dict[str, float], dict[str, alarms.Rule]]:
    """What `judged` told of a packaged memory: thresholds, and when its scores become alarms and when these end. UserError where it told nothing."""
    folder = variant_folder(base, name)
    try:
        told = json.loads((folder / "thresholds.json").read_text())
        return told["thresholds"], {kind: alarms.Rule(**one) for kind, one in told["rules"].items()}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no variant of the multi-camera model: `make city-base` trains them.") from error
