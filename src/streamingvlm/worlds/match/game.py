"""The arena: a deterministic procedural broadcaster of two-team matches. Same seed -> same world, same pixels, same words.

Built so that each part of the cache has a job of its own: the teams' names are said once, before the match, and then only when one of them scores
(the text sink, or text said since); the score is never drawn (it can only come from what was said before: the text window), except that a new
game visibly starts at 0 - 0; and what happens shows only in the second half of a second (the vision window). The same event is said in several
ways, so words cannot be learned by heart. Cameras change and the picture is noisy; evaluation has team pairs and colours that training never meets.
Decides what happens and how it is said; `pitch` draws it, `subset` writes both to files. Knows nothing of tokens or models.

    match = Match(seed=7, seconds=60)
    for frame in pitch.draw(match): ...   # [112, 112, 3] uint8, 10 a second
    match.row("match-7", "videos/match-7.mp4")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FPS = 10
SIZE_PX = 112
NAMES = ("lions", "bears", "wolves", "hawks", "sharks", "tigers", "eagles", "bulls", "foxes", "cobras", "ravens", "otters")
SIDES = ("left", "right")
KINDS = ("hit", "goal", "save", "out")
EVENTS = ("none", "kickoff", *(f"{kind} {side}" for kind in KINDS for side in SIDES))  # the labels of one second
POINTS_A_GAME = 5
REVEAL_S = 0.4
# How each kind of event is said, the likeliest way first. The side comes before the name: the words carry the reasoning from one to the other.
PHRASES = {
    "kickoff": ("new game 0 - 0", "they start at 0 - 0"),
    "hit": ("hit {side}", "played {side}", "a touch {side}"),
    "goal": ("goal {side} {name} {score}", "scored {side} by {name} {score}", "what a goal {side} {name} now {score}"),
    "save": ("save {side} still {score}", "stopped {side} it stays {score}"),
    "out": ("out {side} still {score}", "gone {side} it stays {score}"),
}
QUERY = "Commentate on this match"
WORDS = tuple(dict.fromkeys([*SIDES, "teams", "game", "-", *QUERY.split(), *NAMES,
                             *(word for ways in PHRASES.values() for way in ways for word in way.split() if word.isalpha())]))
_CHANCES = {False: (0.34, 0.26, 0.14, 0.14, 0.12), True: (0.05, 0.05, 0.80, 0.05, 0.05)}  # of none and KINDS, by `lively`
_READ = [(kind, re.compile(r"\b" + way.format(side="(?P<side>left|right)", name=f"(?P<name>{'|'.join(NAMES)})", score=r"(?P<score>\d - \d)") + r"\b"))
         for kind, ways in PHRASES.items() for way in sorted(ways, key=len, reverse=True)]


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
    who: str | None = None
    score: tuple[int, int] | None = None


def held_out(pair: tuple[str, str]) -> bool:
    """Team pairs that only evaluation sees: a fixed fifth of them, whichever side they play on."""
    a, b = sorted(NAMES.index(name) for name in pair)
    return (a * 7 + b * 3) % 5 == 0


def parse(text: str) -> Said:
    """Read one second of commentary. Anything that holds none of the PHRASES, whole, counts as silence ("none")."""
    for kind, way in _READ:
        if found := way.search(text):
            parts = found.groupdict()
            score = (0, 0) if kind == "kickoff" else tuple(int(n) for n in parts["score"].split(" - ")) if "score" in parts else None
            return Said(f"{kind} {parts['side']}" if "side" in parts else kind, parts.get("name"), score)
    return Said("none")


@dataclass(frozen=True)
class Rules:
    """What makes the sport harder. `goals_a_game`: it ends with so many of one side, POINTS_A_GAME at most, which is as far as questions count;
    `reveal_s`: until then a second looks the same whatever happens in it, so a viewer must look later than that; `noise`: the loudest grain of a
    camera, in 8-bit steps."""

    goals_a_game: int = POINTS_A_GAME
    reveal_s: float = REVEAL_S
    noise: int = 8


@dataclass(frozen=True)
class Match:
    """One match. `seed` decides teams, looks and every event; `evaluation` picks teams and colours from those held out. `plain`: everything is
    said in the likeliest way. `lively`: three times as many goals, for practice."""

    seed: int
    seconds: int
    evaluation: bool = False
    plain: bool = False
    lively: bool = False
    rules: Rules = Rules()

    def rng(self, what: int) -> np.random.Generator:
        """The match's own source of chance for one purpose, so that more of one thing changes nothing else."""
        return np.random.default_rng([self.seed, what, int(self.evaluation)])

    @cached_property
    def teams(self) -> tuple[str, str]:
        rng = self.rng(0)
        while True:
            pair = tuple(str(name) for name in rng.choice(NAMES, 2, replace=False))
            if held_out(pair) == self.evaluation:
                return pair

    @cached_property
    def timeline(self) -> list[Second]:
        rng = self.rng(1)
        kinds = rng.choice(("none", *KINDS), size=self.seconds, p=_CHANCES[self.lively])
        sides, ways = rng.integers(0, 2, self.seconds), rng.random(self.seconds)
        score, out, starts = [0, 0], [], True
        for drawn, side, way in zip(kinds, sides, ways, strict=True):
            kind = "kickoff" if starts else str(drawn)
            score = [0, 0] if starts else score
            score[side] += kind == "goal"
            starts = max(score) == self.rules.goals_a_game
            event = kind if kind in {"none", "kickoff"} else f"{kind} {SIDES[side]}"
            out.append(Second(event, self._say(kind, side, way, score) + ("game",) * starts, tuple(score)))
        return out

    def _say(self, kind: str, side: int, way: float, score: list[int]) -> tuple[str, ...]:
        ways = PHRASES.get(kind, ("",))
        phrase = ways[0 if self.plain else int(way**1.6 * len(ways))]
        return tuple(phrase.format(side=SIDES[side], name=self.teams[side], score=f"{score[0]} - {score[1]}").split())

    @property
    def previous_text(self) -> str:
        return f"teams left {self.teams[0]} right {self.teams[1]}"

    def row(self, name: str, video: str) -> dict:
        """The match as a stream row: the contract every stage reads. A word's times in seconds; a label for every frame drawn."""
        words = []
        for k, second in enumerate(self.timeline):
            n = len(second.words)
            for j, word in enumerate(second.words):
                words.append({"start_s": round(k + 0.5 + 0.5 * j / n, 3), "end_s": round(k + 0.5 + 0.5 * (j + 1) / n, 3), "text": word})
        return {"id": name, "video": video, "title": " - ".join(self.teams), "query": QUERY, "previous_text": self.previous_text,
                "start_s": 0.0, "end_s": float(self.seconds), "fps": float(FPS), "words": words,
                "frames": [self._label(n / FPS) for n in range(self.seconds * FPS)]}

    def shows(self, t_s: float) -> str:
        """The event that can be seen at this moment; "none" before it is revealed."""
        k = int(t_s + 1e-9)
        return self.timeline[k].event if t_s - k >= self.rules.reveal_s - 1e-9 else "none"

    def _label(self, t_s: float) -> dict:
        (x, y), camera = self.ball(t_s), self.camera(int(t_s + 1e-9))
        x, y = (int((at - SIZE_PX / 2 - move) / camera[0] + SIZE_PX / 2) for at, move in ((x, camera[1]), (y, camera[2])))
        box = [min(max(side, 0), SIZE_PX) for side in (x - 5, y - 5, x + 5, y + 5)]
        return {"t_s": round(t_s, 3), "boxes": [box], "action": self.shows(t_s), "anomaly": False}

    @cached_property
    def _waypoints(self) -> np.ndarray:
        """Where the ball is when each second reveals its event: [seconds + 1, 2] px, the first before the match."""
        points = self.rng(2).uniform((36, 24), (SIZE_PX - 36, SIZE_PX - 24), size=(self.seconds + 1, 2))
        for k, second in enumerate(self.timeline, start=1):
            kind, _, side = second.event.partition(" ")
            if kind == "kickoff":
                points[k] = SIZE_PX / 2
            elif kind == "out":
                points[k, 1] = 7 if k % 2 else SIZE_PX - 7
                points[k, 0] = 30 if side == "left" else SIZE_PX - 30
            elif kind != "none":
                x = {"hit": 23, "goal": 6, "save": 16}[kind]
                points[k, 0] = x if side == "left" else SIZE_PX - x
        return points

    def ball(self, t_s: float) -> np.ndarray:
        """The ball's place on the pitch, (x, y) px."""
        k = int(t_s + 1e-9)
        share = min(1.0, (t_s - k) / self.rules.reveal_s)
        return self._waypoints[k] * (1 - share) + self._waypoints[k + 1] * share

    @cached_property
    def _cameras(self) -> list[tuple[float, float, float, int]]:
        """Of every second: (zoom: pitch pixels per picture pixel, shift x, shift y [px], brightness). A cut every 6 to 20 seconds."""
        rng, out = self.rng(4), []
        while len(out) < self.seconds:
            camera = (float(rng.uniform(0.95, 1.1)), float(rng.integers(-3, 4)), float(rng.integers(-5, 6)), int(rng.integers(-14, 15)))
            out += [camera] * int(rng.integers(6, 21))
        return out[: self.seconds]

    def camera(self, k: int) -> tuple[float, float, float, int]:
        return self._cameras[k]
