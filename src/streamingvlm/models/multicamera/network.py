"""The whole of the article's model: pictures of B cameras in, decisions out, batched over the cameras. The door to this package.

    network = load(Path("data/city-base"))       # or Network(Knobs()) with random weights
    state = network.memory.start(cameras)
    decisions, things, state = network(frames, state)       # frames [F, B, H, W, 3] uint8, at the fps it was trained for

`Network.see` and `Network.memory` are its halves: the first knows one picture at a time, the second no pixels. Knows no source, no clock.
Letters: F frames, B streams, H W pixels, C channels, K things.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera import backbone as backbones
from streamingvlm.models.multicamera.heads import Detections, Head, Sight, called, detections, sight, spotted
from streamingvlm.models.multicamera.memory import Decisions, Memory, MemoryKnobs, State
from streamingvlm.models.multicamera.nets import seeded
from streamingvlm.models.multicamera.trm import Recursion

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Knobs:
    """A network's shape. `backbone`: see `backbone.BUILDERS`; `weights`: of a borrowed one."""

    backbone: str = "tiny"
    weights: str | None = None
    memory: MemoryKnobs = field(default_factory=MemoryKnobs)
    seed: int = 0


class Network(nn.Module):
    def __init__(self, knobs: Knobs):
        super().__init__()
        self.knobs = knobs
        self.backbone = backbones.build(knobs.backbone, knobs.weights, knobs.seed)
        self.head, self.memory = seeded(knobs.seed, lambda: (Head(self.backbone), Memory(knobs.memory)))
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        self.eval()

    def see(self, pictures: Tensor) -> tuple[Sight, Detections]:
        """Pictures [F, H, W, 3] uint8, each for itself -> what the memory is told of them, and the things found."""
        seen = self.backbone(pictures)
        dense = self.head(seen)
        return sight(dense, seen), detections(dense)

    def forward(self, frames: Tensor, state: State, present: Tensor | None = None) -> tuple[Decisions, Detections, State]:
        """frames [F, B, H, W, 3] uint8 in order. `present` [F, B]: which of them there are; nothing comes of the others."""
        told, things = self.see(frames.flatten(0, 1))
        apart = lambda x: x.unflatten(0, frames.shape[:2])  # noqa: E731
        decisions, state = self.memory(told.map(apart), state, present)
        return decisions, Detections(*(apart(x) for x in (things.box, things.score, things.label))), state

    @torch.inference_mode()
    def tell(self, frames: Tensor, state: State) -> tuple[list[list[dict]], State]:
        """frames [F, B, H, W, 3] uint8 in order -> of each stream and frame what is spotted there (`heads.spotted`) and `called` (`heads.called`)."""
        sight, things = self.see(frames.flatten(0, 1))
        decisions, state = self.memory(sight.map(lambda x: x.unflatten(0, frames.shape[:2])), state)
        verdicts = called(decisions.action.flatten(0, 1), decisions.anomalies.flatten(0, 1))
        rows = [row | verdict for row, verdict in zip(spotted(sight, things), verdicts, strict=True)]
        return [rows[stream :: frames.shape[1]] for stream in range(frames.shape[1])], state

    def save(self, folder: Path) -> int:
        """Write config and weights (float32) -> bytes of the weights."""
        content = save({name: tensor.contiguous() for name, tensor in self.state_dict().items()})
        files.write(folder / CONFIG, json.dumps(asdict(self.knobs), indent=1) + "\n")
        files.write(folder / WEIGHTS, content)
        return len(content)


def read_knobs(folder: Path) -> Knobs:
    """The shape of the network in a folder."""
    told = json.loads((folder / CONFIG).read_text())
    return Knobs(**told | {"memory": MemoryKnobs(**told["memory"] | {"trm": Recursion(**told["memory"]["trm"])})})


def load(folder: Path) -> Network:
    """A network written by `Network.save`. UserError where there is none, or not a whole one."""
    try:
        network = Network(read_knobs(folder))
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} holds no whole multi-camera model; train one, or name another folder ({error}).") from error
    return network
