"""Sources without a network: the test pattern, a file, and the addresses of all kinds."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
import video_files
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources import kinds, pattern
from streamingvlm.media.sources.file import File
from streamingvlm.media.sources.pattern import Pattern
from streamingvlm.media.sources.protocol import SourceError, redacted
from streamingvlm.media.sources.rtsp import Rtsp

RUNS = threading.Event()  # never set


@settings(max_examples=25)
@given(st.integers(0, 65535), st.integers(16, 200).map(lambda k: 2 * k), st.integers(8, 120).map(lambda k: 2 * k))
def test_the_pattern_shows_its_number(index, width, height):
    assert pattern.number(pattern.draw(index, width, height)) == index


def test_the_pattern_comes_when_it_is_due():
    began = time.time()
    pictures = list(Pattern(64, 48, 50.0, count=20).connect(RUNS))
    assert [pattern.number(p.image) for p in pictures] == list(range(20))
    assert [p.pts_s for p in pictures] == [k / 50 for k in range(20)]
    assert all(p.captured_at - pictures[0].captured_at == pytest.approx(p.pts_s) and p.received_at >= p.captured_at - 0.01 for p in pictures)
    assert 0.35 < time.time() - began < 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """12 frames, 20 a second, with B frames: stored in another order than shown."""
    return video_files.make(tmp_path_factory.mktemp("clips") / "a.mp4", 12, 20)


def shown(pictures) -> list[int]:
    return [video_files.number(p.image.to_ndarray(format="rgb24")) for p in pictures]


def test_a_file_is_paced_by_its_own_timestamps(clip):
    pictures = list(File(clip).connect(RUNS))
    assert shown(pictures) == list(range(12)) and [p.pts_s for p in pictures] == pytest.approx([k / 20 for k in range(12)])
    late = np.array([p.received_at - pictures[0].received_at - p.pts_s for p in pictures])
    assert (late > -0.04).all() and late.max() < 2 and {p.captured_at for p in pictures} == {None}


def test_a_file_that_is_repeated_has_timestamps_that_go_on_rising(clip):
    pictures = list(itertools.islice(File(clip, loop=True, paced=False).connect(RUNS), 30))
    assert shown(pictures) == [k % 12 for k in range(30)]
    assert np.diff([p.pts_s for p in pictures]) == pytest.approx(1 / 20)


def test_a_file_waits_for_whoever_takes_its_pictures_and_leaves_none_out(clip):
    pictures = []
    for picture in File(clip).connect(RUNS):
        pictures.append(picture)
        time.sleep(0.06)
    assert shown(pictures) == list(range(12))


def test_a_turned_file_is_shown_upright(clip, tmp_path):
    turned = video_files.rotate(video_files.make(tmp_path / "b.mp4", 2, 20), 90)
    assert next(iter(File(turned).connect(RUNS))).image.shape == (64, 48, 3)


def test_stop_ends_a_file_in_the_middle_of_a_wait(tmp_path):
    slow, stop = video_files.make(tmp_path / "slow.mp4", 3, 20, ticks=[0, 60_000, 120_000]), threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    assert len(list(File(slow).connect(stop))) == 1 and time.monotonic() - began < 5


def test_a_file_that_is_none_says_so_once_and_for_all(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(SourceError, match=name) as caught:
            list(File(tmp_path / name).connect(RUNS))
        assert caught.value.fatal


@pytest.mark.parametrize(("address", "kind", "label"), [
    ("rtsp://cam:pw@host:554/1?x=y", "Rtsp", "rtsp://***@host:554/1?x=y"), ("RTSPS://host/1", "Rtsp", "RTSPS://host/1"),
    ("https://u:pw@host/live/a.m3u8?token=abc", "Hls", "https://***@host/live/a.m3u8?token=***"), ("clips/12.mp4", "File", "clips/12.mp4"),
    ("file:a.mp4?loop=1", "File", "a.mp4"), ("file:///tmp/a.mp4", "File", "/tmp/a.mp4"), ("pattern:640x360@12.5", "Pattern", "pattern:640x360@12.5"),
    ("pattern:64x48", "Pattern", "pattern:64x48@30")])
def test_an_address_names_its_source(address, kind, label):
    source = kinds.source(address)
    assert type(source).__name__ == kind and source.label == label and source.live == (kind != "File")


def test_options_reach_the_source():
    assert kinds.source("rtsp://h/1", transport="udp").transport == "udp" and isinstance(kinds.source("rtsp://h/1"), Rtsp)
    file = kinds.source("file:x.mp4?loop=1&pace=0")
    assert file.loop and not file.paced and not kinds.source("file:x.mp4").loop
    assert kinds.source("city:3", more={"city": lambda address: address}) == "city:3"


@pytest.mark.parametrize("address", [
    "", "ftp://host/x", "rtsp://", "rtsp://host:port/1", "rtsp:///1", "https://host/page.html", "pattern:", "pattern:8x8", "pattern:640x360@0",
    "file:", "file:a.mp4?speed=2", "city:3", "rtsp://cam:secr3t@host:99999/x"])
def test_an_address_that_names_nothing_is_refused_in_a_sentence(address):
    with pytest.raises(UserError) as caught:
        kinds.source(address)
    assert str(caught.value).endswith(".") and "secr3t" not in str(caught.value)


def test_a_transport_that_is_none_is_refused():
    with pytest.raises(UserError, match="tcp or udp"):
        kinds.source("rtsp://h/1", transport="carrier pigeon")


def test_labels_of_all_kinds_hold_no_password():
    assert "pw" not in kinds.source("rtsp://cam:pw@host/1").label + kinds.source("http://cam:pw@host/1.m3u8").label + redacted("rtsp://cam:pw@h")
