"""A camera that is pushed to, frame by frame, by whoever has it: `push:` as its address, frames by gRPC. Knows no network.

    camera = Pushed("push:"); camera.push(Picture(...))        # in `connect`'s process
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterator

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.protocol import Picture

ROOM = 16  # frames that wait to be read: a sender that is faster is told so
LOOK_S = 0.1
LARGEST_PX = 64 << 20  # width times height


class Full(UserError):
    """The frame was not taken: there is no room for it yet."""


class Pushed:
    """A `media.sources.protocol.Source`. Silence is no fault: it goes on when its sender does."""

    live = False

    def __init__(self, address: str):
        self.label = address
        self.waiting: queue.Queue[Picture] = queue.Queue(ROOM)

    def push(self, picture: Picture) -> None:
        """`Full` while ROOM frames wait."""
        try:
            self.waiting.put_nowait(picture)
        except queue.Full:
            raise Full(f"Frames come faster than they are read, and {ROOM} wait: send the next one later.") from None

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        while not stop.is_set():
            try:
                yield self.waiting.get(timeout=LOOK_S)
            except queue.Empty:
                continue


def unpacked(picture: bytes, width: int | None, height: int | None) -> np.ndarray:
    """A JPEG, or with width and height bytes of RGB -> [H, W, C] uint8. UserError for anything else."""
    if width and height:
        if width * height > LARGEST_PX or len(picture) != width * height * 3:
            raise UserError(f"{len(picture)} bytes are not a picture of {width} x {height} pixels in RGB: send width * height * 3 bytes.")
        return np.frombuffer(picture, np.uint8).reshape(height, width, 3)
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture), formats=["JPEG"]) as image:
            if image.width * image.height > LARGEST_PX:
                raise UserError(f"A picture of {image.width} x {image.height} pixels is too large.")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UserError("The frame is no JPEG that can be read: send a JPEG, or RGB with its width and height.") from error
