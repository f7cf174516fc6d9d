"""What the city's commentator says while it streams, second by second, against what is true. Knows words and labels, no weight and no pixel.

    score(Path("data/city-commentator"), [SEEDS, SEEDS + 1], eyes=Path("data/city-base"))    # {"exact", "local_exact", "false", "by_kind", ...}
    python -m streamingvlm.evaluation.city_words data/city-commentator                       # on validation cities, and ms a second
    python -m streamingvlm.evaluation.city_words data/city-commentator --evaluation          # held out: to report, never to choose by

`eyes`: the multi-camera model that watches the same city; what it makes of each second is handed to the commentator as a note, as the service does.
Without it (`--eyes ""`) the commentator is alone with its own pictures.
A second is about LOCAL anomalies if somebody lies or a car is on the pavement for at least half of it; it is exact if the sentence names each of
them, the clothes of who lies and the third of the picture included, and nothing else that is wrong. Letters: F frames, H W pixels, C channels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise, repeat
from pathlib import Path

import numpy as np
import torch

from streamingvlm.base.records import Chunk, Comment
from streamingvlm.base.timing import percentiles
from streamingvlm.models.multicamera import network as networks
from streamingvlm.models.multicamera.network import Network
from streamingvlm.streaming.commentator import Commentator
from streamingvlm.training.city_words.notes import notes
from streamingvlm.worlds.city import sentences
from streamingvlm.worlds.city.sentences import Said
from streamingvlm.worlds.city.world import FAMILIES, City

SEEDS, VALIDATION = 7_100_000, 4_500_000  # held-out cities; cities with the looks and palettes of training that no training saw
QUARTERS = 4
NOTE = "8 red blue falls left and 2 people walk"  # a long one, where only time is taken


def chunks(city: City, camera: int, fps: float, seconds: range) -> Iterator[Chunk]:
    """The seconds of one camera as a reader at `fps` gives them, straight from the pencil."""
    for k in seconds:
        times_s = [k + j / fps for j in range(round(fps))]
        yield Chunk(k, float(k), k + 1.0, np.stack([city.draw(camera, round(t * city.fps)) for t in times_s]), tuple(times_s))


def watch(commentator: Commentator, city: City, cameras: Sequence[int], name: str = "city",
          noted: Iterable[Sequence[str]] | None = None) -> list[list[Comment]]:
    """All whole seconds of some cameras, streamed side by side -> the comments of each camera. `noted`: of each second, each camera's note."""
    seconds, fps = range(int(city.frames / city.fps)), commentator.settings.video.fps
    names, said = [f"{name}-{camera}" for camera in cameras], []
    noted = repeat([""] * city.cameras, len(seconds)) if noted is None else noted
    for told, *shown in zip(noted, *(chunks(city, camera, fps, seconds) for camera in cameras), strict=True):
        now = {stream: replace(chunk, note=told[camera]) for stream, camera, chunk in zip(names, cameras, shown, strict=True)}
        said.append(list(commentator.say(now).values()))
    for stream in names:
        commentator.leave(stream)
    return [list(own) for own in zip(*said, strict=True)]


def tally(said: Sequence[Said], true: Sequence[Said]) -> dict:
    """Seconds of any streams: how many are right, in shares; None where there are none to be right about.

    exact: the whole sentence. local_exact: what is wrong, where and in which clothes, of the seconds in which anything is; local_where: the same but
    for the clothes. recall: of all things that are wrong, those that were said exactly; by_kind: the same by kind. false: of the seconds in which
    nothing is wrong, those that are said to have something; who: the people and what they do."""
    scores = [sentences.score(one, other) for one, other in zip(said, true, strict=True)]
    plain = [sentences.score(_without_clothes(one), _without_clothes(other)) for one, other in zip(said, true, strict=True)]
    local = [bool(one.wrongs) for one in true]
    hits = [(wrong.kind, any(wrong.agrees(other) for other in one.wrongs)) for one, truth in zip(said, true, strict=True) for wrong in truth.wrongs]
    return {"seconds": len(true), "local_seconds": sum(local), "exact": _share(one.exact for one in scores),
            "local_exact": _share(one.wrongs for one, is_local in zip(scores, local, strict=True) if is_local),
            "local_where": _share(one.wrongs for one, is_local in zip(plain, local, strict=True) if is_local),
            "recall": _share(hit for _, hit in hits),
            "by_kind": {kind: _share(hit for own, hit in hits if own == kind) for kind in FAMILIES["local"]},
            "false": _share(bool(one.wrongs) for one, is_local in zip(said, local, strict=True) if not is_local),
            "who": _share(one.who for one in scores)}


