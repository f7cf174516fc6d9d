"""Seconds of cities, cut as the commentator will stream them, with their words and with what each vision token should know. Knows no network.

    batch = Lessons([town(5_500_000 + k) for k in range(120)], talk, settings).draw(np.random.default_rng(0), 32)

A lesson is one round of a stream: behind the end of some earlier text, cut to sink and window as the `streaming` policy cuts it, stands one second
of one camera. Earlier text is of other moments: so the commentator learns to say what it sees, and no slip of its own can lead it on. With `spotted`,
what the multi-camera model made of the second stands there too, mostly: now and then of a part of its frames or of none, as where a service is late.
Letters: B seconds, N vision tokens of a second, F frames, H W pixels, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from streamingvlm.base import config
from streamingvlm.base.patches import CELL_PX
from streamingvlm.base.records import Chunk
from streamingvlm.context.dialogue import Dialogue
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.media.reader import resize
from streamingvlm.training import windowing
from streamingvlm.training.windowing import Batch
from streamingvlm.worlds.city import sentences
from streamingvlm.worlds.city.knobs import SHIRTS, TROUSERS
from streamingvlm.worlds.city.people import CAR, LIE, PERSON, WALK
from streamingvlm.worlds.city.sentences import VERBS, WHERE, Said, Wrong
from streamingvlm.worlds.city.truth import Truth
from streamingvlm.worlds.city.world import City, Wardrobe

COUNTED = 4  # people of one sort in one cell: so many and more are the same
SORTS = 3  # stand, walk, run
ACTIONS = ("empty", *VERBS)
CODE = 1 + len(SHIRTS) + len(TROUSERS) + 1 + SORTS * COUNTED + len(ACTIONS)
WRONG_SHARE, NOTED_WRONG_SHARE = 0.45, 0.25  # of the seconds drawn: something is wrong in them
UNNOTED, PARTLY = 0.15, 0.5  # of the seconds with notes: there is none, or one of some frames only
MISDRESSED = 0.3  # of the seconds with notes: the picture shows other clothes, for on looks never seen the model's eyes are better than one's own
OTHER_CLOTHES = 0.75
LATEST_CLOCK_S = (60, 7_200, 1_000_000)  # streams go on for minutes, hours and days


@dataclass(frozen=True)
class Cells:
    """What is in each of N cells of a second: shirt and trousers [N] of who lies there (-1: nobody, or no name for it), fall and pavement [N] bool,
    people [N, SORTS] who stand, walk, run; the action of the whole picture; and everybody's clothes, `worn` [people, 3]: cell, shirt, trousers."""

    fall: np.ndarray
    look: np.ndarray
    pavement: np.ndarray
    people: np.ndarray
    action: int
    worn: np.ndarray

    @classmethod
    def of(cls, truth: Truth, camera: int, k: int, action: str, side: int) -> Cells:
        """Of second `k`, things where their middle is on average; what counts lasts at least half of the second, as in `sentences.second`."""
        frames = range(round(k * truth.fps), round((k + 1) * truth.fps))
        boxes = np.concatenate([np.arange(part.start, part.stop) for part in (truth.boxes(camera, frame) for frame in frames)])
        fall, pavement, look = (np.zeros(shape, kind) for shape, kind in ((side**2, bool), (side**2, bool), ((side**2, 2), int)))
        people = np.zeros((side**2, SORTS), int)
        look -= 1
        worn = []
        for track in np.unique(truth.box_track[boxes]):
            its = boxes[truth.box_track[boxes] == track]
            wrong = truth.box_wrong[its] & ((truth.box_pose[its] == LIE) | (truth.box_class[its] == CAR))
            shown = its[wrong] if 2 * wrong.sum() >= len(frames) else its[~wrong]
            if 2 * len(shown) < len(frames):
                continue
            x, y = (float(truth.box[shown][:, [axis, axis + 2]].mean()) / truth.size_px[1 - axis] for axis in (0, 1))
            cell = min(int(y * side), side - 1) * side + min(int(x * side), side - 1)
            if truth.box_class[its[0]] == PERSON:
                worn.append((cell, *truth.box_look[its[0]]))
            if 2 * wrong.sum() >= len(frames) and truth.box_class[its[0]] == CAR:
                pavement[cell] = True
            elif 2 * wrong.sum() >= len(frames):
                fall[cell], look[cell] = True, truth.box_look[its[0]]
            elif truth.box_class[its[0]] == PERSON:
                walks = 2 * (truth.box_pose[shown] == WALK).sum() >= len(shown)
                people[cell, int(walks) + int(walks and 2 * truth.box_fast[shown].sum() >= len(shown))] += 1
        return cls(fall, look, pavement, people.clip(max=COUNTED), ACTIONS.index(action), np.array(worn, int).reshape(-1, 3))

    def mirrored(self, side: int) -> Cells:
        order = np.arange(side**2).reshape(side, side)[:, ::-1].ravel()
        return Cells(self.fall[order], self.look[order], self.pavement[order], self.people[order], self.action,
                     np.column_stack((order[self.worn[:, 0]], self.worn[:, 1:])))

    def dressed(self, clothes: Wardrobe) -> Cells:
        """With the labels of other clothes."""
        return replace(self, look=clothes.labels(self.look), worn=np.column_stack((self.worn[:, 0], clothes.labels(self.worn[:, 1:]))))


