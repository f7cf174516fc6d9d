"""The figures of the live system, each twice from the same panels (`drawing`). Plain numbers in, files out; a title is made of the numbers drawn.

    buffer(rows, root / "reports/live"); capacity(rows, folder); load(rows, folder)
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
