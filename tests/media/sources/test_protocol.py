"""A source stays connected whatever happens to it, each change of its state is told, and no password is."""

from __future__ import annotations

import itertools
import string
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.media.sources.protocol import Change, Picture, SourceError, redacted, watched

FAST = {"stall_s": 0.3, "patience_s": 0.5, "backoff": (0.02, 0.08)}


class Script:
    """A camera by the script: each connection is a list of numbers (pictures), seconds (a silence, as text) or an error to raise."""

    label = "script"

    def __init__(self, *connections: list, live: bool = True):
        self.live, self.connections, self.stops = live, iter(connections), []

    def connect(self, stop: threading.Event):
        self.stops.append(stop)
        for step in next(self.connections, ["60"]):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, str) and step.endswith("."):
                yield step
            elif isinstance(step, str):
                stop.wait(float(step))
            else:
                yield Picture(float(step), None, time.time())


def play(source: Script, until: int = 10_000, **no) -> tuple[list, list[Change]]:
    """-> (states and pictures in their order, the changes) until a state that ends it, or `until` items."""
    stop = threading.Event()
    items = list(itertools.islice(watched(source, stop, **{**FAST, **no}), until))
    stop.set()
    return [item.state if isinstance(item, Change) else item.pts_s for item in items], [item for item in items if isinstance(item, Change)]


def test_what_ends_ends():
    seen, changes = play(Script([0, 1, 2], live=False))
    assert seen == ["connecting", "live", 0, 1, 2, "ended"] and {c.epoch for c in changes} == {0}


def test_a_broken_connection_is_opened_anew_and_counted():
    seen, changes = play(Script([0, 1, SourceError("It closed the connection.")], [0, ValueError("odd")], [0]))
    assert seen == ["connecting", "live", 0, 1, "waiting", "connecting", "live", 0, "waiting", "connecting", "live", 0, "ended"]
    assert [c.epoch for c in changes] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [c.reason for c in changes if c.state == "waiting"] == ["It closed the connection.", "ValueError: odd"]


def test_the_first_connection_is_tried_again_too_and_the_waits_double():
    source = Script(*[[SourceError("Nothing answers.")]] * 5, [0])
    began = time.monotonic()
    seen, changes = play(source)
    waits = [b.at - a.at for a, b in itertools.pairwise(changes) if a.state == "waiting"]
    assert seen == ["connecting", "waiting"] * 5 + ["connecting", "live", 0, "ended"]
    assert all(wait >= least for wait, least in zip(waits, (0.02, 0.04, 0.08, 0.08, 0.08), strict=True)) and time.monotonic() - began < 5


def test_a_connection_that_lasted_makes_the_next_wait_short_again():
    down = [SourceError("down")]
    _, changes = play(Script(down, down, down, [0, "0.2", 1, "0.2", 2, *down], [0]), backoff=(0.1, 10.0))
    waits = [b.at - a.at for a, b in itertools.pairwise(changes) if a.state == "waiting"]
    assert waits[2] > 0.39 and waits[3] < 0.3, waits


def test_a_wrong_password_is_not_tried_again_and_again():
    refused, down = [SourceError("401", refused=True)], [SourceError("down")]
    _, changes = play(Script(refused, down, refused, refused, [0]), refused_backoff=(0.2, 0.3))
    waits = [(a.state, b.at - a.at) for a, b in itertools.pairwise(changes) if a.reason]
    assert [state for state, _ in waits] == ["refused", "waiting", "refused", "refused"]
    assert all(wait >= least for (_, wait), least in zip(waits, (0.2, 0.02, 0.3, 0.3), strict=True)), waits


def test_what_cannot_be_mended_is_not_tried_again():
    seen, changes = play(Script([0, SourceError("The file is damaged.", fatal=True)], [1]))
    assert seen[-1] == "failed" and changes[-1].reason == "The file is damaged." and 1 not in seen


def test_a_source_that_waits_for_somebody_may_wait_as_long_as_it_takes():
    seen, changes = play(Script(["Nobody is there yet.", "0.8", 0, 1]))
    assert seen == ["connecting", "waiting", "live", 0, 1, "ended"]
    assert changes[1].reason == "Nobody is there yet." and {c.epoch for c in changes} == {0}


def test_a_stall_is_told_and_the_connection_kept_if_it_goes_on():
    seen, changes = play(Script([0, "0.45", 1]))
    assert seen == ["connecting", "live", 0, "stalled", "live", 1, "ended"] and {c.epoch for c in changes} == {0}


@pytest.mark.parametrize("steps", [[], [0]], ids=["never a picture", "one picture"])
def test_a_connection_that_hangs_is_given_up_though_its_thread_still_hangs(steps):
    forever = threading.Event()

    class Hangs(Script):
        def connect(self, stop):
            yield from super().connect(stop)
            if len(self.stops) == 1:
                forever.wait(30)  # deaf to `stop`, as a call into a library is

    source = Hangs(steps, [7])
    seen, _ = play(source)
    assert seen[-4:] == ["connecting", "live", 7, "ended"] and "waiting" in seen and ("stalled" in seen) == bool(steps)
    assert source.stops[0].is_set()
    forever.set()


def test_stop_does_not_wait_for_a_connection_that_hangs():
    class Hangs(Script):
        def connect(self, stop):
            time.sleep(3)
            yield Picture(0.0, None, 0.0)

    stop, seen = threading.Event(), []
    thread = threading.Thread(target=lambda: seen.extend(watched(Hangs(), stop, **FAST)))
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    stop.set()
    thread.join(2)
    assert not thread.is_alive() and time.monotonic() - began < 1 and [c.state for c in seen] == ["connecting"]


def test_a_file_may_take_its_time():
    seen, _ = play(Script(["0.7", 0, "0.7", 1], live=False))
    assert seen == ["connecting", "live", 0, 1, "ended"]


def test_nobody_reads_far_ahead_of_whoever_takes_the_pictures():
    taken, stop = [], threading.Event()

    class Counts(Script):
        def connect(self, stop):
            for k in range(1000):
                taken.append(k)
                yield Picture(float(k), None, 0.0)

    items = watched(Counts(), stop, **FAST)
    assert [next(items) for _ in range(3)][2].pts_s == 0
    time.sleep(0.3)
    assert len(taken) < 12
    items.close()


@pytest.mark.parametrize("text", [
    "rtsp://cam:s3cret@10.0.0.1/1", "Errno 1: 'rtsp://cam:s3cret@host:554/x?y=1' failed", "rtsp://cam:p@s3cret@host/x", "rtsp://cam:a/s3cret@host/x",
    "https://u:s3cret@h/a.m3u8 and rtsp://u:s3cret@h/b", "https://h/a.m3u8?token=s3cret&x=1", "rtsp://h/user=admin&password=s3cret&channel=1",
    "rtsp://s3cret@host/x", "https://h/a.m3u8?Signature=s3cret"])
def test_no_secret_is_left(text):
    assert "s3cret" not in redacted(text) and "s3cret" not in str(SourceError(text)) + SourceError(text).reason
    assert "host" not in text or "host" in redacted(text)


@settings(max_examples=50)
@given(st.text(string.ascii_letters + string.digits + string.punctuation, min_size=8))
def test_no_password_is_left_whatever_is_in_it(password):
    assert password not in redacted(f"cannot open rtsp://cam:{password}@HOST/1").replace("cannot open rtsp://", "")


def test_what_holds_no_secret_stays():
    for text in ("rtsp://host:554/axis-media/media.amp?videocodec=h264&fps=10", "It fell silent.", "file:a@b.mp4", "monkey=1&keyframe=2"):
        assert redacted(text) == text
