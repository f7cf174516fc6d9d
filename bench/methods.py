"""The paper's four methods side by side over one stream: time per chunk and per token, cached tokens, peak memory.

    python bench/methods.py [--config tiny|mid|7b] [--methods streaming,full] [--chunks 80] [--limit-s 15] [--device cuda] [--int8]

`streaming` is the paper's method, `full` keeps everything, `window` restarts every 16 chunks, `overlap` computes what `streaming` keeps again
before every chunk. Each method has a process of its own with the same weights and frames; the methods take turns chunk by chunk, so that other
load on the machine hits all alike (with `--in-turn no` one runs after the other, where four models do not fit). The stream begins with nothing
said, so the text window is full only after some 70 chunks. A method that has used up its time (`--limit-s`) stops there: its curve is shorter,
its cost is not hidden. A row's times are medians over the last quarter of that method's own chunks; `last_s` says how far it came, and two
methods compare only at the same second (the figure). `chunk_in_matmuls`: the same time in multiplications of two square float32 matrices of
side `matmul_side`, which travels between machines. Memory is that of the whole process on a CPU and torch's allocations on a GPU, model included.

It does not say how good the words are, and nothing about reading video files. Draws reports/bench/methods_latency_<config>.html + .png and
methods_memory_<config>.html + .png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from statistics import median

import common
import torch

from streamingvlm.base.timing import resident_mb
from streamingvlm.context import policy
from streamingvlm.reporting import figures

METHODS = ("streaming", "full", "window", "overlap")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", default=",".join(METHODS), help="which, with commas between")
    parser.add_argument("--limit-s", type=float, default=15.0, help="a method stops after its first chunk beyond this many seconds")
    parser.add_argument("--folder", type=Path, default=common.FOLDER, help="where the figures go")
    parser.add_argument("--in-turn", choices=("yes", "no"), default="yes", help="chunk by chunk in turn, or one method after the other")
    parser.add_argument("--child", help=argparse.SUPPRESS)


def measure(args: argparse.Namespace, method: str) -> Iterator[dict]:
    """Stream with one method in this process -> one row per chunk, up to the time limit."""
    vlm = common.build(args)
    common.stream(vlm, args, method).step(method, common.chunk(0, args))  # torch sets itself up on the first chunk it ever sees
    streamer, spent_s = common.stream(vlm, args, method), 0.0
    reset_peak(args.device)
    for k in range(args.chunks):
        seconds, comment = common.timed(args.device, streamer.step, method, common.chunk(k, args))
        spent_s += seconds
        yield {"stream": "bench", "policy": method, "start_s": comment.start_s, "ms": comment.ms | {"total": seconds * 1e3},
               "tokens": comment.tokens, "kv_tokens": comment.kv_tokens, "kv_mb": comment.kv_bytes / 2**20, "memory_mb": comment.memory_mb,
               "peak_mb": max(peak_mb(args.device), comment.memory_mb)}
        if spent_s > args.limit_s:
            return


def reset_peak(device: str) -> None:
    """Forget what building the model took at its highest (Linux; elsewhere the memory after each chunk has to do)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mb(device: str) -> float:
    """The most memory since `reset_peak`, MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), resident_mb())


def in_own_process(argv: list[str], method: str) -> Iterator[dict]:
    """`measure` in a fresh interpreter, which computes a chunk only when it is asked for the next row."""
    command = [sys.executable, __file__, *argv, "--child", method]
    with suppress(BrokenPipeError), subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        while True:
            child.stdin.write("next\n")
            line = child.stdout.readline()
            if not line.strip():
                break
            yield json.loads(line)
    if child.returncode:
        sys.exit(f"`{method}` failed; what it said is above.")


def answer(args: argparse.Namespace) -> None:
    """The other end of `in_own_process`: a row for every line that comes in, an empty line when there is none left."""
    rows = measure(args, args.child)
    for _ in sys.stdin:
        row = next(rows, None)
        print(json.dumps(row) if row else "", flush=True)
        if row is None:
            return


def collect(sources: dict[str, Iterator[dict]], in_turn: bool) -> dict[str, list[dict]]:
    """All rows of all methods; in turn, the next chunk of each after the last of each."""
    if not in_turn:
        return {method: list(rows) for method, rows in sources.items()}
    out: dict[str, list[dict]] = {method: [] for method in sources}
    for turn in zip_longest(*sources.values()):
        for method, row in zip(sources, turn, strict=True):
            out[method] += [row] if row else []
    return out


def summary(method: str, rows: list[dict], matmul_ms: float) -> dict:
    """One line of the table."""
    late = rows[-max(1, len(rows) // 4):]
    chunk_ms = median(row["ms"]["total"] for row in late)
    return {"method": method, "last_s": round(rows[-1]["start_s"]) + 1, "kv_tokens": rows[-1]["kv_tokens"], "kv_mb": round(rows[-1]["kv_mb"], 1),
            "chunk_ms": round(chunk_ms, 1), "token_ms": round(median(row["ms"]["decode"] / row["tokens"] for row in late), 2),
            "chunk_in_matmuls": round(chunk_ms / matmul_ms, 1), "peak_mb": round(max(row["peak_mb"] for row in rows))}


def draw(args: argparse.Namespace, rows: list[dict]) -> None:
    try:
        for path in (figures.latency(rows, args.folder, common.CHUNK_S, f"methods_latency_{args.config}"),
                     figures.memory(rows, args.folder, f"methods_memory_{args.config}")):
            print(f"figure: {path} and .html")
    except ImportError as error:
        print(f"No figure: {error.name} is not installed.")


def main(argv: list[str] | None = None) -> dict | None:
    argv = sys.argv[1:] if argv is None else argv
    args = common.arguments(__doc__, argv, options, chunks=80, previous=0)
    if args.child:
        return answer(args)
    methods = [policy.get(name).name for name in args.methods.split(",")]  # a wrong name is an error before anything is built
    machine = common.machine(args.device, args.dtype)
    matmul_ms = 2 * machine["matmul_side"] ** 3 / machine["matmul_float32_gflops"] / 1e6
    found = collect({method: in_own_process(argv, method) for method in methods}, args.in_turn == "yes")
    rows = [summary(method, its, matmul_ms) for method, its in found.items()]
    common.table(rows)
    draw(args, [row for its in found.values() for row in its])
    return common.finish("methods", args, {"machine": machine, "methods": rows})


if __name__ == "__main__":
    common.run(main)
