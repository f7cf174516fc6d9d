"""All that remembers: from what is seen in each stream's frames to decisions, stream by stream and across them. Knows no pixels.

For every frame: people are followed (`slots`), each 16th frame the streams show each other what they see (`hrm`), columns are remembered (`places`),
and one token a stream goes through the recursion (`trm`, or a rival). A `State` is everything that is carried; it can be saved and restored.

    memory = Memory(MemoryKnobs()); state = memory.start(streams)
    sight = ...                                   # heads.Sight of [F, B, ...]
    decisions, state = memory(sight, state)

Letters: F frames, B streams, S slots, E hidden size. Streams that are not `present` [F, B] in a frame stand still, and nobody sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera import slots
from streamingvlm.models.multicamera.backbone import EMBEDDING
from streamingvlm.models.multicamera.heads import ACTIONS, ALARMS, SCENE, Sight
from streamingvlm.models.multicamera.hrm import HRM, PERIOD, SEEN, Told, loudest
from streamingvlm.models.multicamera.nets import linear
from streamingvlm.models.multicamera.places import CLOCKS, Places
from streamingvlm.models.multicamera.rivals import Gated, Window
from streamingvlm.models.multicamera.trm import TRM, Carry, Recursion

ANOMALIES = 6
DIRECT = SCENE + CLOCKS + 3  # numbers that go to the answer past the core too: the scene's logits, clocks, what was learned across streams
HOLDS = ("others", "answer")
CORES = {"trm": lambda knobs: TRM(knobs.trm), "gru": lambda knobs: Gated(knobs.trm.width), "transformer": lambda knobs: Window(knobs.trm.width)}


@dataclass(frozen=True)
class MemoryKnobs:
    """`core`: trm, gru or transformer. `hrm`: see `hrm.KINDS`. `period`: frames from one look across streams to the next. `places`: whether columns
    are remembered from frame to frame. `holds`: what a stream keeps of a look until the next: the `answer`, as the article has it, or what the
    `others` showed, to seek its own people among them in every frame."""

    core: str = "trm"
    trm: Recursion = field(default_factory=Recursion)
    hrm: str = "similarity"
    period: int = PERIOD
    places: bool = True
    holds: str = "others"

    def __post_init__(self):
        if self.core not in CORES:
            raise UserError(f"The core of a memory is one of {', '.join(CORES)}, not {self.core!r}.")
        if self.period < 1:
            raise UserError("Streams look at each other every 1 or more frames.")
        if self.holds not in HOLDS:
            raise UserError(f"Between two looks a stream holds one of {', '.join(HOLDS)}, not {self.holds!r}.")


VARIANTS = {
    "model": MemoryKnobs(),
    "no_hrm": MemoryKnobs(hrm="none"),
    "held_hrm": MemoryKnobs(holds="answer"),
    "mean_hrm": MemoryKnobs(hrm="mean"),
    "plain_hrm": MemoryKnobs(hrm="plain"),
    "token_hrm": MemoryKnobs(hrm="token"),
    **{f"depth{n}": MemoryKnobs(trm=Recursion(depth=n)) for n in (0, 1, 4)},
    "raw": MemoryKnobs(trm=Recursion(carry="raw", detached=False)),
    "reset": MemoryKnobs(trm=Recursion(carry="reset")),
    "gru": MemoryKnobs(core="gru"),
    "transformer": MemoryKnobs(core="transformer"),
    "frame": MemoryKnobs(hrm="none", places=False, trm=Recursion(carry="reset")),
}


@dataclass(frozen=True)
class State:
    """What goes on from frame to frame, of B streams. `frame`: how many frames there were. `held`: what the last look across streams left behind, by
    `MemoryKnobs.holds`: context [B, E], same [B, S], verdict [B, 2] (an answer), or people [B, S, 28], scene [B, 8], present [B] (what was shown)."""

    frame: int
    tracks: slots.Tracks
    places: Tensor
    core: Carry
    held: dict[str, Tensor]
    expected: Tensor  # [B, 256] this frame's embedding as foretold, standardised

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, to be written to a safetensors file; `State.restore` is the way back."""
        out = {"frame": torch.tensor(self.frame), "places": self.places, "expected": self.expected}
        out |= {f"tracks.{part.name}": getattr(self.tracks, part.name) for part in fields(self.tracks)}
        out |= {f"{kind}.{name}": tensor for kind in ("core", "held") for name, tensor in getattr(self, kind).items()}
        return {name: tensor.contiguous() for name, tensor in out.items()}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor]) -> State:
        tracks = slots.Tracks(*(tensors[f"tracks.{part.name}"] for part in fields(slots.Tracks)))
        core, held = ({name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)} for kind in ("core.", "held."))
        return cls(int(tensors["frame"]), tracks, tensors["places"], core, held, tensors["expected"])

    @classmethod
    def join(cls, states: Sequence[State]) -> State:
        """Streams of several states as one; its `frame` is the first one's."""
        parts = [state.tensors() for state in states]
        return cls.restore({name: tensor if name == "frame" else torch.cat([part[name] for part in parts]) for name, tensor in parts[0].items()})

    def rows(self, chosen: Tensor) -> State:
        """The state of some of the streams, or of all in another order."""
        return State.restore({name: tensor if name == "frame" else tensor[chosen] for name, tensor in self.tensors().items()})


