"""The arena's picture: draws a `Match` frame by frame. Knows pixels; decides nothing that happens.

A mark shows each event from `rules.reveal_s` of its second on: a white paddle (hit), a lit goal (goal), a blue goal (save), a red border on its half
(out), a white ring (kickoff). The score and the names are nowhere in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streamingvlm.worlds.match.game import FPS, SIDES, SIZE_PX, Match

# (training's, evaluation's)
FIELDS = (((38, 92, 58), (58, 70, 104), (104, 78, 52), (70, 84, 84)), ((88, 62, 92), (48, 84, 92)))
TEAMS = (((228, 74, 58), (74, 130, 236), (238, 186, 60), (190, 96, 214), (84, 214, 196), (240, 140, 190)),
         ((150, 220, 90), (240, 120, 40), (120, 110, 240)))
LIT, BLUE, RED, WHITE, DARK, BALL = (250, 250, 210), (70, 120, 255), (255, 40, 40), (255, 255, 255), (24, 24, 24), (245, 240, 70)
_ROWS, _COLUMNS = np.ogrid[:SIZE_PX, :SIZE_PX]
_MIDDLE = (_ROWS - SIZE_PX // 2) ** 2 + (_COLUMNS - SIZE_PX // 2) ** 2
_RING = (_MIDDLE >= 14**2) & (_MIDDLE <= 20**2)


def draw(match: Match) -> Iterator[np.ndarray]:
    """Every frame of a match in order, [H, W, C] uint8."""
    rng = match.rng(3)
    fields, teams = FIELDS[match.evaluation], TEAMS[match.evaluation]
    field = np.array(fields[rng.integers(len(fields))], np.int16)
    colours = [teams[i] for i in rng.choice(len(teams), 2, replace=False)]
    empty = np.broadcast_to(field, (SIZE_PX, SIZE_PX, 3)).copy()
    empty[:, SIZE_PX // 2 - 1 : SIZE_PX // 2 + 1] += 40
    loud = int(rng.integers(2, match.rules.noise + 1))  # sensor noise, a new plate each second: cheap to encode
    grain = rng.integers(-loud, loud + 1, size=(8, SIZE_PX, SIZE_PX, 1), dtype=np.int16)
    for k in range(match.seconds):
        zoom, right, down, bright = match.camera(k)
        plate = (empty + grain[k % 8] + bright).clip(0, 255).astype(np.uint8)
        place = np.arange(SIZE_PX) - SIZE_PX / 2
        rows, columns = (np.clip(np.rint(place * zoom + SIZE_PX / 2 + shift), 0, SIZE_PX - 1).astype(int) for shift in (down, right))
        seen = (SIZE_PX * rows[:, None] + columns).ravel()  # of all pixels in a row: one list to gather by is twice as fast as two
        for n in range(k * FPS, (k + 1) * FPS):
            frame = plate.copy()
            _play(frame, match, n / FPS, colours)
            yield frame.reshape(-1, 3).take(seen, axis=0).reshape(frame.shape)


def _play(frame: np.ndarray, match: Match, t_s: float, colours: list[tuple[int, int, int]]) -> None:
    """Goals, paddles, marks and the ball, drawn into `frame`."""
    (x, y), event = match.ball(t_s), match.shows(t_s)
    for side, colour in enumerate(colours):
        name = SIDES[side]
        goal = slice(0, 11) if side == 0 else slice(SIZE_PX - 11, SIZE_PX)
        frame[20 : SIZE_PX - 20, goal] = {f"goal {name}": LIT, f"save {name}": BLUE}.get(event, DARK)
        top = int(np.clip(y, 16, SIZE_PX - 16)) - 12 if event == f"hit {name}" else SIZE_PX // 2 - 12 + int(9 * np.sin(t_s + side))
        paddle = slice(13, 18) if side == 0 else slice(SIZE_PX - 18, SIZE_PX - 13)
        frame[top : top + 24, paddle] = WHITE if event == f"hit {name}" else colour
        if event == f"out {name}":
            half = slice(14, SIZE_PX // 2) if side == 0 else slice(SIZE_PX // 2, SIZE_PX - 14)
            frame[:13, half], frame[-13:, half] = RED, RED
    if event == "kickoff":
        frame[_RING] = WHITE
    left, top = max(int(x) - 6, 0), max(int(y) - 6, 0)
    patch = frame[top : int(y) + 7, left : int(x) + 7]
    rows, columns = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
    patch[(rows - y) ** 2 + (columns - x) ** 2 <= 5**2] = BALL
