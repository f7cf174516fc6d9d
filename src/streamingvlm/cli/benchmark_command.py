"""`streamingvlm benchmark`: a public benchmark, streamed. What is wrong with the data or the settings is said before the model is loaded.

Knows files, options and the table; how a question is asked and marked is in `evaluation.harness`, what a benchmark is in `evaluation.benchmarks`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamingvlm.base import config, files, machine, progress
from streamingvlm.base.errors import UserError
from streamingvlm.cli import run_command

if TYPE_CHECKING:
    from streamingvlm.evaluation.harness.protocol import Benchmark, Item
    from streamingvlm.evaluation.harness.run import Answerer, Found

STREAM, LAST = "stream", "last 4 frames"
NAMED = 5  # of the questions that cannot be asked; all of them are in the file of scores


def benchmark(args: argparse.Namespace) -> None:
    """List, rescore, or run."""
    from streamingvlm.evaluation import benchmarks

    if args.list or args.name is None:
        print(listed(benchmarks.known()))
        return
    chosen = benchmarks.get(args.name)
    if args.rescore:
        print(rescored(chosen, args.rescore))
        return
    run(chosen, args)


def listed(known: dict[str, Benchmark]) -> str:
    wide = max(map(len, known))
    return "\n".join(f"{name:<{wide}}  {one.about}\n{'':<{wide}}  wants {one.needs}\n{'':<{wide}}  its own rule: {one.rule}"
                     for name, one in known.items())


def rescored(chosen: Benchmark, path: Path) -> str:
    """A table of predictions, or of a judge's verdicts, that a repository ships."""
    from streamingvlm.evaluation.harness import duel, summary

    if chosen.rescore is None and chosen.verdicts is None:
        raise UserError(f"There is no rescoring for {chosen.name}: its repository ships no predictions that we know of.")
    if not path.exists():
        raise UserError(f"There is no {path}: name the predictions that the repository of {chosen.name} ships.")
    if chosen.verdicts is not None:
        return duel.told(chosen.verdicts(path))
    return summary.table({path.name: summary.summarise(chosen, chosen.rescore(path))})


def run(chosen: Benchmark, args: argparse.Namespace) -> None:
    """Watch, ask, mark; leave the answers, the scores and a table."""
    from streamingvlm.context import policy
    from streamingvlm.evaluation.harness import run as harness
    from streamingvlm.evaluation.harness import templates
    from streamingvlm.evaluation.harness.answers import Answers

    if args.data is None:
        raise UserError(f"Where is {chosen.name}? Name the folder it was downloaded to with --data; it wants {chosen.needs}.")
    cfg, kept = settings(args), policy.get(args.policy)
    prompt, model = templates.wording(chosen, args.template), run_command.model_path(args.model)
    items = chosen.read(args.data)[: args.limit]
    found = harness.check(items, args.data, lambda rows: progress.bar(rows, len(items), "videos", lambda row: row["video"]))
    print(f"{len(found.good)} of {len(items)} questions have a video to watch.", file=sys.stderr)
    if not found.good:
        raise UserError(f"None of the {len(items)} questions of {chosen.name} has its video; the first: {found.lost[0][1].rstrip('.')}.")
    told = {"benchmark": chosen.name, "questions": _hash(repr(chosen.read(args.data))), "prompts": _hash("".join(map(prompt, items[:20]))),
            "model": model, "weights": _weights(Path(model)), "policy": kept.name, "fps": cfg.video.fps, "max_pixels": cfg.video.max_pixels,
            "vision_rounds": cfg.cache.vision_rounds, "text_sink": cfg.cache.text_sink, "text_window": cfg.cache.text_window,
            "max_new_tokens": cfg.stream.max_new_tokens, "query": cfg.stream.query}
    out = args.out or Path(f"benchmark.{chosen.name}.jsonl")
    answers = Answers(out, told, machine.revision()["revision"])
    for way, answerer in answerers(chosen, found.good, model, kept, cfg, args).items():
        asked = harness.ask(chosen, found.good, way, answerer, answers, args.data, found.lost, prompt)
        for _ in progress.bar(asked, len(found.good), f"{chosen.name}, {way}", lambda item: item.id):
            pass
    print(report(chosen, found, answers, out))


def settings(args: argparse.Namespace) -> config.Config:
    cfg = run_command.settings(args.params)
    cfg = cfg.having("video", fps=args.fps) if args.fps is not None else cfg
    frames = cfg.video.fps * cfg.video.chunk_s
    if cfg.video.fps <= 0 or abs(frames - round(frames)) > 1e-6 or frames < 1:
        raise UserError(f"--fps {cfg.video.fps:g} does not give a whole number of frames in {cfg.video.chunk_s:g} s: choose another, such as 2.")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, not {args.limit}.")
    return cfg


def answerers(chosen: Benchmark, items: Sequence[Item], model: str, kept, cfg: config.Config, args: argparse.Namespace) -> dict[str, Answerer]:
    """By way: the stream, and, but for commentary, the last frames alone."""
    import torch

    from streamingvlm.evaluation.harness.answerers import LastFrames, Streamed
    from streamingvlm.evaluation.harness.protocol import COMMENTARY
    from streamingvlm.models.qwen25 import loading
    from streamingvlm.streaming.stream import Streamer

    torch.set_num_threads(cfg.run.threads)
    vlm = loading.load(model, loading.pick_device(args.device or cfg.run.device), decode=cfg.run.decode)
    ways: dict[str, Answerer] = {STREAM: Streamed(Streamer(vlm, kept, cfg.cache, cfg.video, cfg.stream), cfg.video, ask)}
    return ways if args.no_baseline or any(item.kind == COMMENTARY for item in items) else ways | {LAST: LastFrames(vlm, cfg)}


def ask(streamer, prompt: str, options: Sequence[str]) -> str:
    return streamer.ask(prompt).text


def report(chosen: Benchmark, found: Found, answers, out: Path) -> str:
    """Write FILE.scores.json -> the table and what belongs beside it."""
    from streamingvlm.evaluation.harness import run as harness
    from streamingvlm.evaluation.harness import summary

    marks = {way: harness.marks(chosen, found.good, answers, way) for way in (STREAM, LAST)}
    summaries = {way: summary.summarise(chosen, of) for way, of in marks.items() if of}
    lost = [{"id": item.id, "video": item.video, "reason": reason} for item, reason in found.lost]
    scores = out.with_name(f"{out.stem}.scores.json")
    files.write_json({"settings": answers.settings, "revisions": answers.revisions, "own_rule": chosen.rule, "scores": summaries, "lost": lost},
                     scores)
    told = ", ".join(f"{key} {value}" for key, value in answers.settings.items() if key not in {"benchmark", "questions", "prompts", "weights"})
    lines = [summary.table(summaries)] if summaries else []
    lines += [f"Own rule: {chosen.rule}. ±: standard error, clustered by video.", f"{told}; git {', '.join(answers.revisions)}.",
              f"{len(lost)} questions could not be asked and are in no score{':' if lost else '.'}",
              *(f"  {one['id']} ({one['video']}): {one['reason']}" for one in lost[:NAMED]),
              *([f"  and {len(lost) - NAMED} more"] if len(lost) > NAMED else []), f"Answers: {out}; scores: {scores}."]
    return "\n".join(lines)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _weights(folder: Path) -> str:
    """Tells two models in the same folder apart, by the ends of their files: whole 7B files take minutes to read."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:12]
