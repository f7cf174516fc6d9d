"""Questions and wishes for a stream that runs: for a time that was named before (`--ask "0:07:30 what is the score?"`), or typed while it runs. Knows
neither terminal nor browser; they put lines into a queue.
"""

from __future__ import annotations

import argparse
import queue
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamingvlm.base.errors import UserError
from streamingvlm.streaming import captions

if TYPE_CHECKING:
    from streamingvlm.base.records import Answer, Comment
    from streamingvlm.streaming.stream import Streamer

FRACTION = r"(?:\.\d{1,6})?"
TIME = re.compile(rf"(?:(?:(?P<h>\d{{1,4}}):(?P<m>[0-5]\d)|(?P<minutes>\d{{1,6}})):(?P<s>[0-5]\d{FRACTION})|(?P<seconds>\d{{1,9}}{FRACTION}))"
                  r"\s+(?P<text>\S.*)", re.DOTALL)
TELL = "/tell "  # before a typed line: it is no question


@dataclass(frozen=True)
class Due:
    """What is asked, or told where it is a `wish`, when the stream has come to `at_s`."""

    at_s: float
    text: str
    wish: bool = False


def due(words: str, option: str) -> Due:
    """"TIME TEXT" as typed behind `option` -> when and what. UserError where it is not that."""
    found = TIME.fullmatch(words.strip())
    if found is None:
        example = f'{option} "0:07:30 {"only goals" if option == "--tell" else "what is the score?"}"'
        raise UserError(f"`{option} \"{words}\"` needs a time as H:MM:SS, MM:SS or seconds, then words: {example}.")
    h, m, s = (float(found[name] or 0) for name in ("h", "m", "s"))
    return Due(h * 3600 + (m + float(found["minutes"] or 0)) * 60 + s + float(found["seconds"] or 0), found["text"].strip(), option == "--tell")


def options(parser: argparse.ArgumentParser) -> None:
    """`--ask` and `--tell`, each as often as wanted, in `args.due`."""
    for option, what in (("--ask", "ask this when the video has come to TIME (H:MM:SS, MM:SS or seconds)"), ("--tell", "from TIME on, wish this")):
        parser.add_argument(option, dest="due", metavar='"TIME TEXT"', action="append", default=[], type=_due(option), help=f"{what}; several")


def _due(option: str) -> Callable[[str], Due]:
    return lambda words: due(words, option)


@dataclass
class Asker:
    """Asks and tells one stream, between two chunks. `show` is given each answer at once; `answers` are those that nobody has taken up yet."""

    streamer: Streamer
    name: str
    show: Callable[[Answer], None]
    typed: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    answers: list[Answer] = field(default_factory=list)

    def put(self, text: str, wish: bool) -> None:
        if wish:
            self.streamer.tell(text)
            print(f"{captions.timestamp(self.streamer.now_s)}  told: {text}", file=sys.stderr)
        else:
            answer = self.streamer.ask(text, name=self.name)
            self.answers.append(answer)
            self.show(answer)

    def wait(self, seconds: float) -> None:
        """Sleep so long, or until a line was typed and answered: a clock that sleeps like this is asked at any moment."""
        try:
            line = self.typed.get(timeout=seconds)
        except queue.Empty:
            return
        text = line.strip()
        if text:
            wish = text.startswith(TELL)
            self.put(text.removeprefix(TELL), wish)

    def taken(self) -> list[Answer]:
        """The answers since this was called last."""
        taken, self.answers = self.answers, []
        return taken

    def beside(self, comments: Iterable[Comment], planned: Iterable[Due]) -> Iterator[Comment | Answer]:
        """What is said, and in between what was answered, planned or typed. What comes too late for this stream is asked at its end."""
        waiting = sorted(planned, key=lambda one: (one.at_s, not one.wish))
        yield from self._reached(waiting, 0.0)
        for comment in comments:
            yield from self.taken()  # typed before this was said
            yield comment
            for _ in range(self.typed.qsize()):  # a model that is late never waits, and is asked all the same
                self.wait(0)
            yield from self._reached(waiting, comment.end_s)
        late, now_s = waiting[:], self.streamer.now_s
        for one in late:
            done = "too late to be told" if one.wish else "asked now"
            print(f"The video ends at {captions.timestamp(now_s)}; `{one.text}`, of {captions.timestamp(one.at_s)}, is {done}.", file=sys.stderr)
        yield from self._reached([one for one in late if not one.wish], float("inf"))

    def _reached(self, waiting: list[Due], now_s: float) -> list[Answer]:
        """Ask and tell what was planned up to now, and take it off the list -> all answers since."""
        while waiting and waiting[0].at_s <= now_s + 1e-6:
            one = waiting.pop(0)
            self.put(one.text, one.wish)
        return self.taken()
