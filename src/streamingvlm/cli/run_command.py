"""What `streamingvlm run` and `streamingvlm watch` share, and `run` itself. Everything that can be wrong is looked at before the model is loaded, and
the model before anything is written. Knows no terminal view (`screen`, `browser`) and no clock (`watch`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamingvlm.base import config, files
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.cli.asking import Asker
from streamingvlm.streaming import captions

if TYPE_CHECKING:
    from streamingvlm.base.records import Answer, Comment
    from streamingvlm.context.policy import Policy
    from streamingvlm.media.file_index import Info
    from streamingvlm.models.qwen25.vlm import VLM
    from streamingvlm.streaming.stream import Streamer

DEFAULT_MODEL = "artifacts/sft/model"


@dataclass(frozen=True)
class Job:
    """A video that can be watched, under which settings, and the files that what is said goes to."""

    file: Path
    info: Info
    cfg: config.Config
    policy: Policy
    model: str
    vtt: Path
    jsonl: Path
    html: Path | None


def prepare(args: argparse.Namespace) -> Job:
    """Check all that can be checked without torch: a wrong name is answered at once."""
    from streamingvlm.context import policy
    from streamingvlm.media import file_index

    cfg = settings(args.params)
    chosen = policy.get(args.policy)
    index = file_index.scan(args.file)
    vtt, jsonl = captions.names(args.out or Path(f"{args.file.stem}.said.vtt"))
    for path in (vtt, jsonl):
        captions.check_writable(path)
    if len({os.path.realpath(path) for path in (args.file, vtt, jsonl)}) < 3:  # through a link, that is
        raise UserError(f"{vtt} and {jsonl} must be two files, neither of them the video; name another place with --out.")
    if args.html:
        captions.check_writable(args.html, "--html")
        if os.path.realpath(args.html) in {os.path.realpath(path) for path in (args.file, vtt, jsonl)}:
            raise UserError(f"{args.html} is the video or what is said of it; name another place with --html.")
    job = Job(args.file, index.info, cfg, chosen, model_path(args.model), vtt, jsonl, args.html)
    for note in (*index.info.notes, *file_index.check_rate(index, cfg.video.fps)):
        print(f"{args.file.name}: {note}.", file=sys.stderr)
    return job


def settings(params: Path | None) -> config.Config:
    """The named params file, else this clone's; defaults for the sections it leaves out."""
    sections = {"video": config.Video(), "cache": config.Retention(), "stream": config.Stream(["streaming"]), "run": config.Run()}
    if params is None:
        try:
            params = repository_root() / "params.yaml"
        except UserError:
            return config.Config(sections)
    return config.Config(sections | vars(config.load(params)))


def model_path(name: str | None) -> str:
    """Where the model is: as given, else what the pipeline trained."""
    if name is not None:
        return name
    try:
        path = repository_root() / DEFAULT_MODEL
    except UserError:
        raise UserError("This folder is not in a clone of the workbench, so no trained model is at hand; name one with --model.") from None
    if not path.is_dir():
        raise UserError("There is no trained model in this clone yet; run `make repro` first, or name one with --model.")
    return str(path)


def load(model: str, cfg: config.Config, device: str | None) -> VLM:
    """The model, on `device` or where the settings say."""
    try:
        import torch
        from transformers.utils import logging

        from streamingvlm.models.qwen25 import loading
    except (ImportError, OSError) as error:  # OSError: a library of torch's is not there
        raise UserError(f"The model cannot be loaded, because a package does not import ({error}): see `streamingvlm doctor`.") from error

    logging.set_verbosity_error()  # what is wrong with a model, `load` says in one sentence
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    torch.set_num_threads(cfg.run.threads)
    return loading.load(model, loading.pick_device(device or cfg.run.device), decode=cfg.run.decode, weights=cfg.run.weights)


def streamer(job: Job, args: argparse.Namespace) -> Streamer:
    """Load the model and begin its stream."""
    vlm = load(job.model, job.cfg, args.device)
    from streamingvlm.streaming.stream import Streamer

    begun = Streamer(vlm, job.policy, job.cfg.cache, job.cfg.video, job.cfg.stream)
    begun.start(args.previous, args.query)
    return begun


def run_to_files(job: Job, said: Iterable[Comment | Answer], show: Callable[[Comment], None]) -> str:
    """Write down and show what is said, as it is said -> a line that says where. However this ends, it is on disk. Answers are only written down:
    who asked has seen them."""
    from streamingvlm.base.records import Answer

    written: list[Comment] = []
    answers = 0
    recorded = captions.write_captions(said, job.vtt, job.jsonl)
    try:
        with contextlib.closing(recorded):
            for one in recorded:
                if isinstance(one, Answer):
                    answers += 1
                else:
                    written.append(one)
                    show(one)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was said so far is on disk" if written else "nothing was said yet") from None
    finally:
        if job.html and written:
            from streamingvlm.reporting import player

            player.write(job.html, files.printable(job.file.name), job.file, [comment.line() for comment in written])
    spoken = sum(bool(comment.text) for comment in written)
    told = f"{spoken} comments" + (f" and {answers} answer{'s' * (answers > 1)}" if answers else "")
    return f"{told} in {job.vtt} and {job.jsonl}" + (f"; to be watched: {job.html}" if job.html else "")


def line(comment: Comment) -> None:
    """Print what was said, when, if anything was."""
    if comment.text:
        print(f"{captions.timestamp(comment.start_s)}  {comment.text}", flush=True)


def answer_line(answer: Answer) -> None:
    """Print what was asked, when, and what was answered."""
    print(f"{captions.timestamp(answer.at_s)}  {answer.question}  > {answer.text or '...'}", flush=True)


def run(args: argparse.Namespace) -> None:
    """Comment on a file as fast as it goes."""
    job = prepare(args)
    watcher = streamer(job, args)

    from streamingvlm.base import progress
    from streamingvlm.media import reader

    name = files.printable(job.file.stem)
    said = watcher.stream_chunks(name, reader.read_chunks(job.file, job.cfg.video), ahead=watcher.vlm.device.type == "cuda")
    total = max(1, round(job.info.duration_s / job.cfg.video.chunk_s))
    followed = progress.bar(said, total, files.printable(job.file.name), lambda c: f"{c.text or '...'}  {c.ms['total']:.0f} ms, {c.kv_tokens} cached")
    asker = Asker(watcher, name, answer_line)
    print(run_to_files(job, asker.beside(followed, args.due), line), file=sys.stderr)
