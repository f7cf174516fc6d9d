"""The first thing a reviewer sees, in one picture: the verdicts of the paper's claims as a strip of squares, the tokens cached over the match, and
two seconds of it with what was said. PNG only, on white, so that a dark page shows it too. Draws what it is given; judges nothing.

    band(squares, tokens, looks, root / "reports/timings")
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from streamingvlm.base.errors import UserError
from streamingvlm.base.numbers import number
from streamingvlm.reporting.drawing import BLUE, GREY, ORANGE, canvas
from streamingvlm.reporting.figures import POLICIES

WIDTH_IN, HEIGHT_IN, COLUMNS = 13.0, 3.7, 4
# kind -> (colour of the square, of its letters, a sign for whoever sees no colour). Okabe and Ito's blue and vermillion, and greys.
LOOKS = {"reproduced": ("#0072B2", "white", "✓"), "partly reproduced": ("#9BD0F0", "#10334A", "½"), "not reproduced": ("#D55E00", "white", "✗"),
         "not measured": ("#FFFFFF", "#555555", "?"), "need what isn't here": ("#E4E4E4", "#555555", "–"),
         "not attempted at this scale": ("#FFFFFF", "#555555", "–")}


class Square(NamedTuple):
    """A claim: its id, its three words, its kind of verdict (a key of LOOKS)."""

    id: str
    short: str
    kind: str


class Look(NamedTuple):
    """A second of the stream: its last frame [H, W, 3] uint8, what was said, what was true (in other words, it may be), and whether they agree."""

    frame: object
    second: float
    said: str
    true: str
    right: bool


def band(squares: Sequence[Square], tokens: Mapping[str, tuple[Sequence[float], Sequence[float]]], looks: Sequence[Look], folder: Path,
         name: str = "band") -> Path:
    """`tokens`: policy -> (minutes, cached tokens). UserError where one of the three parts has nothing to show."""
    if not squares or not tokens or not looks or not all(len(x) for x, _ in tokens.values()):
        raise UserError(f"Figure `{name}`: wants verdicts, cached tokens and seconds of the stream, at least one of each.")
    with canvas(Path(folder) / f"{name}.png", WIDTH_IN, HEIGHT_IN) as figure:
        left, middle, right = figure.subfigures(1, 3, width_ratios=(1.25, 0.9, 1.05))
        _strip(left, squares)
        _tokens(middle, tokens)
        _looks(right, looks)
    return Path(folder) / f"{name}.png"


def alt(squares: Sequence[Square], tokens: Mapping[str, tuple[Sequence[float], Sequence[float]]], looks: Sequence[Look]) -> str:
    """The same in words, for whoever sees no picture."""
    verdicts = ", ".join(f"{one.id} {one.short}: {one.kind}" for one in squares)
    cached = ", ".join(f"{policy} {number(y[-1])}" for policy, (_, y) in tokens.items())
    said = "; ".join(f"at {look.second:g} s “{look.said or 'nothing'}” "
                     f"({'right' if look.right else f'wrong, true: “{look.true}”'})" for look in looks)
    return f"Verdicts: {verdicts}. Cached tokens at the end of the match: {cached}. What was said: {said}."


def _title(part, text: str) -> None:
    part.suptitle(text, fontsize=12, x=0.02, ha="left", fontweight="bold")


def _strip(part, squares: Sequence[Square]) -> None:
    from matplotlib.patches import Patch, Rectangle

    _title(part, "The paper's claims, on a tiny model")
    axis, rows = part.subplots(), -(-len(squares) // COLUMNS)
    for k, one in enumerate(squares):
        x, y = k % COLUMNS, k // COLUMNS
        ground, ink, sign = LOOKS[one.kind]
        axis.add_patch(Rectangle((x + 0.03, y + 0.04), 0.94, 0.9, facecolor=ground, edgecolor="#8A8A8A", linewidth=0.8))
        axis.text(x + 0.08, y + 0.24, one.id, color=ink, fontsize=11, fontweight="bold", va="center")
        axis.text(x + 0.92, y + 0.24, sign, color=ink, fontsize=13, fontweight="bold", va="center", ha="right")
        axis.text(x + 0.08, y + 0.66, textwrap.fill(one.short, 14), color=ink, fontsize=9.5, va="center", linespacing=1.1)
    axis.set(xlim=(0, COLUMNS), ylim=(rows, 0))
    axis.set_axis_off()
    kinds = [kind for kind in LOOKS if any(one.kind == kind for one in squares)]
    handles = [Patch(facecolor=LOOKS[kind][0], edgecolor="#8A8A8A", label=f"{LOOKS[kind][2]} {kind}") for kind in kinds]
    part.legend(handles=handles, loc="outside lower left", ncols=2 if len(kinds) > 3 else 3, frameon=False, fontsize=9, handlelength=1.2,
                columnspacing=1.2)


def _tokens(part, tokens: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    _title(part, "Tokens in the cache")
    axis = part.subplots()
    for policy, (x, y) in tokens.items():
        axis.plot(x, y, color=POLICIES.get(policy, GREY), linewidth=2.4)
        axis.annotate(f"{policy}: {number(max(y))}", (x[-1], y[-1]), (-4, 7), textcoords="offset points", ha="right", fontsize=11, fontweight="bold",
                      color=POLICIES.get(policy, GREY))
    top = max(max(y) for _, y in tokens.values())
    axis.set(xlabel="minute of the match", ylim=(-0.015 * top, 1.17 * top), xlim=(0, None))
    axis.yaxis.set_major_formatter(lambda value, _: number(value) if value >= 0 else "")
    axis.grid(axis="y", color="#E2E2E2", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)


def _looks(part, looks: Sequence[Look]) -> None:
    _title(part, "What was said, never having been shown the score")
    for axis, look in zip(part.subplots(1, len(looks), squeeze=False)[0], looks, strict=True):
        axis.imshow(look.frame, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{int(look.second) // 60}:{int(look.second) % 60:02d}", fontsize=10, loc="left", color=GREY)
        text = f"“{look.said or '(silence)'}”" + ("\n✓ right" if look.right else f"\n✗ true: {look.true or '(silence)'}")
        color = BLUE if look.right else ORANGE
        axis.set_xlabel("\n".join(textwrap.fill(line, 24) for line in text.splitlines()), fontsize=10.5, color=color, loc="left")
