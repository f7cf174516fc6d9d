"""The quick output layer says the words that the whole one says."""

from __future__ import annotations

import copy
import dataclasses

import torch
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.context import policy
from streamingvlm.models.qwen25 import loading
from streamingvlm.models.qwen25.head import BEST, PAYS, QuickHead
from streamingvlm.models.qwen25.vlm import VLM, Prefill
from streamingvlm.streaming.stream import Streamer


def test_the_best_are_exact_and_the_rest_nearly():
    torch.manual_seed(0)
    whole = torch.nn.Linear(64, 4000)
    x = torch.randn(5, 64)
    exact, quick = whole(x), QuickHead(whole)(x)
    best = exact.topk(10, -1).indices
    assert torch.equal(quick.argmax(-1), exact.argmax(-1))
    torch.testing.assert_close(quick.gather(-1, best), exact.gather(-1, best), rtol=0, atol=1e-5)
    assert (quick - exact).abs().max() < 0.05 * exact.abs().max()
    assert (quick != exact).float().mean() > 0.5, "most of it was never read whole"


def test_a_vocabulary_smaller_than_the_best_is_all_exact():
    whole = torch.nn.Linear(16, BEST // 2, bias=False)
    x = torch.randn(2, 16)
    torch.testing.assert_close(QuickHead(whole)(x), whole(x), rtol=0, atol=1e-5)


def test_a_stream_says_the_same_and_is_saved_as_it_was(vlm, tmp_path):
    vlm.save(tmp_path)
    quick = loading.load(tmp_path, torch.device("cpu"), weights="quick")
    assert quick.quick is not None and quick.hf.state_dict().keys() == vlm.hf.state_dict().keys()
    said = []
    for model in (VLM(vlm.hf, vlm.tokenizer), quick):
        streamer = Streamer(model, policy.get("streaming"), CACHE, VIDEO, dataclasses.replace(STREAM, max_new_tokens=4))
        streamer.start("left lions right bears")
        said.append([streamer.step("test", chunk(k)).text for k in range(6)])
    assert said[0] == said[1]


def test_auto_is_quick_where_the_vocabulary_is_large_and_half_is_float16_behind_a_quick_head(vlm):
    small, large, half = (VLM(copy.deepcopy(vlm.hf), vlm.tokenizer) for _ in range(3))
    small.lighten("auto")
    assert vlm.hf.lm_head.out_features < PAYS and small.quick is None
    large.hf.lm_head = torch.nn.Linear(vlm.hf.lm_head.in_features, PAYS, bias=False)
    large.lighten("auto")
    half.lighten("half")
    assert large.quick is not None and half.quick is not None
    x, feed = vlm.embed([5, 6, 7]), torch.arange(3.0).expand(3, -1)
    exact, rounded = (model.forward([Prefill(x, feed, model.new_cache())])[0] for model in (vlm, half))
    assert 0 < (exact - rounded).abs().max() < 0.01 * exact.abs().max()
