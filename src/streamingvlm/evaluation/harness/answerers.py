"""Who is asked: a stream that watched the video up to now, or the same model given its last frames alone. Both are `run.Answerer`s,
the stream a `run.Commentator` too.

A stream answers from what it has seen in whole chunks: a question at 12.4 s is asked behind second 12, so nothing that comes after the question is
ever shown, and up to a chunk before it is missing. A question before the end of the first chunk is asked of a chunk that is cut there. Knows
questions as text, and no benchmark.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamingvlm.base import config
from streamingvlm.base.records import Chunk, Comment
from streamingvlm.context import policy
from streamingvlm.context.policy import Policy
from streamingvlm.evaluation.harness.protocol import ANSWERS, LETTERS
from streamingvlm.media.reader import TOLERANCE_S, probe, read_chunks
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.stream import Streamer

LAST_FRAMES = 4
LEAST_S = 2 * TOLERANCE_S  # of a cut chunk: its first frame
Place = tuple[Path, float, float | None]  # a video, where watching it began, and where it was cut, if it was


def _silence(streamer: Streamer) -> None:
    """From now on it says nothing of its own."""
    said = (*streamer.dialogue.silence, streamer.dialogue.im_end)
    streamer.forced_token = lambda round, step: said[step]


def likeliest(streamer: Streamer, prompt: str, options: Sequence[str]) -> str:
    """The letter that the model thinks likeliest behind the question and its options; of Yes and No the word. Options of the same words are told
    apart by their place."""
    apart = [f"{option} ({k})" if option.strip() in {other.strip() for other in options[: k - 1]} else option for k, option in enumerate(options, 1)]
    found = streamer.ask(prompt, options=apart, constrained="letter").text
    return found if tuple(options) == ANSWERS else LETTERS[[option.strip() for option in apart].index(found)]


class Streamed:
    """Watches each video once, under a policy, and is asked on the way. It comments as it watches, unless it is `silent`: a model that never learned
    to stream then says ` ...` each chunk, whatever it wants to say. `letters`: where there are options, the likeliest letter is the answer."""

    def __init__(self, vlm: VLM, kept: Policy, cfg: config.Config, silent: bool = False, letters: bool = False):
        self.video, self.letters = cfg.video, letters
        self.streamer = Streamer(vlm, kept, cfg.cache, cfg.video, cfg.stream)
        if silent:
            _silence(self.streamer)
        self.place: Place | None = None
        self.seen_s = 0.0  # seconds after the start that were watched

    def answer(self, video: Path, start_s: float, ask_at_s: float | None, prompt: str, options: Sequence[str]) -> str:
        until_s = None if ask_at_s is None else ask_at_s - start_s
        cut = until_s is not None and until_s < self.video.chunk_s - TOLERANCE_S
        place = (video, start_s, ask_at_s if cut else None)
        if self.place != place or (until_s is not None and not cut and self.seen_s > until_s + TOLERANCE_S):
            end_s = max(ask_at_s, start_s + LEAST_S) if cut else None
            self._begin(place, read_chunks(video, self.video, start_s, end_s))
        for _ in self._watch(None if cut else until_s):
            pass
        return likeliest(self.streamer, prompt, options) if self.letters and options else self.streamer.ask(prompt).text

    def commentary(self, video: Path, row: dict) -> str:
        self._begin(None, read_chunks(video, self.video, row["start_s"], row["end_s"]), row["previous_text"], row["query"])
        begins, step = row["start_s"], self.video.chunk_s
        return json.dumps([[begins + said.chunk * step, begins + (said.chunk + 1) * step, said.text] for said in self._watch(None)])

    def _begin(self, place: Place | None, chunks: Iterator[Chunk], previous: str = "", query: str | None = None) -> None:
        self.streamer.start(previous, query)
        self.place, self.chunks, self.seen_s, self.ahead = place, chunks, 0.0, next(chunks, None)

    def _watch(self, until_s: float | None) -> Iterator[Comment]:
        """Step on with every chunk that has ended by `until_s`, seconds after the start."""
        while self.ahead is not None:
            end_s = (self.ahead.index + 1) * self.video.chunk_s
            if until_s is not None and end_s > until_s + TOLERANCE_S:
                return
            comment = self.streamer.step("video", self.ahead)
            self.ahead, self.seen_s = next(self.chunks, None), end_s
            yield comment


class LastFrames:
    """The baseline: a conversation of one turn with the last four frames before the question, and the question. No stream, no memory."""

    def __init__(self, vlm: VLM, cfg: config.Config, letters: bool = False):
        self.letters, self.video = letters, dataclasses.replace(cfg.video, chunk_s=LAST_FRAMES / cfg.video.fps)
        self.streamer = Streamer(vlm, policy.get("full"), cfg.cache, self.video, cfg.stream)
        self.lasts: tuple[Path, float] | None = None  # the video looked at last, and its seconds

    def answer(self, video: Path, start_s: float, ask_at_s: float | None, prompt: str, options: Sequence[str]) -> str:
        if self.lasts is None or self.lasts[0] != video:
            self.lasts = video, float(probe(video).duration_s)
        end_s = self.lasts[1] if ask_at_s is None else min(ask_at_s, self.lasts[1])
        begin_s = max(start_s, end_s - self.video.chunk_s)
        chunk = next(read_chunks(video, self.video, begin_s, max(end_s, begin_s + LEAST_S)))
        if self.letters and options:
            _silence(self.streamer)
            self.streamer.start("", "")
            self.streamer.step("video", chunk)
            return likeliest(self.streamer, prompt, options)
        self.streamer.forced_token = lambda round, step: None
        self.streamer.start("", prompt)
        return self.streamer.step("video", chunk).text
