"""What lesson 5 leaves behind once all is scored: metrics for DVC, timings, the claim ledger, the first picture of the report, W&B. Scores nothing.

    numbers = publish.metrics(paths, ablation, winrate, asked)        # reports/metrics.json; the figures of training and compression
    ledger = publish.ledger(cfg, paths, params, row, numbers)         # reports/timings.json, claims.*; latency and band in reports/timings
"""

from __future__ import annotations

import json
from itertools import islice

from streamingvlm.base import config, files
from streamingvlm.base.numbers import flat
from streamingvlm.base.paths import Paths
from streamingvlm.data import stream_rows
from streamingvlm.evaluation import claims, ledger_inputs, ledger_text
from streamingvlm.media import reader
from streamingvlm.reporting import band, figures
from streamingvlm.streaming import captions
from streamingvlm.worlds.match import game, scoring
from streamingvlm.worlds.match.dataset import LONG

TIMED = ("streaming", "full", "overlap")  # whose latency is drawn
SAMPLE = 60  # seconds of each policy that go to W&B as a table


def metrics(paths: Paths, ablation: dict, winrate: dict, asked: dict) -> dict:
    """Every quality number of the run, as reports/metrics.json has them, and the figures of training and compression drawn again."""
    history = [json.loads(line) for line in (paths.sft / "history.jsonl").read_text().splitlines()]
    compressed = json.loads((paths.compress / "table.json").read_text())
    figures.training(history, paths.figures)
    figures.compress(compressed, paths.figures)
    numbers = {"ablation": ablation, "sft": json.loads((paths.sft / "held_out.json").read_text()),
               "compress": {entry["variant"]: {key: value for key, value in entry.items() if key != "variant"} for entry in compressed},
               "winrate": winrate, "asked": asked, "city": json.loads((paths.city_model / "city.json").read_text()),
               "live": json.loads((paths.live / "live.json").read_text())}
    files.write_json(numbers, paths.reports / "metrics.json")
    return numbers


def ledger(cfg: config.Config, paths: Paths, params: dict | None, row: dict, numbers: dict) -> list[dict]:
    """The claims with what the last streaming run measured; `row`: the long match. Everything here holds timings, so none of it is a DVC output but
    their medians."""
    lines = [line for line in captions.read(paths.timings / "stream.jsonl") if line["stream"] == LONG]
    compress_ms = json.loads((paths.timings / "compress.json").read_text())
    files.write_json(ledger_inputs.chunk_ms(lines, compress_ms), paths.reports / "timings.json")
    ours = [line for line in lines if line["pass"] == "alone"]
    figures.latency([line for line in ours if line["policy"] in TIMED], paths.timings)
    apart, where = ledger_inputs.apart(paths.reports / "reference")
    measured = ledger_inputs.measured(numbers, lines, compress_ms, cfg) | ledger_inputs.times(paths.timings) | apart
    context = ledger_inputs.context(paths, row, params or {}) | where
    rows = claims.ledger(measured, context, ledger_inputs.repeats(paths.reports / "reference"))
    ledger_text.write(rows, paths.reports)
    draw_band(cfg, paths, row, rows)
    return rows


def draw_band(cfg: config.Config, paths: Paths, row: dict, rows: list[dict]) -> None:
    """reports/timings/band.png, and in band.txt the same in words."""
    squares = [band.Square(one["id"], one["short"], claims.kind(one["verdict"])) for one in rows
               if one["source"] == "paper" and (one["id"] == "P0" or not one["ours"])]
    said = ledger_inputs.commentaries(paths.stream, LONG)
    tokens = {name: ([k * cfg.video.chunk_s / 60 for k in range(len(lines))], [line["kv_tokens"] for line in lines])
              for (name, student), lines in said.items() if student == "overlapped" and name in ("streaming", "full")}
    goals = [k for k, second in enumerate(scoring.truth_of(row)) if second.event.startswith("goal")]
    true, shown = stream_rows.words_by_chunk(row), goals[len(goals) // 2 :][:1] + goals[-1:] or [0]
    words = {k: (_words(said["streaming", "overlapped"][k]["text"]), _words(true[k])) for k in dict.fromkeys(shown)}
    looks = [band.Look(_frame(paths, row, k), k, *pair, game.parse(pair[0]) == game.parse(pair[1])) for k, pair in words.items()]
    band.band(squares, tokens, looks, paths.timings)
    files.write(paths.timings / "band.txt", band.alt(squares, tokens, looks) + "\n")


def _frame(paths: Paths, row: dict, second: int):
    """The last frame [H, W, 3] of that second of the match."""
    chunks = reader.read_chunks(paths.root / row["video"], config.Video(max_pixels=112 * 112), start_s=second)
    return next(islice(chunks, 1)).frames[-1]


def _words(text: str) -> str:
    return text.strip().removesuffix("...").strip()


def to_wandb(paths: Paths, params: dict | None, numbers: dict, said: dict[str, list[str]], row: dict) -> None:
    """Numbers, a table of what was said (policy -> texts) beside what was true, and all figures; nothing where W&B is off."""
    from streamingvlm.workbench import tracking

    true = stream_rows.words_by_chunk(row)
    sample = [{"policy": name, "second": k, "said": text, "true": true[k]} for name, texts in said.items() for k, text in enumerate(texts[:SAMPLE])]
    with tracking.run("evaluate", params or {}) as log:
        log(flat(numbers))
        log.table("said", sample)
        log.figures(paths.figures)
        log.figures(paths.timings)