@dataclass(frozen=True)
class Known:
    """Cells of B seconds: fall, pavement [B, N] bool, look [B, N, 2], people [B, N, SORTS], action [B], worn [B, N, 8 + 6] bool: which shirts and
    trousers are to be seen."""

    fall: Tensor
    look: Tensor
    pavement: Tensor
    people: Tensor
    action: Tensor
    worn: Tensor

    @classmethod
    def of(cls, cells: Sequence[Cells]) -> Known:
        stacked = [torch.from_numpy(np.stack([getattr(one, name) for one in cells])) for name in ("fall", "look", "pavement", "people")]
        worn = torch.zeros(len(cells), len(cells[0].fall), len(SHIRTS) + len(TROUSERS), dtype=torch.bool)
        for row, one in enumerate(cells):
            for column, first in ((1, 0), (2, len(SHIRTS))):
                named = one.worn[one.worn[:, column] >= 0]
                worn[row, named[:, 0], first + named[:, column]] = True
        return cls(*stacked, torch.tensor([one.action for one in cells]), worn)

    def codes(self) -> Tensor:
        """[B, N, CODE] for a language model that is told what is there."""
        shirt, trousers = (F.one_hot(self.look[..., k] + 1, len(names) + 1)[..., 1:] for k, names in enumerate((SHIRTS, TROUSERS)))
        people = F.one_hot(self.people, COUNTED + 1)[..., 1:].flatten(-2)
        action = F.one_hot(self.action, len(ACTIONS))[:, None].expand(-1, self.fall.shape[1], -1)
        return torch.cat((self.fall[..., None], shirt, trousers, self.pavement[..., None], people, action), -1).float()


@dataclass(frozen=True)
class Lesson:
    """Words of B seconds as windows (`told.events` counts them), and what is in their cells."""

    told: Batch
    known: Known


