"""What the benches share: model shapes with random weights, made-up video, the released code's windows, the machine's yardstick, the output.

Nothing is downloaded and nothing asserted: a bench measures this machine now. The weights are random, and the model never ends its turn, so
every chunk costs the same 20 words; speed does not depend on what the words are. Needs torch, transformers and numpy; with psutil the
hardware line is complete, with plotly and matplotlib `methods` draws its figures.

    args = common.arguments(__doc__, argv, chunks=24)
    vlm = common.build(args)
    streamer = common.stream(vlm, args)
    comment = streamer.step("bench", common.chunk(0, args))
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout is enough: nothing has to be installed

from streamingvlm.base import config, numbers
from streamingvlm.base.errors import UserError
from streamingvlm.base.machine import provenance, revision, versions
from streamingvlm.base.records import Chunk
from streamingvlm.context import policy
from streamingvlm.models.qwen25 import compress, tokenizer
from streamingvlm.models.qwen25.decode import MODES
from streamingvlm.models.qwen25.loading import pick_device
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.stream import Streamer

FOLDER = Path(__file__).resolve().parents[1] / "reports" / "bench"
CHUNK_S = 1.0
WORD = " 1"  # one token

TEXT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
VISION = ("hidden_size", "depth", "num_heads", "intermediate_size")
# `px`: height and width of a frame; two frames of 672 x 896 are 768 vision tokens. `threads`: on a CPU.
SHAPES = {
    "tiny": {"text": (64, 3, 4, 2, 128, 151665), "mrope": [2, 3, 3], "vision": (32, 3, 2, 64), "full": [1], "px": (224, 224), "threads": 1},
    "mid": {"text": (512, 8, 8, 2, 1408, 151665), "mrope": [8, 12, 12], "vision": (64, 2, 4, 128), "full": [1], "px": (224, 224), "threads": 2},
    "7b": {"text": (3584, 28, 28, 4, 18944, 152064), "mrope": [16, 24, 24], "vision": (1280, 32, 16, 3420), "full": [7, 15, 23, 31],
           "px": (672, 896), "threads": 2},
}


def arguments(doc: str, argv: Sequence[str] | None = None, add=lambda parser: None, **defaults) -> argparse.Namespace:
    """The options every bench has. `add(parser)` adds its own; `defaults` are its own defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=SHAPES, default="mid", help="the model's shape")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--threads", type=int, help="CPU threads; default: 1 for tiny, else 2")
    parser.add_argument("--int8", action="store_true", help="int8 weights (streamingvlm.models.qwen25.compress)")
    parser.add_argument("--weights", choices=("auto", "whole", "quick", "half"), default="whole", help="how weights are read (`VLM.lighten`)")
    parser.add_argument("--decode", choices=MODES, default="auto", help="how single words are computed (streamingvlm.models.qwen25.decode)")
    parser.add_argument("--chunks", type=int, help="chunks of one second in a stream")
    parser.add_argument("--fps", type=int, default=2, help="frames a second")
    parser.add_argument("--px", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="frame size, multiples of 28")
    parser.add_argument("--rounds", type=int, default=16, help="chunks in the vision window")
    parser.add_argument("--sink", type=int, default=512, help="tokens of the text sink")
    parser.add_argument("--window", type=int, default=512, help="tokens of the text window")
    parser.add_argument("--tokens", type=int, default=20, help="words a chunk")
    parser.add_argument("--previous", type=int, help="tokens of text said before the stream; default: as many as sink and window hold")
    add(parser)
    parser.set_defaults(**defaults)
    args = parser.parse_args(argv)
    args.device = pick_device(args.device).type
    args.dtype = args.dtype or ("float32" if args.device == "cpu" else "bfloat16")
    args.px = tuple(args.px or (SHAPES[args.config]["px"]))
    if any(side < 28 or side % 28 for side in args.px):
        parser.error(f"--px takes multiples of 28, not {args.px[0]} {args.px[1]}.")
    args.threads = args.threads or SHAPES[args.config]["threads"]
    args.previous = args.sink + args.window if args.previous is None else args.previous
    torch.set_num_threads(args.threads)
    return args


def shape(name: str) -> tuple[dict, dict]:
    """(text config, vision config) of one of SHAPES, under transformers' names."""
    s = SHAPES[name]
    text = dict(zip(TEXT, s["text"], strict=True))
    text |= {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
             "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": s["mrope"]}}
    vision = dict(zip(VISION, s["vision"], strict=True))
    vision |= {"out_hidden_size": text["hidden_size"], "fullatt_block_indexes": s["full"], "tokens_per_second": 2, "window_size": 112}
    return text, vision


def build(args: argparse.Namespace) -> VLM:
    """Random weights, laid out on the device in the dtype at once; the same for every bench of one config."""
    words = tokenizer.build(())
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = words.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    text, vision = shape(args.config)
    text |= {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    settings = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **dict(zip(names, ids, strict=True)))
    with torch.device("meta"):
        hf = Qwen2_5_VLForConditionalGeneration(settings)
    hf = hf.to(getattr(torch, args.dtype)).to_empty(device=args.device)
    _fill(hf)
    vlm = VLM(hf, words, args.decode)
    if args.int8:
        compress.quantise(vlm)
        for module in compress.linears(vlm.hf).values() if args.device == "cpu" else ():
            module.pack()
    vlm.lighten(args.weights)
    return vlm


