"""The benches at their smallest: they run, do the same work on both sides and print what they promise. No time is ever asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import preloaded
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import common
import endless
import engine
import methods
import realtime
import roofline

SMALL = ["--config", "tiny", "--device", "cpu", "--threads", "1", "--px", "56", "84", "--rounds", "2",
         "--sink", "4", "--window", "4", "--tokens", "3"]
EVERY_LINE = {"bench", "config", "device", "dtype", "threads", "int8", "machine", "hardware", "versions", "git"}


@pytest.fixture(autouse=True)
def fast_yardstick(monkeypatch):
    fast = {"matmul_side": 1024, "matmul_float32_gflops": 100.0, "matmul_bfloat16_gflops": 100.0, "copy_gb_s": 20.0}
    monkeypatch.setattr(common, "machine", lambda *_: fast)


def last_line(capsys) -> dict:
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line.keys() >= EVERY_LINE
    return line


def test_methods_runs_all_four_and_draws(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "in_own_process", lambda argv, method: methods.measure(
        common.arguments("", argv, methods.options, previous=0), method))
    methods.main([*SMALL, "--chunks", "5", "--folder", str(tmp_path)])
    line = last_line(capsys)
    rows = {row["method"]: row for row in line["methods"]}
    assert list(rows) == list(methods.METHODS)
    assert rows["overlap"]["kv_tokens"] == rows["streaming"]["kv_tokens"] < rows["full"]["kv_tokens"]
    assert all(row[key] > 0 for row in rows.values() for key in ("last_s", "chunk_ms", "token_ms", "chunk_in_matmuls", "kv_mb", "peak_mb"))
    assert {p.name for p in tmp_path.iterdir()} >= {f"methods_{kind}_tiny.{end}" for kind in ("latency", "memory") for end in ("html", "png")}


def test_methods_measures_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(sys, "executable", preloaded.python())
    rows = list(methods.in_own_process([*SMALL, "--chunks", "3", "--limit-s", "0"], "streaming"))
    assert len(rows) == 1, "the time limit stops a method after its first chunk beyond it"
    assert rows[0]["peak_mb"] > 50


def test_methods_take_turns_until_each_has_ended():
    order = []

    def rows(name, n):
        for k in range(n):
            order.append(name)
            yield {"k": k}

    assert methods.collect({"a": rows("a", 1), "b": rows("b", 3)}, in_turn=True) == {"a": [{"k": 0}], "b": [{"k": k} for k in range(3)]}
    assert order == ["a", "b", "b", "b"]
    assert methods.collect({"a": rows("a", 2), "b": rows("b", 1)}, in_turn=False) == {"a": [{"k": 0}, {"k": 1}], "b": [{"k": 0}]}
    assert order[4:] == ["a", "a", "b"]


@pytest.mark.parametrize("more", [[], ["--int8"], ["--dtype", "bfloat16"], ["--decode", "graph"]])
def test_engine_does_the_same_on_both_sides(more, capsys):
    engine.main([*SMALL, "--chunks", "5", *more])
    line = last_line(capsys)
    assert line.keys() >= {"ours_ms", "theirs_ms", "ratio", "stages", "same_chunks", "same_before_eviction", "measured_chunks"}
    assert line["measured_chunks"] == 3
    if not more or "--decode" in more:
        assert line["same_before_eviction"] and line["same_chunks"] >= 2


def test_the_plain_loop_keeps_and_turns_keys_like_ours():
    """After evictions both sides hold the same keys: turning them by the difference and rotating them afresh differ by rounding only."""
    args = common.arguments("", SMALL)
    vlm = common.build(args)
    ours, theirs = common.stream(vlm, args), engine.Plain(common.stream(vlm, args), args.tokens)
    for k in range(5):
        for side in (ours, theirs):
            side.step("test", common.chunk(k, args))
        assert engine.said(ours) == engine.said(theirs)
    kv, n = ours.kv, ours.kv.length
    assert torch.equal(kv.positions[:, :n], theirs.positions)
    for i, layer in enumerate(theirs.cache.layers):
        torch.testing.assert_close(kv.store[1, i, :, :n], layer.keys[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(kv.store[2, i, :, :n], layer.values[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch", ["yes", "no"])
def test_realtime_prints_what_it_found(batch, capsys):
    realtime.main([*SMALL, "--chunks", "4", "--max-fps", "4", "--max-streams", "2", "--batch", batch])
    line = last_line(capsys)
    assert 0 <= line["max_fps"] <= 4 and 0 <= line["max_streams"] <= 2
    assert all(t["n"] == 2 * t["streams"] and t["p50"] <= t["p99"] for t in line["trials"] if t["passed"])


def test_search_is_exact_on_made_up_costs(monkeypatch):
    """0.1 s a stream and 0.01 s a frame: 1 s is enough for 90 frames or 8 streams at 2 FPS."""
    monkeypatch.setattr(realtime, "trial", lambda args, vlm, frames, count: {
        "fps": frames, "streams": count, "passed": count * (0.1 + 0.01 * frames) <= 1.0})
    args = common.arguments("", ["--max-fps", "100", "--max-streams", "100", "--tries", "2", "--within", "0"], realtime.options)
    trials = realtime.search(args, None)
    assert realtime.best(trials, "fps")["fps"] == 90
    assert realtime.best(trials, "streams")["streams"] == 8
    assert (realtime.fails_at(trials, "fps", 90), realtime.fails_at(trials, "streams", 8), realtime.fails_at(trials, "fps", 900)) == (92, 9, 0)
    made = Counter((t["fps"], t["streams"], t["passed"]) for t in trials)
    assert len(made) < 20 and all(count == (1 if passed else 2) for (*_, passed), count in made.items())
    assert realtime.best([t for t in trials if not t["passed"]], "fps") is None


def test_one_bad_moment_is_no_verdict(monkeypatch):
    results = iter([False, True, False, False, False])
    monkeypatch.setattr(realtime, "trial", lambda args, vlm, frames, count: {"fps": frames, "streams": count, "passed": next(results)})
    trials = realtime.search(common.arguments("", ["--max-fps", "4", "--max-streams", "1", "--tries", "3"], realtime.options), None)
    assert [t["fps"] for t in trials] == [2, 2, 4, 4, 4]
    assert realtime.best(trials, "fps")["fps"] == 2


def test_a_trial_stops_at_the_first_chunk_that_fell_behind(monkeypatch):
    """Made-up durations: chunk 0 is free, 1 and 2 take 0.9 s, then each 1.3 s: done 0.3, then 0.6 s after the next could have started."""
    durations = iter([9.0, 0.9, 0.9, 1.3, 1.3])

    class Comment:
        kv_tokens = 7

    class Stub:
        def round_of(self, name, chunk):
            return name

    monkeypatch.setattr(common, "stream", lambda *_, **__: Stub())
    monkeypatch.setattr(realtime, "run_batched", lambda vlm, rounds: [Comment] * len(rounds))
    monkeypatch.setattr(common, "timed", lambda device, call, *args: (next(durations), call(*args)))
    row = realtime.trial(common.arguments("", [*SMALL, "--chunks", "9"], realtime.options), None, 2, 1)
    assert not row["passed"] and row["stopped_at"] == 3
    assert row["n"] == 2 and row["p99"] == pytest.approx(1300, abs=5)


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 64])
def test_largest_is_exact_and_asks_little(limit):
    for edge in range(limit + 3):
        asked = []
        assert realtime.largest(lambda n: asked.append(n) or n <= edge, limit) == min(edge, limit)  # noqa: B023
        assert len(asked) == len(set(asked)) <= 14 and all(1 <= n <= limit for n in asked)


@pytest.mark.parametrize("edge", [0, 1, 3, 10, 33, 64])
def test_a_coarse_search_is_within_its_share(edge):
    found = realtime.largest(lambda n: n <= edge, 64, within=0.2)
    assert found <= edge <= found * 1.2


def test_virtual_clock_is_exact():
    clock = realtime.VirtualClock()
    served = [clock.serve(arrival, duration) for arrival, duration in [(0.5, 0.25), (1.5, 1.5), (2.5, 0.25), (2.5, 0.25), (9.5, 0.5)]]
    assert served == [0.25, 1.5, 0.75, 1.0, 0.5]


def test_virtual_clock_never_gains_from_more_work():
    def latencies(durations):
        clock = realtime.VirtualClock()
        return [clock.serve(float(k), d) for k, d in enumerate(durations)]

    base = [0.3, 1.4, 0.2, 0.9, 0.1]
    for i in range(len(base)):
        slower = latencies([d + (0.5 if j == i else 0) for j, d in enumerate(base)])
        assert all(a >= b for a, b in zip(slower, latencies(base), strict=True))


@pytest.mark.parametrize("more", [[], ["--decode", "graph", "--streams", "3"]])
def test_roofline_prints_every_stage(more, capsys):
    roofline.main([*SMALL, "--chunks", "4", *more])
    line = last_line(capsys)
    assert line["vision_fps"] > 0 and line["prefilled"] > 15
    assert [row["stage"] for row in line["stages"]] == list(roofline.STAGES)
    assert all(row["bound_ms"] > 0 and row["share"] > 0 and row["GB"] > 0 for row in line["stages"] if row["stage"] != "evict")


@pytest.mark.parametrize("name", common.SHAPES)
def test_the_weights_counted_are_those_of_the_model(name, monkeypatch):
    """Matrices of the true model, on no device: also the 7B's."""
    monkeypatch.setattr(common, "_fill", lambda hf: None)
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda self, device: self)
    vlm = common.build(common.arguments("", ["--config", name, "--device", "cpu"]))
    size = {"decoder": 0, "head": 0, "vision": 0, "merger": 0}
    for path, p in vlm.hf.named_parameters():
        if p.ndim > 1 and "embed_tokens" not in path:
            size["head" if "lm_head" in path else "merger" if "merger" in path else "vision" if "visual" in path else "decoder"] += p.numel()
    assert roofline.weights(*common.shape(name)) == size
    assert name != "7b" or 7.0e9 < size["decoder"] + size["head"] < 7.2e9


