"""Does what was learned without a label tell what is unusual? On a made-up city, whose labels say when something is. `make real-eyes` first.

    python bench/ordinary.py [--cameras 4] [--minutes 20] [--seed 0] [--save reports/reference/ordinary.json]

The first half of the time is learned from, as `streamingvlm learn` does; the second half is scored, a picture a second. AUC: how often a second of
the kind scores higher than one without any anomaly, of the same cameras; .5 is chance. A kind has two rows: all its seconds, its first two (`onset`).
Beside the city's own kinds, two that cameras suffer: `covered` (a grey picture) and `turned` (another camera's pictures), each put into every camera
four times, for five seconds. Scores: `surprise` and `distance` (`models.eyes.ordinary`), and how far the embedding is from the one before (`change`).
Alarms: events of these two that were told, and alarms a camera-hour in seconds in which nothing is wrong. Four CPU minutes, one thread.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import common
import numpy as np
import torch
from torch import Tensor

from streamingvlm.base import files, progress
from streamingvlm.base.paths import repository_root
from streamingvlm.models.eyes import ordinary
from streamingvlm.training import ordinary as training
from streamingvlm.worlds.city.knobs import ANOMALIES, FPS
from streamingvlm.worlds.city.world import City

MISHAPS = ("covered", "turned")
TIMES, LONG_S, ONSET_S = 4, 5, 2
SEED = 6_000_000


def pictures(city: City, camera: int, seconds: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """[T, H, W, C] of one camera, a second each, with mishaps in its second half; and when each kind is true, [T] bool."""
    shown = np.stack([city.draw(camera, int(s * FPS)) for s in range(seconds)])
    wrong = city.truth.anomalies[camera, (np.arange(seconds) * FPS).astype(int)]  # [T, 6]
    true = {kind: wrong[:, k] for k, kind in enumerate(ANOMALIES)} | {kind: np.zeros(seconds, bool) for kind in MISHAPS}
    half = seconds // 2
    for k in range(TIMES * len(MISHAPS)):
        kind = MISHAPS[k % 2]
        begin = half + (2 * k + 1) * (seconds - half) // (2 * TIMES * len(MISHAPS))
        for s in range(begin, begin + LONG_S):
            shown[s] = 128 if kind == "covered" else city.draw((camera + 1) % city.cameras, int(s * FPS))
            true[kind][s] = True
    return shown, true


def auc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """The share of pairs in which the positive is larger; ties count half."""
    if not len(positive) or not len(negative):
        return None
    below = np.searchsorted(np.sort(negative), positive), np.searchsorted(np.sort(negative), positive, "right")
    return float((below[0] + below[1]).mean() / 2 / len(negative))


def onsets(true: np.ndarray, seconds: int = ONSET_S) -> np.ndarray:
    """[T] bool -> the first seconds of each stretch alone."""
    begins = np.flatnonzero(true & ~np.append(False, true[:-1]))
    out = np.zeros_like(true)
    for k in range(seconds):
        out[np.minimum(begins + k, len(true) - 1)] = True
    return out & true


def scores(model: ordinary.Ordinary, camera: str, embeddings: Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Embeddings [T, 256] of one camera -> how unusual each second is by each rule, [T], and whether it is an alarm [T]."""
    state, told, alarms = model.start(), [], []
    for embedding in embeddings:
        found, state = model(camera, embedding, state)
        told.append(found)
        alarms.append(bool(model.unusual(camera, found)))
    change = torch.cat([torch.zeros(1), ordinary.apart(embeddings[1:], embeddings[:-1])])
    return {"surprise": np.array([one.get("surprise", 0.0) for one in told]), "distance": np.array([one["distance"] for one in told]),
            "change": change.numpy()}, np.array(alarms)


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("cameras", 4), ("minutes", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--save", type=Path, help="also write it here")
    args = parser.parse_args(argv)
    args.device, args.dtype = "cpu", "float32"
    torch.set_num_threads(1)
    machine = common.machine(args.device, args.dtype)
    seconds = args.minutes * 60
    vit = ordinary.eyes(repository_root() / "artifacts" / "real-eyes" / "vit-s14")
    city = City(SEED + args.seed, cameras=args.cameras, frames=int(seconds * FPS), evaluation=True)
    seen, true = {}, {}
    for camera in progress.bar(range(args.cameras), args.cameras, "looking"):
        shown, true[f"c{camera}"] = pictures(city, camera, seconds)
        seen[f"c{camera}"] = torch.cat([ordinary.embeddings(vit, shown[k : k + 32]) for k in range(0, seconds, 32)])
    half = seconds // 2
    model, report = training.learned({name: x[:half] for name, x in seen.items()}, args.seed)
    found = {name: scores(model, name, x) for name, x in seen.items()}
    rules = {name: of for name, (of, _) in found.items()}
    quiet = {name: ~np.any(list(kinds.values()), 0) for name, kinds in true.items()}
    later, table = np.arange(seconds) > half, {}
    for kind in (*ANOMALIES, *MISHAPS):
        for row, pick in ((kind, lambda of: of), (f"{kind} onset", onsets)):
            chosen = {name: pick(kinds[kind]) & later for name, kinds in true.items()}
            table[row] = {"seconds": int(sum(of.sum() for of in chosen.values()))} | {
                rule: auc(*(np.concatenate([rules[name][rule][of[name] & later] for name in rules]) for of in (chosen, quiet)))
                for rule in ("surprise", "distance", "change")}
            print(row, table[row], flush=True)
    alarms = {name: of & later for name, (_, of) in found.items()}
    told = {kind: sum(bool(alarms[name][s : s + LONG_S].any()) for name, kinds in true.items() for s in np.flatnonzero(onsets(kinds[kind], 1)))
            for kind in MISHAPS}
    hours = sum(int((of & later).sum()) for of in quiet.values()) / 3600
    false = sum(int((alarms[name] & quiet[name]).sum()) for name in alarms)
    line = common.finish("ordinary", args, {
        "machine": machine, "table": table, "learned": report, "told": told, "of": TIMES * args.cameras, "false_alarms_per_hour": false / hours,
        "date": datetime.date.today().isoformat(), "command": f"python bench/ordinary.py --cameras {args.cameras} --minutes {args.minutes}"})
    print({key: line[key] for key in ("told", "of", "false_alarms_per_hour")})
    for path in filter(None, (common.FOLDER / "ordinary.json", args.save)):
        files.write_json(line, path)
    return line


if __name__ == "__main__":
    common.run(main)
