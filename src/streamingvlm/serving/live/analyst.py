"""The multi-camera model on frames as they come: any streams in a batch, one frame of each; looks across streams gathered by time.

    analyst = Analyst(network, rules)
    decisions = analyst.decide([Frame(stamp, pixels), ...])        # one a frame, in the order given
    analyst.forget("gate")

Each stream has a state of its own, so streams come, go and stay away as they like. Every 16 frames' worth of time the streams look at each other:
each brings its first frame from then on; who does not come within `longest_wait_s`, or shows a moment too far from the earliest, is masked. Where
nothing is late, this is `Network.forward` over all streams at once, to the bit of its sums (a test holds it). Knows no process, queue or clock.
Letters: B streams, K things, S slots.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from streamingvlm.base.records import Frame
from streamingvlm.models.multicamera.heads import called, spotted
from streamingvlm.models.multicamera.hrm import Told
from streamingvlm.models.multicamera.memory import Look, State, follow
from streamingvlm.models.multicamera.network import Network
from streamingvlm.worlds.alarms import Latch, Rule
from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES, FPS

SURE = 0.3  # of a box that is handed on
MAYBE = 0.1  # of a person who is hidden: to show somebody costs more than to hide a lamp post
FAR = 4  # periods between a frame and the next look: no pause of streams, but another time of day
LATCHED = ("above", "below", "alarm")


@dataclass
class Gathering:
    """Who has brought a frame to the next look: pure bookkeeping in seconds of capture time, `now` being the caller's clock."""

    period_s: float
    tolerance_s: float = 0.5
    longest_wait_s: float = 0.25
    next_at: float | None = None
    waiting: dict[str, float] = field(default_factory=dict)  # stream -> when its frame was taken
    since: float = 0.0  # when the first of them came
    last: dict[str, float] = field(default_factory=dict)  # stream -> its newest frame's time

    def bring(self, stream: str, at: float, now: float) -> bool:
        """A frame of `stream` taken `at` came -> whether it is its frame for the look."""
        self.last[stream] = at
        if self.next_at is None or (not self.waiting and abs(at - self.next_at) > FAR * self.period_s):
            self.next_at = at  # the first, or the clocks were set
        early_s = self.period_s / 32  # half a frame of 16: cameras' clocks are not exact
        if stream in self.waiting or at < self.next_at - early_s:
            return False
        if not self.waiting:
            self.since = now
        self.waiting[stream] = at
        return True

    def ready(self, now: float) -> bool:
        """Whether all who are alive have come, or the wait has been long enough."""
        if not self.waiting:
            return False
        newest = max(self.last.values())
        alive = {stream for stream, at in self.last.items() if at > newest - 1.5 * self.period_s}
        return alive <= self.waiting.keys() or now - self.since >= self.longest_wait_s

    def take(self) -> list[str]:
        """The streams that look at each other now, in the order of their names; the next look is a period after the earliest of them."""
        earliest = min(self.waiting.values())
        chosen = sorted(stream for stream, at in self.waiting.items() if at <= earliest + self.tolerance_s)
        self.waiting, self.next_at = {}, earliest + self.period_s
        return chosen

    def forget(self, stream: str) -> None:
        self.waiting.pop(stream, None)
        self.last.pop(stream, None)


@dataclass
class _Stream:
    """What is kept of a stream: its state, what it tells the next look, what it showed at the last one, what a look it was late for has brought it,
    and since when which alarms are on."""

    state: State
    epoch: int
    latch: Latch
    told: Told | None = None
    born: Tensor | None = None  # [S] slots that hold somebody new since `told`
    shown: Told | None = None
    brought: tuple[Tensor, Tensor, Tensor] | None = None


