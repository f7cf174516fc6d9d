"""What is read off one frame: a dense grid of things with boxes, looks and poses, the frame's action, and what the streams' state is told of it.

A cell of the 24x24 grid holds: heat (person, car, bag; the centre of a thing), box (offset and log size), pose, and two alarms (fall, pavement).
Colours are read off the fine map alone, which sees some 10 px around: so a shirt's colour cannot depend on the trousers below it, and pairs that
training never showed are read like any other. Knows one frame at a time; no stream, no other camera.

    seen = backbone(frames); dense = head(seen); detections(dense); sight(dense, seen); spotted(sight, detections)

Letters: F frames, C channels, G the grid's side (24), K things, S slots for people.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.models.multicamera.backbone import EMBEDDING, Backbone, Seen
from streamingvlm.models.multicamera.nets import convolution, linear

CLASSES, POSES, SHIRTS, TROUSERS, ACTIONS, ALARMS = 3, 3, 8, 6, 6, 2
WALKING, LYING = 1, 2  # the poses
CAR = 1  # the class
GRID = 24
SLOTS, THINGS = 8, 16  # people that state follows; things a decision lists
COLUMNS = POSES + 2 + ALARMS  # channels of a column: each pose's person, car, bag, fall, pavement
PERSON = 1 + 4 + POSES + SHIRTS + TROUSERS  # numbers of a person's slot: score, box, pose, shirt, trousers
SCENE = ACTIONS + ALARMS
LOOK = slice(PERSON - SHIRTS - TROUSERS, PERSON)
TOP, LEGS = 0.4, 0.72  # where a shirt and where trousers are, as shares of a person from head to foot
LIKELY = 0.05  # what is spotted: less likely than this is not worth a word
SURE = 0.3  # of a person who is counted
WHERE = (12, 5)  # the map that training asks of the embedding: columns, (walker, stander, lying, car, bag)
SIZE = 0.125  # of a thing whose log size is 0, as a share of the picture


@dataclass(frozen=True)
class Dense:
    """Maps [F, C, G, G], logits but for `box`: heat 3, box 4, pose 3, alarms 2, shirts 8, trousers 6. Of the frame: action [F, 6]."""

    heat: Tensor
    box: Tensor
    pose: Tensor
    alarms: Tensor
    shirts: Tensor
    trousers: Tensor
    action: Tensor
    where: Tensor  # [F, 12, 5] logits

    @property
    def alarm(self) -> Tensor:
        """[F, 2] logits: is there a fall, a car on the pavement anywhere? The loudest cells decide."""
        return self.alarms.flatten(2).logsumexp(2)


class Head(nn.Module):
    """Dense maps and the frame's action from what any backbone has seen."""

    def __init__(self, backbone: Backbone, width: int = 48):
        super().__init__()
        fine = backbone.fine or backbone.width
        self.upsample = linear(backbone.width, 4 * 32, bias=True)
        self.mix = convolution(32 + fine, width, 3)
        self.maps = convolution(width, CLASSES + 4 + POSES + ALARMS, 1)
        self.colour = nn.Sequential(convolution(fine, width, 1), nn.SiLU(), convolution(width, SHIRTS + TROUSERS, 1))
        self.action, self.where = linear(EMBEDDING, ACTIONS, bias=True), linear(EMBEDDING, WHERE[0] * WHERE[1], bias=True)
        nn.init.constant_(self.maps.bias[:CLASSES], -4.0)  # almost every cell is empty
        nn.init.constant_(self.maps.bias[-ALARMS:], -9.0)

    def forward(self, seen: Seen) -> Dense:
        coarse = F.pixel_shuffle(self.upsample(seen.tokens).transpose(1, 2).unflatten(2, seen.grid), 2)  # [F, 32, 2 rows, 2 columns]
        fine = seen.picture() if seen.fine is None else seen.fine  # [F, C, rows, columns]
        coarse, fine = (x if x.shape[2:] == (GRID, GRID) else F.interpolate(x, (GRID, GRID), mode="bilinear") for x in (coarse, fine))
        maps = self.maps(F.silu(self.mix(torch.cat((coarse, fine), 1))))  # [F, 12, G, G]
        parts = maps.split((CLASSES, 4, POSES, ALARMS), 1)
        return Dense(*parts, *self.colour(fine).split((SHIRTS, TROUSERS), 1), self.action(seen.embedding),
                     self.where(seen.embedding).unflatten(1, WHERE))


@dataclass(frozen=True)
class Sight:
    """What the state is told of one frame of each stream: all that need be kept to train it. [B, ...] or [F, B, ...]."""

    embedding: Tensor  # [B, 256]
    scene: Tensor  # [B, 8] logits: action, alarms
    columns: Tensor  # [B, 7, G] what stands in each column of the picture
    people: Tensor  # [B, S, 22] the likeliest people: score, box as shares of the picture, pose, shirt, trousers (probabilities)

    def map(self, change) -> Sight:
        return Sight(*(change(getattr(self, field.name)) for field in fields(self)))


@dataclass(frozen=True)
class Detections:
    """The K likeliest things of each frame, best first: box [F, K, 4] x0 y0 x1 y1 as shares of the picture, score and label [F, K]."""

    box: Tensor
    score: Tensor
    label: Tensor


