"""What a 1080p picture costs between its decoder and the scheduler, step by step: size, colours, stamp, jitter buffer. Measures; changes nothing.

The article scales to 720p and normalises colours before its model; our service fits pictures to the model's own size in one step (`model`).
Letters: H W pixels, C channels.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.media.buffer import JitterBuffer
from streamingvlm.serving.slots import SHAPE

CAMERA_PX, INFERENCE_PX = (1920, 1080), (1280, 720)
MEAN, DEVIATION = np.array([0.481, 0.458, 0.408], np.float32), np.array([0.269, 0.261, 0.276], np.float32)  # CLIP's, as Qwen2.5-VL has them


def ingest(rounds: int = 24) -> dict[str, float]:
    """Median ms of this thread's own time for a picture: `resize` to 720p RGB, `normalise`, `stamp` and buffer, their `sum`; `model`: to its size."""
    shades = np.linspace(0, 255, CAMERA_PX[1]).astype(np.uint8)[:, None, None]
    picture = np.ascontiguousarray(np.broadcast_to(shades, (CAMERA_PX[1], CAMERA_PX[0], 3)))  # [H, W, C]
    frame = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")
    keep, buffer, numbers, scale = VideoReformatter(), JitterBuffer(0.1), itertools.count(), np.tile(1 / (255 * DEVIATION), INFERENCE_PX[0])
    shift, room = np.tile(-MEAN / DEVIATION, INFERENCE_PX[0]), np.empty((INFERENCE_PX[1], 3 * INFERENCE_PX[0]), np.float32)  # [H, W * C]

    def fitted(width_px: int, height_px: int) -> np.ndarray:
        return keep.reformat(frame, width_px, height_px, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()  # [H, W, C]

    small = fitted(*INFERENCE_PX)

    def normalise() -> None:
        np.multiply(small.reshape(INFERENCE_PX[1], -1), scale, out=room, dtype=np.float32)
        np.add(room, shift, out=room)

    def stamp() -> None:
        pts_s = next(numbers) / 30
        buffer.push(Frame(Stamp("timed", 0, 0, pts_s, pts_s, "sender", pts_s, 30.0), small), 0, pts_s, pts_s)
        buffer.pop(pts_s)

    steps = {"resize": lambda: fitted(*INFERENCE_PX), "normalise": normalise, "stamp": stamp, "model": lambda: fitted(SHAPE[1], SHAPE[0])}
    ms = {name: _median_ms(step, rounds) for name, step in steps.items()}
    return ms | {"sum": round(ms["resize"] + ms["normalise"] + ms["stamp"], 3)}


def _median_ms(step: Callable[[], object], rounds: int) -> float:
    step()
    spent = []
    for _ in range(rounds):
        begun = time.thread_time()
        step()
        spent.append((time.thread_time() - begun) * 1e3)
    return round(float(np.median(spent)), 3)
