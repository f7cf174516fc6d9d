"""A source that stalls is an error, not a wait without end: what was said so far is then put on disk. Knows only that things come or do not.

    for comment in streamer.stream_chunks("camera", fail_if_silent(camera_chunks, 10.0)): ...

For live sources. A file needs it not: it was read through to its last packet before its first chunk came. `Ahead` is the thread under it, for those
who want to do something else than fail.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from streamingvlm.base.errors import UserError

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """The items of `source`, taken in a thread of its own, at most `room` of them ahead of whoever takes them here."""

    def __init__(self, source: Iterable[Item], room: int = 1):
        self._source = source
        self._taken: queue.Queue = queue.Queue(maxsize=room)
        self._left = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()  # one that hangs must not keep the process alive

    def take(self, wait_s: float | None) -> tuple[str, Item | Exception | None]:
        """("item", it), ("error", what the source raised) or ("end", None). Raises `queue.Empty` where none of them comes within `wait_s`."""
        return self._taken.get(timeout=wait_s)

    def leave(self) -> None:
        """Nothing more is wanted. The thread ends as soon as the source hands it something, or ends."""
        self._left.set()

    def _hand(self, kind: str, what) -> None:
        while not self._left.is_set():
            try:
                return self._taken.put((kind, what), timeout=0.1)
            except queue.Full:
                continue

    def _read(self) -> None:
        try:
            for item in self._source:
                self._hand("item", item)
                if self._left.is_set():
                    return
            self._hand("end", None)
        except Exception as error:
            self._hand("error", error)
        finally:
            if close := getattr(self._source, "close", None):  # what a generator holds open is closed by the thread that opened it
                close()


def fail_if_silent(source: Iterable[Item], stall_s: float | None) -> Iterator[Item]:
    """The items of `source`, taken one ahead in a thread of their own; `UserError` where the next lets us wait longer than `stall_s`. None: for
    ever, as for a file that is read and resized while a GPU is busy with the second before."""
    ahead = Ahead(source)
    try:
        while True:
            kind, what = ahead.take(stall_s)
            if kind == "error":
                raise what
            if kind == "end":
                return
            yield what
    except queue.Empty:
        raise UserError(f"No frame came for {stall_s:g} s: see whether the source still sends, then start again.") from None
    finally:
        ahead.leave()
