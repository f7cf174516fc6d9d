"""The arena: a deterministic procedural broadcaster of two-team matches. Same seed -> same world, same pixels, same words.

Built so that each part of the cache has a job of its own: the teams' names are said once, before the match (the text sink, or text said
since); the score is never drawn (it can only come from what was said before: the text window); and whether the ball was hit or went in
shows only in the second half of a second (the vision window). Knows nothing of tokens, models or files; `subset` writes its frames to
H.264 and its words to stream rows.

    match = Match(seed=7, seconds=60)
    for frame in match.frames(): ...   # [112, 112, 3] uint8, 10 a second
    match.row("match-7", "videos/match-7.mp4")
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FPS = 10
SIZE_PX = 112
NAMES = ("lions", "bears", "wolves", "hawks", "sharks", "tigers", "eagles", "bulls", "foxes", "cobras", "ravens", "otters")
SIDES = ("left", "right")
EVENTS = ("none", "hit left", "hit right", "goal left", "goal right")  # the labels of one second
WORDS = ("left", "right", "hit", "goal", "game", "-", "Commentate", "on", "this", "match", *NAMES)
POINTS_A_GAME = 5
REVEAL_S = 0.4  # until then a second looks the same whatever happens in it
_CHANCES = (0.40, 0.21, 0.21, 0.09, 0.09)
_FIELDS = ((38, 92, 58), (58, 70, 104), (104, 78, 52), (70, 84, 84))
_TEAMS = ((228, 74, 58), (74, 130, 236), (238, 186, 60), (190, 96, 214), (84, 214, 196), (240, 140, 190))


@dataclass(frozen=True)
class Second:
    """What happened in one second, and the words that say it. `score` is left - right after the event."""

    event: str
    words: tuple[str, ...]
    score: tuple[int, int]


@dataclass(frozen=True)
class Said:
    """Commentary read back: what a sentence claims. Missing parts are None."""

    event: str
    who: str | None
    score: tuple[int, int] | None


def held_out(pair: tuple[str, str]) -> bool:
    """Team pairs that only evaluation sees: a fixed fifth of them, whichever side they play on."""
    a, b = sorted(NAMES.index(name) for name in pair)
    return (a * 7 + b * 3) % 5 == 0


def parse(text: str) -> Said:
    """Read one second of commentary. Anything that is not `hit|goal side …` counts as silence ("none")."""
    found = re.search(r"\b(hit|goal) (left|right)\b(?: ([a-z]+))?(?: (\d) - (\d))?", text)
    if not found:
        return Said("none", None, None)
    kind, side, who, left, right = found.groups()
    return Said(f"{kind} {side}", who, None if left is None else (int(left), int(right)))


@dataclass(frozen=True)
class Match:
    """One match. `seed` decides teams, looks and every event; `evaluation` picks the teams from the held-out pairs."""

    seed: int
    seconds: int
    evaluation: bool = False

    def _rng(self, what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, what, int(self.evaluation)])

    @cached_property
    def teams(self) -> tuple[str, str]:
        rng = self._rng(0)
        while True:
            pair = tuple(str(name) for name in rng.choice(NAMES, 2, replace=False))
            if held_out(pair) == self.evaluation:
                return pair

    @cached_property
    def timeline(self) -> list[Second]:
        drawn = self._rng(1).choice(len(EVENTS), size=self.seconds, p=_CHANCES)
        score, out = [0, 0], []
        for second, label in enumerate(drawn):
            event = EVENTS[label] if second else "none"  # the match opens in silence
            words: tuple[str, ...] = ()
            if event != "none":
                kind, side = event.split()
                words = (kind, side, self.teams[SIDES.index(side)])
                if kind == "goal":
                    score[SIDES.index(side)] += 1
                    words += (str(score[0]), "-", str(score[1]))
            out.append(Second(event, words + ("game",) * (max(score) == POINTS_A_GAME), tuple(score)))
            if max(score) == POINTS_A_GAME:
                score = [0, 0]
        return out

    @property
    def previous_text(self) -> str:
        return f"left {self.teams[0]} right {self.teams[1]}"

    def row(self, name: str, video: str) -> dict:
        """The match as a stream row: the contract every stage reads, with a word's times in seconds."""
        words, frames = [], []
        for k, second in enumerate(self.timeline):
            n = len(second.words)
            for j, word in enumerate(second.words):
                words.append({"start_s": round(k + 0.5 + 0.5 * j / n, 3), "end_s": round(k + 0.5 + 0.5 * (j + 1) / n, 3), "text": word})
            x, y = self._ball(k, k + REVEAL_S)
            frames.append({"t_s": float(k), "boxes": [[int(x) - 5, int(y) - 5, int(x) + 5, int(y) + 5]], "action": second.event, "anomaly": False})
        return {"id": name, "video": video, "title": " - ".join(self.teams), "query": "Commentate on this match",
                "previous_text": self.previous_text, "start_s": 0.0, "end_s": float(self.seconds), "fps": float(FPS), "words": words,
                "frames": frames}

    @cached_property
    def _waypoints(self) -> np.ndarray:
        """Where the ball is when each second reveals its event: [seconds + 1, 2] px, the kick-off first."""
        rng = self._rng(2)
        points = rng.uniform((36, 20), (SIZE_PX - 36, SIZE_PX - 20), size=(self.seconds + 1, 2))
        for k, second in enumerate(self.timeline, start=1):
            if second.event != "none":
                kind, side = second.event.split()
                x = 21 if kind == "hit" else 6
                points[k, 0] = x if side == "left" else SIZE_PX - x
        return points

    def _ball(self, k: int, t_s: float) -> np.ndarray:
        share = min(1.0, (t_s - k) / REVEAL_S)
        return self._waypoints[k] * (1 - share) + self._waypoints[k + 1] * share

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame in order, [H, W, C] uint8."""
        rng = self._rng(3)
        field = np.array(_FIELDS[rng.integers(len(_FIELDS))], np.int16)
        colours = [_TEAMS[i] for i in rng.choice(len(_TEAMS), 2, replace=False)]
        empty = np.broadcast_to(field, (SIZE_PX, SIZE_PX, 3)).copy()
        empty[:, SIZE_PX // 2 - 1 : SIZE_PX // 2 + 1] += 40
        grain = rng.integers(-4, 5, size=(8, SIZE_PX, SIZE_PX, 1), dtype=np.int16)  # sensor noise, a new plate each second: cheap to encode
        plates = (empty + grain).astype(np.uint8)
        for n in range(self.seconds * FPS):
            frame = plates[n // FPS % 8].copy()
            self._draw(frame, n // FPS, n / FPS, colours)
            yield frame

    def _draw(self, frame: np.ndarray, k: int, t_s: float, colours: list[tuple[int, int, int]]) -> None:
        x, y = self._ball(k, t_s)
        event = self.timeline[k].event if t_s - k >= REVEAL_S else "none"
        for side, colour in enumerate(colours):
            name = SIDES[side]
            goal = slice(0, 11) if side == 0 else slice(SIZE_PX - 11, SIZE_PX)
            frame[20 : SIZE_PX - 20, goal] = (250, 250, 210) if event == f"goal {name}" else (24, 24, 24)
            top = int(np.clip(y, 16, SIZE_PX - 16)) - 12 if event == f"hit {name}" else SIZE_PX // 2 - 12 + int(9 * np.sin(t_s + side))
            paddle = slice(13, 18) if side == 0 else slice(SIZE_PX - 18, SIZE_PX - 13)
            frame[top : top + 24, paddle] = (255, 255, 255) if event == f"hit {name}" else colour
        left, top = max(int(x) - 6, 0), max(int(y) - 6, 0)
        patch = frame[top : int(y) + 7, left : int(x) + 7]
        rows, columns = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
        patch[(rows - y) ** 2 + (columns - x) ** 2 <= 5**2] = (245, 240, 70)
