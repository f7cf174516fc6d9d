"""What a model answers when it is asked while it watches: held-out matches, every kind of question, under several policies, and on short clips.

    python bench/questions.py FOLDER [FOLDER ...] [--policies streaming,full] [--matches 4] [--seconds 240] [--every 20] [--ways free,chosen,again]

Matches are drawn straight into memory, of team pairs and colours that no training sees, of seeds that nothing else uses. Prints a table per model,
writes every answer to reports/bench/questions.jsonl. `chance`: what guessing among the options gets right. `clip`: no stream, 8 s as one video with a
title, as offline models are asked. Times are of this machine, as loaded as it is: compare them within a run only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import common
import torch

from streamingvlm.base import config as params
from streamingvlm.base import files, paths
from streamingvlm.evaluation.harness import questions
from streamingvlm.models.qwen25 import loading
from streamingvlm.worlds.match import practice
from streamingvlm.worlds.match.game import EVENTS, Match

SEEDS = 700_000  # of these matches alone


def answers(folder: Path, args: argparse.Namespace, cfg: params.Config) -> Iterator[dict]:
    """Every answer of one model, match by match."""
    vlm = loading.load(folder, loading.pick_device(cfg.run.device))
    for seed in range(SEEDS, SEEDS + args.matches):
        match = Match(seed, args.seconds, True)
        row, video = match.row(f"asked-{seed}", ""), practice.drawn_video(match, cfg.video, EVENTS)
        at_s = questions.times(row, args.every)
        yield from questions.on_clips(vlm, row, video, cfg, [(max(0, int(at) - questions.CLIP_S), int(at)) for at in at_s], ways=args.ways.split(","))
        yield from questions.examine(vlm, row, args.policies.split(","), cfg, video.chunks, at_s, ways=args.ways.split(","))


def main(argv: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="FOLDER", help="a model's folder")
    parser.add_argument("--policies", default="streaming,full", help="with commas between")
    parser.add_argument("--ways", default="free,chosen,again", help="with commas between")
    parser.add_argument("--matches", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=240, help="of each match")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two moments at which all is asked")
    args, lines = parser.parse_args(argv), []
    root = paths.repository_root()
    cfg = params.load(root / "params.yaml")
    torch.set_num_threads(cfg.run.threads)
    for folder in args.models:
        own = [{"model": str(folder), **line} for line in answers(folder, args, cfg)]
        print(folder)
        common.table([vars(cell) for cell in questions.table(own)])
        lines += own
    files.write_lines(lines, root / "reports" / "bench" / "questions.jsonl")
    return lines


if __name__ == "__main__":
    common.run(main)
