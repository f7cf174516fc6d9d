"""Figures, each twice from the same panels: an interactive Plotly page that needs no network, and a PNG drawn without a browser.

Plain rows in, files out: this module knows neither models nor streams, and computes nothing but medians and means. Titles are made of the
numbers drawn, never of what was hoped for. The same data gives the same bytes. An empty data set or a NaN is a `UserError`, not an empty
box; in a pandas frame NaN stands for None, because there it is the only way to say it.

    latency(rows, root / "reports/timings")      # latency.html, latency.png, plotly.min.js; returns the PNG's path
"""

from __future__ import annotations

import io
import math
import textwrap
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.base.numbers import number

# Okabe and Ito's colours: told apart by colour-blind readers too. A policy has one colour in every figure.
POLICIES = {"streaming": "#0072B2", "full": "#D55E00", "upstream": "#56B4E9", "window": "#E69F00", "overlap": "#009E73"}
OTHERS = ("#CC79A7", "#7F7F7F", "#000000", "#B8A000")
STAGES = {"read": "#999999", "encode": "#56B4E9", "evict": "#F0E442", "prefill": "#009E73", "decode": "#CC79A7"}
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
SMOOTH = 15        # chunks in a running median
LOG_RATIO = 20     # a wider range than this is drawn on a logarithmic axis


# One line, cloud of points or set of bars; kind: line | points | both | bar | dash; label None: not in the legend.
Series = namedtuple("Series", "label x y color kind", defaults=["line"])
# x, y: axis labels. A linear y axis runs from 0 to `top`; `note` formats the value on a bar.
Panel = namedtuple("Panel", "title x y series log top note", defaults=[False, None, ""])


def latency(rows, folder: Path, chunk_s: float = 1.0, name: str = "latency") -> Path:
    """Chunk latency over one stream, per policy. rows: {stream, policy, start_s, ms: {total}}."""
    series, ends = [], []
    for policy, color, chosen in _by_policy(name, rows, one_stream=True):
        x, y = [t_s / 60 for t_s in _column(name, chosen, "start_s")], _column(name, chosen, "ms", "total")
        series += [Series(None, x, y, color, "points"), Series(policy, x, _smooth(y), color)]
        ends.append(f"{policy} {number(median(y[-max(1, len(y) // 4):]))} ms")
    width = [min(one.x[0] for one in series), max(one.x[-1] for one in series)]
    series.append(Series("real time", width, [chunk_s * 1000] * 2, GREY, "dash"))
    title = f"Time per chunk in the last quarter of the stream (median): {', '.join(ends)}"
    return _draw(name, title, [Panel("", "stream time [min]", "time per chunk [ms]", series, log=_wide(series))], folder)


def memory(rows, folder: Path, name: str = "memory") -> Path:
    """Cached tokens and process memory over one stream, per policy. rows: {stream, policy, start_s, kv_tokens, memory_mb | rss_mb}."""
    tokens, resident, ends = [], [], []
    for policy, color, chosen in _by_policy(name, rows, one_stream=True):
        x = [t_s / 60 for t_s in _column(name, chosen, "start_s")]
        tokens.append(Series(policy, x, _column(name, chosen, "kv_tokens"), color))
        resident.append(Series(None, x, _column(name, chosen, "memory_mb" if "memory_mb" in chosen[0] else "rss_mb"), color))
        ends.append(f"{policy} {number(max(tokens[-1].y))}")
    panels = [Panel("KV cache", "stream time [min]", "cached tokens", tokens, log=_wide(tokens)),
              Panel("whole process", "stream time [min]", "memory [MB]", resident)]
    return _draw(name, f"Largest number of cached tokens: {', '.join(ends)}", panels, folder)


def stages(rows, folder: Path, name: str = "stages") -> Path:
    """Where the time of a chunk goes: mean ms per stage and policy. rows: {policy, ms: {read, encode, evict, prefill, decode}}."""
    groups = _by_policy(name, rows)
    means = {stage: [fmean(_column(name, chosen, "ms", stage)) for _, _, chosen in groups] for stage in STAGES}
    names, totals = [policy for policy, _, _ in groups], [sum(one) for one in zip(*means.values(), strict=True)]
    shares = {stage: [100 * mean / (total or 1) for mean, total in zip(means[stage], totals, strict=True)] for stage in STAGES}
    panels = [Panel("", "", "mean time per chunk [ms]", [Series(s, names, means[s], color, "bar") for s, color in STAGES.items()]),
              Panel("", "", "share of the time [%]", [Series(None, names, shares[s], color, "bar") for s, color in STAGES.items()])]
    said = ", ".join(f"{policy} {number(total)} ms" for policy, total in zip(names, totals, strict=True))
    return _draw(name, f"Where the time of a chunk goes (mean): {said}", panels, folder)


