"""What is true in every frame of every camera: boxes, identities, actions, anomalies, clocks. Knows visits, no pixels' colours.

`Truth` is flat arrays. Cameras are its first axis everywhere (not a shape letter, so it is written out); F frames, N boxes. CROSS anomalies
follow from what each camera shows alone, so they can be computed again for streams of different cities put together: `together`.

    together([(a, 0), (a, 1), (b, 3)])      # [3, F, 6] bool: these streams side by side, clone and surge as they then are
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streamingvlm.worlds.city.knobs import ACTIONS, CLOCKS, LOOKS, TROUSERS, UNITS, CityKnobs
from streamingvlm.worlds.city.people import BAG, CAR, LIE, PERSON, STAND, WALK, Visit
from streamingvlm.worlds.city.scene import Scene

# One thing in one frame. left .. bottom: px, whole numbers, not cut at the picture's edge. tall: 1 + the units from its feet to the bottom.
SPRITE = np.dtype([("camera", "i4"), ("frame", "i4"), ("kind", "i1"), ("pose", "i1"), ("track", "i4"), ("shirt", "i1"), ("trousers", "i1"),
                   ("tint", "i1"), ("fast", "?"), ("on_pavement", "?"), ("x", "f4"), ("y", "f4"), ("waits", "i4"), ("box", "i4", 4)])
SHOWN = 0.5  # a thing counts once this share of it is in the picture
VISIBLE = 0.4  # its box, and what it looks like, only while things in front leave this share of it to be seen


@dataclass(frozen=True)
class Truth:
    """The labels of a city. `fps` and `size_px` (height, width) say what frames and pixels they are of."""

    action: np.ndarray  # [cameras, F] int64, an index of ACTIONS
    anomalies: np.ndarray  # [cameras, F, 6] bool, in the order of ANOMALIES
    clocks: np.ndarray  # [cameras, F, 2] float32: the longest standing, the longest a bag was alone; 1.0 is where the anomaly begins
    meets: np.ndarray  # [cameras, F] bool: a crowd stands here (hidden from `action` by a fall)
    box_at: np.ndarray  # [N, 2] int64 (camera, frame), sorted
    box: np.ndarray  # [N, 4] float32, x0 y0 x1 y1 in px, cut at the picture's edge
    box_class: np.ndarray  # [N] int64, an index of CLASSES
    box_track: np.ndarray  # [N] int64: one number a person, car or bag, in all cameras
    box_look: np.ndarray  # [N, 2] int64 (shirt, trousers), -1 if not a person
    box_pose: np.ndarray  # [N] int64, an index of POSES, -1 if not a person
    box_fast: np.ndarray  # [N] bool: runs
    box_visible: np.ndarray  # [N] float32: the share that no thing in front hides, at least VISIBLE
    box_wrong: np.ndarray  # [N] bool: this thing makes an anomaly of its camera true: it lies, is a car on the pavement, loiters, is a bag alone
    box_waits: np.ndarray  # [N] float32 s: how long this person has stood, or this bag been alone
    fps: float
    size_px: tuple[int, int]

    @cached_property
    def box_starts(self) -> np.ndarray:
        """[cameras * F + 1] int64: where the boxes of each frame start."""
        cameras, frames = self.action.shape
        return np.searchsorted(self.box_at[:, 0] * frames + self.box_at[:, 1], np.arange(cameras * frames + 1))

    def boxes(self, camera: int, frame: int) -> slice:
        """Which of the N boxes are in one frame."""
        return slice(*self.box_starts[camera * self.action.shape[1] + frame:][:2])

    def seen(self, looks: np.ndarray | None = None) -> np.ndarray:
        """[cameras, F, 48] bool: which looks (shirt * 6 + trousers) are visible. `looks` [N, 2]: other ones, as a wardrobe made them."""
        looks = self.box_look if looks is None else looks
        person = (self.box_class == PERSON) & (looks >= 0).all(1)
        seen = np.zeros((*self.action.shape, LOOKS), bool)
        seen[(*self.box_at[person].T, looks[person, 0] * len(TROUSERS) + looks[person, 1])] = True
        return seen


def cross(seen: np.ndarray, meets: np.ndarray, surge_cameras: int = CityKnobs.surge_cameras) -> np.ndarray:
    """Clone and surge of any streams put together. seen [cameras, F, looks], meets [cameras, F] bool -> [cameras, F, 2] bool."""
    twice = seen.sum(0) >= 2  # [F, looks]
    clone = (seen & twice).any(-1)
    surge = meets & (meets.sum(0) >= surge_cameras)
    return np.stack([clone, surge], -1)


def together(streams: Sequence[tuple[Truth, int]]) -> np.ndarray:
    """Anomalies of streams (truth, camera) of any cities side by side: [streams, F, 6] bool, cut to the shortest.

    Such a mixture has far more clones than a city: looks of different cities know nothing of each other.
    """
    frames = min(truth.action.shape[1] for truth, _ in streams)
    seen, meets, out = (np.stack([part[camera, :frames] for part, camera in parts]) for parts in (
        [(truth.seen(), camera) for truth, camera in streams], [(truth.meets, camera) for truth, camera in streams],
        [(truth.anomalies, camera) for truth, camera in streams]))
    out[..., 4:] = cross(seen, meets)
    return out


def sprites(visits: Sequence[Visit], scenes: Sequence[Scene], knobs: CityKnobs, frames: int, fps: float, size_px: tuple[int, int]) -> np.ndarray:
    """Every thing in every frame it touches, sorted by camera, frame and depth: [all] of SPRITE."""
    parts = [_sample(visit, scenes[visit.camera], knobs, frames, fps, size_px[0] / UNITS) for visit in visits]
    flat = np.concatenate([np.zeros(0, SPRITE), *parts])
    flat = flat[(flat["box"][:, 2] > 0) & (flat["box"][:, 0] < size_px[1])]
    flat = flat[np.lexsort((flat["y"], flat["frame"], flat["camera"]))]
    _bags_alone(flat, knobs.bag_near)
    return flat


def _sample(visit: Visit, scene: Scene, knobs: CityKnobs, frames: int, fps: float, px: float) -> np.ndarray:
    first, last = max(0, int(np.ceil(visit.at_s[0] * fps))), min(frames - 1, int(np.floor(visit.at_s[-1] * fps)))
    index = np.arange(first, last + 1)
    out = np.zeros(len(index), SPRITE)
    if not len(index):
        return out
    at_s = index / fps
    leg = np.clip(np.searchsorted(visit.at_s, at_s, side="right") - 1, 0, len(visit.pose) - 1)
    speed = np.abs(np.diff(visit.x)) / np.maximum(np.diff(visit.at_s), 1e-9)
    for name, value in (("camera", visit.camera), ("frame", index), ("kind", visit.kind), ("track", visit.track), ("shirt", visit.look[0]),
                        ("trousers", visit.look[1]), ("tint", visit.tint), ("on_pavement", visit.on_pavement), ("y", visit.y),
                        ("x", np.interp(at_s, visit.at_s, visit.x)), ("fast", speed[leg] > knobs.run_from_s),
                        ("pose", visit.pose[leg] if visit.kind == PERSON else -1)):
        out[name] = value
    since = np.maximum.accumulate(np.where(np.diff(out["pose"], prepend=-2) != 0, index, 0))
    out["waits"] = np.where(out["pose"] == STAND, index - since + 1, 0)
    out["box"] = _boxes(out, scene.zoom, knobs, px)
    return out


def _boxes(flat: np.ndarray, zoom: float, knobs: CityKnobs, px: float) -> np.ndarray:
    sizes = {PERSON: knobs.person, CAR: knobs.car, BAG: knobs.bag}[int(flat["kind"][0])]
    size = np.where((flat["pose"] == LIE)[:, None], knobs.lying, sizes) * zoom * px
    whole = np.maximum(1, np.rint(size)).astype(int)
    left, bottom = np.rint(flat["x"] * px - size[:, 0] / 2).astype(int), np.rint(flat["y"] * px).astype(int)
    return np.stack([left, bottom - whole[:, 1], left + whole[:, 0], bottom], 1)


def _bags_alone(flat: np.ndarray, near: float) -> None:
    """Fill in `waits` of bags: frames since somebody last stood near."""
    for track in np.unique(flat["track"][flat["kind"] == BAG]):
        mine = np.flatnonzero(flat["track"] == track)  # one camera, rising frames
        camera, frames = flat["camera"][mine[0]], flat["frame"][mine]
        part = slice(*np.searchsorted(_key(flat), [_key(flat[mine[0]]), _key(flat[mine[-1]]) + 1]))
        stands = flat[part]
        stands = stands[(stands["pose"] == STAND) & (np.abs(stands["x"] - flat["x"][mine[0]]) <= near) & (stands["camera"] == camera)]
        minded = np.where(np.isin(frames, stands["frame"]), frames, frames[0] - 1)
        flat["waits"][mine] = frames - np.maximum.accumulate(minded)


def _key(flat: np.ndarray) -> np.ndarray:
    return flat["camera"].astype(np.int64) * (1 << 32) + flat["frame"]


def label(flat: np.ndarray, cameras: int, frames: int, knobs: CityKnobs, fps: float, size_px: tuple[int, int]) -> Truth:
    """Sprites -> the labels of everything that is at least half in the picture."""
    height, width = size_px
    cut = flat["box"].clip(0, [width, height, width, height])
    whole = (flat["box"][:, 2:] - flat["box"][:, :2]).prod(1)
    keep = (cut[:, 2:] - cut[:, :2]).clip(0).prod(1) >= SHOWN * whole
    visible = _visible(cut, flat)[keep]
    flat, cut = flat[keep], cut[keep]
    person, still = flat["kind"] == PERSON, flat["pose"] == STAND

    def where(chosen: np.ndarray) -> np.ndarray:
        out = np.zeros((cameras, frames), bool)
        out[flat["camera"][chosen], flat["frame"][chosen]] = True
        return out

    meets = where(_gathered(flat, knobs))
    runs, lies = where((flat["pose"] == WALK) & flat["fast"]), where(flat["pose"] == LIE)
    action = np.zeros((cameras, frames), np.int64)
    for name, mask in zip(ACTIONS[1:], (where(person), where(flat["pose"] == WALK), runs, meets, lies), strict=True):
        action[mask] = ACTIONS.index(name)
    limits = np.where(flat["kind"] == BAG, knobs.bag_limit_s, knobs.standing_limit_s) * fps
    clocks = np.zeros((cameras, frames, len(CLOCKS)), np.float32)
    for column, mask in enumerate((still & person, flat["kind"] == BAG)):
        np.maximum.at(clocks[..., column], (flat["camera"][mask], flat["frame"][mask]), (flat["waits"] / limits)[mask].astype(np.float32))
    wrong = (flat["pose"] == LIE) | flat["on_pavement"] | (flat["waits"] >= limits)
    alone = [lies, where(flat["on_pavement"]), clocks[..., 0] >= 1, clocks[..., 1] >= 1]
    anomalies = np.concatenate([np.stack(alone, -1), np.zeros((cameras, frames, 2), bool)], -1)
    truth = _truth(flat[visible >= VISIBLE], cut[visible >= VISIBLE], visible[visible >= VISIBLE], wrong[visible >= VISIBLE],
                   action, anomalies, clocks, meets, fps, size_px)
    anomalies[..., 4:] = cross(truth.seen(), meets, knobs.surge_cameras)
    return truth


def _truth(flat: np.ndarray, cut: np.ndarray, visible: np.ndarray, wrong: np.ndarray, action: np.ndarray, anomalies: np.ndarray,
           clocks: np.ndarray, meets: np.ndarray, fps: float, size_px: tuple[int, int]) -> Truth:
    return Truth(
        action, anomalies, clocks, meets, box_at=np.stack([flat["camera"], flat["frame"]], 1).astype(np.int64), box=cut.astype(np.float32),
        box_class=flat["kind"].astype(np.int64), box_track=flat["track"].astype(np.int64),
        box_look=np.stack([flat["shirt"], flat["trousers"]], 1).astype(np.int64), box_pose=flat["pose"].astype(np.int64),
        box_fast=flat["fast"] & (flat["kind"] == PERSON), box_visible=visible.astype(np.float32), box_wrong=wrong,
        box_waits=(flat["waits"] / fps).astype(np.float32), fps=fps, size_px=size_px)


def _visible(cut: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """[sprites]: the share of each that is left to be seen, what several things in front hide counted for each of them."""
    key, area = _key(flat), (cut[:, 2:] - cut[:, :2]).prod(1)
    hidden = np.zeros(len(flat))
    for lag in range(1, len(flat)):
        same = np.flatnonzero(key[:-lag] == key[lag:])
        if not len(same):
            break
        back, front = cut[same], cut[same + lag]
        overlap = np.minimum(back[:, 2:], front[:, 2:]) - np.maximum(back[:, :2], front[:, :2])
        hidden[same] += overlap.clip(0).prod(1)
    return 1 - (hidden / np.maximum(area, 1)).clip(0, 1)


def _gathered(flat: np.ndarray, knobs: CityKnobs) -> np.ndarray:
    """[sprites] bool: the leftmost of enough people who stand within `meet_within` of each other."""
    out, many = np.zeros(len(flat), bool), knobs.crowd[0]
    stand = np.flatnonzero((flat["pose"] == STAND) & (flat["kind"] == PERSON))
    stand = stand[np.lexsort((flat["x"][stand], flat["frame"][stand], flat["camera"][stand]))]
    first, last = stand[: len(stand) - many + 1], stand[many - 1:]
    same = (flat["camera"][first] == flat["camera"][last]) & (flat["frame"][first] == flat["frame"][last])
    out[first[same & (flat["x"][last] - flat["x"][first] <= knobs.meet_within)]] = True
    return out
