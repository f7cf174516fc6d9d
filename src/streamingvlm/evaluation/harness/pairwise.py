"""Commentary is judged against somebody else's: what a benchmark's stretches of video were commented with, by us and by an opponent -> verdicts.

    pairs = [(row, ours, theirs), ...]           # chunk by chunk
    result = compare(turns, opponent(path), judge, segment_s=100, min_words=200)

An opponent's file is one that another run left here, or what the benchmarks' repositories write: {video_id, event_id, pred} (LiveSports-3K-CC),
{video, chunk_start, chunk_end, items: [{end_time, response}]} (Inf-Streams-Eval). A word belongs to the chunk in which it ends. A commentary without
times of its own is all said in the first chunk: judge it in one segment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation import judge
from streamingvlm.evaluation.harness.protocol import Mark, Turn

Said = Sequence[tuple[float, float, str]]  # start_s, end_s of the video, text
WHOLE_S = 1e6  # longer than any video: one segment


def opponent(path: Path) -> dict[str, Said]:
    """What somebody said, by the id of the stretch of video or by the video's name."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [one for line in lines if (one := _said(line)) is not None]
    except (OSError, ValueError, KeyError, TypeError):
        found = []
    if not found:
        raise UserError(f"{path} holds no commentary: name another run's answers, or the predictions of a benchmark's repository.")
    return dict(found)


def _said(line: dict) -> tuple[str, Said] | None:
    if "pred" in line:
        return f"{line['video_id']}_{line['event_id']}", [(float(line["begin"]), float(line["end"]), str(line["pred"]))]
    if "items" in line:
        start_s = float(line["chunk_start"])
        return Path(line["video"]).name, [(start_s, float(one["end_time"]), str(one.get("response", one.get("text", "")))) for one in line["items"]]
    return (line["id"], own_words(line["response"])) if "response" in line else None


def own_words(response: str) -> Said:
    """What a run of ours keeps of a commentary."""
    return [(float(start), float(end), str(text)) for start, end, text in json.loads(response)]


def compare(turns: Sequence[Turn], theirs: Mapping[str, Said], verdict: judge.Judge, segment_s: float = WHOLE_S, min_words: int = 1,
            workers: int = 1) -> judge.Result:
    """Us against them, in both orders. A stretch that they did not comment on is skipped, and counted."""
    pairs, missing = [], 0
    for turn in turns:
        row = turn.item.row
        found = theirs.get(turn.item.id, theirs.get(Path(row["video"]).name))
        if found is None:
            missing += 1
            continue
        timed = len(found) > 1 or segment_s < WHOLE_S
        pairs.append((row, _chunks(row, own_words(turn.response), True), _chunks(row, found, timed)))
    result = judge.win_rate(pairs, verdict, segment_s, min_words=min_words, workers=workers)
    return judge.Result(result.judged, result.skipped + missing)


def _chunks(row: dict, said: Said, timed: bool) -> list[str]:
    """Texts second by second from the row's start to its end; of one that ended before, to where it ended."""
    reach_s = row["end_s"] if not timed or not said else min(row["end_s"], max(end for _, end, _ in said) + 1.0)
    chunks: list[list[str]] = [[] for _ in range(max(1, round(row["end_s"] - row["start_s"])))]
    for _, end, text in said:
        at = math.ceil(end - row["start_s"] - 1e-6) - 1 if timed else 0
        if text and at >= 0:
            chunks[min(at, len(chunks) - 1)].append(text)
    return [" ".join(texts) for texts in chunks][: math.ceil(reach_s - row["start_s"])]


def marks(result: judge.Result, task: str) -> list[Mark]:
    """A mark a segment: its share of votes, and strictly whether both orders said so. An unclear verdict is left out of the first."""
    return [Mark(f"{j.stream}@{j.start_s:g}", j.stream, task, task, (judge.VOTE[j.first] + judge.VOTE[j.second]) / 2 if j.clear else None,
                 float(j.winner == "A"), "answered" if j.clear else "unparsed") for j in result.judged]


def told(result: judge.Result) -> str:
    """The win rate, and what says how far to trust it, in a sentence or two."""
    numbers = result.numbers()
    if result.win_rate is None:
        return f"No segment was judged: {numbers['skipped']} were skipped, {numbers['unclear']} had no clear verdict."
    return (f"Win rate {numbers['win_rate']:.2%} of {len(result.clear)} segments ({numbers['low']:.2%} to {numbers['high']:.2%}). The judge: "
            f"{numbers['flip_rate']:.1%} of the pairs flip with the order; shown first we win {numbers['won_first']:.1%}, shown second "
            f"{numbers['won_second']:.1%}. Without a clear verdict: {numbers['unclear']}; skipped, because one of the two did not reach their end: "
            f"{numbers['skipped']}.")
