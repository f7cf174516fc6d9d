"""The article's evaluation set, made up: 1.5 h of city and 1 h of sport, 1080p at 30 frames a second, every frame labelled.

    python -m streamingvlm.worlds.city.full FOLDER                # everything: hours; the last line of a share says how many
    python -m streamingvlm.worlds.city.full FOLDER --seconds 2    # 2 s of each camera and of the sport, then what the whole would take

The city is that of the default run, seen wider: the same rules, held-out looks, palettes and streets; its 1.5 h are shared by the cameras. The
sport is the match, each of its pixels nine wide, its 10 frames a second shown three times each. Writes FOLDER/*.mp4, city.parquet (all labels,
see `recording`), rows.parquet (stream rows). Videos that are there already are kept: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from streamingvlm.base.errors import UserError, exit_status
from streamingvlm.data import stream_rows
from streamingvlm.media import file_index, writer
from streamingvlm.worlds.city import recording
from streamingvlm.worlds.city.world import City
from streamingvlm.worlds.match import rendering
from streamingvlm.worlds.match.game import FPS, SIZE_PX, Match

CITY_S, SPORT_S = 5400, 3600
HEIGHT_PX, WIDTH_PX, RATE = 1080, 1920, 30
LARGER = HEIGHT_PX // SIZE_PX
CITY_SEED, SPORT_SEED = 990_001, 990_002


@dataclass(frozen=True)
class Share:
    """How much of the set to make: seconds of each camera and of the sport."""

    cameras: int
    city_s: float
    sport_s: int

    @property
    def city(self) -> City:
        return City(CITY_SEED, self.cameras, round(self.city_s * RATE), evaluation=True, fps=RATE, height_px=HEIGHT_PX, width_px=WIDTH_PX)

    @property
    def sport(self) -> Match:
        return Match(SPORT_SEED, self.sport_s, evaluation=True)


def make(folder: Path, share: Share, jobs: int = 1) -> dict[str, float]:
    """Write the share, `jobs` cameras at a time. -> {"city_s", "sport_s": wall seconds, "city_bytes", "sport_bytes": of the videos}.

    UserError for a folder that cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Can't make {folder}: {error.strerror}; name another folder.") from None
    began = time.monotonic()
    work = [(share, camera, folder) for camera in range(share.cameras)]
    if jobs > 1:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            films = list(pool.map(_film, work))
    else:
        films = [_film(one) for one in work]
    city, named = share.city, [recording.stream_id("city", camera) for camera in range(share.cameras)]
    recording.write_labels(folder / "city.parquet", {"city": city.truth})
    rows = [recording.row(city, camera, name, path.name) for camera, (name, path) in enumerate(zip(named, films, strict=True))]
    filmed = time.monotonic()
    match = share.sport
    sport = folder / "sport.mp4"
    if not _is_whole(sport, share.sport_s * RATE):
        writer.write_h264(sport, _sport_frames(match), RATE)
    rows.append(sport_row(match))
    stream_rows.write([row | {"split": "full"} for row in rows], folder / "rows.parquet")
    return {"city_s": filmed - began, "sport_s": time.monotonic() - filmed, "city_bytes": sum(path.stat().st_size for path in films),
            "sport_bytes": sport.stat().st_size}


def sport_row(match: Match) -> dict:
    """The match's row at this size and rate: every label three times, boxes where they are in the larger picture."""
    row = match.row("sport", "sport.mp4")
    across, down = _margins()
    frames = []
    for k in range(match.seconds * RATE):
        label = row["frames"][k * FPS // RATE]
        boxes = [[x0 * LARGER + across, y0 * LARGER + down, x1 * LARGER + across, y1 * LARGER + down] for x0, y0, x1, y1 in label["boxes"]]
        frames.append(label | {"t_s": round(k / RATE, 3), "boxes": boxes})
    return row | {"fps": float(RATE), "frames": frames}


def _sport_frames(match: Match) -> Iterator[np.ndarray]:
    across, down = _margins()
    frame = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for small in rendering.draw(match):
        frame[down:HEIGHT_PX - down, across:WIDTH_PX - across] = small.repeat(LARGER, 0).repeat(LARGER, 1)
        for _ in range(RATE // FPS):
            yield frame


def _margins() -> tuple[int, int]:
    return (WIDTH_PX - SIZE_PX * LARGER) // 2, (HEIGHT_PX - SIZE_PX * LARGER) // 2


def _film(work: tuple[Share, int, Path]) -> Path:
    share, camera, folder = work
    path = folder / f"{recording.stream_id('city', camera)}.mp4"
    return path if _is_whole(path, share.city.frames) else recording.film(share.city, camera, path)


def _is_whole(path: Path, frames: int) -> bool:
    """Whether this video is there already, and not that of another share."""
    return path.exists() and file_index.scan(path).info.frames == frames


def whole(took: dict[str, float], share: Share) -> str:
    """What the whole set would take, from what the share took."""
    times, more = {"city": CITY_S / (share.cameras * share.city_s), "sport": SPORT_S / share.sport_s}, {}
    for name, factor in times.items():
        more[name] = f"{name} {took[f'{name}_s'] * factor / 60:.0f} min and {took[f'{name}_bytes'] * factor / 1e9:.2f} GB"
    return f"The whole of it, from this share: {more['city']}, {more['sport']}."


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=int, help="only so much of each camera and of the sport")
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2, help="processes, a camera each")
    wanted = parser.parse_args()
    share = Share(wanted.cameras, wanted.seconds or CITY_S / wanted.cameras, wanted.seconds or SPORT_S)
    took = make(wanted.folder, share, wanted.jobs)
    print(f"{share.cameras} cameras x {share.city_s:g} s of city: {took['city_s']:.0f} s, {took['city_bytes'] / 1e6:.1f} MB; "
          f"{share.sport_s} s of sport: {took['sport_s']:.0f} s, {took['sport_bytes'] / 1e6:.1f} MB; {wanted.jobs} processes")
    if wanted.seconds:
        print(whole(took, share))


if __name__ == "__main__":
    sys.exit(main())
