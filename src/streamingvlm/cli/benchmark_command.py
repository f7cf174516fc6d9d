"""`streamingvlm benchmark`: a public benchmark, streamed. What is wrong with the data or the settings is said before the model is loaded.

Knows files, options and the table; how a question is asked and marked is in `evaluation.harness`, what a benchmark is in `evaluation.benchmarks`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from streamingvlm.base import config, files, machine, progress
from streamingvlm.base.errors import UserError
from streamingvlm.cli import run_command

if TYPE_CHECKING:
    from streamingvlm.context.policy import Policy
    from streamingvlm.evaluation import judge
    from streamingvlm.evaluation.harness.answers import Answers
    from streamingvlm.evaluation.harness.protocol import Benchmark, Item
    from streamingvlm.evaluation.harness.run import Answerer, Found

STREAM, LAST = "stream", "last 4 frames"
NAMED = 5  # of the questions that cannot be asked; all of them are in the file of scores
HASHES = ("questions", "prompts", "weights")  # settings that nobody reads
NO_MATTER = ("policies", "ablations", "controls", "timed_s")  # of the section `stream`: which policies the pipeline watches with


@dataclasses.dataclass(frozen=True)
class Job:
    """A benchmark that can be run: its questions in the published order, and under which settings."""

    benchmark: Benchmark
    items: list[Item]
    folder: Path
    cfg: config.Config
    policy: Policy
    model: str
    prompt: Callable[[Item], str]
    out: Path
    words: str  # whose they are
    silent: bool
    letters: bool


def benchmark(args: argparse.Namespace) -> None:
    """List, rescore, or run."""
    from streamingvlm.evaluation import benchmarks

    if args.list or args.name is None:
        print(listed(benchmarks.known()))
    elif args.rescore:
        print(rescored(benchmarks.get(args.name), args.rescore))
    else:
        run(benchmarks.get(args.name), args)


def listed(known: dict[str, Benchmark]) -> str:
    """What there is, what each wants, and its own rule."""
    wide = max(map(len, known))
    return "\n".join(f"{name:<{wide}}  {one.about}\n{'':<{wide}}  wants {one.needs}\n{'':<{wide}}  its own rule: {one.rule}"
                     for name, one in known.items())


def rescored(chosen: Benchmark, path: Path) -> str:
    """A table of predictions, or a line on a judge's verdicts, that a repository ships."""
    from streamingvlm.evaluation.harness import pairwise, summary

    if chosen.rescore is None and chosen.verdicts is None:
        raise UserError(f"There is no rescoring for {chosen.name}: its repository ships no predictions that we know of.")
    if not path.exists():
        raise UserError(f"There is no {path}: name the predictions that the repository of {chosen.name} ships.")
    if chosen.verdicts is not None:
        return pairwise.told(chosen.verdicts(path))
    return summary.table({path.name: summary.summarise(chosen, chosen.rescore(path))})


def run(chosen: Benchmark, args: argparse.Namespace) -> None:
    """Watch, ask, mark; leave the answers, the scores and a table."""
    from streamingvlm.evaluation.harness import pairwise
    from streamingvlm.evaluation.harness import run as harness
    from streamingvlm.evaluation.harness.answers import Answers

    job = prepare(chosen, args)
    theirs, verdict = pairwise.opponent(args.against) if args.against else None, the_judge(args)
    items = job.items[: args.limit]
    found = harness.check(items, job.folder, lambda rows: progress.bar(rows, len(items), "videos", lambda row: row["video"]))
    print(f"{len(found.good)} of {len(items)} questions have a video to watch.", file=sys.stderr)
    if not found.good:
        raise UserError(f"None of the {len(items)} questions of {chosen.name} has its video; the first: {found.lost[0][1].rstrip('.')}.")
    answers = Answers(job.out, told(job), machine.revision()["revision"])
    for way, answerer in answerers(job, found.good, args).items():
        asked = harness.ask(chosen, found.good, way, answerer, answers, job.folder, found.lost, job.prompt)
        for _ in progress.bar(asked, len(found.good), f"{chosen.name}, {way}", lambda item: item.id):
            pass
    judged = None
    if theirs is not None:
        turns = [turn for item in found.good for turn in harness.turns(chosen, item, answers, STREAM)]
        judged = pairwise.compare(turns, theirs, verdict, chosen.segment_s or pairwise.WHOLE_S, chosen.min_words, workers=8 if args.judge else 1)
    print(report(job, found, answers, judged))


