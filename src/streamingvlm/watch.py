"""`streamingvlm watch`: a file at the speed at which it was filmed, as if a camera sent it. Knows the clock; how it looks is up to the view.

A chunk is handed to the model when its last frame's time has come, no earlier. A model that is late makes the next chunk wait: nothing is left out,
and the lateness is counted. Latency is what a viewer feels: from the arrival of a chunk's last frame to its whole text, waiting included.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from streamingvlm import commands
from streamingvlm.config import UserError

if TYPE_CHECKING:
    import numpy as np

    from streamingvlm.stream import Comment, Streamer
    from streamingvlm.video import Chunk

VIEW_PIXELS = 640 * 360  # of the picture people see; the model's own is often smaller


class View(Protocol):
    """Shows a stream to people. A context manager: entered before the model is loaded."""

    drawn: bool  # whether it shows pictures

    def see(self, frame: np.ndarray) -> None:
        """A frame [H, W, C] has arrived."""

    def say(self, comment: Comment, tally: Tally) -> None:
        """A chunk was commented on."""


class Clock:
    """The stream's time: second 0 is when `start` is called, and it passes `speed` times as fast as that on the wall."""

    def __init__(self, speed: float = 1.0, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self.speed, self.now, self.sleep = speed, now, sleep
        self.begun = 0.0

    def start(self) -> None:
        self.begun = self.now()

    def since(self, at_s: float) -> float:
        """Seconds on the wall since the stream's second `at_s`; negative before it."""
        return self.now() - self.begun - at_s / self.speed

    def wait(self, at_s: float) -> float:
        """Wait for the stream's second `at_s` -> how many seconds on the wall it had been over when asked, 0 if it was still to come."""
        late_s = self.since(at_s)
        while (left_s := -self.since(at_s)) > 0:
            self.sleep(left_s)
        return max(late_s, 0.0)


@dataclasses.dataclass
class Tally:
    """Latencies and lateness so far. Every chunk counts, the first ones too. `fps`: frames in a second of the stream; `speed`: of its clock."""

    fps: float
    speed: float
    latency_ms: list[float] = dataclasses.field(default_factory=list)
    late: int = 0  # chunks that waited for the model
    latest_ms: float = 0.0  # the longest such wait

    def add(self, comment: Comment) -> None:
        self.latency_ms.append(comment.ms["latency"])
        self.late += comment.ms["late"] >= 1  # ms: less is how exactly this machine sleeps
        self.latest_ms = max(self.latest_ms, comment.ms["late"])

    def of(self, said: Iterable[Comment]) -> Iterator[Comment]:
        """Pass comments through, counting."""
        for comment in said:
            self.add(comment)
            yield comment

    @property
    def percentiles(self) -> dict[str, float]:
        from streamingvlm.timing import percentiles

        return percentiles(self.latency_ms)

    def numbers(self, newest: Comment) -> list[tuple[str, str]]:
        """What a view says beside the text: (name, value)."""
        p, ms = self.percentiles, newest.ms
        fps = newest.end_s * self.fps / (newest.end_s / self.speed + ms["late"] / 1e3)
        return [("latency", f"{ms['latency']:.0f} ms"), ("p50", f"{p['p50']:.0f} ms"), ("p95", f"{p['p95']:.0f} ms"),
                ("behind", f"{ms['late'] / 1e3:.1f} s"), ("late chunks", f"{self.late} of {len(self.latency_ms)}"),
                ("frames", f"{fps:.1f} / s"), ("cache", f"{newest.kv_tokens:,} tokens"), ("its size", f"{newest.kv_bytes / 2**20:.1f} MiB")]

    def __str__(self) -> str:
        p, n = self.percentiles, len(self.latency_ms)
        late = f"{self.late} had to wait, at most {self.latest_ms:.0f} ms" if self.late else "none had to wait"
        return f"From the last frame to the text: {p['p50']:.0f} ms (p50), {p['p95']:.0f} ms (p95); of {n} chunks {late}."


def paced(chunks: Iterable[Chunk], clock: Clock, see: Callable[[int, int], None]) -> Iterator[tuple[Chunk, float, float]]:
    """(chunk, its arrival in the stream's seconds, how many seconds late it is), each when its last frame has arrived. `see` (chunk, frame): has
    arrived. The clock starts when the first chunk is at hand; the next one is read while this waits."""
    for chunk in chunks:
        if chunk.index == 0:
            clock.start()
        step_s = (chunk.end_s - chunk.start_s) / len(chunk.frames)
        late_s = arrival_s = 0.0
        for j in range(len(chunk.frames)):
            arrival_s = chunk.start_s + j * step_s
            late_s = clock.wait(arrival_s)
            see(chunk.index, j)
        yield chunk, arrival_s, late_s


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

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error) -> None:
        pass

    def see(self, frame: np.ndarray) -> None:
        pass

    def say(self, comment: Comment, tally: Tally) -> None:
        commands.line(comment)


def view(job: commands.Job, args: argparse.Namespace) -> View:
    """The browser if asked for, the terminal if there is one, else lines."""
    if args.browser:
        from streamingvlm.browser import Browser

        return Browser(job, args.port, opens=not args.no_open)
    if args.port or args.no_open:
        raise UserError("--port and --no-open say how the browser's page is served: add --browser.")
    from streamingvlm import screen

    return screen.Screen(job) if screen.fits() else Lines()


def watch(args: argparse.Namespace) -> None:
    """Comment on a file in real time."""
    if not 0 < args.speed < float("inf"):
        raise UserError(f"--speed must be above 0, not {args.speed:g}.")
    job = commands.prepare(args)
    tally = Tally(job.cfg.video.fps, args.speed)
    try:
        with view(job, args) as shown:
            streamer = commands.streamer(job, args)
            said = comments(streamer, job.file.stem, *_source(job, args, shown))
            where = commands.record(job, tally.of(said), lambda comment: shown.say(comment, tally))
        print(where, file=sys.stderr)
    finally:
        if tally.latency_ms:
            print(tally, file=sys.stderr)


def _source(job: commands.Job, args: argparse.Namespace, shown: View) -> tuple[Iterable[Chunk], Clock, Callable[[int, int], None]]:
    """The chunks, their clock, and what shows a frame: from a second, larger reading of the file, for a view that draws."""
    from streamingvlm.video import read_chunks

    chunks = read_chunks(job.file, job.cfg.video)
    clock = Clock(args.speed)
    if not shown.drawn:
        return chunks, clock, lambda chunk, frame: None
    larger = read_chunks(job.file, dataclasses.replace(job.cfg.video, max_pixels=VIEW_PIXELS))
    pictures: list[np.ndarray] = []

    def both() -> Iterator[Chunk]:
        for chunk, big in zip(chunks, larger, strict=True):
            pictures[:] = big.frames
            yield chunk

    return both(), clock, lambda chunk, frame: shown.see(pictures[frame])
