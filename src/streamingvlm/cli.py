"""The `streamingvlm` command.

    streamingvlm run my.mp4 --out my.vtt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamingvlm import config
from streamingvlm.config import UserError

DEFAULT_MODEL = "artifacts/sft/model"


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="streamingvlm", description="A vision-language model that watches a video and comments on it as it plays.")
    commands = main.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="comment on a video file", description="Watch FILE and write what is said to a WebVTT and a JSONL file.")
    run.add_argument("file", type=Path, help="any video file")
    run.add_argument("--model", help=f"a model folder or a name on the hub (default: {DEFAULT_MODEL} in this clone)")
    run.add_argument("--policy", default="streaming", help="which tokens the cache keeps (default: streaming)")
    run.add_argument("--out", type=Path, help="the WebVTT file; the JSONL file stands beside it (default: FILE's name, in this folder)")
    run.add_argument("--query", help="what the commentator is asked to do")
    run.add_argument("--previous", default="", help="what was said before the video starts, e.g. `left lions right bears`")
    run.add_argument("--device", help="auto, cpu or cuda")
    run.add_argument("--params", type=Path, help="another params.yaml")
    return main


def settings(params: Path | None) -> config.Config:
    """The named params file, else this clone's, else the defaults."""
    if params is None:
        try:
            params = config.repository_root() / "params.yaml"
        except UserError:
            return config.Config({"video": config.Video(), "cache": config.Cache(), "stream": config.Stream(["streaming"]), "run": config.Run()})
    return config.load(params)


def model_path(name: str | None) -> str:
    """Where the model is: as given, else what the pipeline trained."""
    if name is not None:
        return name
    path = config.repository_root() / DEFAULT_MODEL
    if not path.is_dir():
        raise UserError("There is no trained model in this clone yet; run `make repro` first, or name one with --model.")
    return str(path)


def run(args: argparse.Namespace) -> None:
    """Everything that can be wrong is looked at before the model is loaded, and the model before anything is written."""
    from streamingvlm import captions, live, policy, video

    cfg = settings(args.params)
    chosen = policy.get(args.policy)
    vtt = args.out or Path(f"{args.file.stem}.vtt")
    jsonl = vtt.with_suffix(".jsonl")
    info = video.probe(args.file)
    for path in (vtt, jsonl):
        captions.check_writable(path)
    vlm = _load(model_path(args.model), args.device or cfg.run.device, cfg.run.threads)

    from streamingvlm.stream import Streamer

    streamer = Streamer(vlm, chosen, cfg.cache, cfg.video, cfg.stream)
    streamer.start(args.previous, args.query)
    comments = captions.record(streamer.watch(args.file.stem, video.read_chunks(args.file, cfg.video)), vtt, jsonl)
    total = max(1, round(info.duration_s / cfg.video.chunk_s))
    spoken = 0
    for comment in live.follow(comments, total, args.file.name, lambda c: f"{c.text or '...'}  {c.ms['total']:.0f} ms, {c.kv_tokens} cached"):
        if comment.text:
            spoken += 1
            print(f"{captions.timestamp(comment.start_s)}  {comment.text}", flush=True)
    print(f"{spoken} comments in {vtt} and {jsonl}", file=sys.stderr)


def _load(name: str, device: str, threads: int):
    import torch

    from streamingvlm import model

    torch.set_num_threads(threads)
    return model.load(name, model.pick_device(device))


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
