"""The terminal as a view of a stream: the picture in half blocks, two pixels a character, what is said, and how late. Knows no clock and no model.

It draws itself four times a second in a thread of its own, so that drawing is in nobody's latency.
"""

from __future__ import annotations

import queue
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from streamingvlm.cli.typed_line import TypedLine
from streamingvlm.streaming import captions

if TYPE_CHECKING:
    from streamingvlm.base.records import Answer, Comment
    from streamingvlm.cli.run_command import Job
    from streamingvlm.cli.view import LatencyStats

SIDE_COLUMNS = 38  # what is said, and the numbers
LEAST_COLUMNS, LEAST_ROWS = 50, 20


def fits() -> bool:
    """Whether stdout is a terminal with colours and some room."""
    console = Console()
    return bool(console.is_terminal and not console.is_dumb_terminal and console.color_system and not console.no_color
                and console.width >= LEAST_COLUMNS and console.height >= LEAST_ROWS)


class Picture:
    """A frame [H, W, C] uint8 as characters, as large as it fits, in its own proportions. A terminal's characters are about twice as high as wide."""

    def __init__(self, frame: np.ndarray):
        self.frame = frame

    def cells(self, columns: int, rows: int) -> np.ndarray:
        """-> [rows, columns, 2, C]: of every character its upper and its lower pixel."""
        from PIL import Image

        height, width = self.frame.shape[:2]
        scale = min(columns / width, 2 * rows / height)
        size = max(1, round(width * scale)), max(2, round(height * scale / 2) * 2)
        pixels = np.asarray(Image.fromarray(self.frame).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST))
        return pixels.reshape(size[1] // 2, 2, size[0], 3).swapaxes(1, 2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        cells = self.cells(options.max_width, options.height or options.max_height)
        indent = Segment(" " * ((options.max_width - cells.shape[1]) // 2))
        for row in cells.tolist():
            yield indent
            for upper, lower in row:
                yield Segment("▀", Style(color="#{:02x}{:02x}{:02x}".format(*upper), bgcolor="#{:02x}{:02x}{:02x}".format(*lower)))
            yield Segment.line()


class Screen:
    """A view (see `watch.View`) that fills the terminal while it lasts and leaves its last state behind."""

    drawn = True

    def __init__(self, job: Job, console: Console | None = None):
        self.job, self.console = job, console or Console()
        self.frame: np.ndarray | None = None
        self.said: deque[Text] = deque(maxlen=200)
        self.numbers: list[tuple[str, str]] = []
        self.end_s = 0.0
        self.typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.typing = TypedLine(sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1, self.typed.put)
        self.live = Live(get_renderable=self.render, console=self.console, screen=True, refresh_per_second=4)

    def __enter__(self) -> Screen:
        self.live.__enter__()
        self.typing.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.typing.__exit__(*error)
        self.live.__exit__(*error)
        if self.numbers:
            self.console.print(self.render(), height=self.console.height - 1)

    def see(self, frame: np.ndarray) -> None:
        self.frame = frame

    def say(self, comment: Comment, tally: LatencyStats) -> None:
        self.end_s = min(comment.end_s, self.job.info.duration_s)
        if comment.text:
            self.said.append(Text.assemble((captions.timestamp(comment.start_s)[:-4] + "  ", "dim"), comment.text))
        self.numbers = tally.numbers(comment)

    def answer(self, answer: Answer) -> None:
        at, took = captions.timestamp(answer.at_s)[:-4], f"  {answer.ms['total']:.0f} ms"
        self.said.append(Text.assemble((f"{at}  ", "dim"), (f"{answer.question}  ", "italic"), answer.text or "...", (took, "dim")))

    def render(self) -> RenderableType:
        """The whole view, for a terminal of any size: side by side where there is room."""
        whole = Layout()
        picture = Layout(Picture(self.frame) if self.frame is not None else Text("Loading the model ...", style="dim"))
        wide = self.console.width >= 2 * SIDE_COLUMNS
        columns = 1 if wide else 2
        side = Layout(name="side")
        side.split_column(Layout(self._numbers(columns), size=-(-len(self.numbers) // columns) + 1), Layout(Tail(list(self.said))))
        if wide:
            side.size = SIDE_COLUMNS
            whole.split_row(picture, Layout(" ", size=2), side)
        else:
            whole.split_column(picture, side)
        title = f"{self.job.file.name}  {captions.timestamp(self.end_s)[:-4]} of {captions.timestamp(self.job.info.duration_s)[:-4]}"
        return Panel(whole, title=Text(title), subtitle=self._subtitle(), border_style="dim")

    def _subtitle(self) -> Text:
        """What is being typed, or what may be done."""
        if self.typing.text:
            return Text(f"> {self.typing.text[-(self.console.width - 12):]}_", style="bold")
        asks = "type a question, or /tell and a wish · " if self.typing.active else ""
        return Text(f"{self.job.policy.name} · {asks}Ctrl-C ends", style="dim")

    def _numbers(self, columns: int) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        pairs = [(Text(name, style="dim"), Text(value)) for name, value in self.numbers]
        for first in range(0, len(pairs), columns):
            table.add_row(*(text for pair in pairs[first : first + columns] for text in pair))
        return table


class Tail:
    """As many of the last lines as fit."""

    def __init__(self, lines: list[Text]):
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        room, shown = options.height or options.max_height, []
        for line in reversed(self.lines):
            room -= len(line.wrap(console, options.max_width))
            if room < 0:
                break
            shown.insert(0, line)
        if shown:
            shown[-1] = shown[-1].copy()
            shown[-1].stylize("bold")
        yield Group(*shown)

