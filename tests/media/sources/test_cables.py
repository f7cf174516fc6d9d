"""All cables out, each camera rebooted in turn, off for a while: all come back, nobody waits for another, and the pictures add up."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

import numpy as np
from cables import Cable, WebRTCCable
from publisher import Publisher

from streamingvlm.media.sources.pattern import draw, number
from streamingvlm.media.sources.protocol import Change, Picture, watched
from streamingvlm.media.sources.rtp import Encoded
from streamingvlm.media.sources.rtsp import Rtsp
from streamingvlm.media.sources.rtsp_server import running
from streamingvlm.media.sources.webrtc import WebRTCSource

PATIENCE_S = 30.0
QUICK = {"stall_s": 0.5, "patience_s": 1.0, "backoff": (0.05, 0.2)}


class Camera:
    """An RTSP camera behind a cable, and what `watched` made of it so far."""

    def __init__(self, resources: contextlib.ExitStack, **how):
        self.power = contextlib.ExitStack()
        self.cable = resources.enter_context(Cable(self._on()))
        resources.callback(self.power.close)
        self.watch = resources.enter_context(Watch(Rtsp(f"rtsp://127.0.0.1:{self.cable.port}/card"), **how))

    def _on(self) -> int:
        cards = (draw(index, 96, 64) for index in itertools.count())
        return int(self.power.enter_context(running({"card": Encoded(cards, 20.0, key_s=0.5)})).rpartition(":")[2])

    def off(self) -> None:
        self.cable.state = "cut"
        self.power.close()

    def on(self) -> None:
        self.cable.target, self.cable.state = self._on(), "plugged"


class Watch:
    def __init__(self, source, **how):
        self.items, self.stop = [], threading.Event()
        self.thread = threading.Thread(target=lambda: self.items.extend(watched(source, self.stop, **(QUICK | how))))

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    @property
    def changes(self) -> list[Change]:
        return [item for item in self.items if isinstance(item, Change)]

    def live(self, since: int = 0) -> bool:
        """Some pictures came behind item `since`, and the last change says so."""
        return bool(self.changes) and self.changes[-1].state == "live" and sum(isinstance(item, Picture) for item in self.items[since:]) > 3

    def epochs(self) -> list[list[Picture]]:
        """The pictures of each connection that had any."""
        found, epoch = {}, 0
        for item in list(self.items):
            if isinstance(item, Change):
                epoch = item.epoch
            else:
                found.setdefault(epoch, []).append(item)
        return list(found.values())


def until(*true) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(each() for each in true):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def add_up(pictures: list[Picture]) -> None:
    """Of one connection over TCP: every picture that was sent since its first, each once and in order."""
    numbers = [number(picture.image.to_ndarray(format="rgb24")) for picture in pictures]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert (np.diff([picture.pts_s for picture in pictures]) > 0).all()


def test_cameras_come_back_from_everything_and_lose_nothing_in_between():
    with contextlib.ExitStack() as resources:
        cameras = [Camera(resources) for _ in range(3)]
        watches = [camera.watch for camera in cameras]
        until(*(watch.live for watch in watches))

        for camera in cameras:  # all cables out, for longer than a connection is kept
            camera.cable.state = "pulled"
        until(*(lambda w=watch: w.changes[-1].epoch > 0 for watch in watches))
        assert all("stalled" in [change.state for change in watch.changes] for watch in watches)
        marks = [len(watch.items) for watch in watches]
        for camera in cameras:
            camera.cable.state = "plugged"
        until(*(lambda w=watch, m=mark: w.live(m) for watch, mark in zip(watches, marks, strict=True)))

        for camera in cameras:  # each rebooted in turn: the others do not notice
            others = [(watch, len(watch.items)) for watch in watches if watch is not camera.watch]
            mark = len(camera.watch.items)
            camera.off()
            until(*(lambda w=watch, m=m: w.live(m) for watch, m in others))
            camera.on()
            until(lambda c=camera, m=mark: c.watch.changes[-1].epoch > 1 and c.watch.live(m))
            assert not [item for watch, m in others for item in watch.items[m:] if isinstance(item, Change)]
    for watch in watches:
        assert len(watch.epochs()) >= 3
        for pictures in watch.epochs():
            add_up(pictures)
        assert sum(map(len, watch.epochs())) == sum(isinstance(item, Picture) for item in watch.items)


def test_a_late_and_uneven_network_loses_no_picture_over_tcp():
    with contextlib.ExitStack() as resources:
        camera = Camera(resources, patience_s=10.0)
        camera.cable.delay_s, camera.cable.jitter_s = 0.08, 0.06
        until(lambda: camera.watch.live() and len(camera.watch.epochs()[-1]) > 20)
    (pictures,) = camera.watch.epochs()
    add_up(pictures)
    late_s = sorted(picture.received_at - picture.captured_at for picture in pictures if picture.captured_at)
    assert late_s[len(late_s) // 2] > 0.05


def test_a_publisher_comes_back_when_its_cable_is_plugged_in_again():
    source = WebRTCSource(stall_s=0.8)
    with WebRTCCable(source) as cable, Watch(source) as watch, Publisher(cable) as publisher:
        until(watch.live)
        cable.delay_s, cable.jitter_s, cable.loss = 0.03, 0.02, 0.02
        mark = len(watch.items)
        until(lambda: watch.live(mark) and len(watch.items) > mark + 20)
        cable.state = "pulled"
        until(lambda: watch.changes[-1].epoch > 0)
        cable.state, cable.loss = "plugged", 0.0
        until(watch.live)
        publisher.run(publisher.connection.close())
        source.close()
    assert cable.lost and len(watch.epochs()) == 2
    for pictures in watch.epochs():
        assert (np.diff([picture.pts_s for picture in pictures]) > 0).all()
