"""The frame-based model asked about frames, each on its own, and what its answers are worth. Knows neither neighbours in time nor other cameras.

    answers(vlm, frames)        # [F, 96, 96, 3] uint8 -> a FrameAnswer each
    python -m streamingvlm.evaluation.frame_vlm data/city-base/frame-vlm      # scores on validation cities, ms a frame on this machine

Letters: F frames, B of them asked together, N vision tokens of a frame, T tokens of the question, E hidden size.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamingvlm.context.cache import KVCache
from streamingvlm.evaluation import detection
from streamingvlm.models.qwen25 import loading
from streamingvlm.models.qwen25.decode import DecodeToken
from streamingvlm.models.qwen25.vlm import VLM, Prefill
from streamingvlm.training.frame_vlm.grammar import ALARM_WORDS, LONGEST, STEP_PX, Said, parse
from streamingvlm.training.frame_vlm.prompt import GRID, Prompt, patches
from streamingvlm.worlds import alarms
from streamingvlm.worlds.city.world import ANOMALIES, CLASSES, FPS, City

VALIDATION = 4_000_000  # cities with the looks of training that no training saw


@dataclass(frozen=True)
class FrameAnswer:
    """words: as said. `parsed` False: they are no answer, and count as nobody, nothing, nowhere. boxes: (x0, y0, x1, y1 in px, label, score), label
    an index of CLASSES; action: an index of ACTIONS; anomalies: kind -> 1 if it was said. sure: kind -> how probable that word was where it could
    have stood, for thresholds."""

    words: tuple[str, ...]
    parsed: bool
    action: int = 0
    anomalies: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ANOMALIES, 0))
    boxes: tuple[tuple[float, float, float, float, int, float], ...] = ()
    sure: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ANOMALIES, 0.0))


class Asker:
    """Asks up to `together` frames at a time; its caches are kept from one time to the next."""

    def __init__(self, vlm: VLM, together: int = 16):
        self.vlm, self.prompt, self.caches = vlm, Prompt(vlm.tokenizer), [vlm.new_cache() for _ in range(together)]
        self.question = vlm.embed(self.prompt.ids)  # [T, E]
        ids = vlm.tokenizer.convert_tokens_to_ids
        self.kinds = ids([vlm.tokenizer.tokenize(f" {ALARM_WORDS[kind]}")[0] for kind in ANOMALIES])
        vlm.decoder.prepare(self.caches, len(self.prompt.ids) + LONGEST)

    @torch.inference_mode()
    def ask(self, frames: Tensor | np.ndarray) -> list[FrameAnswer]:
        """Frames [B, 96, 96, 3] uint8, at most `together` -> an answer each."""
        caches = self.caches[: len(frames)]
        for cache in caches:
            cache.clear()
        hidden = self._first(frames, caches)  # [B, E]
        said: list[list[int]] = [[] for _ in caches]
        chances: list[list[Tensor]] = [[] for _ in caches]
        open_, place = list(range(len(caches))), self.prompt.next
        while open_ and place < self.prompt.next + LONGEST + 1:
            share = self.vlm.logits(hidden).softmax(-1)  # [open, vocabulary]
            chosen = share.argmax(-1).tolist()
            for row, id, chance in zip(open_, chosen, share, strict=True):
                said[row].append(id)
                chances[row].append(chance)
            words = [DecodeToken(said[row][-1], place, caches[row]) for row in open_ if said[row][-1] != self.prompt.end]
            open_, place = [row for row in open_ if said[row][-1] != self.prompt.end], place + 1
            hidden = torch.cat(self.vlm.forward(words)) if words else hidden
        return [self._answer(ids, own) for ids, own in zip(said, chances, strict=True)]

    def _first(self, frames: Tensor | np.ndarray, caches: Sequence[KVCache]) -> Tensor:
        """Pictures and questions into empty caches -> the hidden state [B, E] that says the first word."""
        seen = self.vlm.encode([(own, GRID) for own in patches(frames).chunk(len(caches))])  # [N, E] each
        start = self.prompt.start
        asked = [torch.cat((self.question[:start], tokens, self.question[start + len(tokens) :])) for tokens in seen]
        feeds = [Prefill(x, self.prompt.positions, cache) for x, cache in zip(asked, caches, strict=True)]
        return torch.stack([hidden[-1] for hidden in self.vlm.forward(feeds)])

    def _answer(self, ids: Sequence[int], chances: Sequence[Tensor]) -> FrameAnswer:
        ended = ids[-1] == self.prompt.end
        words = tuple(self.vlm.tokenizer.decode(ids[: len(ids) - ended]).split())
        said = parse(words) if ended else None
        if said is None or len(words) != len(ids) - 1:  # a word of several pieces is none of ours
            return FrameAnswer(words, False)
        listed = 1 + len(said.anomalies)
        where = torch.stack(list(chances[1 : listed + 1]))[:, self.kinds].amax(0).tolist()
        sure = [float(chance[id]) for id, chance in zip(ids, chances, strict=True)]
        return FrameAnswer(words, True, said.action, {kind: int(kind in said.anomalies) for kind in ANOMALIES}, _boxes(said, sure[listed:]),
                           dict(zip(ANOMALIES, where, strict=True)))


def _boxes(said: Said, sure: Sequence[float]) -> tuple:
    """Boxes in px, each as sure as its class times the geometric mean of its corners."""
    sure_of = [sure[5 * k] * float(np.prod(sure[5 * k + 1 : 5 * k + 5])) ** 0.25 for k in range(len(said.things))]
    return tuple((*(STEP_PX * corner for corner in thing.corners), thing.label, score)
                 for thing, score in zip(said.things, sure_of, strict=True))


def answers(vlm: VLM, frames: Tensor | np.ndarray, together: int = 16) -> list[FrameAnswer]:
    """Frames [F, 96, 96, 3] uint8 -> an answer each, `together` of them asked at a time; each is as if it had been asked alone."""
    asker = Asker(vlm, min(together, max(1, len(frames))))
    return [answer for start in range(0, len(frames), together) for answer in asker.ask(frames[start : start + together])]


def assess(vlm: VLM, cities: Sequence[City], limits: dict[str, float] | None = None, every: int = 1, together: int = 16) -> dict:
    """Every camera and `every`-th frame of cities of one shape -> {"map50", "map", "by_class", "action", "unparsable", "f1"}.

    `f1`: of what was said, by kind and family; `f1_by_threshold` where `limits` are given; `sure` and `true` [B, F, 6] to find them with."""
    found, true, image, known = _asked(vlm, cities, every, together)
    said = np.array([[list(answer.anomalies.values()) for answer in row] for row in found], float)
    sure = np.array([[list(answer.sure.values()) for answer in row] for row in found])
    flat = [answer for row in found for answer in row]
    boxes = [(k, box) for k, answer in enumerate(flat) for box in answer.boxes]
    own = detection.Boxes([k for k, _ in boxes], [box[:4] for _, box in boxes], [box[4] for _, box in boxes], [box[5] for _, box in boxes])
    wrong = np.stack([city.truth.anomalies[camera, ::every] for city in cities for camera in range(city.cameras)])
    fps = FPS / every
    out = detection.average_precision(known, own, image, CLASSES) | {
        "action": float(np.mean([answer.action == action for answer, action in zip(flat, true, strict=True)])),
        "unparsable": float(np.mean([not answer.parsed for answer in flat])), "frames": len(flat),
        "f1": alarms.report(said, wrong, dict.fromkeys(ANOMALIES, 0.5), fps)["f1"], "sure": sure, "true": wrong}
    return out | ({"f1_by_threshold": alarms.report(sure, wrong, limits, fps)["f1"]} if limits else {})


def _asked(vlm: VLM, cities: Sequence[City], every: int, together: int) -> tuple[list[list[FrameAnswer]], list[int], int, detection.Boxes]:
    """Answers of each stream, true actions, the number of pictures, true boxes."""
    found, actions, image, box, label = [], [], [], [], []
    for city, camera in _streams(cities):
        frames = range(0, city.frames, every)
        for frame in frames:
            mine = city.truth.boxes(camera, frame)
            image += [len(actions)] * len(city.truth.box[mine])
            box.append(city.truth.box[mine])
            label.append(city.truth.box_class[mine])
            actions.append(int(city.truth.action[camera, frame]))
        found.append(answers(vlm, np.stack([city.draw(camera, frame) for frame in frames]), together))
    return found, actions, len(actions), detection.Boxes(image, np.concatenate(box), np.concatenate(label))


def _streams(cities: Sequence[City]) -> Iterator[tuple[City, int]]:
    return ((city, camera) for city in cities for camera in range(city.cameras))


def milliseconds(vlm: VLM, frames: np.ndarray, together: int, times: int = 15) -> dict[str, float]:
    """Medians of wall and of CPU ms a frame on this thread, `together` frames asked at a time."""
    asker, parts = Asker(vlm, together), []
    for k in range(times + 2):
        part = frames[np.arange(k * together, (k + 1) * together) % len(frames)]
        wall, cpu = time.perf_counter(), time.thread_time()
        asker.ask(part)
        parts.append((time.perf_counter() - wall, time.thread_time() - cpu))
    wall, cpu = 1000 * np.median(parts[2:], axis=0) / together
    return {"wall_ms": round(float(wall), 3), "cpu_ms": round(float(cpu), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cities", type=int, default=12, help="half of them to find thresholds with, the others for the scores")
    parser.add_argument("--frames", type=int, default=192, help="of each city")
    parser.add_argument("--every", type=int, default=8, help="every so many frames are asked about")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    vlm = loading.load(asked.folder, torch.device("cpu"))
    first, second = ([City(VALIDATION + k, frames=asked.frames) for k in part] for part in (
        range(asked.cities // 2), range(asked.cities // 2, asked.cities)))
    tuned = assess(vlm, first, every=asked.every)
    limits = {kind: alarms.threshold(tuned["sure"][..., k], tuned["true"][..., k]) for k, kind in enumerate(ANOMALIES)
              if tuned["true"][..., k].any()}
    limits = dict.fromkeys(ANOMALIES, 0.5) | limits
    out = assess(vlm, second, limits, asked.every) | {"limits": limits}
    frames = np.stack([city.draw(camera, 40) for city, camera in _streams(second)])
    out["ms"] = {str(together): milliseconds(vlm, frames, together) for together in (1, 8)}
    print(json.dumps({name: value for name, value in out.items() if name not in {"sure", "true"}}, indent=1))


if __name__ == "__main__":
    main()
