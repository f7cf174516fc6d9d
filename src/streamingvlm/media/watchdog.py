"""A source that stalls is an error, not a wait without end: what was said so far is then put on disk. Knows only that things come or do not.

    for comment in streamer.stream_chunks("camera", fail_if_silent(camera_chunks, 10.0)): ...

For live sources. A file needs it not: it was read through to its last packet before its first chunk came.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from streamingvlm.base.errors import UserError

Item = TypeVar("Item")


def fail_if_silent(source: Iterable[Item], stall_s: float) -> Iterator[Item]:
    """The items of `source`, taken one ahead in a thread of their own; `UserError` where the next lets us wait longer than `stall_s`."""
    taken: queue.Queue = queue.Queue(maxsize=1)
    left = threading.Event()

    def hand(kind: str, what) -> None:
        while not left.is_set():
            try:
                return taken.put((kind, what), timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in source:
                hand("item", item)
                if left.is_set():
                    return
            hand("end", None)
        except Exception as error:
            hand("error", error)

    threading.Thread(target=read, daemon=True).start()  # one that hangs must not keep the process alive
    try:
        while True:
            kind, what = taken.get(timeout=stall_s)
            if kind == "error":
                raise what
            if kind == "end":
                return
            yield what
    except queue.Empty:
        raise UserError(f"No frame came for {stall_s:g} s: see whether the source still sends, then start again.") from None
    finally:
        left.set()