def quality(per_minute, folder: Path, name: str = "quality") -> Path:
    """Quality per minute of stream. rows: {policy, minute, event_f1, who, score}, each 0..1; None where a minute has nothing to score."""
    groups, panels = _by_policy(name, per_minute), []
    groups = groups[1:] + groups[:1]  # the first in view, over the others
    for key, title, y in (("event_f1", "event F1", "F1"), ("who", "who: right name", "share"), ("score", "score: exact", "share")):
        series = [Series(None if panels else policy, _column(name, scored, "minute"), _column(name, scored, key), color, "both")
                  for policy, color, chosen in groups if (scored := [row for row in chosen if row.get(key, math.nan) is not None])]
        if series:    # a short stream without a goal has no name to get right: no panel then, rather than an empty one
            panels.append(Panel(title, "minute of stream", y, series, top=1.04))
    said = [f"{one.label} {one.y[0]:.2f} to {one.y[-1]:.2f}" for panel in panels[:1] for one in panel.series]
    return _draw(name, f"From the first to the last minute, {panels[0].title if panels else ''}: {', '.join(said)}", panels, folder)


def ablation(rows, folder: Path, name: str = "ablation") -> Path:
    """What each part of the cache carries. rows: {policy, event_f1, who, score, increment}, each 0..1, or None where nothing was said to be
    right or wrong; the first row is what the others are compared with."""
    panels, lost, all_rows = [], [], _records(rows)
    for key, title in (("event_f1", "event F1"), ("who", "who: right name"), ("score", "score: exact"), ("increment", "score, given the last")):
        known = [row for row in all_rows if row.get(key) is not None]
        if not known or known[0] is not all_rows[0]:
            continue
        policies, values = [row["policy"] for row in known], _column(name, known, key)
        bars = [Series(None, policies[:1], values[:1], GREY, "bar"), Series(None, policies[1:], values[1:], BLUE, "bar")]
        panels.append(Panel(title, "", "share" if key != "event_f1" else "F1", bars, top=1.04, note="{:.2f}"))
        worst = min(range(len(values)), key=values.__getitem__)
        lost.append(f"{title} {values[0]:.2f}, least {values[worst]:.2f} ({policies[worst]})")
    return _draw(name, f"{all_rows[0]['policy']}: {'; '.join(lost)}" if lost else "", panels, folder)


def training(history, folder: Path, name: str = "training") -> Path:
    """rows: {phase, step, loss}, phases in the order they ran; some also accuracy (of the batch) or event_accuracy (on held-out seconds)."""
    rows, losses, scores, said = _records(history), [], [], []
    phases = dict.fromkeys(row["phase"] for row in rows if row.get("loss") is not None)
    for phase, color in zip(phases, (BLUE, ORANGE, *OTHERS), strict=False):
        for key, series in (("loss", losses), ("accuracy", scores)):
            if chosen := [row for row in rows if row.get("phase") == phase and row.get(key) is not None]:
                x, y = _column(name, chosen, "step"), _column(name, chosen, key)
                series += [Series(None, x, y, color, "points"), Series(phase if series is losses else None, x, _smooth(y), color)]
                said.append(f"{phase}: batch {key} {number(series[-1].y[-1])}")
    if chosen := [row for row in rows if row.get("event_accuracy") is not None]:
        y = _column(name, chosen, "event_accuracy")
        scores.append(Series("held-out seconds", _column(name, chosen, "step"), y, "#000000", "both"))
        said.append(f"right event in {y[-1]:.1%} of held-out seconds")
    panels = [Panel("loss on training batches", "training step", "cross-entropy [nats]", losses)]
    if scores:
        panels.append(Panel("accuracy: learned tokens, held-out seconds", "training step", "share right", scores, top=1.04))
    return _draw(name, f"At the end: {', '.join(said)}", panels, folder)