class Analyst:
    """`rules`: when an alarm of each kind goes on and off, from validation. `gathering`: when streams look at each other."""

    def __init__(self, network: Network, rules: Mapping[str, Rule], gathering: Gathering | None = None):
        self.network, self.memory = network.eval(), network.memory
        self.rules = [rules[kind] for kind in ANOMALIES]
        self.gathering = gathering or Gathering(self.memory.knobs.period / FPS)
        self.streams: dict[str, _Stream] = {}
        self.looks = 0

    @torch.inference_mode()
    def decide(self, frames: Sequence[Frame], now: float | None = None) -> list[dict]:
        """At most one frame a stream, [H, W, C] uint8 of the network's size each -> the model's share of each decision (see `row`)."""
        if len({frame.stamp.stream for frame in frames}) < len(frames):
            raise ValueError("A batch holds at most one frame of a stream.")
        begun = time.perf_counter()
        pictures = torch.from_numpy(np.stack([frame.pixels for frame in frames]))  # [B, H, W, C]
        sight, things = self.network.see(pictures)
        seen = time.perf_counter()
        kept = [self._stream(frame) for frame in frames]
        state, present = State.join([one.state for one in kept]), torch.ones(1, len(frames), dtype=torch.bool)
        found = spotted(sight, things)
        sight = sight.map(lambda x: x[None])  # [1, B, ...]
        followed, tracks = follow(sight.people, state.tracks, present)
        told = self.memory.told(sight, followed, present)
        look = self._look(frames, kept, told.map(lambda x: x[0]), followed.new[0], begun if now is None else now)
        decisions, state = self.memory.decide(sight, followed, present, state, told, look=look)
        state = replace(state, tracks=tracks)
        found = [row | verdict for row, verdict in zip(found, called(decisions.action[0], decisions.anomalies[0]), strict=True)]
        for b, one in enumerate(kept):
            one.state = state.rows(torch.tensor([b]))
        done = time.perf_counter()
        ms = {"see": round((seen - begun) * 1e3, 3), "memory": round((done - seen) * 1e3, 3)}
        return [self._row(decisions, things, found[b], b, one.latch) | {"ms": dict(ms)} for b, one in enumerate(kept)]

    def forget(self, stream: str) -> None:
        """A stream that has gone."""
        self.streams.pop(stream, None)
        self.gathering.forget(stream)

    def forget_all(self) -> None:
        """As new."""
        for stream in list(self.streams):
            self.forget(stream)
        self.gathering.next_at, self.looks = None, 0

    def save(self, stream: str) -> dict[str, Tensor]:
        """A stream's state by name, for another analyst to `restore` it."""
        kept = self.streams[stream]
        return kept.state.tensors() | {f"latch.{name}": torch.from_numpy(getattr(kept.latch, name)) for name in LATCHED}

    def restore(self, stream: str, tensors: Mapping[str, Tensor], epoch: int) -> None:
        kept = self.streams[stream] = _Stream(State.restore(dict(tensors)), epoch, Latch(self.rules, 1))
        for name in LATCHED:
            setattr(kept.latch, name, tensors[f"latch.{name}"].numpy())

    def hand_over(self, stream: str) -> dict:
        """All that is known of a stream, with what it waits for from a look, for another analyst to `take_over`; the stream stays."""
        kept, gathering = self.streams[stream], self.gathering
        waits = {name: getattr(kept, name) for name in ("born", "brought")}
        waits |= {name: told and (told.people, told.scene, told.present) for name, told in (("told", kept.told), ("shown", kept.shown))}
        clock = {"next_at": gathering.next_at, "since": gathering.since, "last": gathering.last.get(stream), "waiting": gathering.waiting.get(stream)}
        return {"tensors": self.save(stream), "epoch": kept.epoch, "waits": waits, "clock": clock}

    def take_over(self, stream: str, told: Mapping) -> None:
        """Go on with what `hand_over` told. Where others are already, its looks are theirs from now on."""
        self.restore(stream, told["tensors"], told["epoch"])
        kept, gathering, clock = self.streams[stream], self.gathering, told["clock"]
        kept.born, kept.brought = told["waits"]["born"], told["waits"]["brought"]
        kept.told, kept.shown = (parts and Told(*parts) for parts in (told["waits"]["told"], told["waits"]["shown"]))
        if gathering.next_at is None:
            gathering.next_at, gathering.since = clock["next_at"], clock["since"]
        for kind in ("last", "waiting"):
            if clock[kind] is not None:
                getattr(gathering, kind)[stream] = clock[kind]

    def _stream(self, frame: Frame) -> _Stream:
        """A stream's own, begun anew with each of its connections: what was seen before a gap says nothing of now."""
        stamp = frame.stamp
        kept = self.streams.get(stamp.stream)
        if kept is None or kept.epoch != stamp.epoch:
            self.forget(stamp.stream)
            kept = self.streams[stamp.stream] = _Stream(self.memory.start(1), stamp.epoch, Latch(self.rules, 1))
        return kept

    def _look(self, frames: Sequence[Frame], kept: list[_Stream], told: Told, born: Tensor, now: float) -> Look:
        """Gather, look if it is time, and hand each stream of this batch what it has not had yet."""
        for b, (frame, one) in enumerate(zip(frames, kept, strict=True)):
            if one.born is not None:
                one.born |= born[b]
            if self.gathering.bring(frame.stamp.stream, frame.stamp.captured_at, now):
                one.told, one.born = told.map(lambda x, b=b: x[b]), torch.zeros_like(born[b])
        if self.memory.knobs.hrm != "none" and self.gathering.ready(now):
            self._take(self.gathering.take())
        if not self.memory.answered:
            return self._ask(frames, told)
        width, rows = self.memory.knobs.trm.width, []
        for b, one in enumerate(kept):
            nothing = (torch.zeros(width), torch.zeros(born.shape[1]), torch.zeros(2))
            rows.append((one.brought or nothing) + (torch.tensor(one.brought is not None),))
            if one.brought is not None:
                context, same, verdict = one.brought
                rows[b] = (context, same * ~one.born, verdict, torch.tensor(True))
                one.brought, one.born = None, None
        return Look(*(torch.stack(part) for part in zip(*rows, strict=True)))

    def _take(self, names: list[str]) -> None:
        """One look across these streams; each finds what it brought when its next frame is decided."""
        self.looks += 1
        if not self.memory.answered:
            for name, one in self.streams.items():
                one.shown = one.told if name in names else None
            return
        chosen = [self.streams[name] for name in names]
        result = self.memory.hrm(_stacked([one.told for one in chosen]))
        for b, one in enumerate(chosen):
            one.brought = (result.context[b], result.same[b], result.logits[b])

    def _ask(self, frames: Sequence[Frame], told: Told) -> Look:
        """Each stream of this batch seeks its people among those whom the others showed at the last look."""
        names = {name: at for at, name in enumerate(self.streams)}
        nobody = told.map(lambda x: torch.zeros_like(x[0]))
        now, at = [nobody] * len(names), [names[frame.stamp.stream] for frame in frames]
        for b, row in enumerate(at):
            now[row] = told.map(lambda x, b=b: x[b])
        result = self.memory.hrm(_stacked(now), _stacked([one.shown or nobody for one in self.streams.values()]))
        return Look(result.context[at], result.same[at], result.logits[at], torch.ones(len(at), dtype=torch.bool))

    def _row(self, decisions, things, found: dict, b: int, latch: Latch) -> dict:
        """The JSON of one frame: boxes as shares of the picture, action, scores of anomalies, alarms, event score, surprise. `people`: where somebody
        may be, for whoever hides them, and `spotted`, for whoever comments; no part of a decision."""
        scores = decisions.anomalies[0, b].sigmoid()
        listed = list(zip(things.box[b].tolist(), things.score[b].tolist(), things.label[b].tolist(), strict=True))
        return {
            "boxes": [{"box": [round(x, 4) for x in box], "label": CLASSES[label], "score": round(score, 3)} for box, score, label in listed
                      if score > SURE],
            "people": [[round(x, 4) for x in box] for box, score, label in listed if score > MAYBE and CLASSES[label] == "person"],
            "spotted": found,
            "action": ACTIONS[found["action"]],
            "anomalies": {kind: round(score, 4) for kind, score in zip(ANOMALIES, scores.tolist(), strict=True)},
            "alarms": [kind for kind, on in zip(ANOMALIES, latch(scores.numpy()[None])[0].tolist(), strict=True) if on],
            "event_score": round(float(decisions.event[0, b].sigmoid()), 4),
            "future": round(float(decisions.future[0, b]), 4),
        }


def _stacked(told: Sequence[Told]) -> Told:
    """What single streams bring, as rows of one."""
    return Told(*(torch.stack([getattr(one, part) for one in told]) for part in ("people", "scene", "present")))
