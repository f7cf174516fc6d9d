"""`streamingvlm learn`: watch one's own cameras for a while and learn what is usual there, so that `serve --eyes coco` says what is not. No labels.

    streamingvlm learn cameras.yaml --minutes 30            # then: streamingvlm serve cameras.yaml --eyes coco --learned artifacts/learned

Keeps an embedding of 256 numbers a second, in memory; no picture is written or kept.
"""

from __future__ import annotations

import argparse
import datetime
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from streamingvlm.base.errors import UserError
from streamingvlm.cli.footage.places import LEARNED, VIT, in_clone

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from streamingvlm.serving.cameras import Camera

ROOM = 32  # pictures that wait for the ViT; of a live camera more are left out
TOGETHER = 8  # pictures in a pass


def options(parser: argparse.ArgumentParser) -> None:
    """What can be typed behind `learn`."""
    parser.add_argument("file", type=Path, metavar="CAMERAS", help="the YAML file that `serve` takes")
    parser.add_argument("--minutes", type=float, metavar="N", default=30.0, help="how long to watch; files are read once, fast (default: 30)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"where to write it (default: {LEARNED} in this clone)")
    parser.add_argument("--eyes", type=Path, metavar="FOLDER", help=f"the ViT (default: {VIT} in this clone)")
    parser.add_argument("--seed", type=int, metavar="N", default=0)


def learn(args: argparse.Namespace) -> None:
    """UserError where too little was seen of a camera: then nothing is written."""
    import torch

    from streamingvlm.base import machine, progress
    from streamingvlm.models.eyes import ordinary
    from streamingvlm.serving import cameras
    from streamingvlm.training import ordinary as training

    if not args.minutes > 0:
        raise UserError("--minutes is a number above 0.")
    watched = cameras.load(args.file).cameras
    if not watched:
        raise UserError(f"{args.file.name} names no camera.")
    vit, began = ordinary.eyes(args.eyes or in_clone(VIT, "one with --eyes")), time.monotonic()
    out = args.out or in_clone(LEARNED, "a folder with --out")
    seen: dict[str, list[Tensor]] = {camera.name: [] for camera in watched}
    taken = Taken(watched, args.minutes * 60)
    expected = math.ceil(args.minutes * 60 / ordinary.EVERY_S) * len(watched)
    for batch in progress.bar(taken.batches(), None, f"watching, {expected} pictures at most", lambda batch: batch[-1][0]):
        for (name, _), embedding in zip(batch, ordinary.embeddings(vit, [picture for _, picture in batch]), strict=True):
            seen[name].append(embedding)
    for name, reason in taken.failed.items():
        print(f"{name}: {reason}", flush=True)
    model, report = training.learned({name: torch.stack(of) if of else torch.zeros(0, 256) for name, of in seen.items()}, args.seed)
    asked = {"minutes": args.minutes, "seed": args.seed, "every_s": ordinary.EVERY_S, "side_px": ordinary.SIDE_PX}
    told = {"cameras": report, "left_out": dict(taken.left_out), "date": datetime.date.today().isoformat(),
            "watched_s": round(time.monotonic() - began, 1), **asked, **machine.provenance(asked)}
    ordinary.save(model, out, told)
    print(f"{'':20}{'pictures':>9}{'surprise':>10}{'of no change':>14}")
    for name, row in report.items():
        print(f"{name:20}{row['pictures']:9}{row['foretold']:10.3f}{row['unchanged']:14.3f}")
    print(f"Learned; now: streamingvlm serve {args.file} --eyes coco --learned {out}")


class Taken:
    """A picture a second of each camera, from a thread each. `failed`: a camera -> why no more came. `left_out`: pictures the ViT had no time for."""

    def __init__(self, cameras: tuple[Camera, ...], seconds: float):
        self.cameras, self.seconds = cameras, seconds
        self.waiting: queue.Queue[tuple[str, np.ndarray] | None] = queue.Queue(ROOM)
        self.stops = {camera.name: threading.Event() for camera in cameras}
        self.failed, self.left_out = {}, Counter()

    def batches(self) -> Iterator[list[tuple[str, np.ndarray]]]:
        """Until the time is over, or every camera has ended. Ctrl-C ends it too, with what was seen."""
        threads = [threading.Thread(target=self._watch, args=(camera,), daemon=True) for camera in self.cameras]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                batch = [self.waiting.get()]
                while len(batch) < TOGETHER and not self.waiting.empty():
                    batch.append(self.waiting.get())
                running -= sum(one is None for one in batch)
                if batch := [one for one in batch if one is not None]:
                    yield batch
        except KeyboardInterrupt:
            print("Learning from what was seen so far.", flush=True)
        finally:
            for stop in self.stops.values():
                stop.set()

    def _watch(self, camera: Camera) -> None:
        try:
            self._take(camera)
        except Exception as error:  # whatever ends one camera must not leave the others waiting for it
            self.failed[camera.name] = f"{type(error).__name__}: {error}"
        finally:
            self.waiting.put(None)

    def _take(self, camera: Camera) -> None:
        from streamingvlm.media.sources import kinds
        from streamingvlm.media.sources.protocol import Change, watched
        from streamingvlm.models.eyes.ordinary import EVERY_S
        from streamingvlm.serving.intake import city, picture
        from streamingvlm.serving.slots import DETECTOR_SHAPE

        stop, source = self.stops[camera.name], kinds.source(_unpaced(camera.url), transport=camera.transport, more={"city": city.CityCamera})
        if source.live:
            over = threading.Timer(self.seconds, stop.set)  # a camera that sends nothing must not keep the others waiting
            over.daemon = True
            over.start()
        last, epoch, first = -math.inf, -1, None
        for item in watched(source, stop):
            if isinstance(item, Change):
                if item.state in {"failed", "refused", "waiting"}:
                    self.failed[camera.name] = item.reason
                if item.epoch != epoch:
                    epoch, last = item.epoch, -math.inf
                continue
            if item.corrupt or item.image is None or item.pts_s - last < EVERY_S - 1e-6:
                continue
            first = item.pts_s if first is None else first
            if not source.live and item.pts_s - first > self.seconds:
                return
            last, pixels = item.pts_s, picture.fitted(picture.bounded(item.image, camera.inference_px), *DETECTOR_SHAPE[:2])
            try:
                self.waiting.put((camera.name, pixels), block=not source.live)
            except queue.Full:
                self.left_out[camera.name] += 1


def _unpaced(url: str) -> str:
    """A file is read as fast as it goes, once."""
    path = url[5:].partition("?")[0] if url.lower().startswith("file:") else url
    return f"file:{path}?pace=0" if url.lower().startswith("file:") or ":" not in url else url
