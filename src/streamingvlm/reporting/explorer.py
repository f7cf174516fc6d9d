"""The cache of recorded streams to look into without a kernel: one HTML page with a slider over its seconds and a switch for the policy. No network.

    explorer.write(Path("explorer.html"), "forty seconds", {"streaming": moments, "growing": others}, frames, truth)

Knows what `streaming.trace` recorded, no model. The page itself is `explorer.html`; lesson 6 has the same with a kernel, where windows move too.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.reporting.cache_figures import COLORS
from streamingvlm.streaming.trace import ABOUT, GROUPS, Moment


def page(title: str, films: Mapping[str, Sequence[Moment]], about: Mapping[str, str], frames: Sequence[np.ndarray], truth: Sequence[str]) -> str:
    """The page as text. `films`: policy -> what was cached second by second; `about`: policy -> what it is; `frames`: of each second one [H, W, 3]
    uint8; `truth`: what was true in it.

    Raises UserError where films, frames and truth are not of equally many seconds, or of none."""
    seconds = {len(frames), len(truth), *(len(moments) for moments in films.values())}
    if len(seconds) != 1 or not frames or not films:
        raise UserError("A page of the cache wants recorded streams, with as many frames and true lines as seconds.")
    facts = {"groups": [{"name": group, "about": ABOUT[group], "color": COLORS[group]} for group in GROUPS], "truth": list(truth),
             "frames": [files.data_uri(_png(frame)) for frame in frames], "about": dict(about),
             "films": {name: [_moment(moment) for moment in moments] for name, moments in films.items()}}
    before, _, after = Path(__file__).with_suffix(".html").read_text(encoding="utf-8").partition("{facts}")
    data = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")  # a model may say </script>
    return before.replace("{title}", html.escape(title)) + data + after


def write(path: Path, title: str, films: Mapping[str, Sequence[Moment]], about: Mapping[str, str], frames: Sequence[np.ndarray],
          truth: Sequence[str]) -> None:
    """The page as a file, complete or not there."""
    files.write(path, page(title, films, about, frames, truth))


def _moment(moment: Moment) -> dict:
    """What was said, and of each cached token [text, group, position in time, its largest on any axis, second it entered, whether it leaves next,
    share of the attention in 1/1000]."""
    looks = moment.looks.mean(axis=0)  # [S]
    cells = [[cell.text, GROUPS.index(cell.group), round(cell.position[0]), round(max(cell.position)), cell.entered,
              int(cell.number in moment.leaves), round(1000 * float(look))] for cell, look in zip(moment.cells, looks, strict=True)]
    return {"said": moment.comment.text, "cells": cells}


def _png(frame: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(frame).save(content, "PNG")
    return content.getvalue()
