"""Matches as labelled videos without a file: drawn straight into memory, or told with no picture at all. For training that has no time to decode."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from streamingvlm.base import config
from streamingvlm.base.patches import CELL_PX
from streamingvlm.base.records import Chunk
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.worlds.match import rendering
from streamingvlm.worlds.match.game import FPS, QUERY, SIZE_PX, Match


def drawn_video(match: Match, video: config.Video, events: Sequence[str]) -> LabelledVideo:
    """A match as `load` would give it at `video.fps`, straight from the pencil: no file, no decoder, no codec's losses."""
    side = int(math.sqrt(video.max_pixels)) // CELL_PX * CELL_PX
    pick = np.arange(side) * SIZE_PX // side
    step, n = round(FPS / video.fps), round(video.fps * video.chunk_s)
    frames = [frame[pick[:, None], pick] for i, frame in enumerate(rendering.draw(match)) if i % step == 0]
    chunks = [Chunk(k, k * video.chunk_s, (k + 1) * video.chunk_s, np.stack(frames[k * n : (k + 1) * n]),
                    tuple((k * n + j) / video.fps for j in range(n))) for k in range(len(frames) // n)]
    return _told(match, chunks, events)


def blind_video(match: Match, video: config.Video, events: Sequence[str]) -> LabelledVideo:
    """A match without its picture: every frame is black and takes no memory. For a language model that learns before it can see."""
    side = int(math.sqrt(video.max_pixels)) // CELL_PX * CELL_PX
    black = np.broadcast_to(np.zeros((), np.uint8), (round(video.fps * video.chunk_s), side, side, 3))
    chunks = [Chunk(k, k * video.chunk_s, (k + 1) * video.chunk_s, black, ()) for k in range(int(match.seconds / video.chunk_s))]
    return _told(match, chunks, events)


def _told(match: Match, chunks: list[Chunk], events: Sequence[str]) -> LabelledVideo:
    words = [" ".join(second.words) for second in match.timeline]
    return LabelledVideo(chunks, words, [events.index(second.event) for second in match.timeline], match.previous_text, QUERY)
