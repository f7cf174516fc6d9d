"""A held-out stream asked while it runs: what is right by kind of question, policy and way of asking, and how soon the first token comes.

    lines = list(examine(vlm, row, ("streaming", "full"), cfg, chunks, times(row, every_s=60)))
    lines += on_clips(vlm, row, drawn, cfg, [(0, 8), (20, 28)])     # the same model as an offline one: short clips, no stream
    table(lines)        # a cell per policy, way and kind: how many, accuracy, chance, ms to the first token
    held_out(folder, row, cfg, root)   # all of it for one match of the lab and the model of one folder: a job for `base.workers`

What is true comes from the task. Each question is asked three ways: `free`, in the model's own words, right when they are the answer, word for word;
`chosen`, the likeliest of the options; `again`, free with the newest seconds shown once more. A stream is asked alone, between two chunks, and goes
on as if nobody had. Knows no world: kinds of questions are the task's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from torch import Tensor

from streamingvlm.base import config
from streamingvlm.base.records import Chunk
from streamingvlm.context import policy
from streamingvlm.context.dialogue import Span
from streamingvlm.data import labelled
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.models.qwen25 import loading
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming import ask
from streamingvlm.streaming.batching import run_batched
from streamingvlm.streaming.stream import Streamer, stream_side_by_side
from streamingvlm.training import offline
from streamingvlm.training.windowing import LEARNED
from streamingvlm.worlds.match.task import MATCH
from streamingvlm.worlds.task import Question, Task

FREE, CHOSEN, AGAIN = WAYS = ("free", "chosen", "again")
CLIP = "clip"  # stands where a policy would: no stream at all
AGAIN_S = 8.0  # the newest seconds that `again` shows once more
CLIP_S, EVERY_S = 8, 15.0  # of `held_out`: how long a clip is, and how often all is asked
MAX_TOKENS = 12  # of a free answer


def times(row: dict, every_s: float, shift_s: float = 0.5) -> list[float]:
    """Seconds into a row at which it is asked: each whole second that is next to a multiple of `every_s`, moved by `shift_s` of it, up to the end."""
    length_s = row["end_s"] - row["start_s"]
    count = int(length_s / every_s - shift_s + 1)
    return [float(min(round((k + shift_s) * every_s), int(length_s))) for k in range(max(count, 1))]


def examine(vlm: VLM, row: dict, names: Sequence[str], cfg: config.Config, chunks: Iterable[Chunk], at_s: Sequence[float], task: Task = MATCH,
            ways: Sequence[str] = WAYS) -> Iterator[dict]:
    """Stream a row under several policies in shared passes and ask each, at each of `at_s`, all that the task can ask -> a line per answer."""
    rounds = max(1, round(AGAIN_S / cfg.video.chunk_s)) if AGAIN in ways else 0
    streamers = [Streamer(vlm, policy.get(name), cfg.cache, cfg.video, cfg.stream, recall_rounds=rounds) for name in names]
    for streamer in streamers:
        streamer.start(row["previous_text"], row["query"])
    waiting = sorted(at_s)
    for comments in stream_side_by_side(streamers, row["id"], chunks):
        while waiting and waiting[0] <= comments[0].end_s + 1e-6:
            now_s = waiting.pop(0)
            asked = task.questions(row, comments[0].end_s)
            for streamer in streamers:
                yield from ({"stream": row["id"], "at_s": now_s, **line} for question in asked for line in _ask(streamer, question, ways, rounds))
        if not waiting:
            return


def _ask(streamer: Streamer, question: Question, ways: Sequence[str], rounds: int) -> Iterator[dict]:
    """A line for each way of asking one question."""
    for way in ways:
        again = min(rounds, streamer.round) if way == AGAIN else 0
        answer = streamer.ask(question.text, options=question.options if way == CHOSEN else None, max_tokens=MAX_TOKENS, reencode_frames=again)
        yield {"policy": streamer.policy.name, "way": way, "kind": question.kind, "answer": question.answer, "said": answer.text,
               "right": answer.text == question.answer, "chance": 1 / len(question.options) if way == CHOSEN else 0.0,
               "kv_tokens": answer.kv_tokens, "ttft_ms": answer.ms["ttft"], "total_ms": answer.ms["total"]}


def on_clips(vlm: VLM, row: dict, video: LabelledVideo, cfg: config.Config, clips: Sequence[tuple[int, int]], task: Task = MATCH,
             ways: Sequence[str] = (FREE,)) -> Iterator[dict]:
    """Ask about clips of chunks [start, stop) as offline models are asked: the clip as one video, its title, one question -> a line for each of
    `ways`, which are FREE and CHOSEN: `again` would show what is shown already."""
    streamer = Streamer(vlm, policy.get("full"), cfg.cache, cfg.video, dataclasses.replace(cfg.stream, max_new_tokens=MAX_TOKENS))
    for start, stop in clips:
        packed = ask.clip([to_patches(chunk.frames) for chunk in video.chunks[start:stop]])
        seen = vlm.encode([packed])[0]  # [N, E]
        title, _ = task.told(video, start, stop)
        for question in task.questions(row, stop * cfg.video.chunk_s, start * cfg.video.chunk_s):
            prompt = [span for span in offline.clip(streamer.dialogue, video, start, stop, title, [(question.text, question.answer)])
                      if span.role not in LEARNED]
            for way in (way for way in ways if way != AGAIN):
                said = answered(streamer, prompt, {start: seen}, question, way)
                asked = {"stream": row["id"], "at_s": stop * cfg.video.chunk_s, "policy": CLIP, "way": way, "kind": question.kind}
                chance = 1 / len(question.options) if way == CHOSEN else 0.0
                yield {**asked, "answer": question.answer, "said": said, "right": said == question.answer, "chance": chance,
                       "kv_tokens": streamer.kv.length, "ttft_ms": 0.0, "total_ms": 0.0}


def answered(streamer: Streamer, prompt: Sequence[Span], vision: dict[int, Tensor], question: Question, way: str = FREE) -> str:
    """What is answered behind a prompt alone, FREE or CHOSEN. `prompt`: spans up to where the assistant speaks, the question's words in them;
    `vision`: the tokens [N, E] of each round that shows something. The stream that `streamer` was is gone."""
    asked = ask.Question(question.text, question.options if way == CHOSEN else ())
    return run_batched(streamer.vlm, [ask.ask_behind(streamer, prompt, vision, asked)])[0]


def held_out(folder: Path, row: dict, cfg: config.Config, root: Path) -> list[dict]:
    """One row's questions to the model in `folder`, free and chosen: about clips of CLIP_S before each moment, and at the same moments while it
    streams under `streaming`."""
    vlm, ways = loading.load(folder, loading.pick_device(cfg.run.device)), (FREE, CHOSEN)
    video, at_s = labelled.load(row, cfg.video, root), times(row, EVERY_S)
    stops = [int(at / cfg.video.chunk_s) for at in at_s]
    length = round(CLIP_S / cfg.video.chunk_s)
    return [*on_clips(vlm, row, video, cfg, [(max(0, stop - length), stop) for stop in stops], ways=ways),
            *examine(vlm, row, ("streaming",), cfg, video.chunks, at_s, ways=ways)]


@dataclasses.dataclass(frozen=True)
class Cell:
    """What came out for one kind of question, asked in one way under one policy. `chance`: what guessing among the options would get right."""

    policy: str
    way: str
    kind: str
    asked: int
    accuracy: float
    chance: float
    ttft_ms: float
    total_ms: float


def table(lines: Iterable[dict]) -> list[Cell]:
    """`examine`'s lines, counted: a cell per policy, way and kind, in the order in which they came; times are medians."""
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for line in lines:
        groups.setdefault((line["policy"], line["way"], line["kind"]), []).append(line)
    return [Cell(*key, len(own), *(round(fmean(line[name] for line in own), 4) for name in ("right", "chance")),
                 *(round(median(line[name] for line in own), 3) for name in ("ttft_ms", "total_ms"))) for key, own in groups.items()]


def shares(lines: Iterable[dict]) -> dict:
    """policy -> student -> way -> {asked, accuracy, chance, kinds: {kind: accuracy}} of lines that name their `student`."""
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for line in lines:
        groups.setdefault((line["policy"], line["student"], line["way"]), []).append(line)
    out: dict = {}
    for (place, student, way), own in groups.items():
        right = {kind: [line["right"] for line in own if line["kind"] == kind] for kind in dict.fromkeys(line["kind"] for line in own)}
        found = {key: round(fmean(line[name] for line in own), 4) for key, name in (("accuracy", "right"), ("chance", "chance"))}
        found |= {"asked": len(own), "kinds": {kind: round(fmean(each), 4) for kind, each in right.items()}}
        out.setdefault(place, {}).setdefault(student, {})[way] = found
    return out