def test_needs_is_exact_on_a_shape_counted_by_hand():
    text = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 3, "vocab_size": 10}
    vision = {"hidden_size": 2, "depth": 1, "num_heads": 1, "intermediate_size": 1, "out_hidden_size": 4, "window_size": 112,
              "fullatt_block_indexes": [0]}
    # decoder: q, o 32, k, v 16, mlp 36 = 84; head 40; a token's keys: 2 numbers
    lengths = roofline.Lengths(forwards=((3, 8), (1, 9)), kept=5, slices=1, rows=2, columns=2, words=2)
    got = roofline.needs(text, vision, lengths, weight_bytes=4, kv_bytes=4)
    assert got["prefill"] == (84 * 4 + 2 * 8 * 8, 2 * 84 * 3 + 4 * 4 * (6 + 7 + 8))
    assert got["decode"] == (84 * 4 + 2 * 8 * 9 + 2 * 40 * 4, 2 * 84 + 4 * 4 * 9 + 2 * 40 * 2)
    assert got["evict"] == (5 * 8 * 5, 0)
    assert got["encode"] == ((2352 + 22 + 96) * 4, 2 * 2374 * 4 + 2 * 96 + 4 * 2 * 4 * 4)
    assert roofline.bound_ms((2e9, 1e9), 10, 100) == (200, "memory")
    assert roofline.bound_ms((2e9, 1e11), 10, 100) == (1000, "compute")