def boxes(box: Tensor) -> Tensor:
    """The `box` map [F, 4, G, G] -> x0 y0 x1 y1 [F, 4, G, G] as shares of the picture."""
    cells = (torch.arange(GRID, device=box.device) + 0.5) / GRID
    x, y = cells[None, None, :] + box[:, 0] / GRID, cells[None, :, None] + box[:, 1] / GRID  # [F, G, G]
    wide, high = (SIZE / 2 * box[:, 2:].clamp(-4, 3).exp()).unbind(1)
    return torch.stack((x - wide, y - high, x + wide, y + high), 1).clamp(0, 1)


def peaks(heat: Tensor) -> Tensor:
    """Heat logits [F, C, G, G] -> probabilities, 0 where a neighbour is hotter."""
    heat = heat.sigmoid()
    return heat * (heat == F.max_pool2d(heat, 3, 1, 1))


def detections(dense: Dense, things: int = THINGS) -> Detections:
    score, at = peaks(dense.heat).flatten(1).topk(things, 1)  # [F, K]
    label, cell = at // GRID**2, at % GRID**2
    return Detections(_take(boxes(dense.box), cell), score, label)


def sight(dense: Dense, seen: Seen) -> Sight:
    """What the state is told: columns by the loudest cell of each, and the likeliest people with their looks."""
    person = dense.heat[:, :1].sigmoid()
    loud = torch.cat((person * dense.pose.softmax(1), dense.heat[:, 1:].sigmoid(), dense.alarms.sigmoid()), 1)  # [F, 7, G, G]
    score, cell = peaks(dense.heat[:, :1]).flatten(1).topk(SLOTS, 1)  # [F, S]
    box, pose = _take(boxes(dense.box), cell), _take(dense.pose, cell).softmax(2)  # [F, S, 4], [F, S, 3]
    people = torch.cat((score[..., None], box, pose, *(part.softmax(2) for part in looks(dense, box))), 2)  # [F, S, 22]
    return Sight(seen.embedding, torch.cat((dense.action, dense.alarm), 1), loud.amax(2), people)


def spotted(sight: Sight, things: Detections) -> list[dict]:
    """Of each of B frames, in numbers that words can be made of: `falls`, who may lie there, as (x, how likely, shirt, trousers); `cars` that may be
    on the pavement, as (x, how likely), x being a share of the picture's width; how many `people` do not lie, and how many of them `walk`."""
    score, box, pose = sight.people[..., 0], sight.people[..., 1:5], sight.people[..., 5 : 5 + POSES]  # [B, S], [B, S, 4], [B, S, 3]
    shirt, trousers = (part.argmax(-1) for part in sight.people[..., LOOK].split((SHIRTS, TROUSERS), -1))  # [B, S]
    x, at = (box[..., 0] + box[..., 2]) / 2, (things.box[..., 0] + things.box[..., 2]) / 2  # [B, S], [B, K]
    lies = score * pose[..., LYING]
    wrong = sight.columns[:, -1].gather(1, (at * GRID).long().clamp(0, GRID - 1)) * things.score * (things.label == CAR)  # [B, K]
    upright = (score > SURE) & (pose.argmax(-1) != LYING)
    counts = zip(upright.sum(-1).tolist(), (upright & (pose.argmax(-1) == WALKING)).sum(-1).tolist(), strict=True)
    falls, cars = _likely(x, lies, shirt, trousers), _likely(at, wrong)
    return [{"falls": fall, "cars": car, "people": people, "walk": walk} for fall, car, (people, walk) in zip(falls, cars, counts, strict=True)]


def _likely(x: Tensor, p: Tensor, *more: Tensor) -> list[list[tuple]]:
    """Of each frame the things [B, K] that are likely enough."""
    frames = zip(*(part.tolist() for part in (x, p, *more)), strict=True)
    return [[thing for thing in zip(*own, strict=True) if thing[1] > LIKELY] for own in frames]


def called(action: Tensor, anomalies: Tensor) -> list[dict]:
    """Of each frame what the whole model decided, as `spotted` has it: `action` as a number, and how likely somebody lies (`fall`) or a car is on the
    `pavement`. action [B, 6] and anomalies [B, 6]: logits."""
    likely = anomalies[:, :ALARMS].sigmoid().tolist()
    return [{"action": one, "fall": fall, "pavement": car} for one, (fall, car) in zip(action.argmax(1).tolist(), likely, strict=True)]


def looks(dense: Dense, box: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of shirt [F, K, 8] and trousers [F, K, 6] of people with these boxes [F, K, 4]; wider than high means lying, head to the left."""
    x0, y0, x1, y1 = box.unbind(2)
    lying = x1 - x0 > y1 - y0

    def read(colours: Tensor, share: float) -> Tensor:
        x, y = (torch.where(flag, a + share * (b - a), (a + b) / 2) for flag, a, b in ((lying, x0, x1), (~lying, y0, y1)))
        points = torch.stack((x, y), 2)[:, None] * 2 - 1  # [F, 1, K, 2]
        return F.grid_sample(colours, points, align_corners=False)[:, :, 0].transpose(1, 2)  # [F, K, C]

    return read(dense.shirts, TOP), read(dense.trousers, LEGS)


def _take(maps: Tensor, cell: Tensor) -> Tensor:
    """Of maps [F, C, G, G] what lies at cells [F, K]: [F, K, C]."""
    return maps.flatten(2).gather(2, cell[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
