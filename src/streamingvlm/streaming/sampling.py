"""Which word comes next: the likeliest, or one drawn by chance. transformers' own processors, in the order of its `generate`. Knows no stream.

    sampler = Sampler(cfg.stream, vlm.device)        # greedy unless `temperature` is above 0
    token = sampler(state, context)

The chance is the stream's own: what it says depends on its seed and on nothing that happens in other streams, or in a fork of it.
Letters: S tokens of the context, V vocabulary.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper

from streamingvlm.base import config
from streamingvlm.streaming.batching import State


class Sampler:
    """`settings.repetition_penalty` holds for every id of the context; a `temperature` of 0 takes the likeliest, any other draws of the `top_k`
    likeliest (0: of all)."""

    def __init__(self, settings: config.Stream, device: torch.device):
        self.penalises, self.draws = settings.repetition_penalty != 1, settings.temperature > 0
        self.processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)] if self.penalises else [])
        if self.draws:
            self.processors += [TemperatureLogitsWarper(settings.temperature), *([TopKLogitsWarper(settings.top_k)] if settings.top_k else [])]
        self.chance = torch.Generator(device).manual_seed(settings.seed)

    def __call__(self, state: State, context: Tensor) -> int:
        """The next id behind `context` [S]; only a repetition penalty reads it."""
        if not self.processors:
            return state.best()
        scores = self.processors(context[None], state.logits[None])[0]  # [V]
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self.chance) if self.draws else scores.argmax())

    def fork(self) -> Sampler:
        """One that goes on alike and leaves this one's chance alone."""
        other = copy.copy(self)
        other.chance = self.chance.clone_state()
        return other