def test_wrong_lengths_are_one_sentence():
    for bench in (engine, roofline):
        with pytest.raises(SystemExit, match="must be more than"):
            bench.main([*SMALL, "--chunks", "2"])
    with pytest.raises(SystemExit, match="at least 2"):
        realtime.main([*SMALL, "--chunks", "1"])


def test_endless_finds_no_growth_and_no_drift(capsys):
    endless.main([*SMALL, "--chunks", "60"])
    line = last_line(capsys)
    assert line["drift"] == 0 and line["ratio"]["kv_bytes"] == 1
    assert line["first"].keys() == line["last"].keys() == {"ms_p50", "ms_p95", "memory_mb", "kv_bytes"}


def test_benches_and_gpu_tests_need_no_package_but_torch_and_transformers():
    """A machine lent for minutes has a GPU and seldom a video library: what would run there imports without one."""
    absent = ["av", "decord", "ruamel", "ruamel.yaml", "plotly", "papermill", "dvc", "datasets", "accelerate", "hypothesis", "fastapi", "pandas"]
    code = (f"import sys; sys.modules.update(dict.fromkeys({absent}));"  # None: as if it were not installed
            "sys.path[:0] = ['bench', 'src', 'tests']; import roofline, realtime, engine, methods, endless, helpers, conftest")
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(common.__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
