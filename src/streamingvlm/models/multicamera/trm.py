"""The tiny recursive model (TRM, arXiv 2510.04871) as a stream's state, one step per frame. Knows no pixels and no other streams.

One two-layer net in both roles: `z_L <- net(z_L, z_H + x)` some times, then `z_H <- net(z_H, z_L)`. That is a cycle; `cycles` of them, all but the
last without gradient, make a recursion; `depth` recursions on the same input follow one another, the latent pair handed on detached, and each
ends in a loss (deep supervision). As published: H0 and L0 are fixed, norms come after the residual and have no weights, no biases.

Published, the latent pair is carried only over the same input. What goes on into the *next frame* is ours:
- `reset`: nothing; every frame starts at H0, L0.
- `raw`: the latent pair itself.
- `leaky`: frames start at H0, L0, and a memory m <- a m + (1 - a) z_H beside the pair is added to x; a is learned per channel.
Not here: the published halting head, which spares training time and nothing else.

    trm = TRM(SIZES["tiny"]); answers, carry = trm(x, trm.start(len(x)))      # x [B, T, E] -> `depth` answers [B, T, E]

Letters: B streams, T tokens of a stream, E hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.nets import Block, linear

CARRIES = ("reset", "raw", "leaky")
Carry = dict[str, Tensor]  # `high`, `low` (raw) or `memory` (leaky), each [B, T, E]


@dataclass(frozen=True)
class Recursion:
    """A TRM's knobs. `heads` 0: no attention, for one token a stream. `detached`: the pair handed from one recursion to the next carries no
    gradient, as published. `longest` frames: the leaky memory's slowest time constant at first, the fastest being 2."""

    width: int = 96
    hidden: int = 192
    heads: int = 0
    layers: int = 2
    inner: int = 1
    cycles: int = 1
    depth: int = 2
    carry: str = "leaky"
    detached: bool = True
    longest: float = 158.0

    def __post_init__(self):
        if self.carry not in CARRIES:
            raise UserError(f"A TRM's carry is one of {', '.join(CARRIES)}, not {self.carry!r}.")
        if self.depth < 0 or self.inner < 1 or self.cycles < 1:
            raise UserError("A TRM needs a depth of 0 or more, and at least one inner step and one cycle.")


SIZES = {"tiny": Recursion(), "57m": Recursion(width=1536, hidden=4096, heads=12), "89m": Recursion(width=1920, hidden=5120, heads=15)}


def leak(channels: int, shortest: float, longest: float) -> Tensor:
    """[channels] logits of what a leaky memory keeps from one frame to the next, for time constants evenly spread on a log scale, in frames."""
    return torch.logit(torch.exp(-1 / (shortest * (longest / shortest) ** torch.linspace(0, 1, channels))))


class TRM(nn.Module):
    def __init__(self, knobs: Recursion):
        super().__init__()
        self.knobs = knobs
        self.net = nn.ModuleList(Block(knobs.width, knobs.hidden, knobs.heads, post_norm=True) for _ in range(knobs.layers))
        self.register_buffer("high", nn.init.trunc_normal_(torch.empty(knobs.width)))  # H0
        self.register_buffer("low", nn.init.trunc_normal_(torch.empty(knobs.width)))  # L0
        if knobs.carry == "leaky":
            self.leak = nn.Parameter(leak(knobs.width, 2.0, knobs.longest))
            self.recall = linear(knobs.width, knobs.width)

    def start(self, streams: int, tokens: int = 1) -> Carry:
        """What a stream carries before its first frame."""
        first = {"raw": {"high": self.high, "low": self.low}, "leaky": {"memory": torch.zeros_like(self.high)}, "reset": {}}[self.knobs.carry]
        return {name: value.expand(streams, tokens, -1).clone() for name, value in first.items()}

    def forward(self, x: Tensor, carry: Carry) -> tuple[list[Tensor], Carry]:
        """One frame: x [B, T, E] -> the answer z_H after each recursion ([x] at depth 0), and what goes on into the next frame."""
        memory = carry.get("memory")
        if memory is not None:
            x = x + self.recall(memory)
        high, low = (carry[name] if name in carry else getattr(self, name).expand_as(x) for name in ("high", "low"))
        answers = []
        for _ in range(self.knobs.depth):
            if answers and self.knobs.detached:
                high, low = high.detach(), low.detach()
            high, low = self._recursion(high, low, x)
            answers.append(high)
        answers = answers or [x]
        if memory is not None:
            keep = torch.sigmoid(self.leak)
            return answers, {"memory": keep * memory + (1 - keep) * answers[-1]}
        return answers, {"high": high, "low": low} if self.knobs.carry == "raw" else {}

    def _recursion(self, high: Tensor, low: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        learns = torch.is_grad_enabled()
        for cycle in range(self.knobs.cycles):
            with torch.set_grad_enabled(learns and cycle == self.knobs.cycles - 1):
                for _ in range(self.knobs.inner):
                    low = self._think(low + (high + x))
                high = self._think(high + low)
        return high, low

    def _think(self, z: Tensor) -> Tensor:
        for block in self.net:
            z = block(z)
        return z
