"""Who is who from frame to frame: people found in a frame are given to the slots that followed them, nearest first.

A slot keeps a person's place, a look voted over some 8 frames, the speed, and how long it has stood (two leaky means), and forgets a person
missed for MISSES frames. Not learned. Knows one stream at a time (all of a batch side by side) and no pixels.

    tracks = start(streams); tracks = follow(tracks, sight.people, present); features(tracks)

Letters: B streams, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from streamingvlm.models.multicamera.heads import LOOK, PERSON, POSES, SHIRTS, SLOTS, TROUSERS

FOUND = 0.3  # least score of a person
REACH = 0.085  # how far somebody may get in a frame, as a share of the picture
MISSES = 4
VOTE = 8.0  # frames
STOOD = (16.0, 64.0)  # frames, of the two leaky means
FEATURES = PERSON + 2 + len(STOOD) + 2  # of a slot: what is seen, with the look as voted; velocity, standing, age, whether seen now


@dataclass(frozen=True)
class Tracks:
    """[B, S, ...] each: the last detection (22 numbers, the look as voted), velocity (x, y a frame), stood, age and frames missed (0: seen now);
    age 0: nobody."""

    person: Tensor
    velocity: Tensor
    stood: Tensor
    age: Tensor
    missed: Tensor

    def map(self, change) -> Tracks:
        return Tracks(*(change(getattr(self, field.name)) for field in fields(self)))


def start(streams: int) -> Tracks:
    return Tracks(*(torch.zeros(streams, SLOTS, *more) for more in ((PERSON,), (2,), (len(STOOD),), (), ())))


def follow(tracks: Tracks, people: Tensor) -> tuple[Tracks, Tensor]:
    """One frame on: people [B, S, 22] -> the tracks after it, and [B, S] whether a slot now holds somebody new."""
    taken, match, used = _match(tracks, people)
    free = (people[..., 0] > FOUND) & ~used
    lost = (tracks.age > 0) & ~taken & (tracks.missed + 1 > MISSES)
    empty = (tracks.age == 0) | lost
    # The best people left over move into the empty slots: k-th into k-th.
    order = torch.where(free, people[..., 0], -1.0).argsort(dim=1, descending=True, stable=True)  # [B, S]
    seat = (empty.long().cumsum(1) - 1).clamp(min=0)
    born = empty & (seat < free.sum(1, keepdim=True))
    match = torch.where(born, order.gather(1, seat), match)
    now = people.gather(1, match[..., None].expand_as(people))  # [B, S, 22]
    return _moved(tracks, now, taken, born, lost), born


def _match(tracks: Tracks, people: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest pairs of slot and person, greedily: which slots found theirs [B, S], whom [B, S], and which people are taken [B, S]."""
    coming = _middle(tracks.person) + tracks.velocity * (1 + tracks.missed)[..., None]
    apart = torch.cdist(coming, _middle(people))  # [B, S, S]
    unlike = (tracks.person[..., None, LOOK] - people[:, None, :, LOOK]).abs().sum(-1) / 4  # 0..1
    reach = REACH * (1 + 0.5 * tracks.missed)
    possible = (tracks.age > 0)[..., None] & (people[..., 0] > FOUND)[:, None] & (apart < reach[..., None])
    cost = torch.where(possible, apart + 0.5 * REACH * unlike, torch.inf)
    taken, used = torch.zeros_like(possible[..., 0]), torch.zeros_like(possible[..., 0])
    match = torch.zeros_like(tracks.age, dtype=torch.long)
    rows = torch.arange(len(cost))
    for _ in range(SLOTS):
        best, at = cost.flatten(1).min(1)
        slot, person, good = at // SLOTS, at % SLOTS, best < torch.inf
        if not good.any():
            break
        taken[rows, slot] |= good
        used[rows, person] |= good
        match[rows, slot] = torch.where(good, person, match[rows, slot])
        cost[rows, slot] = torch.where(good[:, None], torch.inf, cost[rows, slot])
        cost[rows, :, person] = torch.where(good[:, None], torch.inf, cost[rows, :, person])
    return taken, match, used


def _moved(tracks: Tracks, now: Tensor, taken: Tensor, born: Tensor, lost: Tensor) -> Tracks:
    seen = taken | born
    age = torch.where(born, 1.0, torch.where(lost, 0.0, torch.where(tracks.age > 0, tracks.age + 1, 0.0)))
    share = (1 / age.clamp(1, VOTE))[..., None]
    look = tracks.person[..., LOOK] + (now[..., LOOK] - tracks.person[..., LOOK]) * torch.where(born[..., None], 1.0, share)
    person = torch.where(seen[..., None], torch.cat((now[..., : LOOK.start], look), -1), tracks.person)
    step = (_middle(now) - _middle(tracks.person)) / (1 + tracks.missed)[..., None]
    velocity = tracks.velocity + (step - tracks.velocity) * (1 / (age - 1).clamp(1, 3))[..., None]
    velocity = torch.where(taken[..., None], velocity, torch.where(born[..., None], 0.0, tracks.velocity))
    share = 1 / torch.tensor(STOOD)
    stood = tracks.stood * (1 - share) + share * now[..., 5:6]
    stood = torch.where(taken[..., None], stood, torch.where(born[..., None], share * now[..., 5:6], tracks.stood))
    gone = lost & ~born
    missed = torch.where(seen | gone, 0.0, torch.where(tracks.age > 0, tracks.missed + 1, 0.0))
    return Tracks(person, velocity, stood, age, missed).map(lambda x: torch.where(gone.view(*gone.shape, *(1,) * (x.dim() - 2)), 0.0, x))


def features(tracks: Tracks) -> Tensor:
    """[B, S, 28], zeros for empty slots."""
    here = (tracks.age > 0).float()
    seen = here * (tracks.missed <= 1)  # one frame missed is not yet gone
    more = (tracks.velocity * 10, tracks.stood, (tracks.age / 64).clamp(max=1)[..., None], seen[..., None])
    return torch.cat((tracks.person, *more), -1) * here[..., None]


def _middle(people: Tensor) -> Tensor:
    """Of boxes in [..., 22]: (x, y) of the middle."""
    return (people[..., 1:3] + people[..., 3:5]) / 2


assert LOOK.stop - LOOK.start == SHIRTS + TROUSERS and LOOK.start == 5 + POSES
