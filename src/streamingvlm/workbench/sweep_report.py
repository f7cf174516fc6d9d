"""What a sweep found: a table of its runs, and one figure of parallel coordinates, as a page that needs no network and as a PNG.

Plain rows in, files out: {run, state, params: {section.key: value}, metrics: {dotted name: number}}. Knows nothing of DVC or W&B. Shown are the
metric that the sweep file names and its neighbours (ablation.streaming.overlapped.score: all of ablation.streaming.overlapped); the files hold all.

    print(write(rows, sweep, root / "reports/sweeps/window"))      # runs.json, runs.csv, coordinates.html, coordinates.png
"""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections import namedtuple
from pathlib import Path

from streamingvlm.base import files
from streamingvlm.base.files import write_json
from streamingvlm.base.numbers import number
from streamingvlm.workbench.sweep_spec import Sweep

METRIC = "ablation.streaming.overlapped.score"  # where a sweep file names none
COLORS = ("#0072B2", "#999999", "#D55E00")  # least, middle, greatest: told apart by colour-blind readers, and on white

# One upright line: its label, where each run crosses it (0..1), and the ticks, text -> place.
Axis = namedtuple("Axis", "label places ticks")


def write(rows: list[dict], sweep: Sweep, folder: Path) -> str:
    """All files -> the text to print: the table, and what the figure is called."""
    write_json(rows, folder / "runs.json")
    files.write(folder / "runs.csv", _csv(rows))
    shown = matter(rows, sweep.metric or METRIC)
    lines = [_table(rows, sweep.varied, shown)]
    if not shown:
        lines.append(f"No run has a number called {sweep.metric or METRIC}: mend `metric.name` in {sweep.path}; runs.json has all that there are.")
    drawn = [row for row in rows if shown and finite(row["metrics"].get(shown[0]))]
    if drawn:
        lines.append(f"Parallel coordinates: {figure(drawn, sweep, shown, folder, len(rows))}")
    return "\n".join([*lines, f"All numbers: {folder / 'runs.csv'}"])


def matter(rows: list[dict], metric: str) -> list[str]:
    """The metric and its neighbours that any run has a number for; nothing where no run has the metric."""
    found = dict.fromkeys(key for row in rows for key, value in row["metrics"].items()
                          if key.rpartition(".")[0] == metric.rpartition(".")[0] and finite(value))
    return [metric, *(key for key in found if key != metric)] if metric in found else []


def finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _text(value) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return number(value) if finite(value) and not isinstance(value, bool | int) else "-" if value is None else str(value)