@dataclass(frozen=True)
class Decisions:
    """Of F frames and B streams. Logits of the action [F, B, 6], of each kind of anomaly [F, B, 6] and of any at all, `event` [F, B]. `clocks`
    [F, B, 2] and the same of each column, `places` [F, B, 2, G]. `change` [F, B, 256]: how the embedding shall differ in the next frame; `future`
    [F, B]: the cosine of this frame's embedding and the one foretold. For training: `steps`, the answers [F, B, E] after each recursion, `direct`
    [F, B, 13], what goes past them, `verdict` [F, B, 2], clone and surge as logits of the look across alone, and in which frames it is `fresh`."""

    action: Tensor
    anomalies: Tensor
    event: Tensor
    clocks: Tensor
    places: Tensor
    change: Tensor
    future: Tensor
    steps: list[Tensor]
    direct: Tensor
    verdict: Tensor
    fresh: list[int]


@dataclass(frozen=True)
class Look:
    """What a look across streams brought that the caller took: context [B, E], same [B, S], verdict [B, 2], for the streams `there` [B]."""

    context: Tensor
    same: Tensor
    verdict: Tensor
    there: Tensor


@dataclass(frozen=True)
class Followed:
    """People as `slots` follows them: features [F, B, S, 28], and where a slot holds somebody new [F, B, S]."""

    people: Tensor
    new: Tensor


def follow(people: Tensor, tracks: slots.Tracks, present: Tensor) -> tuple[Followed, slots.Tracks]:
    """people [F, B, S, 22], present [F, B]. Nothing here is learned, so training does it once."""
    told, new = [], []
    for found, there in zip(people, present, strict=True):
        after, born = slots.follow(tracks, found)
        old = tracks
        tracks = slots.Tracks(*(torch.where(there.view(-1, *(1,) * (a.dim() - 1)), a, b) for a, b in (
            (getattr(after, part.name), getattr(old, part.name)) for part in fields(after))))
        told.append(slots.features(tracks))
        new.append(born & there[:, None])
    return Followed(torch.stack(told), torch.stack(new)), tracks


# context [F, B, E], who is seen elsewhere [F, B, S], verdict [F, B, 2]; what is held after the last frame, and in which frames the verdict is new
Across = tuple[Tensor, Tensor, Tensor, dict[str, Tensor], list[int]]


