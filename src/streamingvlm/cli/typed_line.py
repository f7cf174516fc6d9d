"""A line typed into a terminal that something else draws on: read key by key, without echo. Knows neither stream nor view.

    with TypedLine(sys.stdin.fileno(), lines.put) as typing:
        typing.text          # what has been typed of the present line
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import threading
from collections.abc import Callable

LOOK_S = 0.2  # how long the end is waited for at most
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.|.)?")  # arrows and the like: nothing to type


class TypedLine:
    """Hands over each line that is typed into the terminal `source`, until the end of the `with`; the terminal is then as it was. Does nothing where
    there is no terminal, or no terminal of this kind. Ctrl-C still ends the command; Ctrl-U empties the line."""

    def __init__(self, source: int, hand_over: Callable[[str], None]):
        self.source, self.hand_over, self.text = source, hand_over, ""
        self._before: list | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> TypedLine:
        with contextlib.suppress(ImportError):  # Windows has none of this
            import termios
            import tty

            if os.isatty(self.source):
                self._before = termios.tcgetattr(self.source)
                tty.setcbreak(self.source)
                self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        if self._before is not None:
            import termios

            self._ended.set()
            self._thread.join()
            termios.tcsetattr(self.source, termios.TCSADRAIN, self._before)

    @property
    def active(self) -> bool:
        return self._before is not None

    def _read(self) -> None:
        letters = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        while not self._ended.is_set():
            if not select.select([self.source], [], [], LOOK_S)[0]:
                continue
            try:
                got = os.read(self.source, 1024)
            except OSError:  # the terminal was closed
                return
            if not got:
                return
            for letter in ESCAPE.sub("", letters.decode(got)):
                self.press(letter)

    def press(self, letter: str) -> None:
        """One key."""
        if letter in "\r\n":
            line, self.text = self.text, ""
            self.hand_over(line)
        elif letter in "\x7f\b":
            self.text = self.text[:-1]
        elif letter == "\x15":
            self.text = ""
        elif letter.isprintable():
            self.text += letter
