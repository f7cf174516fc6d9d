"""What models answer when they are asked while they watch: held-out matches, every kind of question, under several policies, and on short clips.

    python bench/questions.py FOLDER [FOLDER ...] [--policies streaming,full] [--matches 4] [--seconds 240] [--every 20] [--ways free,chosen,again]
    python bench/questions.py data/tiny-base artifacts/ablation/seed-*/overlapped artifacts/ablation/seed-*/asked --ways chosen \\
        --policies full,window,overlap,streaming --matches 6 --seconds 64 --every 16 --save reports/reference/questions.json

Matches are drawn straight into memory, of team pairs and colours that no training sees, of seeds that nothing else uses. Folders of one name are one
model, trained with several seeds. Prints the share right of each, with a 95 % interval over matches, and how far that is from the first model in the
same matches. Every answer stays in artifacts/questions, by model and options, and is not asked for again; a killed run goes on there.
`chance`: what guessing among the options gets right. `clip`: no stream, 8 s as one video with a title, as offline models are asked. Times are of this
machine, as loaded as it is: compare them within a run only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import common
import torch

from streamingvlm.base import config as params
from streamingvlm.base import files, paths
from streamingvlm.base.machine import provenance
from streamingvlm.evaluation import claims
from streamingvlm.evaluation.harness import questions
from streamingvlm.models.qwen25 import loading
from streamingvlm.streaming import captions
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
        yield from questions.on_clips(vlm, row, video, cfg, [(max(0, int(at) - questions.CLIP_S), int(at)) for at in at_s], ways=args.ways)
        yield from questions.examine(vlm, row, args.policies, cfg, video.chunks, at_s, ways=args.ways)


def kept(folder: Path, args: argparse.Namespace, cfg: params.Config, done: Path) -> list[dict]:
    """The answers of one model, asked for unless they lie in `done`."""
    asked = [args.policies, args.ways, args.matches, args.seconds, args.every, repr((cfg.cache, cfg.video, cfg.stream))]
    key = hashlib.sha256(json.dumps([files.fingerprint(folder / "model.safetensors"), *asked]).encode()).hexdigest()[:12]
    path = done / f"{key}.jsonl"
    if not path.exists():
        files.write_lines(list(answers(folder, args, cfg)), path)
    return captions.read(path)


def summary(lines: Sequence[dict]) -> list[dict]:
    """A row for each policy, way and model: the share right with its interval over matches, of each training, and of each kind; and by how much it is
    above the first model, match by match, so that easy and hard matches cancel."""
    first, out = lines[0]["model"], []
    for place, way, model in dict.fromkeys((line["policy"], line["way"], line["model"]) for line in lines):
        own = [line for line in lines if (line["policy"], line["way"], line["model"]) == (place, way, model)]
        by_match = _shares(own, "stream")
        before = _shares([line for line in lines if (line["policy"], line["way"], line["model"]) == (place, way, first)], "stream")
        out.append({"policy": place, "way": way, "model": model, "asked": len(own), "right": claims.interval(list(by_match.values())),
                    f"above_{first}": claims.interval([share - before[match] for match, share in by_match.items()]),
                    "chance": round(fmean(line["chance"] for line in own), 4),
                    "trainings": list(_shares(own, "folder").values()), "kinds": _shares(own, "kind")})
    return out


def _shares(lines: Sequence[dict], key: str) -> dict[str, float]:
    """The share right of the lines that have each value of `key`."""
    return {value: round(fmean(line["right"] for line in lines if line[key] == value), 4) for value in dict.fromkeys(line[key] for line in lines)}


def readable(entry: dict) -> dict[str, str | float]:
    spread = {key: f"{value['mean']:.2f}" + ("" if value["half_width"] is None else f" +- {value['half_width']:.2f}")
              for key, value in entry.items() if isinstance(value, dict) and "half_width" in value}
    return {**{key: value for key, value in entry.items() if key not in {"kinds", "trainings"}}, **spread,
            "trainings": " ".join(f"{share:.2f}" for share in entry["trainings"])}


def main(argv: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="FOLDER", help="a model's folder; the others are compared with the first")
    parser.add_argument("--policies", default="streaming,full", type=lambda text: text.split(","), help="with commas between")
    parser.add_argument("--ways", default="free,chosen,again", type=lambda text: text.split(","), help="with commas between")
    parser.add_argument("--matches", type=int, default=4, help="8 at most")
    parser.add_argument("--seconds", type=int, default=240, help="of each match")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two moments at which all is asked")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the table as JSON")
    args, lines = parser.parse_args(argv), []
    if not 1 <= args.matches <= max(claims.T_95) + 1:
        parser.error(f"--matches takes 1 to {max(claims.T_95) + 1}.")
    root = paths.repository_root()
    cfg = params.load(root / "params.yaml")
    torch.set_num_threads(cfg.run.threads)
    for folder in args.models:
        own = [{"model": folder.name, "folder": str(folder), **line} for line in kept(folder, args, cfg, root / "artifacts" / "questions")]
        print(folder)
        common.table([vars(cell) for cell in questions.table(own)])
        lines += own
    table = summary(lines)
    common.table([readable(entry) for entry in table])
    if args.save:
        asked = {key: value for key, value in vars(args).items() if key not in {"models", "save"}} | {"models": [str(path) for path in args.models]}
        files.write_json({"bench": "questions", "table": table, **provenance(asked)}, args.save)
    return table


if __name__ == "__main__":
    common.run(main)
