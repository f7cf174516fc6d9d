"""Both twins of every figure: written, the same twice, without a network, and never an empty box."""

import json
import math
import random
import re
import sys

import numpy as np
import pandas as pd
import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.reporting import figures


def comments(seconds=60):
    rng = random.Random(0)
    for policy in ("streaming", "full"):
        for t in range(seconds):
            ms = {"read": 1.5, "encode": 4.0, "evict": 0.4, "prefill": 5 + rng.random(),
                  "decode": 9 + rng.random() * (t if policy == "full" else 1)}
            yield {"stream": "long", "policy": policy, "chunk": t, "start_s": float(t), "ms": {**ms, "total": sum(ms.values())},
                   "kv_tokens": 14 * t + 20 if policy == "full" else min(14 * t + 20, 90), "memory_mb": 600.0}


MINUTES = [{"policy": policy, "minute": m, "event_f1": 0.9 - 0.1 * m, "who": None if m == 1 else 0.8, "score": 0.5}
           for policy in ("streaming", "something new") for m in range(4)]
HISTORY = [{"phase": "warm_up", "step": s, "loss": 2 / (s + 1), "accuracy": s / 20} for s in range(20)]
HISTORY += [{"phase": "windows", "step": s, "loss": 4 / (s - 10)} for s in range(20, 40)]
HISTORY += [{"phase": "windows", "step": 39, "event_accuracy": 0.97}]
TABLE = [{"variant": v, "event_accuracy": a, "bytes": b, "chunk_ms_p50": 20.0} for v, a, b in
         (("float32", 0.95, 5e6), ("int8", 0.95, 2e6), ("int8_pruned", 0.94, 2e6))]
ABLATION = [{"policy": policy, "event_f1": 0.9, "who": who, "score": 0.5, "increment": None}
            for policy, who in (("streaming", 1.0), ("no_sink", 0.1), ("silent", None))]
FIGURES = {"ablation": ABLATION, "latency": list(comments()), "memory": list(comments()), "stages": list(comments()), "quality": MINUTES,
           "training": HISTORY,
           "compress": TABLE}
FRAMES = np.zeros((2, 8, 12, 3), np.uint8)