def prepare(chosen: Benchmark, args: argparse.Namespace) -> Job:
    """Everything that can be wrong without a model."""
    from streamingvlm.context import policy
    from streamingvlm.evaluation.harness import protocol, templates
    from streamingvlm.streaming import captions

    if args.data is None:
        raise UserError(f"Where is {chosen.name}? Name the folder it was downloaded to with --data; it wants {chosen.needs}.")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, not {args.limit}.")
    cfg = run_command.settings(args.params)
    cfg = cfg if args.fps is None else cfg.having("video", fps=args.fps)
    frames = cfg.video.fps * cfg.video.chunk_s
    if not 0 < frames <= config.FRAMES_AT_MOST or abs(frames - round(frames)) > 1e-6:
        raise UserError(f"--fps {cfg.video.fps:g} does not give a whole number of frames in {cfg.video.chunk_s:g} s: choose another, such as 2.")
    if args.letters and args.template:
        raise UserError("With --letters a question is put with its options alone: leave out --template.")
    prompt = protocol.question if args.letters else templates.wording(chosen, args.template)
    words = args.template.name if args.template else "ours"
    kept, model = policy.get(args.policy), run_command.model_path(args.model)
    items = chosen.read(args.data)
    if args.silent and any(item.row for item in items):
        raise UserError(f"{chosen.name} is commentary: leave out --silent.")
    out = args.out or Path(f"benchmark.{chosen.name}.jsonl")
    captions.check_writable(out)
    return Job(chosen, items, args.data, cfg, kept, model, prompt, out, words, args.silent, args.letters)


def the_judge(args: argparse.Namespace) -> judge.Judge:
    """The LLM that --judge names, else the likeness of texts, which needs nobody."""
    from streamingvlm.evaluation import judge
    from streamingvlm.evaluation.harness import chat

    return chat.from_environment(args.judge, cache=Path("benchmark.judge")) if args.judge else judge.by_score(judge.similarity_score())


def told(job: Job) -> dict:
    """All that changes an answer."""
    of_stream = {key: value for key, value in dataclasses.asdict(job.cfg.stream).items() if key not in NO_MATTER}
    return {"benchmark": job.benchmark.name, "questions": _hash(repr(job.items)), "prompts": _hash("\n".join(map(job.prompt, job.items))),
            "words": job.words, "model": job.model, "weights": _weights(Path(job.model)), "policy": job.policy.name,
            **dataclasses.asdict(job.cfg.video), **dataclasses.asdict(job.policy.effective_retention(job.cfg.cache)), **of_stream,
            "silent": job.silent, "letters": job.letters, "run.weights": job.cfg.run.weights}


def answerers(job: Job, items: list[Item], args: argparse.Namespace) -> dict[str, Answerer]:
    """By way: the stream, and, but for commentary, the last frames alone."""
    vlm = run_command.load(job.model, job.cfg, args.device)
    from streamingvlm.evaluation.harness.answerers import LastFrames, Streamed
    from streamingvlm.evaluation.harness.protocol import COMMENTARY

    ways: dict[str, Answerer] = {STREAM: Streamed(vlm, job.policy, job.cfg, job.silent, job.letters)}
    return ways if args.no_baseline or any(item.kind == COMMENTARY for item in items) else ways | {LAST: LastFrames(vlm, job.cfg, job.letters)}


def report(job: Job, found: Found, answers: Answers, judged: judge.Result | None) -> str:
    """Write the scores beside the answers -> the table and what belongs beside it."""
    from streamingvlm.evaluation.harness import pairwise, summary
    from streamingvlm.evaluation.harness import run as harness

    chosen, lost = job.benchmark, {item.id: (item, reason) for item, reason in found.lost}
    marks = {way: of for way in (STREAM, LAST) if (of := harness.marks(chosen, found.good, answers, way))}
    scores = {way: summary.summarise(chosen, of) for way, of in marks.items()}
    wrong = {way: summary.with_lost(chosen, of, [item for item, _ in lost.values()]) for way, of in marks.items()} if lost else {}
    place = job.out.with_name(f"{job.out.stem}.scores.json")
    files.write_json({"settings": answers.settings, "revisions": answers.revisions, "hardware": machine.hardware()["text"],
                      "own_rule": chosen.rule, "scores": scores, "win_rate": judged and judged.numbers(), "with_lost_as_wrong": wrong,
                      "lost": [{"id": item.id, "video": item.video, "reason": reason} for item, reason in lost.values()]}, place)
    settings = ", ".join(f"{key} {value}" for key, value in answers.settings.items() if key not in (*HASHES, "benchmark"))
    counted = "; ".join(f"{way} {of['own'] or 0:.2f} own rule, {of['strict']:.2f} strict" for way, of in wrong.items())
    unjudged = [] if scores else ["Commentary is scored against another's: name it with --against."]
    return "\n".join([
        *([summary.table(scores), f"Own rule: {chosen.rule}. ±: standard error, clustered by video."] if scores else []),
        *([pairwise.told(judged)] if judged else unjudged), f"{settings}; git {', '.join(answers.revisions)}.",
        f"{len(lost)} questions could not be asked and are in no score above" + (f" (counted as wrong: {counted}):" if counted else "."),
        *(f"  {item.id}, {reason}" for item, reason in list(lost.values())[:NAMED]),
        *([f"  and {len(lost) - NAMED} more, in {place}"] if len(lost) > NAMED else []), f"Answers: {job.out}; scores: {place}."])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _weights(folder: Path) -> str:
    """Tells two models of one folder apart, by the ends of their files: whole 7B files take minutes to read."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:12]
