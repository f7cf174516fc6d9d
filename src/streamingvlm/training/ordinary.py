"""Learn what cameras usually show, from their embeddings a second alone: no labels. Knows no camera, no picture and no file.

    ordinary, report = learned({"gate": embeddings}, seed=0)              # [T, 256] each

Of each camera's time the first 70 % is learned from and kept, the next 15 % says when to stop, the last 15 % how surprising ordinary seconds are. As
with the city's memory, every recursion's answer is trained, on differences to the embedding now.
Letters: B windows, T pictures of one, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from streamingvlm.base.errors import UserError
from streamingvlm.models.eyes.ordinary import EVERY_S, Ordinary, apart, nearest
from streamingvlm.models.multicamera.nets import seeded

LEAST = 120  # pictures of a camera
WINDOW, BATCH = 32, 16
LEARNED, STOPPED = 0.70, 0.85  # shares of a camera's time
STEPS, LOOK, RATE = 400, 20, 1e-3
PATIENCE = 4  # looks without getting better


def learned(embeddings: Mapping[str, Tensor], seed: int = 0, steps: int = STEPS, told: Callable[[int, float], None] = lambda step, error: None
            ) -> tuple[Ordinary, dict]:
    """Embeddings [T, 256] by camera -> the model, and what there is to say: per camera its pictures, and the mean surprise over seconds it did not
    learn from, `foretold`, beside that of foretelling that nothing changes, `unchanged`. UserError where a camera has too few pictures."""
    short = [f"{name} ({len(x)})" for name, x in embeddings.items() if len(x) < LEAST]
    if short or not embeddings:
        raise UserError(f"Too few pictures came of {', '.join(short) or 'all cameras'}: it takes {LEAST} of each, one in {EVERY_S:g} s; give it more "
                        "minutes.")
    ordinary = seeded(seed, Ordinary)
    known = torch.cat([x[: int(len(x) * LEARNED)] for x in embeddings.values()])
    ordinary.mean.copy_(known.mean(0))
    ordinary.deviation.copy_(known.std(0) + 1e-3)
    streams = [ordinary.standard(x) for x in embeddings.values()]
    _fit(ordinary, streams, torch.Generator().manual_seed(seed), steps, told)
    ordinary.eval()
    report = {}
    for name, x in zip(embeddings, streams, strict=True):
        early, late = int(len(x) * LEARNED), int(len(x) * STOPPED)
        mine, still = _surprises(ordinary, x)[late - 1 :], apart(x[1:], x[:-1])[late - 1 :]
        ordinary.known[name] = embeddings[name][:early].clone()
        usual = {"surprise": mine, "distance": nearest(embeddings[name][early:], ordinary.known[name])}
        ordinary.usual[name] = {kind: np.sort(values.double().numpy()) for kind, values in usual.items()}
        report[name] = {"pictures": len(x), "foretold": float(mine.mean()), "unchanged": float(still.mean())}
    return ordinary, report


def _fit(ordinary: Ordinary, streams: list[Tensor], chance: torch.Generator, steps: int, told: Callable[[int, float], None]) -> None:
    """The weights that foretold best what the stopping part shows; those at the start where no step was better."""
    adam = torch.optim.AdamW(ordinary.parameters(), RATE, weight_decay=0.05)
    best, kept, since = _error(ordinary, streams), {name: value.clone() for name, value in ordinary.state_dict().items()}, 0
    for step in range(1, steps + 1):
        x = _windows(streams, chance)  # [T + 1, B, 256]
        carry, loss = ordinary.core.start(x.shape[1]), torch.zeros(())
        for now, then in pairwise(x):
            answers, carry = ordinary.foretell(now, carry)
            loss = loss + sum((answer - then).square().mean() for answer in answers) / len(answers)
        adam.zero_grad()
        (loss / (len(x) - 1)).backward()
        torch.nn.utils.clip_grad_norm_(ordinary.parameters(), 1.0)
        adam.step()
        if step % LOOK:
            continue
        error = _error(ordinary, streams)
        told(step, error)
        since += 1
        if error < best:
            best, kept, since = error, {name: value.clone() for name, value in ordinary.state_dict().items()}, 0
        if since >= PATIENCE:
            break
    ordinary.load_state_dict(kept)


def _windows(streams: list[Tensor], chance: torch.Generator) -> Tensor:
    """-> [T + 1, B, 256] from the part that is learned from."""
    out = []
    for which in torch.randint(len(streams), (BATCH,), generator=chance).tolist():
        x = streams[which][: int(len(streams[which]) * LEARNED)]
        at = int(torch.randint(len(x) - WINDOW, (), generator=chance))
        out.append(x[at : at + WINDOW + 1])
    return torch.stack(out, 1)


@torch.no_grad()
def _surprises(ordinary: Ordinary, x: Tensor) -> Tensor:
    """x [T, 256] standardised -> [T - 1], from the second picture on."""
    carry, out = ordinary.core.start(1), []
    for now, then in pairwise(x):
        answers, carry = ordinary.foretell(now[None], carry)
        out.append(apart(then[None], answers[-1])[0])
    return torch.stack(out)


def _error(ordinary: Ordinary, streams: list[Tensor]) -> float:
    """The mean surprise over the part that says when to stop."""
    parts = [_surprises(ordinary, x[: int(len(x) * STOPPED)])[int(len(x) * LEARNED) - 1 :] for x in streams]
    return float(torch.cat(parts).mean())
