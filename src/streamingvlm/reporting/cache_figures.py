"""Still pictures of what `inside` recorded: the cache as a film, positions, and where the attention went. PNG only, the same bytes each time.

    film.cache({"streaming": moments, "full": others}, root / "reports/inside")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.reporting.drawing import canvas
from streamingvlm.streaming.trace import GROUPS, PROMPT, SINK, SYSTEM, VISION, WINDOW, WORDS, Moment, one_life

# Okabe and Ito's, but for two greys: what carries no news steps back.
COLORS = {SYSTEM: "#7A7A7A", SINK: "#D55E00", WINDOW: "#E69F00", VISION: "#0072B2", WORDS: "#009E73", PROMPT: "#C9C9C9"}
FADED = 0.5  # how strongly a token is drawn that was there already


def cache(films: Mapping[str, Sequence[Moment]], folder: Path, name: str = "film") -> Path:
    """Every cached token of every second, coloured by its group, strong in the second in which it enters. The first film is drawn large, with one
    word followed through it and what was said beside it; the second small, at a scale of its own, with the first one's width for comparison."""
    (first, large), (second, small) = _two(films, name)
    with canvas(Path(folder) / f"{name}.png", 13.5, 2.3 + 0.165 * len(large)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3.1, 1), sharey=True)
        most = max(len(moment.cells) for moment in large)
        _rows(left, large, lines=0.4)
        _rows(right, small)
        _follow(left, large)
        for y, moment in enumerate(large):
            left.text(len(moment.cells) + 2, y, moment.comment.text, va="center", fontsize=7, color="#00664A")
        left.set(title=f"{first}: at most {most} tokens", xlabel="place in the cache", ylabel="second of the stream",
                 xlim=(-1, most * 1.2), ylim=(len(large) - 0.4, -0.6))
        right.set(title=f"{second}: {len(small[-1].cells):,} tokens at the end", xlabel="place in the cache")
        right.axvline(most, color="black", linewidth=1, linestyle=(0, (4, 3)))
        right.text(most, len(small) * 0.02, f"  the most that\n  {first} held", fontsize=8, va="top")
        _legend(figure)
        figure.suptitle("Each row is the KV cache at the end of a second; each cell is one token, pale if it was there before",
                        fontsize=12.5, x=0.01, ha="left")
    return Path(folder) / f"{name}.png"


def attention(films: Mapping[str, Sequence[Moment]], folder: Path, name: str = "attention") -> Path:
    """The share of each group in what was looked at while speaking, second by second: a panel for each of two films."""
    with canvas(Path(folder) / f"{name}.png", 11, 3.6) as figure:
        for axis, (policy, moments) in zip(figure.subplots(1, 2, sharey=True), _two(films, name), strict=True):
            shares = [moment.shares() for moment in moments]
            base = np.zeros(len(moments))
            for group in GROUPS:
                height = np.array([share[group] for share in shares])
                axis.bar(range(len(moments)), height, 1.0, bottom=base, color=COLORS[group])
                base += height
            axis.set(title=policy, xlabel="second of the stream", xlim=(-0.5, len(moments) - 0.5), ylim=(0, 1))
            axis.spines[["top", "right"]].set_visible(False)
        figure.axes[0].set_ylabel("share of the attention")
        _legend(figure)
    return Path(folder) / f"{name}.png"


def positions(films: Mapping[str, Sequence[Moment]], folder: Path, name: str = "positions") -> Path:
    """Where each cached token stands on RoPE's time axis, second by second: a column a second, a mark a token. A panel for each of two films, at one
    scale, so that contiguous positions stay where they are and growing ones climb and leave holes."""
    with canvas(Path(folder) / f"{name}.png", 11, 4.6) as figure:
        for axis, (policy, moments) in zip(figure.subplots(1, 2, sharey=True), _two(films, name), strict=True):
            for group in reversed(GROUPS):  # what there is most of at the bottom
                marks = [(second, cell.position[0]) for second, moment in enumerate(moments) for cell in moment.cells if cell.group == group]
                if marks:
                    axis.scatter(*zip(*marks, strict=True), s=14, marker="_", linewidths=1.4, color=COLORS[group])
            most = max(cell.position[0] for moment in moments for cell in moment.cells)
            axis.set(title=f"{policy}: positions up to {most:.0f}", xlabel="second of the stream", xlim=(-0.7, len(moments) - 0.3))
            axis.spines[["top", "right"]].set_visible(False)
        figure.axes[0].set_ylabel("position (time axis of RoPE)")
        _legend(figure)
    return Path(folder) / f"{name}.png"


def _two(films: Mapping[str, Sequence[Moment]], name: str) -> list[tuple[str, Sequence[Moment]]]:
    if len(films) != 2 or not all(films.values()):
        raise UserError(f"Figure `{name}` shows two recorded streams, neither of them empty, not {len(films)}.")
    return list(films.items())


def _rows(axis, moments: Sequence[Moment], lines: float = 0.0) -> None:
    """Cells as an image [seconds, places]; white `lines` between them if there is room."""
    from matplotlib.colors import to_rgb

    picture = np.ones((len(moments), max(len(moment.cells) for moment in moments), 3))
    for y, moment in enumerate(moments):
        for x, cell in enumerate(moment.cells):
            strength = 1.0 if cell.entered == moment.comment.chunk else FADED
            picture[y, x] = 1 - strength * (1 - np.array(to_rgb(COLORS[cell.group])))
    axis.imshow(picture, aspect="auto", interpolation="nearest")
    if lines:
        axis.vlines(np.arange(picture.shape[1] + 1) - 0.5, -0.5, len(moments) - 0.5, color="white", linewidth=lines)
    axis.hlines(np.arange(len(moments) + 1) - 0.5, -0.5, picture.shape[1] - 0.5, color="white", linewidth=2 * lines)
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)


def _follow(axis, moments: Sequence[Moment]) -> None:
    """The way of one word, from where it is said to where it is forgotten, if any was."""
    path = one_life(moments)
    if not path:
        return
    points = [(place, second - moments[0].comment.chunk) for second, place, _ in path]
    axis.plot(*zip(*points, strict=True), "o-", color="black", markersize=2.6, linewidth=1.1)
    note = {"fontsize": 8.5, "fontweight": "bold", "bbox": {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}}
    axis.annotate(f"“{path[0][2].text.strip()}” is said", points[0], (-8, 5), textcoords="offset points", ha="right", **note)
    axis.annotate("and forgotten", points[-1], (6, -14), textcoords="offset points", **note)


def _legend(figure) -> None:
    from matplotlib.patches import Patch

    figure.legend(handles=[Patch(color=COLORS[group], label=group) for group in GROUPS], loc="outside lower center", ncols=6, frameon=False)
