"""What a 1080p picture costs between its decoder and the scheduler, step by step, by the functions that the service calls. Measures; changes nothing.

Beside it what the article does: 720p in RGB and normalised colours for all of it, where ours keeps the camera's planes at 720p and turns into RGB
only what is looked at, the model's size (`sum` against `article`). Letters: H W pixels, C channels.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import av
import numpy as np

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.media.buffer import JitterBuffer
from streamingvlm.serving.intake import picture as pictures
from streamingvlm.serving.slots import SHAPE

CAMERA_PX, INFERENCE_PX = (1920, 1080), (1280, 720)
MEAN, DEVIATION = np.array([0.481, 0.458, 0.408], np.float32), np.array([0.269, 0.261, 0.276], np.float32)  # CLIP's, as Qwen2.5-VL has them


def ingest(rounds: int = 24) -> dict[str, float]:
    """Median ms of this thread's own time for a 1080p picture. The service's: `resize` to 720p, `model`: its size and colours, `stamp` and buffer,
    their `sum`. For comparison: `rgb` at 720p and `normalise` there, with the stamp `article`; `direct`: the model's size without 720p in between."""
    shades = np.linspace(0, 255, CAMERA_PX[1]).astype(np.uint8)[:, None, None]
    picture = np.ascontiguousarray(np.broadcast_to(shades, (CAMERA_PX[1], CAMERA_PX[0], 3)))  # [H, W, C]
    frame = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")
    bounded = pictures.bounded(frame, INFERENCE_PX[1])
    small, whole = pictures.fitted(bounded, *SHAPE[:2]), pictures.fitted(frame, *INFERENCE_PX[::-1])
    buffer, numbers, scale = JitterBuffer(0.1), itertools.count(), np.tile(1 / (255 * DEVIATION), INFERENCE_PX[0])
    shift, room = np.tile(-MEAN / DEVIATION, INFERENCE_PX[0]), np.empty((INFERENCE_PX[1], 3 * INFERENCE_PX[0]), np.float32)  # [H, W * C]

    def normalise() -> None:
        np.multiply(whole.reshape(INFERENCE_PX[1], -1), scale, out=room, dtype=np.float32)
        np.add(room, shift, out=room)

    def stamp() -> None:
        pts_s = next(numbers) / 30
        buffer.push(Frame(Stamp("timed", 0, 0, pts_s, pts_s, "sender", pts_s, 30.0), small), 0, pts_s, pts_s)
        buffer.pop(pts_s)

    steps = {"resize": lambda: pictures.bounded(frame, INFERENCE_PX[1]), "model": lambda: pictures.fitted(bounded, *SHAPE[:2]), "stamp": stamp,
             "rgb": lambda: pictures.fitted(frame, *INFERENCE_PX[::-1]), "normalise": normalise, "direct": lambda: pictures.fitted(frame, *SHAPE[:2])}
    ms = {name: _median_ms(step, rounds) for name, step in steps.items()}
    return ms | {"sum": round(ms["resize"] + ms["model"] + ms["stamp"], 3), "article": round(ms["rgb"] + ms["normalise"] + ms["stamp"], 3)}


def _median_ms(step: Callable[[], object], rounds: int) -> float:
    step()
    spent = []
    for _ in range(rounds):
        begun = time.thread_time()
        step()
        spent.append((time.thread_time() - begun) * 1e3)
    return round(float(np.median(spent)), 3)
