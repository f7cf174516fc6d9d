"""The figures of a run, each twice from the same panels (`drawing`): an interactive page and a PNG.

Plain rows in, files out: this module knows neither models nor streams, and computes nothing but medians and means. A title is one sentence made of
the numbers drawn, never of what was hoped for.

    latency(rows, root / "reports/timings")      # latency.html, latency.png, plotly.min.js; returns the PNG's path
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from statistics import fmean, median

from streamingvlm.base.errors import UserError
from streamingvlm.base.numbers import number
from streamingvlm.reporting.drawing import BLUE, GREY, ORANGE, Panel, Series, canvas, column, draw, records, smooth, wide

# Okabe and Ito's colours: told apart by colour-blind readers too. A policy has one colour in every figure.
POLICIES = {"streaming": "#0072B2", "full": "#D55E00", "upstream": "#56B4E9", "window": "#E69F00", "overlap": "#009E73"}
OTHERS = ("#CC79A7", "#7F7F7F", "#000000", "#B8A000")
STAGES = {"read": "#999999", "encode": "#56B4E9", "evict": "#F0E442", "prefill": "#009E73", "decode": "#CC79A7"}
# What each policy takes away from `streaming`, or adds to it: said beside its bar.
PARTS = {"streaming": "the paper's cache", "no_sink": "- sink", "no_text": "- text window", "no_vision": "- older video",
         "growing": "- contiguous positions", "full": "keeps everything", "window": "restarts", "overlap": "all computed afresh",
         "streaming_closing": "+ 2 tokens refreshed", "streaming_text": "+ previous text refreshed", "streaming_said": "+ words refreshed",
         "streaming_rounds": "+ text of rounds refreshed", "streaming_all_text": "+ all text refreshed", "long_vision": "+ twice the video"}
SCORES = {"who": "right names", "score": "exact scores"}
SMOOTH = 31        # chunks, or training steps, in a running median
MINUTES = 5        # minutes in the running mean of `quality`
GROWS = 1.33       # from here on, last quarter against first, a time is said to grow


def latency(rows, folder: Path, chunk_s: float = 1.0, name: str = "latency") -> Path:
    """Chunk latency over one stream, per policy. rows: {stream, policy, start_s, ms: {total}}."""
    series, stay, grow = [], [], []
    for policy, color, chosen in _by_policy(name, rows, one_stream=True):
        x, y = [t_s / 60 for t_s in column(name, chosen, "start_s")], column(name, chosen, "ms", "total")
        series += [Series(None, x, y, color, "points"), Series(policy, x, smooth(y, SMOOTH), color)]
        n = max(1, len(y) // 4)
        first, last = median(y[:n]), median(y[-n:])
        grown = last > GROWS * first
        (grow if grown else stay).append(f"{policy} {'grows from ' + number(first) + ' to' if grown else 'stays at'} {number(last)} ms")
    top = 1.15 * max(max(one.y) for one in series if one.kind == "line")
    clock = ""
    if top > 1000 * chunk_s / 2:
        width = [min(one.x[0] for one in series), max(one.x[-1] for one in series)]
        series.append(Series("real time", width, [chunk_s * 1000] * 2, GREY, "dash"))
        top = max(top, 1100 * chunk_s)
    else:
        clock = f" (real time: {number(1000 * chunk_s)})"
    title = f"Time for each second of video: {', '.join(stay + grow)}."
    return draw(name, title, [Panel("", "stream time [min]", f"time per chunk [ms]{clock}", series, top=top)], folder)


def memory(rows, folder: Path, name: str = "memory") -> Path:
    """Cached tokens and process memory over one stream, per policy. rows: {stream, policy, start_s, kv_tokens, memory_mb | rss_mb}."""
    tokens, resident, most = [], [], {}
    for policy, color, chosen in _by_policy(name, rows, one_stream=True):
        x = [t_s / 60 for t_s in column(name, chosen, "start_s")]
        tokens.append(Series(policy, x, column(name, chosen, "kv_tokens"), color))
        resident.append(Series(None, x, column(name, chosen, "memory_mb" if "memory_mb" in chosen[0] else "rss_mb"), color))
        most[policy] = max(tokens[-1].y)
    panels = [Panel("KV cache", "stream time [min]", "cached tokens", tokens, log=wide(tokens)),
              Panel("whole process", "stream time [min]", "memory [MB]", resident)]
    least, *others = sorted(most, key=most.__getitem__)
    rest = f"; {others[-1]} needs up to {number(most[others[-1]])}" if others else ""
    return draw(name, f"{least} never holds more than {number(most[least])} tokens{rest}.", panels, folder)


def stages(rows, folder: Path, name: str = "stages") -> Path:
    """Where the time of a chunk goes: mean ms per stage and policy. rows: {policy, ms: {read, encode, evict, prefill, decode}}."""
    groups = _by_policy(name, rows)
    means = {stage: [fmean(column(name, chosen, "ms", stage)) for _, _, chosen in groups] for stage in STAGES}
    names, totals = [policy for policy, _, _ in groups], [sum(one) for one in zip(*means.values(), strict=True)]
    shares = {stage: [100 * mean / (total or 1) for mean, total in zip(means[stage], totals, strict=True)] for stage in STAGES}
    panels = [Panel("", "", "mean time per chunk [ms]", [Series(s, names, means[s], color, "bar") for s, color in STAGES.items()]),
              Panel("", "", "share of the time [%]", [Series(None, names, shares[s], color, "bar") for s, color in STAGES.items()])]
    largest = [max(STAGES, key=lambda stage, k=k: shares[stage][k]) for k in range(len(names))]
    said = ", ".join(f"{stage} under {policy} ({shares[stage][k]:.0f}%)" for k, (policy, stage) in enumerate(zip(names, largest, strict=True)))
    return draw(name, f"What takes the most time of a chunk: {said}.", panels, folder)


def quality(per_minute, folder: Path, name: str = "quality") -> Path:
    """Quality per minute of stream. rows: {policy, minute, event_f1, who, score}, each 0..1; None where a minute has nothing to score."""
    groups, panels, ends = _by_policy(name, per_minute), [], {}
    groups = groups[1:] + groups[:1]  # the first in view, over the others
    for key, title in (*SCORES.items(), ("event_f1", "event F1")):
        series = []
        for policy, color, chosen in groups:
            scored = [row for row in chosen if row.get(key, math.nan) is not None]
            if scored:
                x, y = column(name, scored, "minute"), column(name, scored, key)
                series += [Series(None, x, y, color, "points"), Series(None if panels else policy, x, smooth(y, MINUTES, fmean), color)]
                ends.setdefault(title, {})[policy] = fmean(y)
        if series:    # a short stream without a goal has no name to get right: no panel then, rather than an empty one
            panels.append(Panel(title, "minute of stream", "share" if key in SCORES else "F1", series, top=1.04))
    return draw(name, _against_the_worst(ends), panels, folder)


def _against_the_worst(means: dict[str, dict[str, float]]) -> str:
    """The policy in question and the one that fares worst, in one sentence about scores, else about whatever there is."""
    title = next((title for title in (SCORES["score"], *means) if title in means), None)
    if title is None:
        return ""
    *_, shown = means[title]
    worst = min(means[title], key=means[title].__getitem__)
    return f"{title[:1].upper()}{title[1:]}, mean of the minutes: {shown} {means[title][shown]:.2f}" + (
        f", {worst} {means[title][worst]:.2f}." if worst != shown else ".")


def ablation(rows, folder: Path, name: str = "ablation") -> Path:
    """What each part of the cache carries. rows: {policy, who, score}, each 0..1, or None where nothing was said to be right or wrong; the first row
    is what the others are compared with."""
    panels, lost, all_rows = [], [], records(rows)
    for key, title in SCORES.items():
        known = [row for row in all_rows if row.get(key) is not None]
        if not known or known[0] is not all_rows[0]:
            continue
        values = column(name, known, key)
        labels = [f"{row['policy']}: {PARTS[row['policy']]}" if row["policy"] in PARTS else row["policy"] for row in known]
        bars = [Series(None, labels[:1], values[:1], GREY, "across"), Series(None, labels[1:], values[1:], BLUE, "across")]
        panels.append(Panel(title, "", "share of goals", bars, top=1.15, note="{:.2f}"))
        removed = {row["policy"]: value for row, value in zip(known, values, strict=True) if PARTS.get(row["policy"], "").startswith("- ")}
        if removed:
            worst = min(removed, key=removed.__getitem__)
            lost.append(f"{title} fall from {values[0]:.2f} to {removed[worst]:.2f} without the {PARTS[worst].removeprefix('- ')}")
    said = ", ".join(lost)
    return draw(name, said[:1].upper() + said[1:] + "." if said else "What each part of the cache carries.", panels if all_rows else [], folder)


def training(history, folder: Path, name: str = "training") -> Path:
    """rows: {phase, step, loss}, phases in the order they ran; some also accuracy (of the batch) or event_accuracy (on held-out seconds)."""
    rows, losses, scores, title = records(history), [], [], ""
    phases = dict.fromkeys(row["phase"] for row in rows if row.get("loss") is not None)
    for phase, color in zip(phases, (BLUE, ORANGE, *OTHERS), strict=False):
        for key, series in (("loss", losses), ("accuracy", scores)):
            if chosen := [row for row in rows if row.get("phase") == phase and row.get(key) is not None]:
                x, y = column(name, chosen, "step"), column(name, chosen, key)
                series += [Series(None, x, y, color, "points"), Series(phase if series is losses else None, x, smooth(y, SMOOTH // 2), color)]
                if series is losses:
                    title = f"The loss ends at {number(smooth(y, SMOOTH // 2)[-1])} nats."
    if chosen := [row for row in rows if row.get("event_accuracy") is not None]:
        y = column(name, chosen, "event_accuracy")
        scores.append(Series("held-out seconds", column(name, chosen, "step"), y, "#000000", "both"))
        title = f"After training, {y[-1]:.1%} of the held-out seconds have the right event."
    panels = [Panel("loss on training batches", "training step", "cross-entropy [nats]", losses)]
    if scores:
        panels.append(Panel("accuracy: learned tokens, held-out seconds", "training step", "share right", scores, top=1.04))
    return draw(name, title, panels, folder)


def compress(table, folder: Path, name: str = "compress") -> Path:
    """What compression costs and saves. rows: {variant, event_accuracy, bytes, chunk_ms_p50 (optional)}; the first row is the baseline."""
    rows = records(table)
    variants = [row.get("variant", "?").replace("_", " + ") for row in rows]
    kinds = [("right events, held-out seconds", "share", "event_accuracy", 1, "{:.1%}"), ("size", "weights [MB]", "bytes", 1e-6, "{:.2f}")]
    if any("chunk_ms_p50" in row for row in rows):
        kinds.append(("speed on this machine", "median time per chunk [ms]", "chunk_ms_p50", 1, "{:.1f}"))
    panels = []
    for title, label, key, unit, note in kinds:
        values = [value * unit for value in column(name, rows, key)]
        bars = [Series(None, variants[:1], values[:1], GREY, "across"), Series(None, variants[1:], values[1:], BLUE, "across")]
        panels.append(Panel(title, "", label, bars, top=1.2 * max(values), note=note))
    small = min(range(len(rows)), key=lambda k: rows[k]["bytes"])
    points = 100 * (rows[small]["event_accuracy"] - rows[0]["event_accuracy"])
    share = rows[small]["bytes"] / rows[0]["bytes"]
    title = f"The smallest, {variants[small]}, has {share:.0%} of the bytes of {variants[0]}, at {points:+.1f} points."
    return draw(name, title, panels, folder)


def filmstrip(frames, seconds, captions, truths, right, folder: Path, name: str = "filmstrip") -> Path:
    """PNG only: K frames [K, H, W, 3] uint8, the second of each, what was said, what was true, and whether that was right (orange: no)."""
    if not len(frames) == len(seconds) == len(captions) == len(truths) or not len(frames):
        raise UserError(f"Figure `{name}`: wants as many frames as seconds, captions and truths, and at least one.")
    texts = [[textwrap.wrap(f"{kind}: {text.strip().removesuffix('...').strip() or '(silence)'}", 27) for text in column]
             for kind, column in (("said", captions), ("true", truths))]
    lines = [max(map(len, column)) for column in texts]
    height, width = frames[0].shape[:2]
    with canvas(Path(folder) / f"{name}.png", 2.1 * len(frames), 2 * height / width + 0.4 + 0.19 * sum(lines)) as figure:
        axes = figure.subplots(1, len(frames), squeeze=False)[0]
        for axis, frame, second, said, true, same in zip(axes, frames, seconds, *texts, right, strict=True):
            axis.imshow(frame, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{second:g} s", fontsize=11, loc="left")
            for text, above, color in ((said, 0, BLUE if same else ORANGE), (true, lines[0], GREY)):
                axis.annotate("\n".join(text), (0, 0), (0, -5 - 12.5 * above), "axes fraction", "offset points", va="top", fontsize=9.5, color=color)
    return Path(folder) / f"{name}.png"


def _by_policy(name: str, data, one_stream: bool = False) -> list[tuple[str, str, list[dict]]]:
    """-> (policy, colour, its rows), in order of first appearance."""
    rows = records(data)
    names = list(dict.fromkeys(row.get("policy", "?") for row in rows))
    streams = sorted({str(row.get("stream")) for row in rows})
    if not rows:
        raise UserError(f"Figure `{name}`: there is no data to draw.")
    if one_stream and len(streams) > 1:
        raise UserError(f"Figure `{name}` shows one stream, not {len(streams)} ({', '.join(streams)}): choose one.")
    spare = iter(OTHERS * len(names))
    colors = {policy: POLICIES.get(policy) or next(spare) for policy in names}
    return [(policy, colors[policy], [row for row in rows if row.get("policy", "?") == policy]) for policy in names]
