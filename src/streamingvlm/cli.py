"""The `streamingvlm` command.

    streamingvlm run my.mp4 --out my.vtt
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from streamingvlm import config, policy
from streamingvlm.config import UserError

DEFAULT_MODEL = "artifacts/sft/model"


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="streamingvlm", description="A vision-language model that watches a video and comments on it as it plays.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="comment on a video file (`streamingvlm run --help` says how)",
                              description="Watch VIDEO; print what is said and write it to a WebVTT and a JSONL file.",
                              epilog="example: streamingvlm run match.mp4 --previous \"left lions right bears\" --out said.vtt")
    run.add_argument("file", type=Path, metavar="VIDEO", help="any video file")
    run.add_argument("--model", metavar="NAME", help=f"a model folder or a name on the hub (default: {DEFAULT_MODEL} in this clone)")
    run.add_argument("--policy", metavar="NAME", default="streaming", help=f"what the cache keeps: {', '.join(policy.POLICIES)} (default: streaming)")
    run.add_argument("--out", type=Path, metavar="FILE", help="the WebVTT file; the JSONL file stands beside it (default: VIDEO.said.vtt, here)")
    run.add_argument("--query", metavar="TEXT", help="what the commentator is asked to do (default: as in params.yaml)")
    run.add_argument("--previous", metavar="TEXT", default="", help="what was said before the video starts")
    run.add_argument("--device", metavar="NAME", help="auto, cpu or cuda (default: as in params.yaml)")
    run.add_argument("--params", type=Path, metavar="FILE", help="settings (default: params.yaml in this clone)")
    return main


def settings(params: Path | None) -> config.Config:
    """The named params file, else this clone's; defaults for the sections it leaves out."""
    sections = {"video": config.Video(), "cache": config.Cache(), "stream": config.Stream(["streaming"]), "run": config.Run()}
    if params is None:
        try:
            params = config.repository_root() / "params.yaml"
        except UserError:
            return config.Config(sections)
    return config.Config(sections | vars(config.load(params)))


def model_path(name: str | None) -> str:
    """Where the model is: as given, else what the pipeline trained."""
    if name is not None:
        return name
    try:
        path = config.repository_root() / DEFAULT_MODEL
    except UserError:
        raise UserError("This folder is not in a clone of the workbench, so no trained model is at hand; name one with --model.") from None
    if not path.is_dir():
        raise UserError("There is no trained model in this clone yet; run `make repro` first, or name one with --model.")
    return str(path)


def run(args: argparse.Namespace) -> None:
    """Everything that can be wrong is looked at before the model is loaded, and the model before anything is written."""
    from streamingvlm import captions, container, live  # none of them imports torch: a wrong name is answered at once

    cfg = settings(args.params)
    chosen = policy.get(args.policy)
    info = container.scan(args.file).info
    container.check_rate(info, cfg.video.fps)
    vtt, jsonl = captions.names(args.out or Path(f"{args.file.stem}.said.vtt"))
    for path in (vtt, jsonl):
        captions.check_writable(path)
    vlm = _load(model_path(args.model), args.device or cfg.run.device, cfg.run)

    from streamingvlm import video
    from streamingvlm.stream import Streamer

    streamer = Streamer(vlm, chosen, cfg.cache, cfg.video, cfg.stream)
    streamer.start(args.previous, args.query)
    comments = captions.record(streamer.watch(args.file.stem, video.read_chunks(args.file, cfg.video), ahead=vlm.device.type == "cuda"), vtt, jsonl)
    total = max(1, round(info.duration_s / cfg.video.chunk_s))
    spoken = 0
    with contextlib.closing(comments):  # however this ends, what was said is on disk
        for comment in live.follow(comments, total, args.file.name, lambda c: f"{c.text or '...'}  {c.ms['total']:.0f} ms, {c.kv_tokens} cached"):
            if comment.text:
                spoken += 1
                print(f"{captions.timestamp(comment.start_s)}  {comment.text}", flush=True)
    print(f"{spoken} comments in {vtt} and {jsonl}", file=sys.stderr)


def _load(name: str, device: str, run: config.Run):
    import torch
    from transformers.utils import logging

    from streamingvlm import model

    logging.set_verbosity_error()  # what is wrong with a model, `load` says in one sentence
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    torch.set_num_threads(run.threads)
    return model.load(name, model.pick_device(device), decode=run.decode)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        run(args)
    except UserError as error:
        print(f"streamingvlm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("streamingvlm: stopped; what was said so far is on disk.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `streamingvlm run ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
