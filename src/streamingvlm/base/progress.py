"""A live view of a stream or a training run: a rich progress bar in a terminal, ipywidgets in a notebook, lines in a pipeline's log.

Only shows: what it is given passes through unchanged.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return bool(shell and getattr(shell, "kernel", None))


def bar(items: Iterable[Item], total: int | None, title: str, say=str) -> Iterator[Item]:
    """Pass `items` through while showing how far it is, how long it takes, and `say(item)` of the newest."""
    if "DVC_STAGE" in os.environ:
        return _lines(items, total, title, say)
    if in_notebook():
        return _widgets(items, total, title, say)
    if sys.stderr.isatty():
        return _terminal(items, total, title, say)
    return iter(items)


def _terminal(items: Iterable[Item], total: int | None, title: str, say) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    texts = [TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[news]}")]
    columns = (texts[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), texts[1])
    to_terminal = sys.stdout.isatty()  # what is printed while the bar shows must not be lost where it goes to a file
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=to_terminal) as progress:
        task = progress.add_task(title, total=total, news="")
        for item in items:
            progress.update(task, advance=1, news=say(item))
            yield item


def _widgets(items: Iterable[Item], total: int | None, title: str, say) -> Iterator[Item]:
    import html

    import ipywidgets
    from IPython.display import display

    bar = ipywidgets.IntProgress(max=total or 1, description=title, style={"description_width": "initial"})
    news = ipywidgets.HTML()
    display(ipywidgets.VBox([bar, news]))
    for item in items:
        bar.value += 1
        news.value = f"<code>{html.escape(say(item))}</code>"
        yield item


def _lines(items: Iterable[Item], total: int | None, title: str, say, every_s: float = 15.0) -> Iterator[Item]:
    begin = shown = time.monotonic()
    for number, item in enumerate(items, start=1):
        now = time.monotonic()
        if now - shown >= every_s:
            left = f", {(now - begin) / number * (total - number):.0f} s left" if total else ""
            print(f"    {title} {number}/{total or '?'}{left}   {say(item)}", flush=True)
            shown = now
        yield item
