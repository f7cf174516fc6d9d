"""How the memory learns: first the look across streams alone, at single moments, then all of it on windows that carry their state on.

Groups of streams (a city, or streams of several put together, for which what is true across them is computed again) run through the recordings in
windows of `frames`; each group starts anew where its recording ends, all at different times. Where a group stands is part of the student, so that
a checkpoint holds it. What is kept at the end is the weights' running mean (EMA), as in the TRM paper. Knows features, no pictures.
Letters: F frames, B streams, S slots.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.models.multicamera.hrm import Told
from streamingvlm.models.multicamera.memory import Memory, State, probabilities
from streamingvlm.training.city.features import LOCAL_AND_TEMPORAL, Recorded

ACROSS, STATE = "across", "state"  # what Keeper computes
WEIGHTS = {"action": 1.0, "anomalies": 4.0, "event": 0.5, "clocks": 4.0, "places": 40.0, "change": 0.1, "across": 4.0}
LONGEST = 2.0  # of a clock, as multiples of its limit


@dataclass(frozen=True)
class Lanes:
    """`groups` of `together` streams each run side by side, `frames` a step; a share `mixed` of them put together from different cities."""

    groups: int = 12
    together: int = 8
    frames: int = 16
    mixed: float = 0.3
    moments: int = 64  # of a batch of ACROSS


@dataclass(frozen=True)
class Draw:
    """What chance gave a step: streams [groups, together] for groups that start anew; for ACROSS moments [N] and streams [N, together], present."""

    streams: Tensor
    moments: Tensor
    meeting: Tensor
    present: Tensor


class Keeper(nn.Module):
    """A memory and where its lanes stand, as a student of `training.loop`. `mean`: its weights' running mean."""

    def __init__(self, memory: Memory, recorded: Recorded, lanes: Lanes, decay: float = 0.998):
        super().__init__()
        embedding = recorded.sight.embedding.float().flatten(0, 1)
        memory.mean.copy_(embedding.mean(0))
        memory.deviation.copy_(embedding.std(0).clamp(min=1e-3))
        self.memory, self.lanes, self.decay = memory, lanes, decay
        self.mean = copy.deepcopy(memory).requires_grad_(False)
        self.recorded, self.length = recorded, recorded.action.shape[0] // lanes.frames * lanes.frames
        start = torch.arange(lanes.groups) * lanes.frames * 5 % self.length
        self.register_buffer("at", start)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("streams", torch.full((lanes.groups, lanes.together), -1))
        self.names = []
        for name, tensor in memory.start(lanes.groups * lanes.together).tensors().items():
            self.register_buffer(f"state_{name.replace('.', '_')}", tensor)
            self.names.append(name)

    def draw(self, rng: np.random.Generator) -> Draw:
        lanes, streams = self.lanes, self.recorded.action.shape[1]
        cities = streams // lanes.together

        def groups(count: int, mixed: float) -> Tensor:
            whole = rng.integers(cities, size=(count, 1)) * lanes.together + np.arange(lanes.together)
            loose = np.stack([rng.permutation(streams)[: lanes.together] for _ in range(count)])
            return torch.from_numpy(np.where(rng.random((count, 1)) < mixed, loose, whole))

        present = torch.from_numpy(rng.random((lanes.moments, lanes.together)) > rng.choice([0.0, 0.3], (lanes.moments, 1)))
        return Draw(groups(lanes.groups, lanes.mixed), torch.from_numpy(rng.integers(self.recorded.action.shape[0], size=lanes.moments)),
                    groups(lanes.moments, 0.5), present)

    def forward(self, batch: Draw, how: str = STATE) -> tuple[Tensor, dict[str, float]]:
        if self.training:
            self._average()
        return self._moments(batch) if how == ACROSS else self._window(batch)

    @torch.no_grad()
    def _average(self) -> None:
        self.seen += 1
        share = max(1 - self.decay, 9 / (9 + float(self.seen)))  # the first weights of all are not worth remembering
        for mean, now in zip(self.mean.state_dict().values(), self.memory.state_dict().values(), strict=True):
            mean.lerp_(now, share)

    def _moments(self, batch: Draw) -> tuple[Tensor, dict[str, float]]:
        """Clone and surge at single moments, from what each stream brings."""
        part = self.recorded.pick(batch.moments[None].repeat_interleave(self.lanes.together, 1), batch.meeting.flatten(), self.lanes.together)
        apart = lambda x: x[0].unflatten(0, batch.meeting.shape)  # noqa: E731
        told = Told(apart(part.followed.people), probabilities(apart(part.sight.scene)), batch.present)
        seen, meets = apart(part.seen) & batch.present[..., None], apart(part.meets) & batch.present  # [N, B, 48], [N, B]
        true = torch.stack(((seen & (seen.sum(1, keepdim=True) >= 2)).any(-1), meets & (meets.sum(1, keepdim=True) >= 3)), -1)
        logits = self.memory.hrm(told).logits
        loss = F.binary_cross_entropy_with_logits(logits[batch.present], true[batch.present].float())
        return WEIGHTS["across"] * loss, {"accuracy": round(((logits > 0) == true)[batch.present].float().mean().item(), 4)}

    def _window(self, batch: Draw) -> tuple[Tensor, dict[str, float]]:
        lanes, memory = self.lanes, self.memory
        fresh = (self.at == 0) | (self.streams[:, 0] < 0)
        self.streams[fresh] = batch.streams[fresh]
        state = self._state(fresh)
        frames = (self.at[None] + torch.arange(lanes.frames)[:, None]).repeat_interleave(lanes.together, 1)  # [F, B]
        part = self.recorded.pick(frames, self.streams.flatten(), lanes.together)
        present = torch.ones(frames.shape, dtype=torch.bool)
        decisions, after = memory.decide(part.sight, part.followed, present, state, memory.told(part.sight, part.followed, present),
                                         groups=lanes.groups)
        losses = self._losses(decisions, part)
        self.at.copy_((self.at + lanes.frames) % self.length)
        for name, tensor in after.tensors().items():
            getattr(self, f"state_{name.replace('.', '_')}").copy_(tensor.detach())
        right = (decisions.action.argmax(-1) == part.action).float().mean()
        return sum(WEIGHTS[name] * loss for name, loss in losses.items()), {
            "accuracy": round(right.item(), 4), **{name: round(loss.item(), 4) for name, loss in losses.items()}}

    def _state(self, fresh: Tensor) -> State:
        first = self.memory.start(len(fresh) * self.lanes.together).tensors()
        fresh = fresh.repeat_interleave(self.lanes.together)
        now = {name: getattr(self, f"state_{name.replace('.', '_')}") for name in self.names}
        return State.restore({name: tensor if name == "frame" else torch.where(fresh.view(-1, *(1,) * (tensor.dim() - 1)), first[name], tensor)
                              for name, tensor in now.items()})

    def _losses(self, decisions, part: Recorded) -> dict[str, Tensor]:
        """The mean over the recursions, each of which has to answer; the look across streams and the change of the embedding once."""
        out = dict.fromkeys(("action", "anomalies", "event", "clocks"), 0.0)
        for answer in decisions.steps:
            action, anomalies, event, clocks = self.memory.read(answer, decisions.direct)
            for name, loss in (("action", F.cross_entropy(action.flatten(0, 1), part.action.flatten())),
                               ("anomalies", F.binary_cross_entropy_with_logits(anomalies, part.anomalies.float())),
                               ("event", F.binary_cross_entropy_with_logits(event, part.anomalies.any(-1).float())),
                               ("clocks", F.smooth_l1_loss(clocks, part.clocks.clamp(max=LONGEST), beta=0.25))):
                out[name] = out[name] + loss / len(decisions.steps)
        out["places"] = F.smooth_l1_loss(decisions.places, part.waits.clamp(max=LONGEST), beta=0.25)
        embedding = (part.sight.embedding - self.memory.mean) / self.memory.deviation
        out["change"] = F.mse_loss(decisions.change[:-1], embedding[1:] - embedding[:-1])
        if decisions.fresh:
            true = part.anomalies[decisions.fresh, :, LOCAL_AND_TEMPORAL:].float()
            out["across"] = F.binary_cross_entropy_with_logits(decisions.verdict[decisions.fresh], true)
        return out