def compress(table, folder: Path, name: str = "compress") -> Path:
    """What compression costs and saves. rows: {variant, event_accuracy, bytes, chunk_ms_p50 (optional)}; the first row is the baseline."""
    rows = _records(table)
    variants = [row.get("variant", "?").replace("_", " + ") for row in rows]
    kinds = [("accuracy, held-out seconds", "event accuracy", "event_accuracy", 1, "{:.1%}"),
             ("size", "weights [MB]", "bytes", 1e-6, "{:.2f}")]
    if any("chunk_ms_p50" in row for row in rows):
        kinds.append(("speed on this machine", "median time per chunk [ms]", "chunk_ms_p50", 1, "{:.1f}"))
    panels = []
    for title, label, key, unit, note in kinds:
        values = [value * unit for value in _column(name, rows, key)]
        bars = [Series(None, variants[:1], values[:1], GREY, "bar"), Series(None, variants[1:], values[1:], BLUE, "bar")]
        panels.append(Panel(title, "", label, bars, note=note))
    base, marked = rows[0], {}
    for what, row in (("smallest", min(rows, key=lambda row: row["bytes"])), ("least accurate", min(rows, key=lambda row: row["event_accuracy"]))):
        marked[what] = (f"{row['variant'].replace('_', ' + ')} ({100 * (row['event_accuracy'] - base['event_accuracy']):+.1f} points, "
                        f"{row['bytes'] / base['bytes']:.0%} size)")
    return _draw(name, f"Against {variants[0]}: {'; '.join(f'{what} {said}' for what, said in marked.items())}", panels, folder)


