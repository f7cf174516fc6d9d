"""One HTML page that plays a video with what was said on time: captions, and a transcript beside it to read and to seek by. No network.

    player.write(Path("match.html"), "a match", Path("match.mp4"), [comment.line() for comment in comments], truth)

Knows comments as rows of the contract (start_s, end_s, text; kv_tokens and ms, if there), no model. The page itself is `player.html`.
"""

from __future__ import annotations

import html
import mimetypes
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.streaming import captions

EMBED_BYTES = 8_000_000  # a larger video is linked to, not held in the page


def page(title: str, video: Path, comments: Sequence[dict], truth: Sequence[str] | None = None, right: Sequence[bool] | None = None,
         folder: Path = Path()) -> str:
    """The page as text. `truth`: what was true in each comment's chunk; `right`: whether what was said means that, to mark where not.
    `folder`: where the page will lie, for the link to a large video.

    Raises UserError if there is no video, no comment, or not as many lines of `truth` and `right`."""
    if not comments:
        raise UserError(f"There is no comment on {video.name} to show; stream it first.")
    for beside in (truth, right):
        if beside is not None and len(beside) != len(comments):
            raise UserError(f"{len(comments)} comments cannot stand beside {len(beside)} true lines; give one for each.")
    note = f"{sum(right)} of {len(right)} chunks mean what was true{'' if all(right) else ', ≠ marks the others'}. " if right is not None else ""
    head = "<span>said</span>" + ("<span>true</span>" if truth is not None else "")
    vtt = "WEBVTT\n\n" + "".join(captions.cue(SimpleNamespace(**row)) for row in comments)
    parts = {"title": html.escape(title), "video": _source(video, folder), "captions": files.data_uri(vtt.encode(), "text/vtt"),
             "charts": _charts(comments), "note": note, "head": head, "columns": "minmax(0, 1fr)" if truth is not None else "",
             "lines": "\n".join(map(_line, comments, truth or [None] * len(comments), right or [True] * len(comments)))}
    before, *rest = Path(__file__).with_suffix(".html").read_text(encoding="utf-8").split("{")
    for chunk in rest:  # one pass, so that nothing in a title or a comment can name a part
        name, close, after = chunk.partition("}")
        before += parts[name] + after if close and name in parts else "{" + chunk
    return before


def write(path: Path, title: str, video: Path, comments: Sequence[dict], truth: Sequence[str] | None = None,
          right: Sequence[bool] | None = None) -> None:
    """The page as a file, complete or not there."""
    files.write(path, page(title, video, comments, truth, right, path.parent))


def show(path: Path, kept: bool = True, height_px: int = 640) -> None:
    """Display a written page in a notebook. `kept`: the page itself; otherwise, as it may have megabytes, an executed notebook only links to it."""
    from IPython.display import HTML, Markdown, display

    if kept:
        frame = f'<iframe srcdoc="{html.escape(path.read_text(encoding="utf-8"))}" width="100%" height="{height_px}" style="border: 0"></iframe>'
        display(HTML(f"<div>{frame}</div>"))
    else:
        display(Markdown(f"[{path.stem}](../{path.parent.name}/{path.name})"))


def _source(video: Path, folder: Path) -> str:
    """The video itself as a data URI, or a link from `folder` if it is large."""
    try:
        if video.stat().st_size <= EMBED_BYTES:
            return files.data_uri(video.read_bytes(), mimetypes.guess_type(video.name)[0] or "video/mp4")
    except OSError as error:
        raise UserError(f"{video} cannot be read ({error.strerror}); name a video that is there.") from error
    return quote(os.fsencode(Path(os.path.relpath(video, folder)).as_posix()))  # bytes: a name need not be UTF-8


def _line(row: dict, true: str | None, right: bool) -> str:
    """A line of the transcript: a button that goes to its second."""
    minutes, seconds = divmod(row["start_s"], 60)
    said = html.escape(row["text"]) or "…"
    beside = "" if true is None else f'<span class="true{"" if right else " off"}">{html.escape(true) or "…"}{"" if right else " ≠"}</span>'
    clock = f"<time>{int(minutes)}:{int(seconds):02d}</time>"
    button = f'<button type="button" data-start="{row["start_s"]}">{clock}<span class="said">{said}</span>{beside}</button>'
    return f"<li>{button}</li>"


def _charts(comments: Sequence[dict]) -> str:
    """A small chart each of cached tokens and milliseconds, where every comment has them. The page fills in the current second's reading."""
    known = {"cached tokens": [row.get("kv_tokens") for row in comments], "ms per chunk": [(row.get("ms") or {}).get("total") for row in comments]}
    return "\n".join(_chart(label, values) for label, values in known.items() if None not in values)


def _chart(label: str, values: Sequence[float]) -> str:
    most = max(values) or 1
    points = " ".join(f"{'L' if i else 'M'}{i + 0.5:g} {40 - 36 * value / most:.1f}" for i, value in enumerate(values))
    reading = f'<output data-values="{" ".join(f"{value:.0f}" for value in values)}"></output>'
    return (f'<figure><figcaption><span>{label}: {reading}</span><span>at most {most:.0f}</span></figcaption>'
            f'<svg viewBox="0 0 {len(values)} 40" preserveAspectRatio="none" role="img" aria-label="{label} per second, at most {most:.0f}">'
            f'<path d="{points}"/><line y1="0" y2="40"/></svg></figure>')
