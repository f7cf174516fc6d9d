"""Does the recursion recurse? 4x4 Sudoku, whose cells hang on each other, solved by nets of one recursion and of four.

    python -m bench.sudoku            # about a minute; prints held-out puzzles solved whole after each recursion

All 288 grids; a fifth of them, whole, is never trained on. A TRM with attention over the 16 cells, deep supervision, EMA.
Letters: B puzzles, T cells (16), E hidden size.
"""

from __future__ import annotations

import argparse
import copy
import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.models.multicamera.nets import linear
from streamingvlm.models.multicamera.trm import TRM, Recursion


def grids() -> Tensor:
    """All 288 filled grids [288, 16], digits 0..3."""
    rows = list(itertools.permutations(range(4)))
    out = []
    for four in itertools.product(rows, repeat=4):
        grid = np.array(four)
        boxes = grid.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4)
        if all(len(set(line)) == 4 for line in (*grid.T, *boxes)):
            out.append(grid.ravel())
    return torch.from_numpy(np.stack(out))


class Solver(nn.Module):
    """Clues [B, 16] (4: blank) -> the digits' logits after each recursion, [B, 16, 4] each."""

    def __init__(self, depth: int, width: int = 48):
        super().__init__()
        self.trm = TRM(Recursion(width=width, hidden=2 * width, heads=4, depth=depth, carry="reset"))
        self.digit, self.cell = nn.Parameter(torch.randn(5, width)), nn.Parameter(torch.randn(16, width))
        self.read = linear(width, 4)

    def forward(self, clues: Tensor) -> list[Tensor]:
        answers, _ = self.trm(self.digit[clues] + self.cell, {})
        return [self.read(answer) for answer in answers]


def puzzles(solved: Tensor, blanks: int, rng: torch.Generator) -> Tensor:
    """Each grid with `blanks` of its cells empty. Other solutions than the grid's own are rare at 6 blanks and count as wrong."""
    hidden = torch.rand(solved.shape, generator=rng).argsort(1)[:, :blanks]
    return solved.scatter(1, hidden, 4)


def learn(depth: int, steps: int, batch: int = 64, blanks: int = 6, seed: int = 0) -> tuple[Solver, Tensor]:
    """A trained solver (its EMA) and the grids that it never saw."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    every = grids()[torch.randperm(288, generator=rng)]
    held, known = every[:58], every[58:]
    solver = Solver(depth)
    mean = copy.deepcopy(solver)
    optimizer = torch.optim.AdamW(solver.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / steps)
        solved = known[torch.randint(len(known), (batch,), generator=rng)]
        solved = torch.stack([torch.randperm(4, generator=rng) for _ in range(batch)]).gather(1, solved)  # digits are only names
        answers = solver(puzzles(solved, blanks, rng))
        sum(F.cross_entropy(answer.flatten(0, 1), solved.flatten()) for answer in answers).backward()
        nn.utils.clip_grad_norm_(solver.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for kept, new in zip(mean.parameters(), solver.parameters(), strict=True):
            kept.data.lerp_(new.data, max(0.01, 9 / (9 + step)))  # the first weights of all are not worth remembering
    return mean.eval(), held


@torch.inference_mode()
def solved(solver: Solver, held: Tensor, blanks: int = 6, rounds: int = 4) -> list[float]:
    """The share of held-out puzzles solved whole after each recursion."""
    rng = torch.Generator().manual_seed(1)
    true = held.repeat(rounds, 1)
    return [float((answer.argmax(-1) == true).all(1).float().mean()) for answer in solver(puzzles(true, blanks, rng))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for depth in arguments.depths:
        print(f"trained at depth {depth}: solved after each recursion", [round(share, 3) for share in solved(*learn(depth, arguments.steps))])


if __name__ == "__main__":
    main()