def filmstrip(frames, seconds, captions, truths, right, folder: Path, name: str = "filmstrip") -> Path:
    """PNG only: K frames [K, H, W, 3] uint8, the second of each, what was said, what was true, and whether that was right (orange: no)."""
    if not len(frames) == len(seconds) == len(captions) == len(truths) or not len(frames):
        raise UserError(f"Figure `{name}`: wants as many frames as seconds, captions and truths, and at least one.")
    texts = [[textwrap.wrap(f"{kind}: {text.strip().removesuffix('...').strip() or '(silence)'}", 27) for text in column]
             for kind, column in (("said", captions), ("true", truths))]
    lines = [max(map(len, column)) for column in texts]
    height, width = frames[0].shape[:2]
    with canvas(Path(folder) / f"{name}.png", 2.1 * len(frames), 2 * height / width + 0.4 + 0.19 * sum(lines)) as figure:
        axes = figure.subplots(1, len(frames), squeeze=False)[0]
        for axis, frame, second, said, true, same in zip(axes, frames, seconds, *texts, right, strict=True):
            axis.imshow(frame, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{second:g} s", fontsize=11, loc="left")
            for text, above, color in ((said, 0, BLUE if same else ORANGE), (true, lines[0], GREY)):
                axis.annotate("\n".join(text), (0, 0), (0, -5 - 12.5 * above), "axes fraction", "offset points", va="top", fontsize=9.5, color=color)
    return Path(folder) / f"{name}.png"


def _records(data) -> list[dict]:
    return data.astype(object).where(data.notna(), None).to_dict("records") if hasattr(data, "to_dict") else list(data)


def _by_policy(name: str, data, one_stream: bool = False) -> list[tuple[str, str, list[dict]]]:
    """-> (policy, colour, its rows), in order of first appearance."""
    rows = _records(data)
    names = list(dict.fromkeys(row.get("policy", "?") for row in rows))
    streams = sorted({str(row.get("stream")) for row in rows})
    if not rows:
        raise UserError(f"Figure `{name}`: there is no data to draw.")
    if one_stream and len(streams) > 1:
        raise UserError(f"Figure `{name}` shows one stream, not {len(streams)} ({', '.join(streams)}): choose one.")
    spare = iter(OTHERS * len(names))
    colors = {policy: POLICIES.get(policy) or next(spare) for policy in names}
    return [(policy, colors[policy], [row for row in rows if row.get("policy", "?") == policy]) for policy in names]


def _column(name: str, rows: list[dict], *keys: str) -> list[float]:
    """The finite numbers at row[key][key]..."""
    found = []
    for row in rows:
        value = row
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            found.append(math.nan)
    if not found or not all(map(math.isfinite, found)):
        raise UserError(f"Figure `{name}`: {'there are no rows with' if not found else 'a row has no number for'} `{'.'.join(keys)}`.")
    return found


def _smooth(values: list[float]) -> list[float]:
    return [median(values[max(0, i - SMOOTH // 2):i + SMOOTH // 2 + 1]) for i in range(len(values))]


def _wide(series: list[Series]) -> bool:
    values = [value for one in series for value in one.y]
    return min(values) > 0 and max(values) / min(values) > LOG_RATIO


def _draw(name: str, title: str, panels: list[Panel], folder: Path) -> Path:
    """Both twins, or neither when there is nothing to show."""
    if not panels or not all(panel.series for panel in panels):
        raise UserError(f"Figure `{name}`: there is no data to draw.")
    save_page(_page(title, panels), Path(folder), name)
    return _png(Path(folder) / f"{name}.png", title, panels)


def save_page(figure, folder: Path, name: str) -> None:
    """A Plotly figure as a page that needs no network."""
    from plotly.offline import get_plotlyjs

    page = figure.to_html(include_plotlyjs="directory", div_id=name, config={"displaylogo": False, "responsive": True})
    files.write(folder / f"{name}.html", page)
    if not (folder / "plotly.min.js").is_file():    # 5 MB, one for all the pages of a folder
        files.write(folder / "plotly.min.js", get_plotlyjs())


def _page(title: str, panels: list[Panel]):
    from plotly import graph_objects, subplots

    figure = subplots.make_subplots(cols=len(panels), subplot_titles=[panel.title for panel in panels], horizontal_spacing=0.09)
    for column, panel in enumerate(panels, 1):
        for one in panel.series:
            common = {"x": one.x, "y": one.y, "name": one.label, "showlegend": one.label is not None, "legendgroup": one.color}
            if one.kind == "bar":
                notes = [panel.note.format(y) for y in one.y] if panel.note else None
                trace = graph_objects.Bar(**common, text=notes, textposition="outside" if notes else "none", marker_color=one.color)
            elif one.kind == "points":
                dots = {"color": one.color, "size": 4}
                trace = graph_objects.Scatter(**common, mode="markers", marker=dots, opacity=0.35, hoverinfo="skip")
            else:
                line = {"color": one.color, "width": 2, "dash": "dash" if one.kind == "dash" else "solid"}
                trace = graph_objects.Scatter(**common, mode="lines+markers" if one.kind == "both" else "lines", line=line)
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title_text=panel.x, col=column)
        figure.update_yaxes(title_text=panel.y, col=column, type="log" if panel.log else "linear",
                            rangemode="tozero", range=[0, panel.top] if panel.top else None)
    figure.update_layout(title={"text": "<br>".join(textwrap.wrap(title, 110))}, barmode="stack", template="plotly_white", margin_t=110)
    return figure


def _png(path: Path, title: str, panels: list[Panel]) -> Path:
    from matplotlib.ticker import FuncFormatter, LogLocator

    rows = 1 if len(panels) < 4 else 2
    columns = -(-len(panels) // rows)
    width = 9 if columns == 1 else 4.5 * columns
    with canvas(path, width, 4.4 * rows) as figure:
        for axis, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=True):
            _axis(axis, panel)
            if panel.log:
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
            else:
                axis.set_ylim(0, panel.top)
        figure.suptitle(textwrap.fill(title, int(width * 10)), fontsize=12.5, x=0.01, ha="left")
        if any(one.label for panel in panels for one in panel.series):
            figure.legend(loc="outside lower center", ncols=6, frameon=False)
    return path


def _axis(axis, panel: Panel) -> None:
    base: dict = {}
    number_of_bars = sum(len(one.x) for one in panel.series if one.kind == "bar")
    many = number_of_bars > 5  # labels side by side would run into each other
    axis.margins(y=0.1)
    for one in panel.series:
        if one.kind == "bar":
            bars = axis.bar(one.x, one.y, 0.55, bottom=[base.get(x, 0) for x in one.x], color=one.color, label=one.label)
            base.update({x: base.get(x, 0) + y for x, y in zip(one.x, one.y, strict=True)})
            axis.bar_label(bars, [panel.note.format(y) for y in one.y], padding=2,
                           fontsize=5.5 if number_of_bars > 9 else 7 if many else None)
        else:
            style = {"line": "-", "both": "o-", "dash": "--", "points": "."}[one.kind]
            faint = {"alpha": 0.35, "markersize": 3, "markeredgewidth": 0} if one.kind == "points" else {"linewidth": 1.8, "markersize": 4}
            axis.plot(one.x, one.y, style, color=one.color, label=one.label, **faint)
    axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    for label in axis.get_xticklabels() if many else ():
        label.set(rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    axis.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


@contextmanager
def canvas(path: Path, width: float, height: float):
    """A figure of its own, saved at the end: no pyplot, and matplotlib's defaults whatever a notebook or a matplotlibrc has set."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure, content = Figure(figsize=(width, height), dpi=110, layout="constrained"), io.BytesIO()
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        yield figure
        figure.savefig(content, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.1)
    files.write(path, content.getvalue())
