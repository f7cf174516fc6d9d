"""`streamingvlm score`: a detector's or a service's boxes against a ground truth. What is computed is in `evaluation.footage.score`.

    streamingvlm score --truth gt.txt --video film.avi --tiles 3x2
    streamingvlm score --truth gt.txt --video film.avi --decisions decisions.jsonl
"""

from __future__ import annotations

import argparse
from pathlib import Path

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.cli.footage.places import COCO, in_clone


def options(parser: argparse.ArgumentParser) -> None:
    """What can be typed behind `score`."""
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE", help="boxes in MOTChallenge's format, as gt/gt.txt")
    parser.add_argument("--video", type=Path, required=True, metavar="VIDEO", help="the video they are of")
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="what a service decided about it, a JSON line each (default: look now)")
    parser.add_argument("--stream", metavar="NAME", help="with --decisions: of which stream")
    parser.add_argument("--tiles", metavar="CxR", default="1x1", help="look at so many parts and the whole, as 3x2 (default: the whole)")
    parser.add_argument("--every", type=int, metavar="N", default=1, help="only every N-th frame")
    parser.add_argument("--threshold", type=float, metavar="X", default=0.5, help="from which score on recall and precision count (default: 0.5)")
    parser.add_argument("--eyes", type=Path, metavar="FOLDER", help=f"the detector (default: {COCO} in this clone)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write it as JSON")


def score(args: argparse.Namespace) -> None:
    """Print a line a class. UserError for files that cannot be read or do not belong together."""
    from streamingvlm.data import mot
    from streamingvlm.evaluation.footage import score as scoring

    if args.every < 1 or not 0 <= args.threshold <= 1:
        raise UserError("--every is a whole number from 1 on, --threshold lies between 0 and 1.")
    tiles, tracks = _tiles(args.tiles), mot.read(args.truth)
    if args.decisions:
        found = scoring.decided(args.decisions, args.video, args.stream)
    else:
        from streamingvlm.models.eyes.coco import Coco

        found = scoring.seen(Coco(args.eyes or in_clone(COCO, "a detector with --eyes")), args.video, tiles, args.every)
    result = scoring.score(tracks, found, args.threshold)
    print(f"{result['frames']} of {result['of']} frames; recall and precision from a score of {args.threshold:g} on, at IoU .5")
    print(f"{'':8}{'boxes':>8}{'AP@.5':>8}{'AP':>8}{'recall':>8}{'precision':>11}")
    for name, row in result["by_class"].items():
        print(f"{name:8}{row['boxes']:8}{_share(row['map50'], 8)}{_share(row['map'], 8)}{_share(row['recall'], 8)}{_share(row['precision'], 11)}")
    if args.out:
        files.write_json(result, args.out)


def _share(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.3f'):>{width}}"


def _tiles(told: str):
    from streamingvlm.models.eyes.coco import Tiles

    columns, _, rows = told.partition("x")
    if not (columns.isdecimal() and rows.isdecimal() and 0 < int(columns) <= 8 and 0 < int(rows) <= 8):
        raise UserError(f"--tiles says columns and rows, as 3x2, each 1 to 8, not {told!r}.")
    return Tiles(int(columns), int(rows))
