"""What rounds of streams ask to be computed, and how many of them get it in one pass. Knows no token's meaning and no policy.

A round is a generator: it yields a request, is sent the answer, and ends with a result. Letters: B streams, N vision tokens, E hidden size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from streamingvlm.context.cache import KVCache
from streamingvlm.models.qwen25.decode import DecodeToken
from streamingvlm.models.qwen25.vlm import VLM, Pixels, Prefill


@dataclass(frozen=True)
class State:
    """Behind the last token of a forward: its final hidden state [E], the logits [vocabulary] of the next, and a call for the likeliest of them."""

    hidden: Tensor
    logits: Tensor
    best: Callable[[], int]


@dataclass(frozen=True)
class EncodeVision:
    """Chunks that are about to be read; the answer is the vision tokens [N, E] of each."""

    chunks: list[Pixels]


@dataclass(frozen=True)
class Reserve:
    """A prompt that was read, before the first word of its answer: room for `tokens` in all will do for what is to come. The answer is None."""

    cache: KVCache
    tokens: int


Request = Prefill | DecodeToken | EncodeVision | Reserve
Result = TypeVar("Result")
Round = Generator[Request, State | list[Tensor] | None, Result]  # yields what is to be computed, is sent what came out, ends with a result


@torch.inference_mode()
def run_batched(vlm: VLM, rounds: Sequence[Round[Result]]) -> list[Result]:
    """Rounds of many streams at once, to their ends -> their results. What they wait for is computed in one pass, be it to encode, read or say.

    Nobody looks while another still has tokens to compute, and nobody starts to speak before all are ready: so they go on side by side."""
    waiting: dict[int, Request] = {}
    answers, results = dict.fromkeys(range(len(rounds))), {}
    while answers:
        for i, answer in answers.items():
            try:
                waiting[i] = rounds[i].send(answer)
            except StopIteration as end:
                results[i] = end.value
        turns = ([i for i, request in waiting.items() if isinstance(request, kind)] for kind in (Prefill | DecodeToken, EncodeVision, Reserve))
        now = next(filter(None, turns), [])
        answers = dict(zip(now, compute(vlm, [waiting.pop(i) for i in now]), strict=True))
    return [results[i] for i in range(len(rounds))]


@torch.inference_mode()
def compute(vlm: VLM, requests: Sequence[Request]) -> list[State | list[Tensor] | None]:
    """What requests ask for, each in the order given: all of them tokens (Prefill, DecodeToken), or all EncodeVision, or all Reserve."""
    if all(isinstance(request, EncodeVision) for request in requests):
        tokens = iter(vlm.encode([pixels for look in requests for pixels in look.chunks]) if requests else ())
        return [[next(tokens) for _ in look.chunks] for look in requests]
    if all(isinstance(request, Reserve) for request in requests):
        vlm.decoder.prepare([ready.cache for ready in requests], max(ready.tokens for ready in requests))
        return [None] * len(requests)
    hidden = torch.stack([states[-1] for states in vlm.forward(requests)])  # [B, E]
    logits = vlm.logits(hidden)  # [B, vocabulary]
    best = functools.cache(lambda: logits.argmax(-1).tolist())  # asked for once for all: to know it is to wait for the device
    return [State(hidden[row], logits[row], lambda row=row: best()[row]) for row in range(len(requests))]
