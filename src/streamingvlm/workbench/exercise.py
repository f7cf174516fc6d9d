"""Tells a student whether an answer is right: one line, never the answer itself and never a traceback. Knows no notebook and nothing of streaming.

    answer_1 = None
    check(answer_1, lambda: len(ids), "count the newline too")     # not answered yet

`right` is a value, or a function that computes it from the run at hand and is not called before there is an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set

KINDS = {bool: "True or False", (int, float): "a number", str: "text in quotes", Mapping: "a dict", Set: "a set", Sequence: "a list"}
NOISE = 1e-9  # what adding up in another order may change


def check(answer: object, right: object | Callable[[], object], hint: str = "", within: float | None = None) -> None:
    """Print `not answered yet` (answer None), `right`, or `not yet` with the hint.

    A number may be off by the share `within`; without one, whole numbers must be equal and others are right to 1 %. In text, case and spaces do not
    count; in a set, order does not. Arrays and tensors count as lists."""
    if answer is None:
        print("not answered yet")
        return
    answer, right = _plain(answer), _plain(right() if callable(right) else right)
    wanted, got = _kind(right), _kind(answer)
    if got != wanted and not (wanted == "a set" and got == "a list"):
        print(f"not yet: this asks for {wanted}, not {got}")
    else:
        print("right" if _same(answer, right, within) else f"not yet: {hint}" if hint else "not yet")


def _plain(value: object) -> object:
    """Scalars, arrays and tensors of numpy, pandas and torch as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value


def _kind(value: object) -> str:
    return next((name for kinds, name in KINDS.items() if isinstance(value, kinds)), f"a value of type {type(value).__name__}")


def _same(answer: object, right: object, within: float | None) -> bool:
    answer, right = _plain(answer), _plain(right)
    kinds = {_kind(answer), _kind(right)}
    if kinds == {"a number"}:
        off = within if within is not None else 0 if isinstance(right, int) else 0.01
        low, high = sorted((right * (1 - off), right * (1 + off)))
        return low - NOISE <= answer <= high + NOISE
    if kinds == {"text in quotes"}:
        return answer.casefold().split() == right.casefold().split()
    if kinds == {"a dict"}:
        return answer.keys() == right.keys() and all(_same(answer[key], right[key], within) for key in right)
    if kinds == {"a list"}:
        return len(answer) == len(right) and all(_same(a, r, within) for a, r in zip(answer, right, strict=True))
    if isinstance(right, Set) and isinstance(answer, Collection):
        return _covers(answer, right, within) and _covers(right, answer, within)
    return kinds == {"True or False"} and answer == right


def _covers(some: Collection, others: Collection, within: float | None) -> bool:
    return all(any(_same(a, b, within) for a in some) for b in others)
