"""Eight cameras for whoever has none: a made-up city, filmed live and served over RTSP on this machine by a process of its own.

    async with cameras(8) as specs: ...        # cameras.Camera each, rtsp://127.0.0.1:.../camera-1

In cameras.yaml the same city is there without RTSP (`serving.intake.city`). Knows no model and no service. Letters: H W pixels, C channels.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection

import numpy as np

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.rtp import Encoded
from streamingvlm.media.sources.rtsp_server import running
from streamingvlm.serving.cameras import Camera, Privacy
from streamingvlm.serving.intake.city import FEWEST, MOST, Filming
from streamingvlm.serving.processes import READY, STOP, Worker
from streamingvlm.worlds.city.world import FPS

READY_S = 20.0
CRF = 12  # little loss: at 96 pixels a shirt is six of them
DELAY_S = 0.25  # of the jitter buffer: the quickest frame of a camera and the slowest are that far apart at most, on this machine


def pictures(filming: Filming, camera: int, begun: float) -> Iterator[np.ndarray]:
    """What a camera shows whenever it is asked; all cameras show the same moment."""
    while True:
        yield filming.draw(camera, round((time.monotonic() - begun) * FPS))


def work(connection: Connection, count: int) -> None:
    """The process that films and serves. Out: ("ready", address)."""
    filming = Filming(count)
    filming.draw(0, 0)
    begun = time.monotonic()
    with running({f"camera-{k + 1}": Encoded(pictures(filming, k, begun), FPS, crf=CRF) for k in range(count)}) as address:
        connection.send((READY, address))
        while connection.recv() != STOP:
            pass


@asynccontextmanager
async def cameras(count: int) -> AsyncIterator[tuple[Camera, ...]]:
    """Film while the block runs. UserError where that cannot be done."""
    if not FEWEST <= count <= MOST:
        raise UserError(f"A made-up city has {FEWEST} to {MOST} cameras, not {count}.")
    loop = asyncio.get_running_loop()
    ready: asyncio.Future = loop.create_future()

    def heard(message: tuple) -> None:
        if not ready.done():
            ready.set_result(message)

    worker = Worker("city", "streamingvlm.serving.live.demo:work", (count,), heard,
                    lambda code: heard(("failed", f"The city's process ended (exit code {code}).")))
    worker.start(loop)
    try:
        kind, told = await asyncio.wait_for(ready, READY_S)
        if kind == "failed":
            raise UserError(told)
        shown = Privacy(hide="nothing")  # nobody in it has ever lived
        yield tuple(Camera(name=f"camera {k + 1}", url=f"{told}/camera-{k + 1}", delay_s=DELAY_S, privacy=shown) for k in range(count))
    except TimeoutError:
        raise UserError(f"The made-up city was not ready within {READY_S:g} s: is the machine overloaded?") from None
    finally:
        await worker.stop()
