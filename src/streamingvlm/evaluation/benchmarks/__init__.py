"""The public benchmarks, one file each, behind one protocol (`evaluation.harness.protocol.Benchmark`). Data is the user's: nothing is shipped here.

    get("ovo").read(folder)                       # its questions
    streamingvlm benchmark --list                 # what there is, and which files each wants

Each file says what its benchmark's own rule is, with its faults; the score by that rule reproduces them and compares with published numbers, the
strict score beside it does not share them (`harness.extract`).

To add a benchmark, write one file here:
1. `read(folder)`: `harness.reading.entries` opens the published file, `Entry.text`, `.options`, ... take its fields and name the one that is missing;
   give `Item`s in the published order, options without letters, the video's path below the folder (`reading.video`), the second of the question.
2. `mark(turns)`: the answers to one question -> `Mark`s: `own` by the published rule, reproduced to the letter, None where it leaves a question out;
   `strict` by `harness.extract`. Where all questions have options, `extract.by_letter(own)` is all of it.
3. `BENCHMARKS = (Benchmark(name, about, needs, rule, read, mark, overall=...),)`, and where the benchmark has them `fill` (its own prompt text, from
   the user's copy), `follow_up` (a question that hangs on an answer), `rescore` (predictions that its repository ships).
   Commentary has items of the kind COMMENTARY, each with its stream row, and is judged against another's (`harness.pairwise`).
4. Its module into `MODULES` below, a JSON of cases beside the others in tests/evaluation/benchmarks/cases: answers, both scores, why.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from streamingvlm.base.errors import UserError

if TYPE_CHECKING:
    from streamingvlm.evaluation.harness.protocol import Benchmark

MODULES = ("ovo", "streamingbench", "longvideobench", "videomme", "mvbench", "livesports", "infstreams")


def known() -> dict[str, Benchmark]:
    """Name -> benchmark, in the order of MODULES."""
    return {one.name: one for module in MODULES for one in import_module(f"{__name__}.{module}").BENCHMARKS}


def get(name: str) -> Benchmark:
    """UserError for a name that there is not."""
    there = known()
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1)
        raise UserError(f"There is no benchmark `{name}`{f' (did you mean `{near[0]}`?)' if near else ''}: there are {', '.join(there)}.")
    return there[name]
