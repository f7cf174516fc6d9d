"""The cache of a running stream to look into: a slider over its seconds, switches for policy and windows. ipywidgets and plain HTML, no script.

    inside_view.explore(vlm, cfg, row, chunks)      # in a notebook: the last line of a cell
    inside_view.page(moments, 9, frame, truth)      # the HTML of one second alone
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from streamingvlm.base import config, files
from streamingvlm.base.records import Chunk
from streamingvlm.context import policy
from streamingvlm.context.dialogue import HEADER
from streamingvlm.data import stream_rows
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.reporting.cache_figures import COLORS
from streamingvlm.streaming import trace
from streamingvlm.streaming.trace import GROUPS, SINK, WINDOW, Cell, Moment

ALL = -1  # instead of one of the words spoken
MARKS = {"<|im_start|>": "‹", "<|im_end|>": "›", "<|vision_start|>": "[", "<|vision_end|>": "]", "<|video_pad|>": "", "\n": "↵"}
STYLE = """<style>
.svlm {font: 13px/1.35 system-ui, sans-serif; color: var(--jp-content-font-color1, CanvasText); display: flex; flex-wrap: wrap; gap: 18px}
.svlm .rows {flex: 1 1 560px; max-height: 430px; overflow-y: auto; display: flex; flex-direction: column-reverse; align-self: flex-start}
.svlm .side {flex: 0 1 250px} .svlm .row:last-child {border-bottom: 1px solid #8884}
.svlm .row {display: flex; gap: 8px; padding: 3px 0; border-top: 1px solid #8884}
.svlm .row > span {flex: 0 0 92px; text-align: right; opacity: .8} .svlm .row > div {flex: 1; display: flex; flex-wrap: wrap; gap: 2px}
.svlm .row > em {flex: 0 0 84px; font-style: normal; opacity: .7; font-variant-numeric: tabular-nums}
.svlm b {font: 11px/17px ui-monospace, monospace; min-width: 11px; height: 17px; padding: 0 2px; border-radius: 3px; text-align: center}
.svlm .new {box-shadow: 0 0 0 2px var(--jp-content-font-color1, CanvasText)} .svlm .again {outline: 1px dotted; outline-offset: 1px}
.svlm .joined {border-bottom: 3px solid #009E73; height: 14px; line-height: 15px} .svlm .leaves {outline: 2px dashed #C00; outline-offset: 0}
.svlm .gone {opacity: .45; text-decoration: line-through; text-decoration-thickness: 2px}
.svlm img {width: 100%; max-width: 250px; image-rendering: pixelated; border-radius: 4px; display: block}
.svlm table {border-collapse: collapse; width: 100%; margin-top: 6px; background: none} .svlm p {margin: 4px 0}
.svlm td, .svlm th {padding: 1px 4px; text-align: right; white-space: nowrap; font-size: 12px; background: none; color: inherit}
.svlm td:first-child, .svlm th:first-child {text-align: left} .svlm i {display: inline-block; height: 9px; min-width: 1px; border-radius: 2px}
</style>"""
KEY = ("<p style='flex-basis: 100%; opacity: .85'><b class=new>a</b> &nbsp;new this second &nbsp; <b class=joined>a</b> just joined "
       "the previous text &nbsp; <b class=leaves>a</b> &nbsp;leaves before the next second &nbsp; <b class=gone>a</b> has just left &nbsp; "
       "<b class=again>a</b> &nbsp;computed again &nbsp; ‹ › [ ] ↵ marks. Rest the pointer on a token for its position.</p>")


def page(moments: Sequence[Moment], at: int, frame: np.ndarray, truth: str = "", word: int = ALL, heat: bool = False) -> str:
    """The cache at the end of chunk `at` as HTML, with the frame [H, W, 3] and the comment of that second. `word`: the attention of that spoken
    token alone, else of all; `heat`: shade tokens by how much they were looked at rather than by age."""
    now, before = moments[at], moments[at - 1] if at else None
    looks = now.looks.mean(axis=0) if word == ALL else now.looks[word]  # [S]
    was = {cell.number: cell.group for cell in before.cells} if before else {}
    shade = looks / looks.max() if heat else None
    chips = [_chip(cell, now, was, looks[i], None if shade is None else shade[i]) for i, cell in enumerate(now.cells)]
    rows = []
    for label, run in groupby(zip(now.cells, chips, strict=True), key=lambda pair: _line(pair[0])):
        pairs = list(run)
        first, last = pairs[0][0].position[0], max(max(cell.position) for cell, _ in pairs)
        rows.append(_row(label, "".join(chip for _, chip in pairs), f"at {first}–{last}"))
    gone = [cell for cell in before.cells if cell.number in before.leaves] if before else []
    rows.append(_row("just left", "".join(_token(cell, "gone") for cell in gone) or "nothing", f"{len(gone)} tokens"))
    return f"{STYLE}<div class=svlm><div class=rows><div>{''.join(rows)}</div></div>{_side(now, frame, truth, looks)}{KEY}</div>"


def _line(cell: Cell) -> str:
    """The row a token stands in: its group within the header, else its round."""
    return cell.group if cell.round == HEADER else f"second {cell.round}"


def _row(label: str, chips: str, note: str) -> str:
    return f"<div class=row><span>{label}</span><div>{chips}</div><em>{note}</em></div>"


def _chip(cell: Cell, now: Moment, was: dict[int, str], look: float, shade: float | None) -> str:
    joined = cell.group in {SINK, WINDOW} and was.get(cell.number, cell.group) not in {SINK, WINDOW}
    marks = {"new": cell.entered == now.comment.chunk, "again": cell.number in now.again}
    if shade is None:  # else there would be more frames than shades
        marks |= {"joined": joined, "leaves": cell.number in now.leaves}
    return _token(cell, " ".join(name for name, holds in marks.items() if holds), f", {look:.1%} of the attention", shade)


def _token(cell: Cell, marks: str, more: str = "", shade: float | None = None) -> str:
    """A token as a coloured chip; what it says is escaped: a model may say anything."""
    text = html.escape(MARKS.get(cell.text, cell.text.strip()))
    where = f"position (time, row, column) {cell.position}, here since second {cell.entered}"
    title = html.escape(f"{cell.text!r}, {cell.role}, {where}{more}", quote=True)
    light = cell.group in {WINDOW, trace.PROMPT}
    color = f"background:{COLORS[cell.group]};color:{'#000' if light else '#fff'}"
    if shade is not None:
        color = f"background:{COLORS[cell.group]}{round(20 + 235 * float(shade) ** 0.5):02x}"
    return f'<b class="{marks}" style="{color}" title="{title}">{text}</b>'


def _side(now: Moment, frame: np.ndarray, truth: str, looks: np.ndarray) -> str:
    """What was seen and said, and a table of the groups: cached tokens, share of the attention."""
    comment, held = now.comment, now.held()
    lines = []
    for group in GROUPS:
        share = float(sum(look for look, cell in zip(looks, now.cells, strict=True) if cell.group == group))
        bar = f"<i style='width:{70 * share:.0f}px;background:{COLORS[group]}'></i>"
        dot = f"<i style='width:9px;background:{COLORS[group]}'></i>"
        lines.append(f"<tr title='{trace.ABOUT[group]}'><td>{dot} {group}<td>{held[group]}<td style='text-align:left'>{bar} {share:.0%}")
    said = f"<p><strong>said:</strong> {html.escape(comment.text) or '<em>nothing</em>'}<br>true: {html.escape(truth) or '<em>nothing</em>'}</p>"
    head = "<tr><th>group<th>tokens<th style='text-align:left'>attention"
    return (f"<div class=side><img alt='second {comment.chunk}' src='{_png(frame)}'>{said}<table>{head}{''.join(lines)}"
            f"<tr><td>all<td>{comment.kv_tokens}<td></table></div>")


def _png(frame: np.ndarray) -> str:
    """A frame [H, W, 3] uint8 as a data URI."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(frame).save(content, "PNG")
    return files.data_uri(content.getvalue())


class Explorer:
    """The widgets and what hangs between them. A stream is recorded when its policy and windows are first asked for, and kept."""

    def __init__(self, vlm: VLM, cfg: config.Config, row: dict, chunks: Sequence[Chunk]):
        import ipywidgets as w

        self.vlm, self.cfg, self.row, self.chunks = vlm, cfg, row, list(chunks)
        self.truth, self.films, self.moments = stream_rows.words_by_chunk(row, cfg.video.chunk_s), {}, []
        style = {"style": {"description_width": "98px"}, "layout": {"width": "290px"}}
        self.policy = w.Dropdown(options=list(policy.POLICIES), value="streaming", description="policy", **style)
        self.windows = {key: w.IntSlider(getattr(cfg.cache, key), least, most, description=key.replace("_", " "), continuous_update=False, **style)
                        for key, least, most in (("text_sink", 0, 16), ("text_window", 0, 64), ("vision_rounds", 1, 12))}
        self.chunk = w.IntSlider(0, 0, len(self.chunks) - 1, description="second", style=style["style"], layout={"width": "480px"})
        self.play = w.Play(value=0, min=0, max=len(self.chunks) - 1, interval=700)
        self.word = w.Dropdown(description="attention of", options=[("all it said", ALL)], **style)
        self.color = w.ToggleButtons(options=["role", "attention"], style={"button_width": "90px"})
        self.about, self.view = w.HTML(), w.HTML()
        w.jslink((self.play, "value"), (self.chunk, "value"))
        for widget in (self.policy, *self.windows.values()):
            widget.observe(self._record, "value")
        self.chunk.observe(self._move, "value")
        for widget in (self.word, self.color):
            widget.observe(self._draw, "value")
        self._record()
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        lines = [self.policy, self.word], self.windows.values(), [self.about], [self.play, self.chunk, w.Label("shade by"), self.color]
        self.box = w.VBox([*(w.HBox(list(line), layout=wrap) for line in lines), self.view])

    def _record(self, change=None) -> None:
        """Record what the switches ask for, unless it is there already."""
        wanted = {key: slider.value for key, slider in self.windows.items()}
        name, key = self.policy.value, (self.policy.value, *wanted.values())
        cfg = self.cfg.having("cache", **wanted)
        if key not in self.films:
            self.about.value = "watching the stream ..."
            self.films[key] = trace.trace_stream(self.vlm, name, cfg, self.row, self.chunks)
        self.moments = self.films[key]
        forced = [f"{part.replace('_', ' ')} {value}" for part, value in policy.get(name).overrides]
        self.about.value = f"<code>{name}</code>: {html.escape('; '.join((policy.get(name).about, *forced)))}"
        self._move()

    def _move(self, change=None) -> None:
        """Another second: other words to ask about."""
        spoken = self.moments[self.chunk.value].spoken
        options = [("all it said", ALL), *((f"{i + 1}: {MARKS.get(text, text.strip())}", i) for i, text in enumerate(spoken))]
        if self.word.options != tuple(options):
            self.word.unobserve(self._draw, "value")
            self.word.options, self.word.value = options, ALL
            self.word.observe(self._draw, "value")
        self._draw()

    def _draw(self, change=None) -> None:
        at = self.chunk.value
        truth = self.truth[at] if at < len(self.truth) else ""
        self.view.value = page(self.moments, at, self.chunks[at].frames[-1], truth, self.word.value, self.color.value == "attention")


def explore(vlm: VLM, cfg: config.Config, row: dict, chunks: Sequence[Chunk]):
    """The widget: how a row's cache fills, moves and forgets, chunk by chunk."""
    return Explorer(vlm, cfg, row, chunks).box
