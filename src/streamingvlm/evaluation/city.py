"""The article's table on the city: boxes, actions, anomalies of every variant, on cities whose palettes, looks and streets nobody trained on.

    for row in workers.ordered(look, [(base, seed, frames, folder) for seed in seeds]): ...      # vision once, features on disk
    numbers = dict(zip(names, workers.ordered(scores, [(base, name, seeds, frames, folder) for name in names])))     # `baseline_vlm` among them

Features are computed once and shared by all that remember. Thresholds come with the packaged model: validation cities chose them.
Letters: F frames, B streams, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamingvlm.evaluation import frame_vlm
from streamingvlm.evaluation.detection import Boxes, average_precision
from streamingvlm.models import compression
from streamingvlm.models.multicamera import compress
from streamingvlm.models.multicamera import network as networks
from streamingvlm.models.multicamera.memory import Memory
from streamingvlm.models.multicamera.packaged import load_variant
from streamingvlm.models.qwen25 import loading
from streamingvlm.training.city.features import LOCAL_AND_TEMPORAL, Recorded, record
from streamingvlm.training.city.validation import chosen, report, watch
from streamingvlm.worlds import alarms
from streamingvlm.worlds.alarms import Rule
from streamingvlm.worlds.city.knobs import FAMILIES, CityKnobs
from streamingvlm.worlds.city.world import CLASSES, City

SEEDS = 7_000_000  # evaluation cities count from here
BOX_STEP = 6  # boxes are scored in every so many-th frame
ASK_STEP = 32  # the frame-based VLM is asked about every so many-th frame: an answer of it takes as long as a dozen of ours
LATE = 128  # frames, 16 s: how late the other streams are shown to `shuffled`


def city(seed: int, frames: int) -> City:
    """An evaluation city."""
    return City(seed, frames=frames, evaluation=True)


def look(base: Path, seed: int, frames: int, folder: Path) -> int:
    """One evaluation city through the vision of the model in `base`, into `folder` -> its seed."""
    return look_with(networks.load(base), seed, frames, folder)


def look_with(network: networks.Network, seed: int, frames: int, folder: Path) -> int:
    """The same of a network at hand."""
    here = city(seed, frames)
    tensors = record(network, here).tensors() | found(network, here)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{seed}.safetensors")
    return seed


@torch.inference_mode()
def found(network: networks.Network, here: City) -> dict[str, Tensor]:
    """Boxes in every BOX_STEPth frame: image [N], box [N, 4] px, label [N], score [N]."""
    parts = []
    for camera in range(here.cameras):
        frames = torch.from_numpy(here.render(camera)[::BOX_STEP])
        things = [network.see(some)[1] for some in frames.split(32)]
        box, score, label = (torch.cat([getattr(one, name) for one in things]) for name in ("box", "score", "label"))  # [F, K, ...]
        image = (camera * len(frames) + torch.arange(len(frames)))[:, None].expand_as(score)
        parts.append([image, box * torch.tensor(here.size_px).flip(0).repeat(2), label, score])
    image, box, label, score = (torch.cat(part).flatten(0, 1) for part in zip(*parts, strict=True))
    there = score > 0.01  # COCO's curve wants unsure boxes too, not all of them
    return {"found.image": image[there], "found.box": box[there], "found.label": label[there], "found.score": score[there]}


def true_boxes(here: City) -> Boxes:
    """What `found` should find."""
    shown = here.truth.box_at[:, 1] % BOX_STEP == 0
    per_camera = -(-here.frames // BOX_STEP)
    at = here.truth.box_at[shown]
    return Boxes(at[:, 0] * per_camera + at[:, 1] // BOX_STEP, here.truth.box[shown], here.truth.box_class[shown])


def precision(seeds: Sequence[int], frames: int, folder: Path) -> dict:
    """mAP of the boxes found in all these cities."""
    per_city = city(seeds[0], frames).cameras * -(-frames // BOX_STEP)
    true, said = [], []
    for k, seed in enumerate(seeds):
        truth, tensors = true_boxes(city(seed, frames)), load_file(folder / f"{seed}.safetensors")
        true.append((truth.image + k * per_city, truth.box, truth.label))
        said.append((tensors["found.image"].numpy() + k * per_city, *(tensors[f"found.{name}"].numpy() for name in ("box", "label", "score"))))
    join = lambda parts: [np.concatenate(part) for part in zip(*parts, strict=True)]  # noqa: E731
    return average_precision(Boxes(*join(true)), Boxes(*join(said)), per_city * len(seeds), CLASSES)


def memory(base: Path, name: str) -> tuple[Memory, dict[str, float]]:
    """The packaged memory of a variant, and its thresholds."""
    limits = chosen(base, name)[0]
    return load_variant(base, name), limits


def scores(base: Path, name: str, seeds: Sequence[int], frames: int, folder: Path) -> dict:
    """Action and alarms of one variant over all these cities: a job for `base.workers`. `shuffled`: the model, shown the others LATE frames late;
    `baseline_vlm`: the frame-based VLM asked about every ASK_STEPth frame alone, its boxes included."""
    if name == "baseline_vlm":
        vlm = loading.load(base / "frame-vlm", torch.device("cpu"), decode="graph")
        found = frame_vlm.assess(vlm, [city(seed, frames) for seed in seeds], every=ASK_STEP)
        return {key: found[key] for key in ("map50", "map", "action", "f1", "unparsable", "frames")}
    packaged = "model" if name == "shuffled" else name
    (one, limits), worlds = memory(base, packaged), [recorded(folder, seed) for seed in seeds]
    return assess(one, worlds, limits, chosen(base, packaged)[1], others=LATE if name == "shuffled" else 0)


def recorded(folder: Path, seed: int) -> Recorded:
    """The features that `look` put into `folder`."""
    return Recorded.of({key: value for key, value in load_file(folder / f"{seed}.safetensors").items() if not key.startswith("found.")})


def assess(one: Memory, worlds: Sequence[Recorded], limits: dict[str, float], told: dict[str, Rule], others: int = 0) -> dict:
    """Action and alarms of a memory on these worlds, by frame at its thresholds and by event under its rules."""
    joined = Recorded.join(worlds)  # side by side, each city for itself: a third of the time of one after another
    return report(watch(one, joined, joined.action.shape[1] // len(worlds), others), joined, limits, told)


def ceilings(worlds: Sequence[Recorded], period: int) -> dict[str, dict[str, float]]:
    """F1 by frame that perfect eyes would reach if streams looked at each other only every `period` frames: of clone and surge, with the answer held
    until the next look (`answer`), and with what the others showed held and one's own people sought in it in every frame (`others`)."""
    said = {"answer": [], "others": []}
    for world in worlds:
        frames, streams = world.action.shape
        look, elsewhere = torch.arange(frames) // period * period, ~torch.eye(streams, dtype=torch.bool)
        shown = world.seen[look].float().transpose(1, 2) @ elsewhere.float()  # [F, looks, B]: how many others showed it
        crowds = world.meets[look].float() @ elsewhere.float()  # [F, B]
        clone, surge = (world.seen & (shown > 0).transpose(1, 2)).any(2), world.meets & (crowds >= CityKnobs.surge_cameras - 1)
        said["others"].append(torch.stack((clone, surge), 2))
        said["answer"].append(world.anomalies[look][..., LOCAL_AND_TEMPORAL:])
    true = torch.cat([world.anomalies[..., LOCAL_AND_TEMPORAL:] for world in worlds], 1)
    return {way: {kind: alarms.f1(torch.cat(parts, 1)[..., k].numpy(), true[..., k].numpy())["f1"] for k, kind in enumerate(FAMILIES["cross"])}
            for way, parts in said.items()}


def compressed(base: Path, variant: str, seeds: Sequence[int], frames: int, folder: Path) -> dict:
    """The packaged network as a compressed variant in `folder`, and all its scores on these cities: a job for `base.workers`."""
    network, (_, limits) = networks.load(base), memory(base, "model")
    calibration = torch.from_numpy(City(SEEDS - 2, frames=16).render(0))
    with compression.input_norms(network) as norms:
        network(calibration[:, None], network.memory.start(1))
    compress.apply(network, variant, norms)
    size = compress.write(network, folder, variant)
    small = compress.read(folder)
    for seed in seeds:
        look_with(small, seed, frames, folder)
    told = assess(small.memory, [recorded(folder, seed) for seed in seeds], limits, chosen(base)[1])
    boxes = precision(seeds, frames, folder)
    for seed in seeds:
        (folder / f"{seed}.safetensors").unlink()
    return {"variant": variant, "bytes": size, "map50": boxes["map50"], "map": boxes["map"], **told}
