"""How far one stream alone can get at CROSS anomalies, and how far one gets by always saying yes: the floors beside which results are read.

The observer knows what a perfect and causal one could know of a single camera: how many are there in which pose, for how long, whether somebody
dressed alike was there before, what has been going on; not which look it is, as all are drawn alike. A small network learns from that whether
there is a clone, or a surge. If it does better than chance, the city betrays itself, and results on CROSS mean nothing. As a control, the same
network told what the other cameras show must find both.

    python -m streamingvlm.worlds.city.oracle --train 40 --test 20

Letters for shapes: F frames, C features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from streamingvlm.worlds.city.knobs import ACTIONS, ANOMALIES, CLASSES, POSES
from streamingvlm.worlds.city.truth import Truth
from streamingvlm.worlds.city.world import City

GIVEN = {"clone": "somebody visible", "surge": "a crowd"}
MEMORY_S = 8.0  # how long the observer's running means last
EVERY = 3  # frames from one learnt to the next


def observed(truth: Truth) -> np.ndarray:
    """What each camera's own observer knows in each frame: [cameras, F, C] float32."""
    now = np.concatenate([_counts(truth), np.eye(len(ACTIONS))[truth.action], truth.meets[..., None], truth.clocks], -1)
    seen = truth.seen()
    past = np.maximum.accumulate(seen, 1)
    again = (seen[:, 1:] & past[:, :-1] & ~seen[:, :-1]).any(-1)  # a look comes back
    again = np.concatenate([np.zeros_like(again[:, :1]), again], 1)[..., None]
    whole = np.concatenate([now, again, past.sum(-1, keepdims=True)], -1)
    return np.concatenate([whole, _running(whole, MEMORY_S * truth.fps)], -1).astype(np.float32)  # [cameras, F, C]


def given(truth: Truth, kind: str) -> np.ndarray:
    """[cameras, F] bool: where the question of a kind is open at all (GIVEN), everywhere for kinds of one camera."""
    return {"clone": truth.seen().any(-1), "surge": truth.meets}.get(kind, np.ones_like(truth.meets))


def floors(truths: Sequence[Truth]) -> dict[str, dict[str, float]]:
    """kind -> `share` of camera-frames, `yes`: the F1 of always saying yes, `given_share` and `given_yes`: the same where the question is open."""
    out = {}
    for column, kind in enumerate(ANOMALIES):
        true = np.concatenate([truth.anomalies[..., column].ravel() for truth in truths])
        asked = np.concatenate([given(truth, kind).ravel() for truth in truths])
        shares = float(true.mean()), float(true[asked].mean()) if asked.any() else 0.0
        out[kind] = {"share": shares[0], "yes": _yes(shares[0]), "given_share": shares[1], "given_yes": _yes(shares[1])}
    return out


def area(score: np.ndarray, true: np.ndarray) -> float:
    """Area under the ROC curve, ties shared; nan where only one answer is true."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    yes, no = int(true.sum()), int((~true).sum())
    return float((ranks[true].sum() - yes * (yes + 1) / 2) / (yes * no)) if yes and no else float("nan")


def ask(kind: str, train: Sequence[Truth], test: Sequence[Truth], others: bool = False, steps: int = 250, seed: int = 0) -> dict[str, float]:
    """Learn one kind from `train` and answer in `test`: {"auc", "f1": the best there is, chosen on the test itself, "yes": the floor}.

    others: tell the observer what the other cameras show, too, as a control: then both kinds can be known.
    """
    (x, y), (test_x, test_y) = (_rows(truths, kind, others) for truths in (train, test))
    score = _learn(x, y, test_x, steps, seed)
    order = np.argsort(-score)
    hits = np.cumsum(test_y[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + test_y.sum())
    return {"auc": area(score, test_y), "f1": float(f1.max()), "yes": _yes(float(test_y.mean()))}


def _yes(share: float) -> float:
    return 2 * share / (1 + share)


def _counts(truth: Truth) -> np.ndarray:
    """[cameras, F, C]: how many of each class and pose, how fast; the oldest, the youngest and the mean of those here, and how long all stood."""
    at = tuple(truth.box_at.T)
    person = truth.box_class == CLASSES.index("person")
    masks = [truth.box_class == k for k in range(len(CLASSES))] + [truth.box_pose == k for k in range(len(POSES))] + [truth.box_fast]
    _, inverse = np.unique(truth.box_at[:, 0] * (1 << 32) + truth.box_track, return_inverse=True)
    first = np.full(inverse.max(initial=0) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, inverse, truth.box_at[:, 1])
    age = (truth.box_at[:, 1] - first[inverse]) / truth.fps
    out = np.zeros((*truth.action.shape, len(masks) + 4))
    for column, mask in enumerate(masks):
        np.add.at(out[..., column], at, mask)
    mine = tuple(side[person] for side in at)
    for column, value in enumerate((age, -age, truth.box_waits), start=len(masks)):
        np.maximum.at(out[..., column], mine, value[person])
    np.add.at(out[..., -1], mine, age[person])
    return out


def _running(x: np.ndarray, frames: float) -> np.ndarray:
    """Means that forget: [cameras, F, C] -> the same."""
    out, mean = np.empty_like(x), np.zeros_like(x[:, 0])
    for frame in range(x.shape[1]):
        mean = mean + (x[:, frame] - mean) / frames
        out[:, frame] = mean
    return out


def _rows(truths: Sequence[Truth], kind: str, others: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each third frame in which the question is open: ([rows, C], [rows] bool)."""
    parts = []
    for truth in truths:
        x = observed(truth)
        if others:
            seen = truth.seen()
            twice = (seen & (seen.sum(0) > 1)).any(-1)  # [cameras, F]
            x = np.concatenate([x, np.stack([twice, np.broadcast_to(truth.meets.sum(0), truth.meets.shape)], -1)], -1)
        mask = given(truth, kind)
        mask[:, np.arange(mask.shape[1]) % EVERY > 0] = False
        parts.append((x[mask], truth.anomalies[..., ANOMALIES.index(kind)][mask]))
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _learn(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """A network of two layers, trained on all of x [rows, C] and y [rows]; its answers for test_x."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    mean, spread = x.mean(0), x.std(0) + 1e-3
    inputs, targets, asked = (torch.as_tensor(part, dtype=torch.float32) for part in ((x - mean) / spread, y, (test_x - mean) / spread))
    net = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 1))
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.0, generator=generator)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.1)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (512,), generator=generator)
        loss = nn.functional.binary_cross_entropy_with_logits(net(inputs[rows])[:, 0], targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return net(asked.clamp(-6, 6))[:, 0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=40, help="worlds to learn from")
    parser.add_argument("--test", type=int, default=20, help="worlds to answer in")
    parser.add_argument("--seed", type=int, default=900_000)
    wanted = parser.parse_args()
    truths = [City(wanted.seed + k).truth for k in range(wanted.train + wanted.test)]
    for kind, floor in floors(truths).items():
        print(f"{kind:9} {floor['share']:.3f} of camera-frames, always yes F1 {floor['yes']:.3f}", end="")
        print(f"; given {GIVEN[kind]} {floor['given_yes']:.3f}" if kind in GIVEN else "")
    for kind, condition in GIVEN.items():
        for others in (False, True):
            got = ask(kind, truths[: wanted.train], truths[wanted.train:], others)
            print(f"{kind} given {condition}, {'all cameras' if others else 'one stream'}: AUC {got['auc']:.3f}, best F1 {got['f1']:.3f}, "
                  f"always yes {got['yes']:.3f}")


if __name__ == "__main__":
    main()
