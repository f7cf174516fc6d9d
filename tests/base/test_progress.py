"""The live view: whatever shows it, the items pass through unchanged, and an error in them is not swallowed."""

from __future__ import annotations

import pytest

from streamingvlm.base import progress


@pytest.mark.parametrize("view", [progress._terminal, progress._widgets, lambda *args: progress._lines(*args, every_s=0.0)])
def test_items_pass_through(view, capsys):
    assert list(view(iter(range(5)), 5, "counting", str)) == list(range(5))
    assert list(view(iter("ab"), None, "unknown length", str)) == ["a", "b"]

    def breaks():
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(view(breaks(), 2, "breaking", str))


def test_lines_say_how_long_it_will_take(capsys):
    list(progress._lines(iter(range(3)), 3, "training", lambda i: f"loss {i}", every_s=0.0))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "training 3/3, 0 s left" in lines[-1] and "loss 2" in lines[-1]
