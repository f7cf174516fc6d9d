"""The static decode step computes what the eager forward computes: for streams of any lengths, ended ones, caches that grow, evictions, any dtype."""

from __future__ import annotations

import copy
import dataclasses
import gc
import weakref

import pytest
import torch
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.context import policy
from streamingvlm.models.qwen25 import compress, decode
from streamingvlm.models.qwen25.decode import PART, Decoder, DecodeToken
from streamingvlm.models.qwen25.vlm import VLM, Prefill
from streamingvlm.streaming.stream import Streamer, run_batched

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; there: python -m pytest -n 0 tests/models/qwen25/test_decode.py")


@pytest.fixture(scope="module")
def static(vlm):
    """The same weights; words go through the static step."""
    return VLM(vlm.hf, vlm.tokenizer, "graph")


def caches(vlm: VLM, lengths) -> list:
    """A cache of each length, the same for every model of these weights."""
    made = []
    for seed, n in enumerate(lengths):
        cache = vlm.new_cache()
        x = torch.randn(n, vlm.text.hidden_size, generator=torch.Generator().manual_seed(seed)).to(vlm.device, vlm.dtype)
        vlm.forward([Prefill(x, torch.arange(n, device=vlm.device).expand(3, n), cache)])
        made.append(cache)
    return made


def words(held: list, step: int, who=None) -> list[DecodeToken]:
    """The next word of each stream, or of those named in `who`; positions run ahead of the slots, as vision makes them, in fractions too."""
    return [DecodeToken(7 * step + 13 * i + 1, held[i].length + 50.5, held[i]) for i in (range(len(held)) if who is None else who)]


def same(ours: list, theirs: list, atol: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.length == b.length and torch.equal(a.positions[:, : a.length].cpu(), b.positions[:, : b.length].cpu())
        torch.testing.assert_close(a.store[..., : a.length, :].cpu(), b.store[..., : b.length, :].cpu(), rtol=0, atol=atol, check_dtype=False)


def run(vlm: VLM, other: VLM, lengths, turns, atol: float) -> None:
    """Decode on both, step by step; `turns`: who speaks in each step."""
    eager, fixed = caches(vlm, lengths), caches(other, lengths)
    other.decoder.prepare(fixed, max(lengths) + len(turns))
    for step, who in enumerate(turns):
        assert other.decoder.ready(words(fixed, step, who)) and not vlm.decoder.ready(words(eager, step, who))
        for a, b in zip(vlm.forward(words(eager, step, who)), other.forward(words(fixed, step, who)), strict=True):
            torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=atol, check_dtype=False)
    same(eager, fixed, atol)


@pytest.mark.parametrize("lengths", [[5], [PART - 2], [3, 2 * PART + 9, PART - 1]])
def test_a_static_step_is_the_eager_step(vlm, static, lengths):
    """One stream and several, across the edge between two parts of the keys."""
    run(vlm, static, lengths, [range(len(lengths))] * 5, 1e-5)


def test_streams_that_ended_are_untouched_and_can_go_on(vlm, static):
    run(vlm, static, [3, 20, 9], [[0, 1, 2], [0, 2], [2], [2], [0, 1, 2], [2, 0]], 1e-5)


def test_bfloat16_is_the_same_to_its_rounding(vlm):
    half = [VLM(copy.deepcopy(vlm.hf).bfloat16(), vlm.tokenizer, mode) for mode in ("eager", "graph")]
    run(*half, [30, 300], [[0, 1]] * 3, 0.06)


def test_int8_weights_go_through_it(vlm):
    small = VLM(copy.deepcopy(vlm.hf), vlm.tokenizer)
    compress.quantise(small)
    run(small, VLM(small.hf, vlm.tokenizer, "graph"), [4, 30], [[0, 1]] * 3, 1e-5)


