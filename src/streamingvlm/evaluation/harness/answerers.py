"""Who is asked: a stream that watched the video up to now, or the same model given its last frames alone. Both behind `run.Answerer`.

A stream answers from what it has seen in whole chunks: a question at 12.4 s is asked behind second 12, so nothing behind the question is ever
shown, and the last part of a second is missing. Knows questions as text; no benchmark.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamingvlm.base import config
from streamingvlm.base.records import Chunk
from streamingvlm.context import policy
from streamingvlm.media.reader import TOLERANCE_S, read_chunks
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.stream import Streamer

LAST_FRAMES = 4
Ask = Callable[[Streamer, str, Sequence[str]], str]  # a stream, a prompt, options -> its answer, the stream as it was before


class Streamed:
    """Watches each video once, under a policy, commenting as it does, and is asked on the way."""

    def __init__(self, streamer: Streamer, video: config.Video, ask: Ask):
        self.streamer, self.video, self.ask = streamer, video, ask
        self.watching: tuple[Path, float, float | None] | None = None
        self.seen_s = 0.0
        self.chunks: Iterator[Chunk] = iter(())

    def answer(self, video: Path, start_s: float, ask_at_s: float | None, prompt: str, options: Sequence[str]) -> str:
        early = ask_at_s is not None and ask_at_s - start_s < self.video.chunk_s - TOLERANCE_S  # no whole chunk: one that is cut there
        place = (video, start_s, ask_at_s if early else None)
        if self.watching != place or (ask_at_s is not None and self.seen_s > ask_at_s - start_s + TOLERANCE_S and not early):
            end_s = max(ask_at_s, start_s + 1 / self.video.fps) if early else None
            self._begin(place, read_chunks(video, self.video, start_s, end_s))
        for _ in self._watch(None if ask_at_s is None or early else ask_at_s - start_s):
            pass
        return self.ask(self.streamer, prompt, options)

    def commentary(self, video: Path, row: dict) -> str:
        self._begin(None, read_chunks(video, self.video, row["start_s"], row["end_s"]), row["previous_text"], row["query"])
        return json.dumps([[row["start_s"] + c.chunk * self.video.chunk_s, row["start_s"] + (c.chunk + 1) * self.video.chunk_s, c.text]
                           for c in self._watch(None)])

    def _begin(self, place: tuple[Path, float, float | None] | None, chunks: Iterator[Chunk], previous: str = "", query: str | None = None) -> None:
        self.streamer.start(previous, query)
        self.watching, self.chunks, self.seen_s, self.ahead = place, chunks, 0.0, next(chunks, None)

    def _watch(self, until_s: float | None) -> Iterator:
        """Step on with every chunk that has ended by `until_s`, seconds after the start."""
        while self.ahead is not None:
            end_s = (self.ahead.index + 1) * self.video.chunk_s
            if until_s is not None and end_s > until_s + TOLERANCE_S:
                return
            comment = self.streamer.step("video", self.ahead)
            self.ahead, self.seen_s = next(self.chunks, None), end_s
            yield comment


class LastFrames:
    """The baseline: a conversation of one turn that holds the last four frames before the question, and the question. No stream, no memory."""

    def __init__(self, vlm: VLM, cfg: config.Config):
        self.video = dataclasses.replace(cfg.video, chunk_s=LAST_FRAMES / cfg.video.fps)
        self.streamer = Streamer(vlm, policy.get("full"), cfg.cache, self.video, cfg.stream)

    def answer(self, video: Path, start_s: float, ask_at_s: float | None, prompt: str, options: Sequence[str]) -> str:
        from streamingvlm.media.reader import probe

        end_s = probe(video).duration_s if ask_at_s is None else ask_at_s
        end_s = min(end_s, probe(video).duration_s)
        begin_s = max(start_s, end_s - self.video.chunk_s)
        chunk = next(read_chunks(video, self.video, begin_s, max(end_s, begin_s + 1 / self.video.fps)))
        self.streamer.start("", prompt)
        return self.streamer.step("video", chunk).text

    def commentary(self, video: Path, row: dict) -> str:
        raise NotImplementedError("four frames are no commentary")
