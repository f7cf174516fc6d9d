"""The article's HRM: every 16 frames all streams look at each other. What is kept of it until the next time is the memory's (`MemoryKnobs.holds`).

Not the Hierarchical Reasoning Model published under that name in 2025: this one is attention across cameras. Its tokens are the people of every
stream that is present (their looks as voted over 8 frames) and one token a stream for the scene as a whole. Variants, by `kind`:
- `similarity`: a person's key is 128 numbers made from the look alone, normalised, the same net for asking and answering; a learned temperature,
  and a learned null key for "nobody". What is kept is how much of the attention is *not* on nobody. Scenes are summed over the other streams.
- `plain`: attention with 128-d keys over everybody's people and scenes, values and all.
- `token`: the same over one token a stream.
- `mean`: the mean over the other streams, without keys.
- `none`: nothing.
A stream never looks at itself; streams that are absent and slots that are empty are masked. Knows no time and no pixels.

    result = hrm(Told(people, scene, present))

Letters: B streams, S slots of a stream, E hidden size, D key size (128).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.heads import LOOK, SCENE
from streamingvlm.models.multicamera.nets import linear
from streamingvlm.models.multicamera.slots import FEATURES

KINDS = ("similarity", "plain", "token", "mean", "none")
KEY = 128
PERIOD = 16
SEEN = FEATURES - 1  # of a slot's features: 1 where somebody is seen


@dataclass(frozen=True)
class Told:
    """What each stream brings: people [B, S, 28] (`slots.features`), scene [B, 8] probabilities, which streams are present [B] bool."""

    people: Tensor
    scene: Tensor
    present: Tensor

    def map(self, change) -> Told:
        return Told(change(self.people), change(self.scene), change(self.present))


@dataclass(frozen=True)
class Result:
    """What each stream takes home: a context [B, E]; `same` [B, S], the share of each slot's attention that fell on somebody (0 but for
    `similarity`); at whom each slot looked, `weights` [B, S, B, S]; logits [B, 2] of clone and surge at this moment, for training."""

    context: Tensor
    same: Tensor
    weights: Tensor
    logits: Tensor


class HRM(nn.Module):
    """Any leading axes (moments, groups of streams that meet) before B."""

    def __init__(self, width: int, kind: str = "similarity", key: int = KEY, hidden: int = 96):
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"An HRM is one of {', '.join(KINDS)}, not {kind!r}.")
        self.kind, self.width = kind, width
        self.scene = nn.Sequential(linear(SCENE, hidden, bias=True), nn.SiLU(), linear(hidden, hidden, bias=True), nn.SiLU())
        if kind == "similarity":
            self.key = linear(LOOK.stop - LOOK.start, key)
            self.null = nn.Parameter(torch.tensor(0.8))  # the cosine from which on two looks are the same
            self.sharpness = nn.Parameter(torch.tensor(3.0))  # log of the temperature's inverse
        elif kind in {"plain", "token"}:
            self.person = nn.Sequential(linear(FEATURES, hidden, bias=True), nn.SiLU(), linear(hidden, hidden))
            self.query, self.key, self.value = linear(hidden, key), linear(hidden, key), linear(hidden, hidden)
            self.null = nn.Parameter(torch.zeros(key))
            self.mix = linear(3 * hidden, hidden, bias=True)
        self.out = nn.Sequential(linear(2 * hidden + 1, hidden, bias=True), nn.SiLU(), linear(hidden, width))
        self.aside = linear(2 * hidden + 1, 2, bias=True)

    def forward(self, told: Told, asked: Told | None = None) -> Result:
        """Each stream of `told` looks at the others of `asked` (default: the same; a test of the keys gives another moment's)."""
        asked = asked or told
        streams, slots = told.people.shape[-3:-1]
        itself = torch.eye(streams, dtype=torch.bool, device=told.present.device)
        others = asked.present[..., None, :] & ~itself  # [B, B]
        mine, present = self.scene(told.scene), told.present[..., None]  # [B, E], [B, 1]
        same, weights = told.people.new_zeros(told.people.shape[:-1]), told.people.new_zeros(*told.people.shape[:-1], streams, slots)
        theirs, best = torch.zeros_like(mine), torch.zeros_like(mine[..., :1])
        if self.kind in {"similarity", "mean"}:
            theirs = others.to(mine.dtype) @ self.scene(asked.scene)  # [B, E]: a sum, because three crowds are more than two
            theirs = theirs / (3 if self.kind == "similarity" else others.sum(-1, keepdim=True).clamp(min=1))
        if self.kind == "similarity":
            same, weights = self._match(told, asked, others)
            best = loudest(same)
        elif self.kind in {"plain", "token"}:
            theirs, weights = self._attend(told, asked, others)
        joined = torch.cat((mine, theirs, best), -1)  # [B, 2 E + 1]
        return Result(self.out(joined) * present * (self.kind != "none"), same * present, weights, self.aside(joined))

    def _match(self, told: Told, asked: Told, others: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S] how much each person's attention is on somebody, [B, S, B, S] on whom."""
        query, key = (F.normalize(self.key(x.people[..., LOOK]), dim=-1) for x in (told, asked))  # [B, S, D]
        scores = torch.einsum("...bsd,...ctd->...bsct", query, key)
        free = others[..., :, None, :, None] & here(asked)[..., None, None, :, :]  # [B, 1, B, S]
        scores = ((scores - self.null) * self.sharpness.exp()).masked_fill(~free, -torch.inf)
        weights = _share(scores.flatten(-2), torch.zeros_like(scores[..., 0, :1])) * here(told)[..., None]  # [B, S, B S]
        return weights.sum(-1), weights.unflatten(-1, free.shape[-2:])

    def _attend(self, told: Told, asked: Told, others: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over tokens of the other streams: the loudest of what a stream's own tokens are told [B, E], and at whom they looked."""
        mine, filled = self._tokens(told)  # [B, T, E], [B, T]; T = S + 1, or 1
        theirs, there = self._tokens(asked)
        query = self.query(mine) * KEY**-0.5
        scores = torch.einsum("...btd,...cud->...btcu", query, self.key(theirs))  # [B, T, B, T]
        free = others[..., :, None, :, None] & there[..., None, None, :, :]
        weights = _share(scores.masked_fill(~free, -torch.inf).flatten(-2), (query @ self.null)[..., None])  # [B, T, B T]
        found = torch.einsum("...btu,...ue->...bte", weights, self.value(theirs).flatten(-3, -2))
        joined = F.silu(self.mix(torch.cat((mine, found, mine * found), -1))).masked_fill(~filled[..., None], -torch.inf)
        slots = told.people.shape[-2]
        at = weights.unflatten(-1, free.shape[-2:])[..., :slots, :, :slots] if self.kind == "plain" else None
        return joined.amax(-2), told.people.new_zeros(*told.people.shape[:-1], *told.people.shape[-3:-1]) if at is None else at

    def _tokens(self, told: Told) -> tuple[Tensor, Tensor]:
        scene, whole = self.scene(told.scene)[..., None, :], torch.ones_like(told.present)[..., None]  # [B, 1, E], [B, 1]
        people = self.person(told.people) * here(told)[..., None]  # [B, S, E]
        if self.kind == "token":
            return scene + people.sum(-2, keepdim=True), whole
        return torch.cat((people, scene), -2), torch.cat((here(told), whole), -1)


def here(told: Told) -> Tensor:
    """[B, S]: the slots in which somebody is seen."""
    return told.people[..., SEEN] > 0


def loudest(same: Tensor) -> Tensor:
    """Of the shares [..., S] the greatest, as a mild logit [..., 1]."""
    return torch.logit(same.amax(-1, keepdim=True), eps=1e-4) / 4


def _share(scores: Tensor, null: Tensor) -> Tensor:
    """Softmax of scores [..., N] beside a null's [..., 1], which always is there to be looked at; the others' shares [..., N]."""
    return torch.cat((null, scores), -1).softmax(-1)[..., 1:]
