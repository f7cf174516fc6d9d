"""Which colours clothes are painted in. A look is a (shirt, trousers) pair; a wardrobe says what it looks like and what it then is.

Training never shows the held-out pairs. So that a model learns colours one by one and not pairs by heart, `Wardrobe.mixed` dresses the same
scene anew: it exchanges the pairs of training among each other, and gives some looks one garment in a colour that has no name (label -1, to be
left out of a loss), which shows every shirt above trousers of any colour without showing a held-out pair.

    frame = city.draw(3, 17, Wardrobe.mixed(seed=5))
    looks = Wardrobe.mixed(seed=5).labels(city.truth.box_look)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamingvlm.worlds.city.knobs import SHIRTS, TROUSERS, looks

COLOURS = {"red": (206, 48, 48), "orange": (212, 132, 44), "yellow": (214, 204, 60), "green": (48, 158, 72), "blue": (52, 88, 206),
           "purple": (148, 60, 176), "white": (214, 214, 214), "black": (40, 40, 42)}
UNLIKE = 70  # summed over red, green and blue: this far from every named colour
PLAIN = np.zeros((len(SHIRTS), len(TROUSERS), 2, 3), np.uint8)
PLAIN[:, :, 0] = np.array([COLOURS[name] for name in SHIRTS])[:, None]
PLAIN[:, :, 1] = np.array([COLOURS[name] for name in TROUSERS])[None]


@dataclass(frozen=True)
class Wardrobe:
    """What people of each look wear."""

    colour: np.ndarray  # [8, 6, 2, 3] uint8: of shirt and trousers
    label: np.ndarray  # [8, 6, 2] int64: (shirt, trousers) as a model should say them, -1 where the colour has no name

    @classmethod
    def plain(cls) -> Wardrobe:
        return cls(PLAIN, np.stack(np.indices(PLAIN.shape[:2]), -1))

    @classmethod
    def mixed(cls, seed: int, unnamed: float = 0.4) -> Wardrobe:
        """The pairs of training exchanged; a share `unnamed` of them with one garment in any colour. Held-out looks stay as they are."""
        rng, plain = np.random.default_rng([seed, 77]), cls.plain()
        colour, label = plain.colour.copy(), plain.label.copy()
        pairs = np.array(looks(evaluation=False))
        new = pairs[rng.permutation(len(pairs))]
        colour[tuple(pairs.T)], label[tuple(pairs.T)] = plain.colour[tuple(new.T)], new
        for shirt, trousers in pairs[rng.random(len(pairs)) < unnamed]:
            garment = int(rng.integers(2))
            colour[shirt, trousers, garment], label[shirt, trousers, garment] = _unnamed(rng), -1
        return cls(colour, label)

    def labels(self, box_look: np.ndarray) -> np.ndarray:
        """[N, 2] looks of `Truth.box_look` -> [N, 2] as painted; -1 stays -1."""
        return np.where(box_look >= 0, self.label[box_look[:, 0], box_look[:, 1]], -1)


def _unnamed(rng: np.random.Generator) -> np.ndarray:
    """[3] a colour that nobody would take for a named one: it must not make a held-out pair."""
    named = np.array(list(COLOURS.values()))
    while True:
        colour = rng.integers(40, 216, 3)
        if np.abs(named - colour).sum(1).min() >= UNLIKE:
            return colour
