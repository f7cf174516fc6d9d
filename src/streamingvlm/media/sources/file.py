"""A file as if it were a camera: its pictures at the pace of its own timestamps, once or again and again. None is ever left out.

Where whoever takes the pictures is slower than the film, it waits. `file_index` knows what is wrong with files, this only when a picture is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.media import file_index
from streamingvlm.media.sources.protocol import Picture, SourceError


class File:
    """`loop`: begin anew at the end, with timestamps that go on rising. `paced`: False hands the pictures over as fast as they are taken."""

    live = False

    def __init__(self, path: Path, loop: bool = False, paced: bool = True):
        self.path, self.loop, self.paced = path, loop, paced
        self.label = str(path)

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        try:
            index = file_index.scan(self.path)
            begun, passes = time.monotonic(), 0
            while self.loop or not passes:
                for pts, frame in file_index.decode(index):
                    pts_s = passes * index.info.duration_s + float((pts - index.pts[0]) * index.tick_s)
                    if stop.wait(max(begun + pts_s - time.monotonic(), 0.0) if self.paced else 0.0):
                        return
                    upright = index.turn == file_index.UPRIGHT
                    yield Picture(pts_s, frame if upright else file_index.rgb(frame, index.turn), time.time())
                passes += 1
        except UserError as error:
            raise SourceError(str(error), fatal=True) from None
