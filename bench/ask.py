"""What a question costs beside a chunk: free, constrained to four options, and with the newest seconds shown again.

    python bench/ask.py [--config tiny|mid|7b] [--chunks 60] [--policy streaming] [--question 16] [--answer 20] [--device cuda] [--decode graph]

One stream, chunk by chunk; behind each chunk it is asked in every way, the way that begins changing from chunk to chunk, so that what slows the
machine slows all alike. `ratio`: the median, over the chunks with a full vision window, of a question's time to that of the chunk just before it;
`ttft_ratio`: the same up to the question's first token. A question has `--question` tokens, a free answer `--answer`, as many as a chunk says. Says
nothing about how good an answer is: the weights are random.
"""

from __future__ import annotations

import argparse
from statistics import median

import common

from streamingvlm.streaming.stream import Streamer

OPTIONS = ("1 2", "1 3", "2 4", "3")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", default="streaming", help="what the stream keeps")
    parser.add_argument("--question", type=int, default=16, help="tokens of a question")
    parser.add_argument("--answer", type=int, default=20, help="tokens of a free answer")
    parser.add_argument("--again", type=int, default=4, help="seconds shown again")


def ways(args: argparse.Namespace) -> dict[str, dict]:
    """Name of each way of asking -> what `Streamer.ask` is given."""
    free = {"question": common.WORD * args.question, "max_tokens": args.answer}
    return {"free": free, "options": {"question": free["question"], "options": OPTIONS},
            f"{args.again} s again": {**free, "reencode_frames": args.again}}


def measure(args: argparse.Namespace, streamer: Streamer) -> list[dict]:
    """A row per chunk with a full vision window: ms of the chunk, and of each way of asking its total and its time to the first token."""
    rows, asked = [], list(ways(args).items())
    for k in range(args.chunks):
        seconds, comment = common.timed(args.device, streamer.step, "bench", common.chunk(k, args))
        row = {"chunk": seconds * 1e3, "kv_tokens": comment.kv_tokens}
        for name, how in asked[k % len(asked) :] + asked[: k % len(asked)]:
            seconds, answer = common.timed(args.device, lambda how=how: streamer.ask(**how))
            row |= {name: seconds * 1e3, f"{name} ttft": answer.ms["ttft"]}
        if k >= max(args.rounds, args.again):
            rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> dict:
    args = common.arguments(__doc__, argv, options, chunks=60)
    if args.chunks <= max(args.rounds, args.again):
        raise SystemExit(f"--chunks must be above {max(args.rounds, args.again)}: only chunks with a full vision window count.")
    machine = common.machine(args.device, args.dtype)
    streamer = common.stream(common.build(args), args, args.policy)
    streamer.recall_rounds = args.again
    rows = measure(args, streamer)
    chunk_ms = median(row["chunk"] for row in rows)
    out = [{"asked": name, "ms": median(row[name] for row in rows), "ttft_ms": median(row[f"{name} ttft"] for row in rows),
            "ratio": median(row[name] / row["chunk"] for row in rows), "ttft_ratio": median(row[f"{name} ttft"] / row["chunk"] for row in rows)}
           for name in ways(args)]
    print(f"A chunk takes {chunk_ms:.1f} ms, with {rows[-1]['kv_tokens']} tokens cached (medians of {len(rows)} chunks).")
    common.table(out)
    return common.finish("ask", args, {"machine": machine, "chunk_ms": chunk_ms, "kv_tokens": rows[-1]["kv_tokens"], "asks": out})


if __name__ == "__main__":
    common.run(main)
