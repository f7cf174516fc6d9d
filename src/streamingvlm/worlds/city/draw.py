"""Scenes and sprites -> pixels. Knows colours and shapes; what happens and what it means is decided elsewhere.

Shapes are rectangles filled by slices: some 0.1 ms a frame at 96 px. Letters for shapes: H W pixels, C channels.
"""

from __future__ import annotations

import numpy as np

from streamingvlm.worlds.city.knobs import UNITS
from streamingvlm.worlds.city.people import BAG, CAR, LIE, WALK
from streamingvlm.worlds.city.scene import Scene

PLATES = 4  # of grain, one after the other
SKIN = (206, 164, 136)
WINDOW, WHEEL = (150, 172, 188), (40, 40, 42)
CARS = np.array([(122, 40, 44), (52, 70, 110), (190, 190, 186), (62, 62, 66), (120, 124, 100)], np.int16)
BAGS = np.array([(104, 70, 40), (76, 58, 46), (130, 96, 50)], np.int16)
STEPS_A_SECOND = 4  # legs change this often


def background(scene: Scene, size_px: tuple[int, int]) -> np.ndarray:
    """The empty picture [H, W, C] uint8, at its brightness, without grain."""
    px = size_px[0] / UNITS
    image = np.zeros((*size_px, 3), np.uint8)
    for left, top, right, bottom, colour in scene.parts:
        _fill(image, *(round(side * px) for side in (left, top, right, bottom)), np.array(colour) + scene.brightness)
    return image


def plates(scene: Scene, rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """[PLATES, H, W, C] uint8 to add modulo 256: grain in cells of a unit, so that a larger picture is the same one."""
    cell = max(1, round(size_px[0] / UNITS))
    height, width = (-(-side // cell) for side in size_px)
    grain = rng.integers(-scene.grain, scene.grain + 1, (PLATES, height, width, 1), np.int8)
    large = grain.repeat(3, 3).repeat(cell, 1).repeat(cell, 2)[:, : size_px[0], : size_px[1]]
    return np.ascontiguousarray(large).view(np.uint8)


def paint(image: np.ndarray, things: np.ndarray, colour: np.ndarray, brightness: int, at_s: float) -> None:
    """Paint the sprites of one frame over `image` [H, W, C], the first of them first. colour: [8, 6, 2, 3], a wardrobe's."""
    step = int(at_s * STEPS_A_SECOND + 1e-6)
    for kind, pose, track, shirt, trousers, tint, box in zip(*(things[name].tolist() for name in (
            "kind", "pose", "track", "shirt", "trousers", "tint", "box")), strict=True):
        if kind == CAR:
            _car(image, box, CARS[tint] + brightness, brightness)
        elif kind == BAG:
            _bag(image, box, BAGS[tint] + brightness)
        else:
            top, legs = colour[shirt, trousers].astype(np.int16) + brightness
            _person(image, box, pose, (step + track // 2) % 2, top, legs, np.add(SKIN, brightness))


def _person(image: np.ndarray, box: list[int], pose: int, step: int, shirt: np.ndarray, trousers: np.ndarray, skin: np.ndarray) -> None:
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    if pose == LIE:
        head, belt = left + round(0.2 * wide), left + round(0.6 * wide)
        _fill(image, left, top + round(0.25 * high), head, bottom - round(0.25 * high), skin)
        _fill(image, head, top, belt, bottom, shirt)
        _fill(image, belt, top, right, bottom, trousers)
        return
    neck, belt, quarter = top + round(0.2 * high), top + round(0.6 * high), round(wide / 4)
    _fill(image, left + quarter, top, right - quarter, neck, skin)
    _fill(image, left, neck, right, belt, shirt)
    if pose != WALK:
        _fill(image, left + round(wide / 8), belt, right - round(wide / 8), bottom, trousers)
        return
    hip, leg = belt + round(0.12 * high), max(1, round(0.36 * wide))
    _fill(image, left + round(wide / 8), belt, right - round(wide / 8), hip, trousers)
    inwards = round(wide / 8) if step else 0
    _fill(image, left + inwards, hip, left + inwards + leg, bottom, trousers)
    _fill(image, right - inwards - leg, hip, right - inwards, bottom - (round(0.1 * high) if step else 0), trousers)


def _car(image: np.ndarray, box: list[int], body: np.ndarray, brightness: int) -> None:
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    waist, wheel = top + round(0.4 * high), round(0.16 * wide)
    _fill(image, left + round(0.2 * wide), top, right - round(0.2 * wide), waist, body)
    _fill(image, left + round(0.28 * wide), top + round(0.12 * high), right - round(0.28 * wide), waist, np.add(WINDOW, brightness))
    _fill(image, left, waist, right, bottom - round(0.15 * high), body)
    for at in (left + round(0.12 * wide), right - round(0.12 * wide) - wheel):
        _fill(image, at, bottom - round(0.32 * high), at + wheel, bottom, np.add(WHEEL, brightness))


def _bag(image: np.ndarray, box: list[int], colour: np.ndarray) -> None:
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    _fill(image, left, top + round(0.3 * high), right, bottom, colour)
    _fill(image, left + round(0.3 * wide), top, right - round(0.3 * wide), top + max(1, round(0.2 * high)), colour - 20)


def _fill(image: np.ndarray, left: int, top: int, right: int, bottom: int, colour: np.ndarray) -> None:
    if right > 0 and bottom > 0:
        image[max(top, 0):bottom, max(left, 0):right] = colour
