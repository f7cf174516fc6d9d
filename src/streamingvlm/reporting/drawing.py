"""How a figure becomes two files: an interactive Plotly page that needs no network, and a PNG drawn without a browser. Knows panels and series, not
what they mean. The same data gives the same bytes. An empty data set or a NaN is a `UserError`, not an empty box; in a pandas frame NaN stands for
None, because there it is the only way to say it.

    draw("memory", "streaming never holds more than 214 tokens.", [Panel("", "minute", "tokens", [Series("streaming", x, y, "#0072B2")])], folder)
"""

from __future__ import annotations

import io
import math
import textwrap
from collections import namedtuple
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.base.numbers import number

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
LOG_RATIO = 20     # a wider range than this is drawn on a logarithmic axis

# One line, cloud of points or set of bars; kind: line | points | both | bar | across (bars from left to right) | dash; label None: not in the legend.
Series = namedtuple("Series", "label x y color kind", defaults=["line"])
# x, y: axis labels. A linear y axis runs from 0 to `top`; `note` formats the value on a bar.
Panel = namedtuple("Panel", "title x y series log top note", defaults=[False, None, ""])


def records(data) -> list[dict]:
    return data.astype(object).where(data.notna(), None).to_dict("records") if hasattr(data, "to_dict") else list(data)


def column(name: str, rows: list[dict], *keys: str) -> list[float]:
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


def smooth(values: list[float], width: int, middle: Callable[[list[float]], float] = median) -> list[float]:
    """A running median, or another `middle`, over `width` values."""
    return [middle(values[max(0, i - width // 2):i + width // 2 + 1]) for i in range(len(values))]


def wide(series: list[Series]) -> bool:
    values = [value for one in series for value in one.y]
    return min(values) > 0 and max(values) / min(values) > LOG_RATIO


def draw(name: str, title: str, panels: list[Panel], folder: Path) -> Path:
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
            if one.kind in ("bar", "across"):
                notes = [panel.note.format(y) for y in one.y] if panel.note else None
                if one.kind == "across":
                    common |= {"x": one.y, "y": one.x, "orientation": "h"}
                trace = graph_objects.Bar(**common, text=notes, textposition="outside" if notes else "none", marker_color=one.color)
            elif one.kind == "points":
                dots = {"color": one.color, "size": 4}
                trace = graph_objects.Scatter(**common, mode="markers", marker=dots, opacity=0.35, hoverinfo="skip")
            else:
                line = {"color": one.color, "width": 2, "dash": "dash" if one.kind == "dash" else "solid"}
                trace = graph_objects.Scatter(**common, mode="lines+markers" if one.kind == "both" else "lines", line=line)
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title_text=panel.x, col=column)
        if any(one.kind == "across" for one in panel.series):
            figure.update_xaxes(title_text=panel.y, col=column, range=[0, panel.top] if panel.top else None)
            figure.update_yaxes(title_text=panel.x, col=column, autorange="reversed", showticklabels=column == 1)
        else:
            figure.update_yaxes(title_text=panel.y, col=column, type="log" if panel.log else "linear",
                                rangemode="tozero", range=[0, panel.top] if panel.top else None)
    figure.update_layout(title={"text": "<br>".join(textwrap.wrap(title, 110))}, barmode="stack", template="plotly_white", margin_t=110)
    return figure


def _png(path: Path, title: str, panels: list[Panel]) -> Path:
    from matplotlib.ticker import FuncFormatter, LogLocator

    rows = 1 if len(panels) < 4 else 2
    columns = -(-len(panels) // rows)
    width = 9 if columns == 1 else 4.5 * columns
    across = any(one.kind == "across" for one in panels[0].series)
    with canvas(path, width, 4.4 * rows) as figure:
        for axis, panel in zip(figure.subplots(rows, columns, squeeze=False, sharey=across).flat, panels, strict=True):
            _axis(axis, panel)
            if across:
                axis.set_xlim(0, panel.top or max(y for one in panel.series for y in one.y) * 1.18)
            elif panel.log:
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
            else:
                axis.set_ylim(0, panel.top)
        if across:
            figure.axes[0].invert_yaxis()  # shared: the first row on top
        figure.suptitle(textwrap.fill(title, int(width * 10)), fontsize=12.5, x=0.01, ha="left")
        if any(one.label for panel in panels for one in panel.series):
            figure.legend(loc="outside lower center", ncols=6, frameon=False)
    return path


def _axis(axis, panel: Panel) -> None:
    base: dict = {}
    across = any(one.kind == "across" for one in panel.series)
    axis.margins(y=0.02 if across else 0.1)
    for one in panel.series:
        if one.kind in ("bar", "across"):
            under = [base.get(x, 0) for x in one.x]
            bars = (axis.barh(one.x, one.y, 0.62, color=one.color) if across else
                    axis.bar(one.x, one.y, 0.55, bottom=under, color=one.color, label=one.label))
            base.update({x: base.get(x, 0) + y for x, y in zip(one.x, one.y, strict=True)})
            axis.bar_label(bars, [panel.note.format(y) for y in one.y], padding=3, fontsize=9)
        else:
            style = {"line": "-", "both": "o-", "dash": "--", "points": "."}[one.kind]
            faint = {"alpha": 0.3, "markersize": 3, "markeredgewidth": 0} if one.kind == "points" else {"linewidth": 1.8, "markersize": 4}
            axis.plot(one.x, one.y, style, color=one.color, label=one.label, **faint)
    axis.set(title=panel.title, xlabel=panel.y if across else panel.x, ylabel=panel.x if across else panel.y)
    axis.grid(axis="x" if across else "y", color="#DDDDDD", linewidth=0.8)
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
