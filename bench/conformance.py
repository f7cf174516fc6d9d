"""Does our engine do what the released code did? Replays recorded runs of it and compares, chunk by chunk.

    python bench/conformance.py RUN.json [RUN.json ...]
    make conformance                      # all of tests/data/golden, into reports/reference/conformance.json, which the ledger reads (claim P0)

RUN.json holds a run of the released inference on a tiny model whose weights and frames are formulas (`golden.py`): its `params`, and for each chunk
the ids it kept, fed and generated. RUN.npz beside it, where there is one, holds positions, final hidden states, keys and values; `meta.json` beside
it, where there is one, the sum of every weight. We run the same chunks under the `upstream` policy, never looking at what was recorded, and print
per chunk whether the retained ids, the new ids, the generated ids and the positions are the same, and the largest differences of hidden states and
of keys and values. Exits with 0 if everything agrees, 1 if anything differs, 2 if a file cannot be read as such a run.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from golden import FPS, LAYOUT, SPECIAL, Vocabulary, chunk, forced_end, golden_model, wrong_weights

from streamingvlm.base import config, files
from streamingvlm.base.errors import UserError
from streamingvlm.base.machine import provenance
from streamingvlm.context import policy
from streamingvlm.context.dialogue import ids_of
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming.stream import Streamer

TOLERANCE = 1e-4  # of hidden states; of keys and values, as a share of the largest recorded (a key is several times a hidden state); float32
NO_LIMIT = 10**9  # tokens: a window that nothing outgrows
KNOWN = {"window_size", "text_round", "text_sink", "text_sliding_window", "pos_mode", "rp", "chunk_duration", "recompute", "force_end", "n_chunks"}


@dataclass(frozen=True)
class Run:
    """A recorded run: its windows as ours, and what it did, chunk by chunk."""

    name: str
    policy: str
    appends: bool  # recorded with growing positions: of each step only what was new, and keys after RoPE instead of before
    cache: config.Retention
    seconds: int
    penalty: float
    forced: bool
    chunks: list[dict]
    arrays: dict[str, np.ndarray]
    previous: str
    query: str
    texts: dict[str, tuple[int, ...]]
    weights: list[dict]
    notes: list[str]


def read(path: Path) -> Run:
    """A run from RUN.json and, where it lies beside it, RUN.npz. `UserError` says in one sentence why that is impossible."""
    try:
        record = json.loads(path.read_text())
        params, chunks = record["params"], record["chunks"]
        for c in chunks:
            _ = c["input_ids"][c["ids_after_prune_len"]], [*c["generated"]]
        beside = path.with_suffix(".npz")
        arrays = dict(np.load(beside)) if beside.is_file() else {}
        if len(arrays.get("step_offset", [*chunks, 0])) <= len(chunks):
            raise UserError(f"{beside} ends before {path} does.")
        texts = dict(zip((record["previous_text"], record["query"]), _texts(chunks[0]["input_ids"]), strict=True))
        meta = path.with_name("meta.json")
        weights = json.loads(meta.read_text())["params"] if meta.is_file() else []
        mode = params.get("pos_mode") or "shrink"
        # Where all is computed afresh, positions have nothing to grow from.
        name = "upstream_recompute" if params.get("recompute") else {"shrink": "upstream", "append": "upstream_growing"}[mode]
        notes = [f"`params.{key}` is not known here and was left out" for key in sorted(set(params) - KNOWN)]
        if params.get("n_chunks", len(chunks)) != len(chunks):
            notes.append(f"{len(chunks)} of {params['n_chunks']} chunks are in the file")
        if record.get("error"):
            notes.append(f"the recorded run itself ended with {record['error']}")
        return Run(str(record.get("run", path.stem)), name, mode == "append", _windows(path, params), int(params.get("chunk_duration") or 1),
                   float(params.get("rp") or 1.05), bool(params.get("force_end")), chunks, arrays, record["previous_text"], record["query"],
                   texts, weights, notes)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, StopIteration, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a run in the recorded format ({type(error).__name__}: {error}).") from None


def _windows(path: Path, params: dict) -> config.Retention:
    sink, window = params.get("text_sink"), params.get("text_sliding_window")
    if (sink is None) != (window is None):
        raise UserError(f"{path} has a text sink or a text window without the other; there the released code cuts its own header and stops.")
    vision, text = params.get("window_size", 16), params.get("text_round", 16)
    if min(vision, text) < 1 or (sink is not None and (sink < 0 or window < 1)):
        raise UserError(f"{path}: both windows and the text window must be at least 1 and the sink at least 0, not {params}.")
    return config.Retention(text_sink=sink or 0, text_window=NO_LIMIT if window is None else window, vision_rounds=vision, text_rounds=text)


def _texts(prompt: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of the previous text and of the query, read off the first prompt."""
    opening = [SPECIAL["<|im_start|>"], *LAYOUT["previous text\n"]]
    start = next(k for k in range(len(prompt)) if prompt[k : k + len(opening)] == opening) + len(opening)
    asked = prompt.index(SPECIAL["<|vision_end|>"]) + 1
    end = SPECIAL["<|im_end|>"]
    return tuple(prompt[start : prompt.index(end, start)]), tuple(prompt[asked : prompt.index(end, asked)])


