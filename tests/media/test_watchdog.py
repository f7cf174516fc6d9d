"""A source that stalls ends the stream with one sentence, and what was said before is on disk."""

from __future__ import annotations

import threading
import time

import pytest
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.base.errors import UserError
from streamingvlm.context import policy
from streamingvlm.media.watchdog import fail_if_silent
from streamingvlm.streaming import captions
from streamingvlm.streaming.stream import Streamer


def test_what_comes_in_time_passes_in_order():
    assert list(fail_if_silent(range(50), 5.0)) == list(range(50)) and list(fail_if_silent([], 5.0)) == []


def test_what_was_said_before_the_stall_is_kept(vlm, tmp_path):
    forever = threading.Event()

    def camera():
        yield from (chunk(0), chunk(1))
        forever.wait(60)

    s, began = Streamer(vlm, policy.get("streaming"), CACHE, VIDEO, STREAM), time.monotonic()
    with pytest.raises(UserError, match=r"No frame came for 0.5 s"):
        list(captions.write_captions(s.stream_chunks("a", fail_if_silent(camera(), 0.5)), tmp_path / "a.vtt", tmp_path / "a.jsonl"))
    assert time.monotonic() - began < 30
    forever.set()
    assert [row["chunk"] for row in captions.read(tmp_path / "a.jsonl")] == [0, 1]


def test_a_source_that_breaks_says_so_itself():
    def breaks():
        yield 1
        raise UserError("the camera is gone")

    items = fail_if_silent(breaks(), 5.0)
    assert next(items) == 1
    with pytest.raises(UserError, match="the camera is gone"):
        next(items)


def test_nothing_reads_on_once_nobody_listens():
    taken = []
    items = fail_if_silent((taken.append(k) or k for k in range(1000)), 5.0)
    assert next(items) == 0
    items.close()
    time.sleep(0.5)
    before = len(taken)
    time.sleep(0.3)
    assert len(taken) == before < 10 and not any(t.name.endswith("(read)") and t.is_alive() for t in threading.enumerate())
