"""Whether the answer to a notebook's exercise is right. Knows no exercise."""

from __future__ import annotations


def check(answer, right, hint: str = "") -> None:
    """Print one line: not answered yet (None), right, or not, then with the hint."""
    if answer is None:
        print("not answered yet")
    elif answer == right:
        print(f"right: {right}")
    else:
        print(f"not {answer}{': ' if hint else ''}{hint}")
