"""What the multi-camera model makes of a city, frame by frame, and the notes for its commentator that come of it. Knows no loss.

    for told in notes(network, city): told[camera]      # "7 red blue falls left and 2 people walk", of second after second
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from streamingvlm.models.multicamera.network import Network
from streamingvlm.worlds.city import sentences
from streamingvlm.worlds.city.world import City


def spotted(network: Network, city: City) -> Iterator[list[list[dict]]]:
    """Second after second, of each camera and frame. All frames are looked at, as by a service that drops none."""
    state, each = network.memory.start(city.cameras), round(city.fps)
    for first in range(0, city.frames // each * each, each):
        frames = np.stack([[city.draw(camera, frame) for camera in range(city.cameras)] for frame in range(first, first + each)])  # [F, B, H, W, C]
        rows, state = network.tell(torch.from_numpy(frames), state)
        yield rows


def notes(network: Network, city: City) -> Iterator[list[str]]:
    """Of each whole second, each camera's note."""
    for rows in spotted(network, city):
        yield [sentences.note(own) for own in rows]


def whole(network: Network, city: City) -> list[list[dict]]:
    """Of each camera all frames."""
    return [[row for second in camera for row in second] for camera in zip(*spotted(network, city), strict=True)]
