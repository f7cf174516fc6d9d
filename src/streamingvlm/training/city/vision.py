"""What vision learns by: targets on the grid and their losses. Knows one labelled picture at a time.

Heat is learned as in CenterNet (focal loss around Gaussian spots), boxes at a thing's cell and the cells around it, looks at the points where they
are read (`heads.looks`), alarms by the loudest cells of a picture, which alone decide.
Letters: F frames, G the grid's side, N things of all frames together, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.models.multicamera.heads import CLASSES, GRID, LYING, SIZE, WHERE, Dense, boxes, looks
from streamingvlm.models.multicamera.network import Network
from streamingvlm.training.city.pictures import Labelled

WEIGHTS = {"heat": 1.0, "box": 0.5, "overlap": 1.0, "pose": 0.3, "look": 0.5, "alarm": 1.0, "action": 0.5, "where": 2.0}
PERSON, CAR, BAG = range(CLASSES)


class Eyes(nn.Module):
    """A network's backbone and head as a student of `training.loop`."""

    def __init__(self, network: Network):
        super().__init__()
        self.backbone, self.head = network.backbone, network.head

    def forward(self, batch: Labelled, how: str = "") -> tuple[Tensor, dict[str, float]]:
        dense = self.head(self.backbone(batch.frames))
        parts = losses(dense, batch)
        right = (dense.action.argmax(1) == batch.action).float().mean()
        return sum(WEIGHTS[name] * loss for name, loss in parts.items()), {
            "accuracy": round(right.item(), 4), **{name: round(loss.item(), 4) for name, loss in parts.items()}}


def losses(dense: Dense, batch: Labelled) -> dict[str, Tensor]:
    heat, cell = spots(batch)
    person = batch.label == PERSON
    x, y = cell[person].unbind(1)
    named = (batch.look >= 0).all(1) | (batch.look >= 0).any(1)
    return {"heat": _focal(dense.heat, heat), **_boxes(dense, batch, cell),
            "pose": F.cross_entropy(dense.pose[batch.at[person], :, y, x], batch.pose[person]),
            "look": _looks(dense, batch, named),
            "alarm": F.binary_cross_entropy_with_logits(dense.alarm, batch.alarms.float()),
            "action": F.cross_entropy(dense.action, batch.action),
            "where": F.binary_cross_entropy_with_logits(dense.where, _where(batch))}


def spots(batch: Labelled) -> tuple[Tensor, Tensor]:
    """Heat [F, 3, G, G] with a spot for every thing, and each thing's cell (x, y) [N, 2]."""
    middle, size = (batch.box[:, :2] + batch.box[:, 2:]) / 2 * GRID, (batch.box[:, 2:] - batch.box[:, :2]) * GRID
    cell = middle.long().clamp(0, GRID - 1)
    spread = (size / 5).clamp(min=0.55)  # cells
    across = torch.arange(GRID)
    near = [torch.exp(-0.5 * ((across - cell[:, k, None]) / spread[:, k, None]) ** 2) for k in (0, 1)]  # [N, G] each
    spot = near[1][:, :, None] * near[0][:, None, :]  # [N, G, G]
    heat = torch.zeros(len(batch.frames) * CLASSES, GRID, GRID)
    which = (batch.at * CLASSES + batch.label)[:, None, None].expand_as(spot)
    return heat.scatter_reduce(0, which, spot, "amax").unflatten(0, (-1, CLASSES)), cell


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    p, there = logits.sigmoid(), heat == 1
    loss = torch.where(there, -F.logsigmoid(logits) * (1 - p) ** 2, -F.logsigmoid(-logits) * p**2 * (1 - heat) ** 4)
    return loss.sum() / there.sum().clamp(min=1)


def _boxes(dense: Dense, batch: Labelled, cell: Tensor) -> dict[str, Tensor]:
    """L1 of offsets and log sizes, and 1 - overlap, at a thing's cell and its eight neighbours, these at a third."""
    steps = torch.tensor([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    at = cell[:, None] + steps  # [N, 9, 2]
    weight = torch.where((steps == 0).all(1), 1.0, 0.3) * ((at >= 0) & (at < GRID)).all(2)
    weight = weight / weight.sum().clamp(min=1)
    x, y = at.clamp(0, GRID - 1).unbind(2)
    frame = batch.at[:, None].expand_as(x)
    middle, size = (batch.box[:, None, :2] + batch.box[:, None, 2:]) / 2, batch.box[:, None, 2:] - batch.box[:, None, :2]
    aim = torch.cat((middle * GRID - torch.stack((x, y), 2) - 0.5, (size / SIZE).clamp(min=1e-3).log().expand(-1, 9, -1)), 2)  # [N, 9, 4]
    apart = (dense.box[frame, :, y, x] - aim).abs() * torch.tensor([0.5, 0.5, 2.0, 2.0])
    return {"box": (apart.sum(2) * weight).sum(), "overlap": ((1 - _overlap(boxes(dense.box)[frame, :, y, x], batch.box[:, None])) * weight).sum()}


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4]."""
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return shared / (_area(a) + _area(b) - shared).clamp(min=1e-6)


def _area(box: Tensor) -> Tensor:
    return (box[..., 2:] - box[..., :2]).prod(-1)


def _looks(dense: Dense, batch: Labelled, named: Tensor) -> Tensor:
    """Cross entropy of each garment that has a name, at the point where it is read; frames hold different numbers of people, so one by one."""
    most = int(torch.bincount(batch.at[named], minlength=1).max()) if named.any() else 0
    if not most:
        return dense.shirts.sum() * 0
    rank = torch.arange(int(named.sum())) - torch.searchsorted(batch.at[named], batch.at[named])  # of a thing among its frame's
    box = torch.zeros(len(batch.frames), most, 4)
    box[batch.at[named], rank] = batch.box[named]
    shirts, trousers = (part[batch.at[named], rank] for part in looks(dense, box))
    wanted = batch.look[named]
    return F.cross_entropy(shirts, wanted[:, 0], ignore_index=-1) + F.cross_entropy(trousers, wanted[:, 1], ignore_index=-1)


def _where(batch: Labelled) -> Tensor:
    """[F, 12, 5]: in which columns a walker, a stander, somebody lying, a car, a bag is."""
    kind = torch.where(batch.label == PERSON, torch.tensor([1, 0, LYING])[batch.pose.clamp(min=0)], batch.label + LYING)
    column = ((batch.box[:, 0] + batch.box[:, 2]) / 2 * WHERE[0]).long().clamp(0, WHERE[0] - 1)
    out = torch.zeros(len(batch.frames), *WHERE)
    out[batch.at, column, kind] = 1
    return out
