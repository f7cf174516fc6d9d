"""What of people is left to see, and who gets in that should not: the two numbers of the ledger's claim A16. Measures; asserts nothing.

    python -m bench.privacy --save reports/reference/privacy.json       # some two minutes of one core
    python -m bench.privacy --video data/vtest.avi --truth gt.txt       # beside the city: real people, boxes in MOTChallenge's format

Evaluation cities through the packaged model's own person boxes and the service's own redactor, frame by frame as the service does it (a picture
waits for one more decision). A pixel counts as a person's where the picture differs from the same one with nobody in it, and as left to see where
the redactor did not cover it. `gap`: the detector runs in every so-manieth frame only, as when frames are dropped. Of a real film there are only
boxes, so there all pixels of a box count. Ways in are tried against the real doors over a service without cameras.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from streamingvlm.base import files, machine
from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import city as table
from streamingvlm.models.multicamera import network as networks
from streamingvlm.serving import cameras
from streamingvlm.serving.access.gate import Gate
from streamingvlm.serving.access.tokens import Tokens
from streamingvlm.serving.api.app import application
from streamingvlm.serving.api.listen import listening
from streamingvlm.serving.api.rpc import answering
from streamingvlm.serving.live.analyst import MAYBE, SURE
from streamingvlm.serving.privacy import waiting
from streamingvlm.serving.privacy.redactor import Redactor
from streamingvlm.serving.results import Results
from streamingvlm.serving.trials import trespass
from streamingvlm.worlds.city import draw, truth
from streamingvlm.worlds.city.knobs import CLASSES, FPS
from streamingvlm.worlds.city.wardrobe import PLAIN

SEEDS = 100  # behind the first evaluation city: none of these chose a threshold or a number of the redactor
ROWS = {  # name -> (score from which a box counts, gap, hold_s, ahead)
    "service": (MAYBE, 1, 1.0, 1), "surer": (SURE, 1, 1.0, 1), "no_ahead": (MAYBE, 1, 1.0, 0), "no_hold": (MAYBE, 1, 0.0, 0),
    "gap_2": (MAYBE, 2, 1.0, 1), "gap_4": (MAYBE, 4, 1.0, 1), "gap_12": (MAYBE, 12, 1.0, 1)}


class Covered(waiting.Waiting):
    """The service's own waiting room, whose pictures are masks: what the redactor would leave of a picture is where its mosaic changed nothing."""

    def __init__(self, hold_s: float, ahead: int):
        super().__init__("people", hold_s, lambda header, covered: self.out.__setitem__(header["index"], covered), ahead=ahead)
        self.out: dict[int, np.ndarray] = {}
        self.redactor = Mask()


