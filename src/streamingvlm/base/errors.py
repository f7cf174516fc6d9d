"""The one error that people see: what they can mend, in a sentence."""

from __future__ import annotations


class UserError(Exception):
    """What the person at the keyboard can mend. The message is one sentence that says what to do; callers print it and exit with 2."""
