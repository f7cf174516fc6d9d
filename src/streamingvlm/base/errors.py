"""The one error that people see: what they can mend, in a sentence."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable


class UserError(Exception):
    """What the person at the keyboard can mend. The message is one sentence that says what to do; callers print it and exit with 2."""


def exit_status(main: Callable[..., int | None]) -> Callable[..., int]:
    """For the `main` of a module that is run: it returns what to exit with, and a `UserError` is printed as its sentence, for 2."""
    @functools.wraps(main)
    def told(*arguments) -> int:
        try:
            return main(*arguments) or 0
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
    return told