class Traced(Streamer):
    """A `Streamer` that remembers what it kept, asked, fed, computed and said in its last round."""

    def _evict(self):
        yield from super()._evict()
        self.retained = ids_of(self.spans) if self.round else []  # what the first prompt opens with is new too
        self.states: list[torch.Tensor] = []

    def _look(self, *args):
        vision = yield from super()._look(*args)
        self.prompt, self.fed = ids_of(self.spans), len(ids_of(self.pending))
        return vision

    def _feed(self, spans, vision):
        state = yield from super()._feed(spans, vision)
        if not self.states:
            self.first_positions = self.positions
        self.states.append(state.hidden)
        return state

    @property
    def positions(self) -> np.ndarray:
        """Of all that is cached now, [3, S]."""
        return self.kv.positions[:, : self.kv.length].numpy().copy()

    @property
    def generated(self) -> list[int]:
        """One id per hidden state: what was said and, unless the limit came first, what ended it."""
        return ids_of(self.spans)[len(self.prompt) :][: len(self.states)]


def begin(run: Run, vlm: VLM) -> Traced:
    """Our engine before the run's first chunk. It never sees what was recorded but the texts of the first prompt."""
    vlm = VLM(vlm.hf, Vocabulary(run.texts))
    stream = config.Stream(policies=[run.policy], query=run.query, repetition_penalty=run.penalty)
    ours = Traced(vlm, policy.get(run.policy), run.cache, config.Video(fps=FPS, chunk_s=run.seconds), stream,
                  **({"forced_token": forced_end} if run.forced else {}))
    ours.start(run.previous)
    return ours


def replay(run: Run, vlm: VLM) -> Iterator[Traced]:
    """Our engine on the run's frames, after each of its chunks."""
    ours = begin(run, vlm)
    for i in range(len(run.chunks)):
        ours.step(run.name, chunk(i, run.seconds))
        yield ours


@dataclass(frozen=True)
class Agreement:
    """How one chunk of ours compares: True or False, a largest difference, or None where nothing was recorded."""

    chunk: int
    retained: bool
    new: bool
    generated: bool
    positions: bool | None
    hidden: float | None
    kv: float | None  # a share of the largest recorded

    @property
    def whole(self) -> bool:
        return (all(x is not False for x in (self.retained, self.new, self.generated, self.positions))
                and all(x is None or x <= TOLERANCE for x in (self.hidden, self.kv)))


def compare(run: Run, ours: Traced, i: int) -> Agreement:
    """Chunk i as recorded against ours, which has just finished it."""
    c, a = run.chunks[i], run.arrays
    kept, said = c["ids_after_prune_len"], [c["generated"]]
    if not c.get("im_end_appended"):  # the model ended its turn itself: recorded with that end or without
        said.append([*c["generated"], SPECIAL["<|im_end|>"]])
    states = torch.stack(ours.states).numpy()  # [steps, E]
    hidden = kv = None
    if "final_hidden" in a and "step_offset" in a:
        hidden = difference(a["final_hidden"][a["step_offset"][i] : a["step_offset"][i + 1]], states)
    if f"k_{i}" in a:
        n = ours.kv.length
        raw, rotated, values = ours.kv.store[:, :, :, :n].numpy()  # [L, K, S, D] each
        pairs = ((a[f"k_{i}"], rotated if run.appends else raw), (a[f"v_{i}"], values))
        kv = max(difference(theirs, mine) / float(np.abs(theirs).max()) for theirs, mine in pairs)
    return Agreement(i, c["input_ids"][:kept] == ours.retained, c["input_ids"][kept:] == ours.prompt[len(ours.retained) :],
                     ours.generated in said, _positions(run, ours, i), hidden, kv)


