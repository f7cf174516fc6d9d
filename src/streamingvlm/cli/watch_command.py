"""`streamingvlm watch`: a file at the speed at which it was filmed, as if a camera sent it. Knows the clock; how it looks is up to the view.

A chunk is handed to the model when its last frame's time has come, no earlier. A model that is late makes the next chunk wait: nothing is left out,
and the lateness is counted. Latency is what a viewer feels: from the arrival of a chunk's last frame to its whole text, waiting included.
"""

from __future__ import annotations

import argparse
import dataclasses
import queue
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.cli import run_command
from streamingvlm.cli.asking import Asker
from streamingvlm.cli.view import LatencyStats, View
from streamingvlm.media.clock import Clock, paced

if TYPE_CHECKING:
    import numpy as np

    from streamingvlm.base.records import Answer, Chunk, Comment
    from streamingvlm.streaming.stream import Streamer

VIEW_PIXELS = 640 * 360  # of the picture people see; the model's own is often smaller


def comments(streamer: Streamer, name: str, chunks: Iterable[Chunk], clock: Clock, see: Callable[[int, int], None]) -> Iterator[Comment]:
    """What is said to each chunk, with two more times in `ms`: `late`, how long the chunk waited for the model, and `latency`, from its arrival to
    the text."""
    for chunk, arrival_s, late_s in paced(chunks, clock, see):
        comment = streamer.step(name, chunk)
        more = {"late": round(late_s * 1e3, 3), "latency": round(clock.since(arrival_s) * 1e3, 3)}
        yield dataclasses.replace(comment, ms={**comment.ms, **more})


class Lines:
    """The view where there is no terminal: what is said, line by line."""

    drawn = False

    def __init__(self):
        self.typed: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error) -> None:
        pass

    def see(self, frame: np.ndarray) -> None:
        pass

    def say(self, comment: Comment, tally: LatencyStats) -> None:
        run_command.line(comment)

    def answer(self, answer: Answer) -> None:
        run_command.answer_line(answer)


def view(job: run_command.Job, args: argparse.Namespace) -> View:
    """The browser if asked for, the terminal if there is one, else lines."""
    if args.browser:
        from streamingvlm.cli.browser_view import Browser

        return Browser(job, args.port, opens=not args.no_open)
    if args.port or args.no_open:
        raise UserError("--port and --no-open say how the browser's page is served: add --browser.")
    from streamingvlm.cli import terminal_view

    return terminal_view.Screen(job) if terminal_view.fits() else Lines()


def watch(args: argparse.Namespace) -> None:
    """Comment on a file in real time."""
    if not 0 < args.speed < float("inf"):
        raise UserError(f"--speed must be above 0, not {args.speed:g}.")
    job = run_command.prepare(args)
    tally = LatencyStats(job.cfg.video.fps, args.speed)
    try:
        with view(job, args) as shown:
            streamer = run_command.streamer(job, args)
            asker = Asker(streamer, files.printable(job.file.stem), shown.answer, shown.typed)
            clock = Clock(args.speed, sleep=asker.wait)  # what is typed is asked while the next frame is waited for
            said = tally.of(comments(streamer, asker.name, *_source(job, clock, shown)))
            where = run_command.run_to_files(job, asker.beside(said, args.due), lambda comment: shown.say(comment, tally))
        print(where, file=sys.stderr)
    finally:
        if tally.latency_ms:
            print(tally, file=sys.stderr)


def _source(job: run_command.Job, clock: Clock, shown: View) -> tuple[Iterable[Chunk], Clock, Callable[[int, int], None]]:
    """The chunks, their clock, and what shows a frame: from a second, larger reading of the file, for a view that draws."""
    from streamingvlm.media.reader import read_chunks

    chunks = read_chunks(job.file, job.cfg.video)
    if not shown.drawn:
        return chunks, clock, lambda chunk, frame: None
    larger = read_chunks(job.file, dataclasses.replace(job.cfg.video, max_pixels=VIEW_PIXELS))
    pictures: list[np.ndarray] = []

    def both() -> Iterator[Chunk]:
        for chunk, big in zip(chunks, larger, strict=True):
            pictures[:] = big.frames
            yield chunk

    return both(), clock, lambda chunk, frame: shown.see(pictures[frame])