def _csv(rows: list[dict]) -> str:
    params = sorted({key for row in rows for key in row["params"]})
    metrics = list(dict.fromkeys(key for row in rows for key in row["metrics"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "state", *params, *metrics])
    for row in rows:
        values = [json.dumps(value) if isinstance(value, list) else value for value in (row["params"].get(key) for key in params)]
        writer.writerow([row["run"], row["state"], *values, *(row["metrics"].get(key) for key in metrics)])
    return out.getvalue()


def _table(rows: list[dict], varied: list[str], shown: list[str]) -> str:
    """Best seen in a terminal: one line per run."""
    head = ["run", *varied, *(key.rpartition(".")[2] for key in shown), "state"]
    body = [[row["run"], *(_text(row["params"][key]) for key in varied), *(_text(row["metrics"].get(key)) for key in shown),
             textwrap.shorten(row["state"], 70)] for row in rows]
    widths = [max(len(line[k]) for line in [head, *body]) for k in range(len(head))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in [head, *body])


def figure(rows: list[dict], sweep: Sweep, shown: list[str], folder: Path, of: int, name: str = "coordinates") -> Path:
    """Both twins. rows: runs with a number for `shown[0]`, which colours the lines; `of`: how many runs there were."""
    from streamingvlm.reporting.drawing import save_page

    metric, others = shown[0], [key for key in shown[1:] if all(finite(row["metrics"].get(key)) for row in rows)]
    others = [key for key in others if len({row["metrics"][key] for row in rows}) > 1]  # a number all runs share tells none from another
    axes = [_axis(key, [row["params"][key] for row in rows]) for key in sweep.varied]
    axes += [_axis(key.rpartition(".")[2], [row["metrics"][key] for row in rows], ends=True) for key in [metric, *others]]
    values = [row["metrics"][metric] for row in rows]
    best = (max if sweep.goal == "maximize" else min)(values)
    where = ["; ".join(f"{key} {_text(row['params'][key])}" for key in sweep.varied) for row in rows if row["metrics"][metric] == best]
    title = f"{len(rows)} of {of} runs; best {metric}: {number(best)}, {f'with {where[0]}' if len(where) == 1 else f'in {len(where)} runs'}"
    save_page(_page(axes, values, metric, title), folder, name)
    return _png(folder / f"{name}.png", axes, values, metric, title)


def _axis(label: str, values: list, ends: bool = False) -> Axis:
    """Numbers stand at their height, anything else at even steps. `ends`: ticks at the least and the greatest only (and halfway)."""
    if not all(finite(value) and not isinstance(value, bool) for value in values):
        texts = list(dict.fromkeys(map(_text, values)))
        steps = {text: (k + 0.5) / len(texts) for k, text in enumerate(texts)}
        return Axis(label, [steps[_text(value)] for value in values], steps)
    low, high = min(values), max(values)
    scale = (lambda value: (value - low) / (high - low)) if high > low else (lambda value: 0.5)
    marks = sorted({low, (low + high) / 2, high}) if ends or len(set(values)) > 8 else sorted(set(values))
    return Axis(label, [scale(value) for value in values], {_text(mark): scale(mark) for mark in marks})


def _page(axes: list[Axis], values: list[float], metric: str, title: str):
    from plotly import graph_objects

    lines = graph_objects.Parcoords(
        line={"color": values, "colorscale": [[k / 2, color] for k, color in enumerate(COLORS)], "showscale": max(values) > min(values),
              "colorbar": {"title": {"text": metric.rpartition(".")[2]}}},
        dimensions=[{"label": axis.label, "values": axis.places, "range": [-0.04, 1.04], "tickvals": list(axis.ticks.values()),
                     "ticktext": list(axis.ticks)} for axis in axes], labelfont={"size": 13}, tickfont={"size": 12})
    page = graph_objects.Figure(lines)
    page.update_layout(title={"text": "<br>".join(textwrap.wrap(title, 110))}, template="plotly_white", margin={"t": 130, "l": 90, "r": 60})
    return page


def _png(path: Path, axes: list[Axis], values: list[float], metric: str, title: str) -> Path:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    from streamingvlm.reporting.drawing import canvas

    width = max(7.0, 1.7 * len(axes) + 1)
    shade = ScalarMappable(Normalize(min(values), max(values)), LinearSegmentedColormap.from_list("sweep", COLORS))
    with canvas(path, width, 4.4) as drawing:
        plot = drawing.subplots()
        for k, value in enumerate(values):
            plot.plot(range(len(axes)), [axis.places[k] for axis in axes], "o-", color=shade.to_rgba(value), linewidth=1.8, markersize=4, alpha=0.85)
        for x, axis in enumerate(axes):
            plot.axvline(x, color="#888888", linewidth=1, zorder=0)
            for text, y in axis.ticks.items():
                plot.annotate(text, (x, y), (-5, 0), textcoords="offset points", ha="right", va="center", fontsize=8.5,
                              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8})
        plot.set_xticks(range(len(axes)), [axis.label.replace(".", ".\n") for axis in axes], fontsize=9)
        plot.xaxis.tick_top()
        plot.tick_params(length=0)
        plot.set(yticks=[], xlim=(-0.55, len(axes) - 0.85), ylim=(-0.05, 1.05))
        plot.spines[:].set_visible(False)
        if max(values) > min(values):
            drawing.colorbar(shade, ax=plot, label=metric.rpartition(".")[2], fraction=0.04, pad=0.02)
        drawing.suptitle(textwrap.fill(title, int(width * 10)), fontsize=12, x=0.01, ha="left")
    return path