def _positions(run: Run, ours: Traced, i: int) -> bool | None:
    """Positions of the prompt and of the last step, and the counts that go with them; of those, what was recorded."""
    c, a = run.chunks[i], run.arrays
    last = ours.positions
    checks = []
    for name, mine in ((f"pos_first_{i}", ours.first_positions), (f"pos_last_{i}", last)):
        if name in a:
            n = mine.shape[1]
            new = a[name].shape[-1] if run.appends else n
            checks.append(new <= n and np.array_equal(a[name], mine[:, n - new :]))
    if c.get("pos_max_last") is not None:
        checks.append(c["pos_max_last"] == (last[:, -1] if run.appends else last).max())
    if c.get("prefill_fed") is not None and run.policy != "upstream_recompute":  # rule 2: what the round before left over is fed with the new turn
        checks.append(c["prefill_fed"] == ours.fed)
    if c.get("kv_end") is not None:
        checks.append(set(np.atleast_1d(c["kv_end"]).tolist()) == {ours.kv.length})
    return all(checks) if checks else None


def difference(recorded: np.ndarray, ours: np.ndarray) -> float:
    """The largest difference of two arrays; infinite where their shapes differ."""
    return float(np.abs(recorded - ours).max(initial=0.0)) if recorded.shape == ours.shape else float("inf")


def report(run: Run, rows: list[Agreement]) -> str:
    """The table of a run, a line per chunk."""
    def cell(x: bool | float | None) -> str:
        return "-" if x is None else "same" if x is True else "DIFFERS" if x is False else f"{x:.1e}" + (" !" if x > TOLERANCE else "")

    names = [f.name for f in dataclasses.fields(Agreement)]
    lines = [f"{run.name}: {run.policy}, vision {run.cache.vision_rounds} and text {run.cache.text_rounds} rounds, sink "
             + (f"{run.cache.text_sink}, window {run.cache.text_window}" if run.cache.text_window < NO_LIMIT else "and window without limit")
             + f", penalty {run.penalty}, chunks of {run.seconds} s" + (", forced ends" if run.forced else "")]
    lines += [f"note: {note}" for note in run.notes]
    lines += [" ".join(f"{name:>10}" for name in names)]
    lines += [" ".join(f"{value if name == 'chunk' else cell(value):>10}" for name, value in dataclasses.asdict(row).items()) for row in rows]
    agreeing = sum(row.whole for row in rows)
    worst = [max((x for x in xs if x is not None), default=None) for xs in ((r.hidden for r in rows), (r.kv for r in rows))]
    return "\n".join([*lines, f"{run.name}: {agreeing} of {len(rows)} chunks agree; largest difference of hidden states {cell(worst[0])}, "
                      f"of keys and values, of the largest, {cell(worst[1])} (at most {TOLERANCE:g})"])


@dataclass(frozen=True)
class Outcome:
    """One replayed run, in numbers."""

    whole: bool
    chunks: int
    agreeing: int
    tokens: int
    hidden: float
    kv: float


def check(path: Path) -> Outcome:
    """Replay one recorded run and print how it agrees."""
    run = read(path)
    vlm = golden_model()
    rows, tokens = [], 0
    for i, ours in enumerate(replay(run, vlm)):
        rows.append(compare(run, ours, i))
        tokens += len(ours.generated)
    print(report(run, rows), flush=True)
    wrong = wrong_weights(vlm, run.weights) if run.weights else []
    if wrong:
        print(f"{run.name}: {len(wrong)} weights are not those of meta.json, the first is {wrong[0]}")
    return Outcome(not wrong and all(row.whole for row in rows), len(rows), sum(row.whole for row in rows), tokens,
                   max((row.hidden or 0.0 for row in rows), default=0.0), max((row.kv or 0.0 for row in rows), default=0.0))


def summary(outcomes: list[Outcome], argv: list[str]) -> dict:
    """What the claim ledger reads."""
    where = provenance({"argv": argv})
    return {"bench": "conformance", "runs": len(outcomes), "runs_agreeing": sum(one.whole for one in outcomes),
            "chunks": sum(one.chunks for one in outcomes), "chunks_agreeing": sum(one.agreeing for one in outcomes),
            "tokens": sum(one.tokens for one in outcomes), "hidden_difference": max(one.hidden for one in outcomes),
            "kv_difference": max(one.kv for one in outcomes), "date": datetime.date.today().isoformat(), "command": "make conformance",
            "model": "tiny Qwen2.5-VL whose weights and frames are formulas",
            "data": f"{len(outcomes)} runs of the released code (mit-han-lab/streaming-vlm at a940d8c), recorded once: tests/data/golden", **where}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json", help="a recorded run; RUN.npz beside it is read too")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="leave the numbers there, if every run could be read")
    torch.set_num_threads(1)
    args, outcomes, unread = parser.parse_args(argv), [], False
    for path in args.runs:
        try:
            outcomes.append(check(path))
        except UserError as error:
            print(error, file=sys.stderr)
            unread = True
    if args.save and not unread:
        files.write_json(summary(outcomes, [str(path) for path in args.runs]), args.save)
    return 2 if unread else int(not all(one.whole for one in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