class Lessons:
    """Draws seconds of cities by chance."""

    def __init__(self, cities: Sequence[City], talk: Dialogue, video: config.Video, cache: config.Retention,
                 spotted: Sequence[Sequence[Sequence[dict]]] | None = None):
        """`spotted`: of each city, camera and frame what the multi-camera model made of it."""
        self.spotted = spotted
        self.cities, self.talk, self.video, self.cache = cities, talk, video, cache
        self.size_px = int(video.max_pixels**0.5) // CELL_PX * CELL_PX
        self.side = self.size_px // CELL_PX
        self.seconds = [int(city.frames / city.fps) for city in cities]
        self.wrong = [(i, int(camera), int(k)) for i, city in enumerate(cities) for camera, k in zip(*self._wrong(city), strict=True)]
        self.kept: dict[tuple[int, int, int], tuple[Said, Cells]] = {}

    @staticmethod
    def _wrong(city: City) -> tuple[np.ndarray, ...]:
        """(camera, second) of the seconds in which somebody lies or a car is on the pavement for half of the time."""
        each = round(city.fps)
        local = city.truth.anomalies[:, : city.frames // each * each, :2].reshape(city.cameras, -1, each, 2)
        return (2 * local.sum(2) >= each).any(-1).nonzero()

    def draw(self, rng: np.random.Generator, count: int, look: bool = True, named: bool = True, blind: float = 0.0) -> Lesson:
        """`count` seconds. `look`: with their pictures; `named`: who lies wears only colours that have a name, so that words can say it.
        `blind`: the share of those with a note of which all is black, and said is what the note says, in any pair of colours."""
        windows, cells = [], []
        for row in range(count):
            at = self.wrong[rng.integers(len(self.wrong))] if rng.random() < self.share and self.wrong else self._anywhere(rng)
            said, own, frames, note = self._second(rng, *at, look, named)
            if note and rng.random() < blind:
                note = _in_any_clothes(note, rng)
                said, frames = sentences.heard(note), self._black()
            lesson = LabelledVideo([self._chunk(rng, frames, note)], [" ".join(sentences.say(said))], [row], self._before(rng), sentences.QUERY)
            windows.append((lesson, windowing.window_spans(self.talk, lesson, 0, 1, self.cache)))
            cells.append(own)
        return Lesson(windowing.collate(self.talk, windows, look), Known.of(cells))

    @property
    def share(self) -> float:
        return WRONG_SHARE if self.spotted is None else NOTED_WRONG_SHARE

    def _note(self, rng: np.random.Generator, i: int, camera: int, k: int, clothes: Wardrobe, mirrored: bool) -> str:
        """What was spotted in the second as it is drawn here; a look that was misread stays one."""
        if self.spotted is None or (chance := rng.random()) < UNNOTED:
            return ""
        each = round(self.cities[i].fps)
        rows = self.spotted[i][camera][k * each:(k + 1) * each]
        if chance > 1 - PARTLY:
            rows = [row for row in rows if rng.random() < chance]
        return sentences.note([_shown(row, clothes, mirrored) for row in rows])

    def _anywhere(self, rng: np.random.Generator) -> tuple[int, int, int]:
        i = int(rng.integers(len(self.cities)))
        return i, int(rng.integers(self.cities[i].cameras)), int(rng.integers(self.seconds[i]))

    def _facts(self, i: int, camera: int, k: int) -> tuple[Said, Cells]:
        if (i, camera, k) not in self.kept:
            said = sentences.second(self.cities[i].truth, camera, k)
            self.kept[i, camera, k] = said, Cells.of(self.cities[i].truth, camera, k, said.action, self.side)
        return self.kept[i, camera, k]

    def _second(self, rng: np.random.Generator, i: int, camera: int, k: int, look: bool, named: bool) -> tuple[Said, Cells, np.ndarray, str]:
        said, cells = self._facts(i, camera, k)
        clothes = self._clothes(rng, cells, named) if rng.random() < OTHER_CLOTHES else Wardrobe.plain()
        said, cells = _dressed(said, clothes), cells.dressed(clothes)
        mirrored = bool(rng.integers(2)) and not cells.fall.any()  # who lies has the head on the left
        shown = self._clothes(rng, cells, named) if self.spotted is not None and rng.random() < MISDRESSED else clothes
        frames = self._pictures(self.cities[i], camera, k, shown) if look else self._black()
        note = self._note(rng, i, camera, k, clothes, mirrored)
        return (_mirrored(said), cells.mirrored(self.side), frames[:, :, ::-1], note) if mirrored else (said, cells, frames, note)

    @staticmethod
    def _clothes(rng: np.random.Generator, cells: Cells, named: bool) -> Wardrobe:
        while True:
            clothes = Wardrobe.mixed(int(rng.integers(2**31)))
            if not named or (clothes.labels(cells.look[cells.fall]) >= 0).all():
                return clothes

    def _pictures(self, city: City, camera: int, k: int, clothes: Wardrobe) -> np.ndarray:
        """[F, H, W, C]: the frames that a reader at `video.fps` takes of this second."""
        samples = round(self.video.fps * self.video.chunk_s)
        at = [round((k + j / samples) * city.fps) for j in range(samples)]
        return np.stack([resize(city.draw(camera, frame, clothes), (self.size_px, self.size_px)) for frame in at])

    def _black(self) -> np.ndarray:
        return np.broadcast_to(np.zeros((), np.uint8), (round(self.video.fps * self.video.chunk_s), self.size_px, self.size_px, 3))

    @staticmethod
    def _chunk(rng: np.random.Generator, frames: np.ndarray, note: str) -> Chunk:
        start_s = float(rng.integers(LATEST_CLOCK_S[rng.integers(len(LATEST_CLOCK_S))]))
        return Chunk(0, start_s, start_s + 1, np.ascontiguousarray(frames), (), note)

    def _before(self, rng: np.random.Generator) -> str:
        """What was said before: from nothing to more than is kept."""
        return "".join(f" {' '.join(sentences.say(self._facts(*self._anywhere(rng))[0]))}" for _ in range(rng.integers(9)))


def _dressed(said: Said, clothes: Wardrobe) -> Said:
    def dressed(wrong: Wrong) -> Wrong:
        if wrong.look is None:
            return wrong
        shirt, trousers = clothes.label[SHIRTS.index(wrong.look[0]), TROUSERS.index(wrong.look[1])]
        return replace(wrong, look=(SHIRTS[shirt], TROUSERS[trousers]))

    return replace(said, wrongs=tuple(map(dressed, said.wrongs)))


def _in_any_clothes(note: str, rng: np.random.Generator) -> str:
    """A note of others who lie there: words of colours go together in any way, also where no picture of training has them so."""
    return re.sub(r"\w+ \w+ falls", lambda _: f"{rng.choice(SHIRTS)} {rng.choice(TROUSERS)} falls", note)


def _shown(row: dict, clothes: Wardrobe, mirrored: bool) -> dict:
    """What is spotted in a frame, of the same frame in other clothes, or mirrored."""
    def dressed(look: tuple[int, int]) -> tuple[int, int]:
        return tuple(named if named >= 0 else own for named, own in zip(clothes.label[look].tolist(), look, strict=True))

    def at(x: float) -> float:
        return 1 - x if mirrored else x

    return row | {"falls": [(at(x), p, *dressed((shirt, trousers))) for x, p, shirt, trousers in row["falls"]],
                  "cars": [(at(x), p) for x, p in row["cars"]]}


def _mirrored(said: Said) -> Said:
    other = dict(zip(WHERE, reversed(WHERE), strict=True))
    wrongs = [replace(wrong, where=other[wrong.where], or_where=wrong.or_where and other[wrong.or_where]) for wrong in reversed(said.wrongs)]
    order = list(sentences.CLAUSES)
    return replace(said, wrongs=tuple(sorted(wrongs, key=lambda wrong: order.index(wrong.kind))))