class Memory(nn.Module):
    def __init__(self, knobs: MemoryKnobs):
        super().__init__()
        self.knobs, width = knobs, knobs.trm.width
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.zeros(EMBEDDING) if name == "mean" else torch.ones(EMBEDDING))
        self.embed, self.direct = linear(EMBEDDING, width), linear(DIRECT, width, bias=True)
        self.person = nn.Sequential(linear(slots.FEATURES + 1, 64, bias=True), nn.SiLU(), linear(64, width))
        self.places = Places(width, remembers=knobs.places)
        self.hrm = HRM(width, knobs.hrm)
        self.core = CORES[knobs.core](knobs)
        self.answer = linear(width, ACTIONS + ANOMALIES + 1 + CLOCKS, bias=True)
        self.shortcut = linear(DIRECT, ACTIONS + ANOMALIES + 1 + CLOCKS)
        self.change = linear(width, EMBEDDING)

    @property
    def answered(self) -> bool:
        """Whether what is held between looks is what they answered; else it is whom they showed, and each frame asks anew."""
        return self.knobs.holds == "answer" or self.knobs.hrm == "none"

    def start(self, streams: int) -> State:
        """Before the first frame, in which the streams look at each other."""
        if self.answered:
            shapes = {"context": (self.knobs.trm.width,), "same": (slots.SLOTS,), "verdict": (2,)}
        else:
            shapes = {"people": (slots.SLOTS, slots.FEATURES), "scene": (SCENE,), "present": ()}
        held = {name: torch.zeros(streams, *shape, dtype=torch.bool if name == "present" else None) for name, shape in shapes.items()}
        return State(0, slots.start(streams), self.places.start(streams), self.core.start(streams), held, torch.zeros(streams, EMBEDDING))

    def forward(self, sight: Sight, state: State, present: Tensor | None = None, others: int = 0) -> tuple[Decisions, State]:
        """F frames of B streams, in order. `others`: people of that many frames ago are shown to the other streams instead of today's, a test of
        the attention (needs F to be all there is)."""
        present = torch.ones(sight.scene.shape[:2], dtype=torch.bool) if present is None else present
        followed, tracks = follow(sight.people, state.tracks, present)
        told = self.told(sight, followed, present)
        asked = told.map(lambda x: torch.roll(x, others, 0)) if others else None
        decisions, state = self.decide(sight, followed, present, state, told, asked)
        return decisions, replace(state, tracks=tracks)

    def told(self, sight: Sight, followed: Followed, present: Tensor) -> Told:
        """What the streams may look at in each frame."""
        return Told(followed.people, probabilities(sight.scene), present)

    def decide(self, sight: Sight, followed: Followed, present: Tensor, state: State, told: Told, asked: Told | None = None,
               groups: int = 1, look: Look | None = None) -> tuple[Decisions, State]:
        """As `forward`, people being followed already; the tracks of `state` are left alone. The B streams are `groups` of as many each: only
        those of a group see each other. With a `look`, which comes before the first frame, no other is taken."""
        embedding = (sight.embedding - self.mean) / self.deviation  # [F, B, 256]
        if look is None:
            across = (self._answered if self.answered else self._asking)(told, asked, followed, present, state, groups)
        else:
            across = self._given(look, followed, state)
        context, same, verdict, held, fresh = across
        where, clocks, places = self.places(sight.columns, state.places, present)
        direct = torch.cat((sight.scene / 4, clocks.amax(-1), loudest(same), verdict / 4), -1)  # [F, B, 13]
        people = self.person(torch.cat((followed.people, same[..., None]), -1)) * (followed.people[..., SEEN, None] > 0)
        x = self.embed(embedding) / 2 + where + people.sum(2) / 2 + context + self.direct(direct)
        steps, core = self._recur(x, state.core, present)
        final = steps[-1]
        action, anomalies, event, waits = self.read(final, direct)
        change = self.change(final)
        foretold = torch.cat((state.expected[None], embedding[:-1] + change[:-1]))
        future = F.cosine_similarity(foretold, embedding, dim=-1)
        expected = torch.where(present[-1][:, None], embedding[-1] + change[-1], state.expected)
        after = State(state.frame + len(x), state.tracks, places, core, held, expected)
        return Decisions(action, anomalies, event, waits, clocks, change, future, steps, direct, verdict, fresh), after

    def read(self, answer: Tensor, direct: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of answers [..., E] and what goes past them [..., 13]: action, anomalies, event, clocks."""
        action, anomalies, event, clocks = (self.answer(answer) + self.shortcut(direct)).split((ACTIONS, ANOMALIES, 1, CLOCKS), -1)
        return action, anomalies, event[..., 0], clocks

    def _asking(self, told: Told, asked: Told | None, followed: Followed, present: Tensor, state: State, groups: int) -> Across:
        """Each frame's people, sought among those whom the other streams showed at the last look."""
        frames, shown, results = len(present), Told(**state.held), []
        looks = [k for k in range(frames) if (state.frame + k) % self.knobs.period == 0]
        for start, stop in pairwise(sorted({0, *looks, frames})):
            if start in looks:
                shown = (asked or told).map(lambda x, k=start: x[k] * present[k].view(-1, *(1,) * (x.dim() - 2)))  # who is absent shows nothing
            now = told.map(lambda x, part=slice(start, stop): x[part].unflatten(1, (groups, -1)))
            others = shown.map(lambda x, n=stop - start: x.unflatten(0, (groups, -1)).expand(n, groups, -1, *x.shape[1:]))
            results.append(self.hrm(now, others))
        context, same, verdict = (torch.cat([getattr(one, name).flatten(1, 2) for one in results]) for name in ("context", "same", "logits"))
        return context, same, verdict, vars(shown), list(range(frames))

    def _answered(self, told: Told, asked: Told | None, followed: Followed, present: Tensor, state: State, groups: int) -> Across:
        """What each stream took home from the last look, held as it is; only who has left is no longer seen elsewhere."""
        held, rows, fresh = tuple(state.held.values()), [], []
        for k in range(len(present)):
            there = present[k][:, None]
            held = (held[0], held[1] * ~followed.new[k], held[2])
            if (state.frame + k) % self.knobs.period == 0 and self.knobs.hrm != "none":
                moment, other = (x and x.map(lambda part, k=k: part[k].unflatten(0, (groups, -1))) for x in (told, asked))
                result = self.hrm(moment, other)
                fresh.append(k)
                held = tuple(torch.where(there, new.flatten(0, 1), old) for new, old in zip((result.context, result.same, result.logits), held,
                                                                                            strict=True))
            rows.append((held[0], held[1] * (followed.people[k, ..., SEEN] > 0), held[2]))
        return *(torch.stack(part) for part in zip(*rows, strict=True)), dict(zip(state.held, held, strict=True)), fresh

    def _given(self, look: Look, followed: Followed, state: State) -> Across:
        """One frame, with a look that the caller took."""
        brought, there = (look.context, look.same, look.verdict), look.there[:, None]
        held = tuple(state.held.values()) if self.answered else tuple(map(torch.zeros_like, brought))
        held = (held[0], held[1] * ~followed.new[0], held[2])
        held = tuple(torch.where(there, new, old) for new, old in zip(brought, held, strict=True))
        seen = held[1] * (followed.people[0, ..., SEEN] > 0) if self.answered else held[1]
        after = dict(zip(state.held, held, strict=True)) if self.answered else state.held
        return held[0][None], seen[None], held[2][None], after, []

    def _recur(self, x: Tensor, carry: Carry, present: Tensor) -> tuple[list[Tensor], Carry]:
        """x [F, B, E] frame by frame -> answers after each recursion [F, B, E] each, and the carry after the last frame."""
        out = []
        for now, there in zip(x, present, strict=True):
            answers, new = self.core(now[:, None], carry)
            out.append(torch.stack(answers)[:, :, 0])  # [depth, B, E]
            carry = {name: torch.where(there.view(-1, *(1,) * (value.dim() - 1)), value, carry[name]) for name, value in new.items()}
        return list(torch.stack(out, 1)), carry


def probabilities(scene: Tensor) -> Tensor:
    """Scene logits [..., 8] -> probabilities of the actions and of each alarm."""
    return torch.cat((scene[..., :ACTIONS].softmax(-1), scene[..., ACTIONS:].sigmoid()), -1)


assert SCENE == ACTIONS + ALARMS
