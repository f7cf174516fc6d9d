"""The figures of the live system, each twice from the same panels (`drawing`). Plain numbers in, files out; a title is made of the numbers drawn.

    buffer(rows, root / "reports/live"); capacity(rows, folder); load(rows, folder); replicas(runs, budget_ms, folder)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from streamingvlm.base.numbers import number
from streamingvlm.reporting.drawing import BLUE, GREY, ORANGE, Panel, Series, column, draw, records

NAMES = {"model": "multi-camera model", "baseline_vlm": "frame-based VLM"}

COLOURS = {"model": BLUE, "baseline_vlm": ORANGE}


def buffer(rows, folder: Path, name: str = "buffer") -> Path:
    """What a jitter buffer does. rows: {sent_s, arrived_s, released_s}, one a frame, of those that were released."""
    rows = records(rows)
    sent, arrived, released = (column(name, rows, key) for key in ("sent_s", "arrived_s", "released_s"))
    late = [1e3 * (at - then) for at, then in zip(arrived, sent, strict=True)]
    out = [1e3 * (at - then) for at, then in zip(released, sent, strict=True)]
    spread = [max(one) - min(one) for one in (late, out)]
    title = f"Frames arrive {number(min(late))} to {number(max(late))} ms after they were sent, and leave the buffer within {number(spread[1])} ms " \
            "of each other."
    series = [Series("arrives", sent, late, ORANGE, "points"), Series("leaves the buffer", sent, out, BLUE)]
    return draw(name, title, [Panel("", "sent [s]", "later [ms]", series)], folder)


def capacity(curves: Mapping[str, Sequence[dict]], most: Mapping[str, int], budget_ms: float, folder: Path, name: str = "capacity") -> Path:
    """p99 against the number of cameras. curves: model -> rows {streams, p99_ms, skipped}; `most`: how many it takes within the budget."""
    waits, skips = [], []
    for model, rows in curves.items():
        x = column(name, list(rows), "streams")
        waits.append(Series(NAMES.get(model, model), x, column(name, list(rows), "p99_ms"), COLOURS.get(model, GREY), "both"))
        skips.append(Series(None, x, [100 * share for share in column(name, list(rows), "skipped")], COLOURS.get(model, GREY), "both"))
    ends = [min(one.x[0] for one in waits), max(one.x[-1] for one in waits)]
    waits.append(Series("budget", ends, [budget_ms] * 2, GREY, "dash"))
    said = ", ".join(f"{NAMES.get(model, model)} {count}" for model, count in most.items())
    title = f"Cameras at 8 FPS with 99 % of the frames answered within {number(budget_ms)} ms, by the run times of this machine: {said}."
    return draw(name, title, [Panel("how late", "cameras", "release to decision, p99 [ms]", waits, log=True),
                              Panel("frames skipped", "cameras", "share [%]", skips)], folder)


def load(rows, folder: Path, name: str = "load") -> Path:
    """Quality while frames are skipped. rows: {slower, skipped, event_recall, action, f1}, from the unhurried machine to the slowest."""
    rows = records(rows)
    x = [100 * share for share in column(name, rows, "skipped")]
    recall, action, f1 = (column(name, rows, key) for key in ("event_recall", "action", "f1"))
    series = [Series("events found", x, recall, BLUE, "both"), Series("right actions", x, action, GREY, "both"),
              Series("F1 of alarms, by frame", x, f1, ORANGE, "both")]
    title = f"With {x[-1]:.0f} % of the frames skipped {recall[-1]:.0%} of the events are still found, with {x[0]:.0f} % {recall[0]:.0%}."
    return draw(name, title, [Panel("", "frames skipped [%]", "share", series, top=1.04)], folder)


GREEN = "#009E73"
RUNS = {"ray": ("Ray Serve, this machine", BLUE), "virtual": ("virtual time", ORANGE)}


def replicas(runs: Mapping[str, Sequence[dict]], budget_ms: float, folder: Path, name: str = "replicas") -> Path:
    """A step of load. runs: what ran -> rows {t_s, streams, replicas, late_p95_ms (None: nothing was decided), dropped}, one a second."""
    counts, late, drops = [], [], []
    for run, rows in runs.items():
        label, colour = RUNS.get(run, (run, GREEN))
        t = column(name, list(rows), "t_s")
        counts.append(Series(label, t, column(name, list(rows), "replicas"), colour))
        decided = [row for row in rows if row["late_p95_ms"] is not None]
        late.append(Series(None, column(name, decided, "t_s"), column(name, decided, "late_p95_ms"), colour))
        drops.append(Series(None, t, column(name, list(rows), "dropped"), colour))
    first = list(next(iter(runs.values())))
    counts.append(Series("streams", column(name, first, "t_s"), column(name, first, "streams"), GREY, "dash"))
    late.append(Series("budget", [first[0]["t_s"], first[-1]["t_s"]], [budget_ms] * 2, GREY, "dash"))
    few, many = min(row["streams"] for row in first), max(row["streams"] for row in first)
    said = "; ".join(f"{RUNS.get(run, (run,))[0]}: {' -> '.join(map(str, steps([row['replicas'] for row in rows])))}" for run, rows in runs.items())
    title = f"{few} cameras, then {many}, then {few}: so many replicas. {said}."
    return draw(name, title, [Panel("replicas", "second", "", counts), Panel("how late", "second", "release to decision, p95 [ms]", late, log=True),
                              Panel("frames dropped", "second", "a second", drops)], folder)


def steps(values: Sequence[int]) -> list[int]:
    """1, 1, 2, 2, 1 -> 1, 2, 1."""
    return [value for k, value in enumerate(values) if not k or value != values[k - 1]]
