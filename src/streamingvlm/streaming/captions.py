"""Where comments and answers go: WebVTT and JSON lines, complete or not at all. Knows files, no model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from streamingvlm.base import files
from streamingvlm.base.errors import UserError

if TYPE_CHECKING:
    from streamingvlm.base.records import Answer, Comment

Said = TypeVar("Said", "Comment", "Comment | Answer")


def timestamp(seconds: float) -> str:
    """Seconds -> hh:mm:ss.mmm."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def cue(comment: Comment) -> str:
    """One WebVTT cue; nothing for a silent chunk."""
    return f"{timestamp(comment.start_s)} --> {timestamp(comment.end_s)}\n{_line(comment.text)}\n\n" if comment.text else ""


def note(answer: Answer) -> str:
    """One WebVTT note: players show nothing of it."""
    return f"NOTE {timestamp(answer.at_s)} {_line(answer.question)}\n{_line(answer.text)}\n\n"


def _line(text: str) -> str:
    """As one line of WebVTT: a line break could end the cue, an arrow begin one."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def names(out: Path) -> tuple[Path, Path]:
    """The WebVTT and the JSONL file that `out` stands for, with or without one of their suffixes. They always differ."""
    if os.path.isdir(out):  # Path.is_dir raises where the name is too long
        raise UserError(f"{out} is a folder; name a file in it with --out.")
    stem = out.stem if out.suffix in {".vtt", ".jsonl"} else out.name
    return out.with_name(f"{stem}.vtt"), out.with_name(f"{stem}.jsonl")


def check_writable(path: Path, option: str = "--out") -> None:
    """UserError, which names the option, unless `path` could be written; nothing is left behind."""
    try:
        place = files.target(path)
        probe = place.with_name(f".{place.name}.{os.getpid()}")
        probe.touch()
        probe.unlink()
        if os.path.lexists(path) and not os.path.exists(path) and place.is_symlink():
            os.stat(path)  # raises what is wrong with a circle of links
        if path.is_dir():
            raise IsADirectoryError
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or 'it is a folder'}); name another place with {option}.") from None


def write_captions(comments: Iterable[Said], vtt: Path, jsonl: Path, timed: bool = True) -> Iterator[Said]:
    """Pass comments and answers through, writing both files as they come. They appear under their names when the stream ends, also when it ends
    early: what was said so far is kept, a file that was begun before the first comment is not. A link is written through."""
    from streamingvlm.base.records import Answer  # not above: the command checks what was typed before any package is needed

    places = [files.target(path) for path in (vtt, jsonl)]
    parts = [place.with_name(place.name + ".part") for place in places]
    said = 0
    try:
        with parts[0].open("w", encoding="utf-8") as captions, parts[1].open("w", encoding="utf-8") as lines:
            captions.write("WEBVTT\n\n")
            for comment in comments:
                caption, line = note(comment) if isinstance(comment, Answer) else cue(comment), json.dumps(comment.line(timed)) + "\n"
                captions.write(caption)
                lines.write(line)  # at once, so that an interruption hardly ever falls between the two
                said += 1
                yield comment
    except OSError as error:
        said = 0
        raise UserError(f"Writing {vtt.name} failed ({error.strerror}); free some room or name another place with --out.") from error
    finally:
        for part, place in zip(parts, places, strict=True):
            if said:
                os.replace(part, place)
            else:
                part.unlink(missing_ok=True)


def read(path: Path) -> list[dict]:
    """JSON lines -> rows."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
