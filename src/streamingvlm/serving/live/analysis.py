"""The process that decides: batches of frames in shared memory in, the model's answers out. One for a device. Knows no camera and no clock of theirs.
A folder that holds a frame-based VLM (`evaluation.frame_vlm`) is taken too, the baseline behind the same scheduler; and one of a pretrained detector.

Messages in: ("run", batch, [(stamp, pool, slot)]), ("forget", stream), STOP. Out: ("ready", latency curve), ("done", batch, answers, ms),
("failed", reason). The curve, {streams in a batch: ms}, is measured before the first batch, on pictures of nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.models.multicamera import compress
from streamingvlm.models.multicamera import network as networks
from streamingvlm.serving.live.analyst import Analyst
from streamingvlm.serving.processes import READY, STOP
from streamingvlm.serving.slots import SHAPE, Slots
from streamingvlm.training.city.validation import chosen

if TYPE_CHECKING:
    from streamingvlm.serving.live.baseline import Asked
    from streamingvlm.serving.live.spotter import Spotter

SIZES = (1, 2, 4, 8, 16)  # batches that are timed before the first
LONGEST_MS = 500.0  # of a batch that is timed: what takes longer is within nobody's budget


def load(folder: Path, precision: str = "float32", learned: str = "") -> Analyst | Asked | Spotter:
    """The analyst of a packaged model. `learned`: what a detector knows of its cameras besides. UserError where a folder holds none."""
    if (folder / "tokenizer.json").is_file():
        from streamingvlm.serving.live.baseline import Asked

        return Asked(folder)
    if (folder / "model.json").is_file():
        from streamingvlm.serving.live.spotter import Spotter

        return Spotter(folder, Path(learned) if learned else None)
    network = networks.load(folder)
    if precision != "float32":
        compress.apply(network, precision)
        if precision == "int8":
            compress.pack(network)
    return Analyst(network, chosen(folder)[1])


def work(connection: Connection, folder: Path, pools: Sequence[Slots], precision: str = "float32", learned: str = "") -> None:
    """Run until told to stop. UserError where the folder holds no model."""
    analyst = load(folder, precision, learned)
    connection.send((READY, curve(analyst, pools[0].shape)))
    while (message := connection.recv()) != STOP:
        if message[0] == "forget":
            analyst.forget(message[1])
            continue
        _, batch, frames = message
        begun = time.perf_counter()
        answers = analyst.decide([Frame(stamp, pools[pool].view(slot)) for stamp, pool, slot in frames])
        connection.send(("done", batch, answers, (time.perf_counter() - begun) * 1e3))


def curve(analyst: Analyst | Asked | Spotter, taken: tuple[int, int, int] = SHAPE, rounds: int = 5) -> dict[int, float]:
    """Milliseconds of a batch by its size: medians, after one to warm up. `taken`: [H, W, C] of a picture. The analyst is left as new."""
    blank, ms = np.zeros(taken, np.uint8), {}
    for size in SIZES:
        spent = []
        for k in range(rounds + 1):
            frames = [Frame(Stamp(f"\0{b}", k, 0, k / 8, k / 8, "receiver", k / 8), blank) for b in range(size)]
            begun = time.perf_counter()
            analyst.decide(frames)
            spent.append((time.perf_counter() - begun) * 1e3)
        ms[size] = float(np.median(spent[1:]))
        if ms[size] > LONGEST_MS:
            break
    analyst.forget_all()
    return ms