def _without_clothes(said: Said) -> Said:
    return replace(said, wrongs=tuple(replace(wrong, look=None) for wrong in said.wrongs))


def _share(answers: Iterator[bool]) -> float | None:
    answers = list(answers)
    return float(np.mean(answers)) if answers else None


def assess(commentator: Commentator, cities: Sequence[City], cameras: Sequence[int] | None = None, eyes: Network | None = None) -> dict:
    """`tally` of all cameras of some cities of one length; `quarters`: the same of each quarter of their streams, "1" to "4"; kv_tokens: the most
    cached in the second quarter and in the last. With `eyes`, `notes`: what their notes alone, taken at their word, would be worth."""
    heard, truths, told = [], [], []
    for city in cities:
        watched = range(city.cameras) if cameras is None else cameras
        noted = list(notes(eyes, city)) if eyes else None
        heard += watch(commentator, city, watched, noted=noted)
        told += [[sentences.heard(second[camera]) for second in noted] for camera in watched] if noted else []
        truths += [[sentences.second(city.truth, camera, k) for k in range(int(city.frames / city.fps))] for camera in watched]
    said = [[sentences.parse(comment.text) for comment in own] for own in heard]
    edges = list(pairwise(np.linspace(0, len(said[0]), QUARTERS + 1).astype(int).tolist()))
    parts = [tally(*(list(chain.from_iterable(own[start:stop] for own in streams)) for streams in (said, truths))) for start, stop in edges]
    held = [max(comment.kv_tokens for own in heard for comment in own[start:stop]) for start, stop in edges]
    by_notes = {"notes": tally(list(chain(*told)), list(chain(*truths)))} if told else {}
    return tally(list(chain(*said)), list(chain(*truths))) | by_notes | {"minutes": len(said[0]) / 60, "streams": len(said), "quarters": {
        str(k + 1): {key: part[key] for key in ("exact", "local_exact", "false", "local_seconds")} for k, part in enumerate(parts)},
        "kv_tokens": {"second_quarter": held[1], "last_quarter": held[-1]}}


def score(base: Path, seeds: Sequence[int], frames: int = 384, cameras: int = 8, evaluation: bool = True,
          eyes: Path | None = None) -> dict:
    """The commentator of a folder on cities of these seeds: see `assess`. `evaluation`: with looks, palettes and streets that training never met."""
    cities = [City(seed, cameras, frames, evaluation) for seed in seeds]
    return assess(Commentator.load(base), cities, eyes=networks.load(eyes) if eyes else None)


def milliseconds(commentator: Commentator, streams: int, seconds: int = 30) -> dict[str, float]:
    """What one second of `streams` cameras takes, looked at together: percentiles in ms, from the first full window on."""
    city, ms = City(VALIDATION - 1, max(2, streams), 8 * (seconds + 8)), []
    sources = {str(camera): chunks(city, camera, commentator.settings.video.fps, range(seconds + 8)) for camera in range(streams)}
    for _ in range(seconds + 8):
        now = {stream: replace(next(source), note=NOTE) for stream, source in sources.items()}
        begun = time.perf_counter()
        commentator.say(now)
        ms.append((time.perf_counter() - begun) * 1e3)
    for stream in sources:
        commentator.leave(stream)
    return percentiles(ms[8:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cities", type=int, default=4)
    parser.add_argument("--frames", type=int, default=384, help="of each city")
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--evaluation", action="store_true", help="held-out cities: to report, never to choose by")
    parser.add_argument("--eyes", default="data/city-base", help="the multi-camera model whose notes are heeded; empty: none")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    first, eyes = SEEDS if asked.evaluation else VALIDATION, Path(asked.eyes) if asked.eyes else None
    out = score(asked.folder, range(first, first + asked.cities), asked.frames, asked.cameras, asked.evaluation, eyes)
    commentator = Commentator.load(asked.folder)
    out["ms"] = {str(streams): milliseconds(commentator, streams) for streams in (1, 8)}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