def draw(name, data, folder):
    return getattr(figures, name)(data, folder)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """name -> where each figure was drawn once, in a folder of its own: to look at, not to change."""
    return {name: draw(name, rows, tmp_path_factory.mktemp(name)) for name, rows in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_both_twins_the_same_bytes_twice(name, drawn, tmp_path):
    assert draw(name, FIGURES[name], tmp_path / "b") == tmp_path / "b" / f"{name}.png"
    files = {path.name: path.read_bytes() for path in drawn[name].parent.iterdir()}
    assert set(files) == {f"{name}.html", f"{name}.png", "plotly.min.js"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert files[f"{name}.png"].startswith(b"\x89PNG") and b"Software" not in files[f"{name}.png"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_page_needs_no_network(name, drawn):
    page = drawn[name].with_suffix(".html").read_text()
    assert f'id="{name}"' in page and 'src="plotly.min.js"' in page
    assert "https://cdn" not in page and 'src="http' not in page and 'href="http' not in page


def test_settings_of_a_notebook_change_nothing(drawn, tmp_path):
    import matplotlib

    pyplot = "matplotlib.pyplot" in sys.modules    # another test may have loaded it
    plain = drawn["stages"].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 20}):
        assert figures.stages(FIGURES["stages"], tmp_path / "b").read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 30
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("data", [[], pd.DataFrame()])
def test_nothing_to_draw_is_one_sentence_and_no_file(name, data, tmp_path):
    with pytest.raises(UserError, match=f"Figure `{name}`"):
        draw(name, data, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FIGURES)
def test_a_title_is_one_sentence_made_of_what_is_drawn(name, drawn):
    title = title_of(drawn[name])
    assert title.endswith(".") and title.count(". ") == 0 and len(title) < 130 and re.search(r"\d", title)


def title_of(png) -> str:
    found = re.findall(r'"title":\{"text":("(?:[^"\\]|\\.)*")', png.with_suffix(".html").read_text())
    return json.loads(found[-1]).replace("<br>", " ")


def test_a_time_that_grows_is_said_to_grow_and_one_that_does_not_is_not(drawn, tmp_path):
    title = title_of(drawn["latency"])
    assert "streaming stays at" in title and "full grows from" in title
    still = title_of(figures.latency([row for row in comments() if row["policy"] == "streaming"], tmp_path))
    assert "grows" not in still


def test_the_ablation_names_what_was_removed_and_leaves_the_saturated_metric_out(drawn, tmp_path):
    png = drawn["ablation"]
    page = png.with_suffix(".html").read_text()
    assert "no_sink: - sink" in page and "event F1" not in page and "without the sink" in title_of(png)
    kept = figures.ablation([row for row in ABLATION if row["policy"] != "no_sink"], tmp_path, "kept")
    assert "without" not in title_of(kept), "nothing was removed"


@pytest.mark.parametrize(("name", "key"), [("memory", "kv_tokens"), ("quality", "event_f1"), ("training", "loss"), ("compress", "bytes")])
def test_a_nan_is_named(name, key, tmp_path):
    with pytest.raises(UserError, match=f"Figure `{name}`.*`{key}`"):
        draw(name, [*FIGURES[name][:-1], {**FIGURES[name][-1], key: math.nan}], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["latency", "stages"])
def test_a_row_without_timings_is_named(name, tmp_path):
    with pytest.raises(UserError, match=r"a row has no number for `ms\."):
        draw(name, [{key: value for key, value in row.items() if key != "ms"} for row in comments(5)], tmp_path)


def test_a_frame_draws_what_rows_draw(drawn, tmp_path):
    for name, rows in FIGURES.items():
        assert draw(name, pd.DataFrame(rows), tmp_path).read_bytes() == drawn[name].read_bytes(), name


def test_two_streams_are_not_one_line(tmp_path):
    mixed = [*comments(5), *({**row, "stream": "clip"} for row in comments(5))]
    with pytest.raises(UserError, match="one stream, not 2"):
        figures.latency(mixed, tmp_path)
    figures.stages(mixed, tmp_path)


def test_nothing_to_score_in_any_minute_leaves_the_panel_out(tmp_path):
    figures.quality([{**row, "who": None} for row in MINUTES], tmp_path)
    assert "right names" not in (tmp_path / "quality.html").read_text()


def test_a_single_chunk_and_a_single_policy(tmp_path):
    one = list(comments(1))[:1]
    for name in ("latency", "memory", "stages"):
        assert draw(name, one, tmp_path).is_file()


def test_filmstrip(tmp_path):
    said, true, right = ["goal left 1 - 0", ""], ["goal left 1 - 0", "hit right"], [True, False]
    path = figures.filmstrip(FRAMES, [1.0, 2.5], said, true, right, tmp_path, "strip")
    assert [p.name for p in tmp_path.iterdir()] == ["strip.png"]
    assert figures.filmstrip(FRAMES, [1.0, 2.5], said, true, right, tmp_path, "again").read_bytes() == path.read_bytes()
    for frames, seconds in ((FRAMES[:0], []), (FRAMES, [1.0])):
        with pytest.raises(UserError, match="Figure `filmstrip`"):
            figures.filmstrip(frames, seconds, said, true, right, tmp_path)


def test_colours_do_not_depend_on_who_else_is_drawn():
    rows = list(comments(1))
    both = {policy: color for policy, color, _ in figures._by_policy("x", rows)}
    alone = {policy: color for policy, color, _ in figures._by_policy("x", rows[1:])}
    assert both["full"] == alone["full"] == figures.POLICIES["full"]
