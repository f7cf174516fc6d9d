"""The peer bench at its smallest: the same work on every side, and a side that is wrong is found. No time is ever asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import common
import llama
import peers

from streamingvlm.models.qwen25 import gguf

SMALL = ["--config", "tiny", "--threads", "1", "--turns", "2", "--cached", "40", "--feed", "5", "--tokens", "3", "--evict-after", "6"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    fast = {"matmul_side": 1024, "matmul_float32_gflops": 100.0, "copy_gb_s": 20.0}
    monkeypatch.setattr(common, "machine", lambda *_: fast)
    monkeypatch.setitem(common.SHAPES, "tiny", common.SHAPES["tiny"] | {"text": (64, 2, 4, 2, 128, 600)})


def no_llama():
    raise peers.UserError("`llama_cpp` is not installed.")


def test_all_sides_say_the_same_words_and_ratios_are_of_turns(capsys, monkeypatch):
    monkeypatch.setattr(llama, "library", no_llama)
    peers.main(SMALL)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name for name, share in line["same_words"].items() if share == 1} >= {"ours", "ours quick", "transformers"}
    pairs = {(row["ours"], row["theirs"]) for row in line["ratios"]}
    assert pairs >= {("ours", "transformers"), ("ours quick", "transformers"), ("ours half", "transformers"), ("ours int8", "transformers")}
    assert all(0 < low <= middle <= high for row in line["ratios"] for middle, low, high in (row["read"], row["say"], row["total"]))
    assert line["mrope_shifts"] is None


def test_a_side_that_forgets_another_token_is_found(monkeypatch):
    """Every side forgets the same tokens in a turn; one that is off by one speaks of something else."""
    monkeypatch.setattr(llama, "library", no_llama)
    evict = peers.Transformers.evict
    monkeypatch.setattr(peers.Transformers, "evict", lambda self, first, count: evict(self, first - 5, count))
    with pytest.raises(SystemExit, match="`transformers` says another word"):
        peers.main(SMALL)


def test_ratios_of_a_constant_factor_are_exact():
    assert peers.ratio([1.0, 2.0, 5.0], [2.0, 4.0, 10.0]) == [0.5, 0.5, 0.5]


def test_a_weight_goes_out_by_the_name_it_comes_in_by():
    hf = common.build(common.arguments("", ["--config", "tiny", "--device", "cpu"])).hf
    names = llama.weights(hf)
    assert names["blk.1.ffn_down.weight"] is not None
    assert len(names) == len([name for name in hf.state_dict() if "visual" not in name])
    matrices = {name: tensor.numpy() for name, tensor in names.items() if not name.endswith("bias")}
    back = gguf.llama_weights(matrices.items(), 1, 1)
    assert back["lm_head.weight"].equal(hf.lm_head.weight)
    assert back["model.layers.0.mlp.up_proj.weight"].equal(hf.model.language_model.layers[0].mlp.up_proj.weight)