class Mask(Redactor):
    """Says which pixels would be hidden, by the redactor's own drawing over stripes: a mean of two stripes is neither."""

    def __init__(self):
        super().__init__("people")

    def __call__(self, pixels, boxes):
        stripes = (np.indices(pixels.shape[:2]).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
        return (self.hidden(stripes, boxes) != stripes).any(2)  # [H, W]


@torch.inference_mode()
def boxes(network, pictures: np.ndarray) -> list[list[tuple]]:
    """[F, H, W, C] -> for each frame (score, box as shares of the picture) of the people found."""
    found = []
    for some in torch.from_numpy(pictures).split(32):
        things = network.see(some)[1]
        for box, score, label in zip(things.box.tolist(), things.score.tolist(), things.label.tolist(), strict=True):
            found.append([(s, tuple(b)) for b, s, c in zip(box, score, label, strict=True) if CLASSES[c] == "person"])
    return found


def people(here, camera: int) -> np.ndarray:
    """[F, H, W] bool: pixels that show a person."""
    sprites = truth.sprites(here.visits, here.scenes, here.knobs, here.frames, here.fps, here.size_px)
    mine, empty, place = sprites[sprites["camera"] == camera], draw.background(here.scenes[camera], here.size_px), here.scenes[camera]
    out = np.zeros((here.frames, *here.size_px), bool)
    for frame in range(here.frames):
        things = mine[mine["frame"] == frame]
        pair = [empty.copy(), empty.copy()]
        for image, shown in zip(pair, (things, things[things["pose"] < 0]), strict=True):
            draw.paint(image, shown, PLAIN, place.brightness, frame / here.fps)
        out[frame] = (pair[0] != pair[1]).any(2)
    return out


def covered(found: list[list[tuple]], shape: tuple[int, int], fps: float, row: tuple) -> list[np.ndarray]:
    """[H, W] bool for each frame that was shown: what of it is hidden."""
    sure, gap, hold_s, ahead = row
    room = Covered(hold_s, ahead)
    for k, things in enumerate(found):
        room.picture(k, k / fps, {"index": k}, np.zeros((*shape, 3), np.uint8), k / fps)
        room.decided(k, k / fps, [box for score, box in things if score > sure] if k % gap == 0 else None)
    return [room.out.get(k) for k in range(len(found))]


def count(masks: np.ndarray, hidden: list[np.ndarray], tally: Counter) -> None:
    for mask, cover in zip(masks, hidden, strict=True):
        if cover is None:  # still waits: it was shown to nobody
            continue
        seen = mask & ~cover
        tally += Counter({"person_px": int(mask.sum()), "seen_px": int(seen.sum()), "other_px": int((~mask).sum()),
                          "other_hidden_px": int((cover & ~mask).sum()), "frames": 1, "with_people": int(mask.any()), "leaking": int(seen.any())})


def shares(tally: Counter) -> dict[str, float]:
    def share(part: str, whole: str) -> float:
        return round(tally[part] / max(tally[whole], 1), 5)

    return {"visible": share("seen_px", "person_px"), "frames_leaking": share("leaking", "with_people"),
            "background_hidden": share("other_hidden_px", "other_px"), "frames": tally["frames"], "person_px": tally["person_px"]}


def on_the_city(network, cities: int, frames: int) -> dict[str, dict]:
    tallies = {name: Counter() for name in ROWS}
    for seed in range(table.SEEDS + SEEDS, table.SEEDS + SEEDS + cities):
        here = table.city(seed, frames)
        for camera in range(here.cameras):
            found, masks = boxes(network, here.render(camera)), people(here, camera)
            for name, row in ROWS.items():
                count(masks, covered(found, here.size_px, FPS, row), tallies[name])
    return {name: shares(tally) for name, tally in tallies.items()}


def on_film(network, video: Path, labels: Path, step: int = 1) -> dict[str, dict]:
    """Real people by the same detector, which has never seen one: what its boxes leave of the labelled boxes."""
    from streamingvlm.data import mot
    from streamingvlm.serving.intake.picture import fitted
    from streamingvlm.serving.slots import SHAPE

    tracks, pictures, masks = mot.read(labels), [], []
    fps = next(_pictures(video))[1]
    for k, (image, _) in enumerate(_pictures(video)):
        if k % step == 0:
            pictures.append(fitted(image, *SHAPE[:2]))
            mask = np.zeros((image.shape[0] // 4, image.shape[1] // 4), bool)
            for x0, y0, x1, y1 in np.maximum(tracks.box[tracks.frame == k] / 4, 0).round().astype(int):
                mask[y0:y1, x0:x1] = True
            masks.append(mask)
    found, out = boxes(network, np.stack(pictures)), {}
    for name in ("service", "surer"):
        tally = Counter()
        count(np.stack(masks), covered(found, masks[0].shape, fps / step, ROWS[name]), tally)
        out[name] = shares(tally)
    return out


def _pictures(video: Path) -> Iterator[tuple[np.ndarray, float]]:
    import av

    with av.open(str(video)) as container:
        rate = float(container.streams.video[0].average_rate or 10)
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24"), rate


async def ways_in() -> dict[str, int]:
    """All that `trespass` can think of, at the real doors."""
    with tempfile.TemporaryDirectory() as folder:
        access = cameras.Access(tokens=f"{folder}/access.sqlite", per_s=10_000, burst=100_000, failures_per_minute=10_000)
        tokens, now = Tokens(access.tokens), time.time()
        keys = {name: tokens.add(name, role, of, None) for name, role, of in (
            ("reader", "read", ["door"]), ("all", "read", None), ("operator", "operate", ["door"]), ("boss", "administer", None),
            ("revoked", "administer", None))}
        expired = tokens.add("expired", "administer", None, now - 10, now - 20)
        tokens.revoke("revoked")
        gate, service = Gate(access), SimpleNamespace(settings=None, results=Results(), store=None, cameras=lambda: [{"id": "door"}, {"id": "yard"}],
                                                      stats=lambda: {"processes": {}}, picture=lambda name: None, want_pictures=lambda *what: None)
        wrong = {"revoked": keys["revoked"], "expired": expired, "cut off": keys["boss"][:-1], "with more": keys["boss"] + "A", "empty": "",
                 "of zeros": f"svlm_{'0' * 12}_{'0' * 43}", "in capitals": keys["boss"].upper(), "too long": keys["boss"] * 50}
        app = application(service, gate)
        async with AsyncExitStack() as stack:
            address = await stack.enter_async_context(listening(app, "127.0.0.1", 0))
            port = await stack.enter_async_context(answering(service, "127.0.0.1", 0, gate))
            bearers = [f"Bearer {keys[name]}" for name in ("reader", "all", "operator")]
            tried = await trespass.trespass(address, port, app, trespass.Keys(
                {name: f"Bearer {text}".strip() for name, text in wrong.items()}, *bearers, keys["boss"]))
        for attempt, got in tried.served:
            print("served:", attempt.method, attempt.path, attempt.why, got)
        return {"tried": sum(tried.count.values()), "served": len(tried.served)} | {f"tried_{door.lower()}": n for door, n in tried.count.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--cities", type=int, default=4)
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = networks.load(repository_root() / "data" / "city-base").eval()
    out = {"date": datetime.date.today().isoformat(), "command": "python -m bench.privacy", "cities": args.cities, "frames": args.frames,
           "access": asyncio.run(ways_in()), "city": on_the_city(network, args.cities, args.frames)}
    if args.video and args.truth:
        out["film"] = on_film(network, args.video, args.truth)
    print(json.dumps(out, indent=1))
    if args.save:
        files.write_json(out | machine.provenance({}), args.save)


if __name__ == "__main__":
    main()