@torch.no_grad()
def _fill(hf: torch.nn.Module, seed: int = 0) -> None:
    """Normal weights that keep the size of what passes through; norms 1, biases 0; queries and keys larger, so that attention looks somewhere."""
    torch.manual_seed(seed)
    for name, p in hf.named_parameters():
        if p.ndim == 1:
            p.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            gain = 2.0 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
            p.normal_(std=1.0 if "embed_tokens" in name else gain / p[0].numel() ** 0.5)
    for module in hf.modules():  # RoPE's frequencies: float32 whatever the dtype of the weights
        for buffer in [b for b in ("inv_freq", "original_inv_freq") if hasattr(module, b)]:
            setattr(module, buffer, getattr(module, buffer).float())
        if hasattr(module, "original_inv_freq"):
            hf._init_weights(module)


def stream(vlm: VLM, args: argparse.Namespace, name: str = "streaming", fps: int | None = None) -> Streamer:
    """A stream with the windows asked for, that never ends its turn early."""
    windows = config.Retention(text_sink=args.sink, text_window=args.window, vision_rounds=args.rounds, restart_rounds=args.rounds)
    video = config.Video(fps=float(fps or args.fps), chunk_s=CHUNK_S, max_pixels=args.px[0] * args.px[1])
    streamer = Streamer(vlm, policy.get(name), windows, video, config.Stream(policies=[name], max_new_tokens=args.tokens))
    streamer.dialogue.stops = frozenset()
    streamer.start(previous=WORD * args.previous)
    return streamer


def chunk(k: int, args: argparse.Namespace, fps: int | None = None) -> Chunk:
    """Second k of a video, all noise."""
    frames = fps or args.fps
    pixels = np.random.default_rng([7, k]).integers(0, 256, (frames, *args.px, 3), np.uint8)
    return Chunk(k, k * CHUNK_S, (k + 1) * CHUNK_S, pixels, tuple((k + j / frames) * CHUNK_S for j in range(frames)))


def timed(device: str, call, *args) -> tuple[float, object]:
    """(seconds until the device is done, result)."""
    synchronise(device)
    start = time.perf_counter()
    result = call(*args)
    synchronise(device)
    return time.perf_counter() - start, result


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def machine(device: str, dtype: str = "float32") -> dict:
    """The yardstick: matmul rate in float32 and in `dtype`, and copy bandwidth (read + written), each the best of 15: what it can do. About a second.

    `load`: how many programs wanted this machine's cores in the last minute; above the cores that a bench leaves free, its numbers are too low."""
    side, many = (1024, 2**26) if device == "cpu" else (8192, 2**30)
    out = {"load": round(os.getloadavg()[0], 1), "matmul_side": side}
    for kind in dict.fromkeys(("float32", dtype)):
        a, b = (torch.randn(side, side, device=device, dtype=getattr(torch, kind)) for _ in range(2))
        out[f"matmul_{kind}_gflops"] = round(2 * side**3 / _best_s(device, torch.mm, a, b) / 1e9, 1)
    a = torch.ones(many, device=device)
    b = torch.empty_like(a)
    out["copy_gb_s"] = round(2 * a.nbytes / _best_s(device, b.copy_, a) / 1e9, 2)
    if device == "cuda":
        del a, b
        torch.cuda.empty_cache()  # gigabytes that a model may want
    return out


def _best_s(device: str, call, *args) -> float:
    call(*args)
    return min(timed(device, call, *args)[0] for _ in range(15))


def table(rows: Sequence[dict]) -> None:
    """Print rows of the same keys, aligned; numbers to three digits."""
    cells = [list(rows[0])] + [[numbers.number(v) if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def run(main: Callable[[], object]) -> None:
    """`main`, with what the person at the keyboard can mend as one sentence."""
    try:
        main()
    except UserError as error:
        sys.exit(str(error))


def finish(bench: str, args: argparse.Namespace, results: dict) -> dict:
    """Print (and return) the JSON line: what was asked, on what machine, what came out, and whether the machine held still meanwhile."""
    after = machine(args.device, args.dtype)
    changed = {key: after[key] / value for key, value in results["machine"].items() if key.startswith(("matmul_f", "matmul_b", "copy"))}
    if not all(0.8 < ratio < 1.25 for ratio in changed.values()):
        print("This machine was not quiet: at the end it was " + ", ".join(f"{ratio:.2f} x in {key}" for key, ratio in changed.items()) + ".")
    asked = {key: value for key, value in vars(args).items() if value is not None and not isinstance(value, Path)}
    try:
        where = provenance(asked)
    except ImportError:  # no psutil: a machine with nothing but torch and transformers
        gpu = torch.cuda.get_device_name() if args.device == "cuda" else None
        where = {"hardware": {"gpu": gpu}, "versions": versions(), "git": revision()}
    line = {"bench": bench, **asked, **results, "machine_after": after, **where}
    print(json.dumps(line), flush=True)
    return line
