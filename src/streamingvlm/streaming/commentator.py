"""One commentator for many live streams: a sentence a chunk for each, in shared passes. Streams join and leave when they like.

Each stream has a `Streamer` of its own, so a stream says with others what it would say alone. Knows chunks and comments; neither sources, nor
clocks, nor what the words mean.

    commentator = Commentator.load("data/city-commentator")
    said = commentator.say({"north": chunk, "south": other})      # stream -> Comment; who is new joins
    commentator.ask("north", "who is there?"); commentator.tell("north", "only cars")
    commentator.save("north", path); commentator.leave("north"); commentator.restore("north", path)
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from streamingvlm.base import config, files
from streamingvlm.base.errors import UserError
from streamingvlm.base.patches import CELL_PX
from streamingvlm.base.records import Answer, Chunk, Comment
from streamingvlm.context import policy
from streamingvlm.media.reader import resize
from streamingvlm.models.qwen25 import loading
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.batching import run_batched
from streamingvlm.streaming.stream import Streamer

SETTINGS = "commentator.json"  # beside the weights: how their streams are cut, kept and asked


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a base was taught to stream: its pictures, what stays of its past, its query, and whether it heeds notes; else they are kept from it."""

    video: config.Video
    cache: config.Retention
    stream: config.Stream
    policy: str = "streaming"
    heeds_notes: bool = False

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """From a base's folder. UserError if it has none, or one that is not valid."""
        path = Path(folder) / SETTINGS
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            name, heeds = told.pop("policy"), bool(told.pop("heeds_notes", False))
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise UserError(f"{path} is missing or cannot be read: name the folder of a commentator, such as data/city-commentator.") from None
        given = config.from_dict(told, str(path))
        return cls(given.video, given.cache, given.stream, policy.get(name).name, heeds)

    def write(self, folder: Path) -> None:
        files.write_json(dataclasses.asdict(self), Path(folder) / SETTINGS)

    @property
    def side_px(self) -> int:
        """Of a picture as the model sees it: square, whatever the camera's."""
        return int(math.sqrt(self.video.max_pixels)) // CELL_PX * CELL_PX


class Commentator:
    """A model and the streams it watches. Not for several threads at once."""

    def __init__(self, vlm: VLM, settings: Settings):
        self.vlm, self.settings = vlm, settings
        self.streamers: dict[str, Streamer] = {}

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Commentator:
        """From a base's folder. `device`: auto, cpu or cuda. UserError where the folder holds no commentator."""
        settings = Settings.read(Path(folder))
        return cls(loading.load(folder, loading.pick_device(device)), settings)

    @property
    def streams(self) -> tuple[str, ...]:
        """Who is watched, in the order of joining."""
        return tuple(self.streamers)

    def join(self, stream: str, previous: str = "", query: str | None = None) -> None:
        """Begin to watch a stream, or begin anew. `previous`: what was said before; `query`: by default the base's own."""
        fresh = self._streamer()
        fresh.start(previous, query)
        self.streamers[stream] = fresh

    def leave(self, stream: str) -> None:
        """Forget a stream; of one that is not watched there is nothing to forget."""
        self.streamers.pop(stream, None)

    def say(self, chunks: Mapping[str, Chunk]) -> dict[str, Comment]:
        """One chunk of each of some streams, frames [F, H, W, 3] uint8 of any size -> what is said of each. A stream not met before joins.

        Streams that are not named wait, and lose nothing. UserError, before anything is computed, for a chunk without pictures. The times in a
        comment are those of the whole group."""
        fitted = {stream: self.fit(stream, chunk) for stream, chunk in chunks.items()}
        for stream in fitted:
            if stream not in self.streamers:
                self.join(stream)
        rounds = [self.streamers[stream].round_of(stream, chunk) for stream, chunk in fitted.items()]
        return dict(zip(fitted, run_batched(self.vlm, rounds), strict=True))

    def ask(self, stream: str, question: str, options: Sequence[str] = ()) -> Answer:
        """Ask about one stream; it goes on as if nobody had. UserError for a stream that is not watched, or what cannot be asked."""
        return self._watched(stream, "ask").ask(question, options=options, name=stream)

    def tell(self, stream: str, wish: str) -> None:
        """What the viewers of one stream want from now on. UserError for a stream that is not watched."""
        self._watched(stream, "tell").tell(wish)

    def fit(self, stream: str, chunk: Chunk) -> Chunk:
        """The chunk with pictures of the size that the model knows, and a note only for one that heeds it."""
        frames = np.asarray(chunk.frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise UserError(f"Chunk {chunk.index} of {stream} must hold frames [F, H, W, 3] of uint8, not {frames.dtype} {list(frames.shape)}.")
        size = (self.settings.side_px,) * 2
        return dataclasses.replace(chunk, frames=np.stack([resize(np.ascontiguousarray(frame), size) for frame in frames]),
                                   note=chunk.note if self.settings.heeds_notes else "")

    def save(self, stream: str, path: Path) -> None:
        """Write all that one stream is; `restore` goes on from there, in this process or another. UserError for a stream that is not watched."""
        self._watched(stream, "save").save(path)

    def restore(self, stream: str, path: Path) -> None:
        """Watch on, as `stream`, from what `save` wrote. UserError, with every stream as it was, where `path` is no such file."""
        fresh = self._streamer()
        fresh.load(path)
        self.streamers[stream] = fresh

    def _watched(self, stream: str, what: str) -> Streamer:
        if stream not in self.streamers:
            raise UserError(f"There is no stream {stream} to {what}; the streams are: {', '.join(self.streamers) or 'none'}.")
        return self.streamers[stream]

    def _streamer(self) -> Streamer:
        told = self.settings
        return Streamer(self.vlm, policy.get(told.policy), told.cache, told.video, told.stream)
