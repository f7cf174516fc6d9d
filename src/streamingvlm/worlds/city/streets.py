"""Which way out of a camera's picture leads into which other one. Knows no people and no pixels.

A street is an edge between two junctions, and every camera watches one: its left end is one junction, its right end the other. Who leaves at an
end can come in at any other end of that junction. Training sees rings and lines, where right always leads to left and every junction has two
ends at most. Evaluation sees trees and grids: ends that meet left to left, and (from 3 streets on in a tree, 5 in a grid) junctions of 3 and 4.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from streamingvlm.base.errors import UserError

LAYOUTS = {False: ("ring", "line"), True: ("tree", "grid")}  # by `evaluation`
LEFT, RIGHT = 0, 1
Ways = dict[tuple[int, int], list[tuple[int, int]]]  # (camera, side one leaves) -> [(camera, side one comes in)]


def ways(layout: str, cameras: int, rng: np.random.Generator) -> Ways:
    """The ways between `cameras` streets of a layout. Ends that lead nowhere are in it with an empty list. UserError for an unknown layout."""
    makers = {"ring": _ring, "line": _line, "tree": _tree, "grid": _grid}
    if layout not in makers:
        raise UserError(f"There is no street layout {layout!r}: choose one of {', '.join(makers)}.")
    ends = defaultdict(list)
    for camera, (left, right) in enumerate(makers[layout](cameras, rng)):
        ends[left].append((camera, LEFT))
        ends[right].append((camera, RIGHT))
    return {end: [other for other in meeting if other[0] != end[0]] for meeting in ends.values() for end in meeting}


def _ring(cameras: int, rng: np.random.Generator) -> list[tuple]:
    return [(c, (c + 1) % cameras) for c in range(cameras)]


def _line(cameras: int, rng: np.random.Generator) -> list[tuple]:
    return [(c, c + 1) for c in range(cameras)]


def _tree(cameras: int, rng: np.random.Generator) -> list[tuple]:
    """Every new street starts at a junction that has fewer than four; the first three meet at one, their left ends together."""
    edges, degree = [], defaultdict(int)
    for c in range(cameras):
        open_ones = [node for node in range(c + 1) if degree[node] < 4]
        at = 0 if c < 3 else int(rng.choice(open_ones))
        edges.append((at, c + 1) if c < 3 or rng.random() < 0.5 else (c + 1, at))
        degree[at] += 1
        degree[c + 1] += 1
    return edges


def _grid(cameras: int, rng: np.random.Generator) -> list[tuple]:
    """Streets between the crossings of a square grid, nearest to its corner first; every second one turned round."""
    side = int(np.ceil(np.sqrt(cameras / 2))) + 1
    across = [((r, c), (r, c + 1)) for r in range(side) for c in range(side - 1)]
    down = [((r, c), (r + 1, c)) for r in range(side - 1) for c in range(side)]
    edges = sorted(across + down, key=lambda edge: (max(*edge[0], *edge[1]), edge))[:cameras]
    return [edge if (edge[0][0] + edge[0][1]) % 2 == 0 else edge[::-1] for edge in edges]
