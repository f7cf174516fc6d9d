"""One camera being read: what the model, people and alarms get of its pictures is of the size that the camera's settings say."""

from __future__ import annotations

import threading
import time

import av
import pytest

from streamingvlm.media.sources.protocol import Picture
from streamingvlm.serving.cameras import parse_camera
from streamingvlm.serving.intake import picture as pictures
from streamingvlm.serving.intake.reading import STILL_PX, Reading


class Large:
    """A live source with one picture of 1080p."""

    live, label = True, "large:"

    def connect(self, stop):
        yield Picture(0.0, av.VideoFrame(1920, 1080, "yuv420p"), time.time())
        stop.wait()


@pytest.mark.parametrize(("told", "kept"), [({}, (1280, 720)), ({"inference_px": 360}, (640, 360))])
def test_model_preview_and_alarm_are_made_of_the_picture_at_720p_or_as_told(told, kept, monkeypatch):
    looked, fitted = [], pictures.fitted

    def noted(image, height_px, width_px):
        looked.append(((image.width, image.height), (width_px, height_px)))
        return fitted(image, height_px, width_px)

    monkeypatch.setattr(pictures, "fitted", noted)
    shown = threading.Event()
    camera = parse_camera({"name": "gate", "url": "large:", "delay_s": 0, "privacy": {"hide": "nothing"}} | told)
    reading = Reading(camera, 0, 0, (96, 96, 3), lambda kind, *_: kind == "picture" and shown.set(), lambda: None, lambda count: None,
                      lambda job: job(), {"large": lambda address: Large()})
    assert shown.wait(20)
    assert reading.still(0)
    reading.end()
    ((frame, _),) = reading.due(time.monotonic())
    assert frame.pixels.shape == (96, 96, 3)
    assert looked == [(kept, (96, 96)), (kept, (480, 270)), (kept, (min(kept[0], STILL_PX), min(kept[1], 720)))]