@torch.inference_mode()
def test_growth_and_evictions_between_steps(vlm, static):
    """More tokens than there was room for, then fewer: the step is recorded anew where the tensors are new, and only there."""
    both = [caches(vlm, [200, 400]), caches(static, [200, 400])]
    records = []
    for step in range(6):
        for model, held in zip((vlm, static), both, strict=True):
            for cache in held:
                if step == 3:
                    cache.keep(torch.arange(10, cache.length), torch.arange(cache.length - 10).expand(3, -1))
                if step == 1:
                    x = torch.randn(200, vlm.text.hidden_size, generator=torch.Generator().manual_seed(step))
                    model.forward([Prefill(x, torch.arange(200).expand(3, 200), cache)])
            model.decoder.prepare(held, held[1].length + 1)
            hidden = model.forward(words(held, step))
            if model is vlm:
                expected = hidden
        for a, b in zip(expected, hidden, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
        records.append(static.decoder._records[held[0].pool])
    assert len({id(record) for record in records}) == 2, "recorded at the start and after growing, never after an eviction"
    same(*both, 1e-5)


def test_what_was_not_prepared_together_takes_the_eager_path(static):
    held = caches(static, [4, 5])
    assert not static.decoder.ready(words(held, 0))
    static.decoder.prepare(held[:1], 10)
    static.decoder.prepare(held[1:], 10)
    assert static.decoder.ready(words(held, 0, [0])) and not static.decoder.ready(words(held, 0)), "two pools"
    static.decoder.prepare(held, 10)
    assert static.decoder.ready(words(held, 0))
    mixed = [*words(held, 0, [0]), Prefill(static.embed([3, 4]), torch.arange(2).expand(3, 2), held[1])]
    assert not static.decoder.ready(mixed)
    assert [len(states) for states in static.forward(mixed)] == [1, 2] and [cache.length for cache in held] == [5, 7]
    n = held[1].capacity
    static.forward([Prefill(static.embed([3] * n), torch.arange(n).expand(3, n), held[1])])
    assert not static.decoder.ready(words(held, 0)), "it grew, and nothing was prepared since"
    static.decoder.prepare(held[:1], 10)
    assert held[0].pool is not held[1].pool, "one that goes on alone does not carry the other along"


@torch.inference_mode()
def test_no_record_outlives_its_pool(vlm):
    """Without waiting for the garbage collector: a GPU's memory is at stake, and a collection in the middle of a recording breaks it."""
    decoder = Decoder(vlm.hf.model.language_model, vlm.rope, vlm.blocks, "graph")
    held = caches(vlm, [4])
    gc.disable()
    try:
        decoder.prepare(held, 10)
        decoder(words(held, 0))
        step, store = (weakref.ref(part) for part in (decoder._records[held[0].pool], held[0].pool.store))
        del held
        assert len(decoder._records) == 0 and step() is None and store() is None
    finally:
        gc.enable()


def test_a_step_is_recorded_without_gradients_whoever_asks(vlm, monkeypatch):
    """A compiler can't take a step with gradients that writes into its inputs, and a graph would record them onto the pool."""
    seen = []
    monkeypatch.setattr(decode, "GraphStep", lambda step, pool, recorder: seen.append(torch.is_inference_mode_enabled()))
    with torch.inference_mode():
        held = caches(vlm, [4])
    Decoder(vlm.hf.model.language_model, vlm.rope, vlm.blocks, "graph").prepare(held, 10)
    assert seen == [True]


@torch.inference_mode()
def test_the_compiler_takes_the_step_as_one_graph(vlm):
    """No break: otherwise `fullgraph` raises."""
    plain, held = Decoder(vlm.hf.model.language_model, vlm.rope, vlm.blocks, "graph"), caches(vlm, [4, 30])
    plain.prepare(held, 40)
    compiled = torch.compile(plain.step, backend="aot_eager", fullgraph=True)
    inputs = torch.tensor([[5, 6], [60, 70], [4, 30]])
    pool = held[0].pool
    expected = plain.step(pool.store.clone(), pool.positions.clone(), inputs)
    torch.testing.assert_close(compiled(pool.store, pool.positions, inputs), expected, rtol=0, atol=1e-5)
    assert pool.positions[:, 1, 30].tolist() == [70] * 3


def speak(vlm: VLM, names, count: int = 9) -> tuple[list[list[str]], list[Streamer]]:
    """Streams side by side, each ending its turns elsewhere -> what they said, chunk by chunk."""
    end = vlm.tokenizer.convert_tokens_to_ids("<|im_end|>")
    streamers = [Streamer(vlm, policy.get(name), dataclasses.replace(CACHE, refresh="closing"), VIDEO, STREAM,
                          lambda round, step, i=i: end if step == (round + 2 * i) % 7 else None) for i, name in enumerate(names)]
    for s in streamers:
        s.start("left lions right bears")
    said = [[c.text for c in run_batched(vlm, [s.round_of("test", chunk(k + 10 * i)) for i, s in enumerate(streamers)])] for k in range(count)]
    return said, streamers


@pytest.mark.parametrize("names", [["streaming"], ["streaming", "full", "overlap", "window", "upstream", "growing"]])
def test_streams_say_the_same_by_either_path(vlm, static, names, monkeypatch):
    said, eager = speak(vlm, names)
    steps = []
    monkeypatch.setattr(Decoder, "__call__", lambda self, words, call=Decoder.__call__: steps.append(len(words)) or call(self, words))
    same_said, fixed = speak(static, names)
    assert same_said == said and {*steps} <= {*range(1, len(names) + 1)} and len({*steps}) >= len(names) - 1, "some end before others"
    assert len({id(s.kv.pool) for s in fixed}) == 1
    same([s.kv for s in eager], [s.kv for s in fixed], 1e-4)


def test_room_is_made_once_for_windows_that_are_known(static):
    """The step is recorded in the first round and never again."""
    s = Streamer(static, policy.get("streaming"), dataclasses.replace(CACHE, vision_rounds=40), VIDEO, STREAM)
    s.start("left lions right bears")
    pools = {id(s.step("test", chunk(k)) and s.kv.pool.store) for k in range(60)}
    assert len(pools) == 1 and s.kv.capacity > 512 > PART


def test_attention_reads_the_pool_itself():
    """Keys and values of a layer are views of whole tensors; a copy would double what a step reads."""
    store = torch.randn(3, 2, 2, 2, 2 * PART, 16)
    q, slots = torch.randn(2, 4, 16), torch.tensor([3, 300])
    bias = torch.zeros(2, 1, 2 * PART).masked_fill((torch.arange(2 * PART) > slots[:, None])[:, None], float("-inf"))
    out = decode.attend(q, store[1, 1], store[2, 1], bias)
    for b in range(2):
        n = int(slots[b]) + 1
        k, v = (part.repeat_interleave(2, 0) for part in (store[1, 1, b, :, :n], store[2, 1, b, :, :n]))  # [H, n, D]
        expected = torch.nn.functional.scaled_dot_product_attention(q[b, :, None], k, v)[:, 0].flatten()
        torch.testing.assert_close(out[b], expected, rtol=0, atol=1e-5)


@GPU
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("mode", ["graph", "compile"])
def test_a_recorded_graph_is_the_eager_step_on_a_gpu(vlm, kind, mode):
    hf = copy.deepcopy(vlm.hf).cuda()
    hf = hf if kind == "float32" else hf.bfloat16()
    eager = VLM(hf, vlm.tokenizer, "eager")
    if kind == "int8":
        compress.quantise(eager)
    run(eager, VLM(hf, vlm.tokenizer, mode), [3, 300, 9], [[0, 1, 2], [0, 2], [0, 1, 2]], 1e-4 if kind == "float32" else 0.1)


@GPU
def test_streams_on_a_gpu_say_what_they_say_on_a_cpu(vlm):
    names = ["streaming", "full", "overlap", "window"]
    said, _ = speak(vlm, names)
    for mode in ("eager", "graph"):
        assert speak(VLM(copy.deepcopy(vlm.hf).cuda(), vlm.tokenizer, mode), names)[0] == said
