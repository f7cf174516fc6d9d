"""The engine's invariants on a tiny random model: streamed == cold prefill, kept == recomputed, flat from the first full window on."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue, policy
from streamingvlm.models.qwen25.decode import DecodeToken
from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.models.qwen25.vlm import Prefill
from streamingvlm.streaming import captions
from streamingvlm.streaming.batching import EncodeVision, Reserve, compute
from streamingvlm.streaming.stream import Streamer, run_batched, stream_side_by_side


def streamer(vlm, name="streaming", cache=CACHE, stream=STREAM) -> Streamer:
    s = Streamer(vlm, policy.get(name), cache, VIDEO, stream)
    s.start("left lions right bears")
    return s


def final_states(s: Streamer, chunks) -> torch.Tensor:
    """Stream and collect the last hidden state of every prefill and decode step, in order: [steps, E]."""
    states, feed = [], s._feed

    def traced(*args):
        state = yield from feed(*args)
        states.append(state.hidden)
        return state

    s._feed = traced
    for c in chunks:
        s.step("test", c)
    return torch.stack(states)


def test_streamed_equals_one_cold_prefill_by_transformers(vlm):
    """Before the first eviction, what was computed chunk by chunk is what transformers' own forward gives for the whole sequence at once."""
    s = streamer(vlm, cache=dataclasses.replace(CACHE, vision_rounds=10))
    states = final_states(s, [chunk(k) for k in range(5)])
    packed = [to_patches(chunk(k).frames) for k in range(5)]
    ids = torch.tensor([dialogue.ids_of(s.spans)[: s.kv.length]])
    grids = torch.tensor([grid for _, grid in packed])
    positions = torch.from_numpy(s.dialogue.positions(s.spans)[:, None, : s.kv.length])
    with torch.inference_mode():
        x = vlm.embed(ids[0].tolist())[None]
        seen = vlm.hf.model.visual(torch.cat([p for p, _ in packed]), grid_thw=grids).pooler_output
        mask = torch.tensor([span.grid is not None and 0 < i < len(span.ids) - 1 for span in s.spans for i in range(len(span.ids))])
        x[0, mask[: s.kv.length]] = seen
        cold = vlm.hf.model.language_model(inputs_embeds=x, position_ids=positions).last_hidden_state[0]
    torch.testing.assert_close(states[-1], cold[-1], rtol=0, atol=1e-4)


def test_positions_are_those_of_transformers(vlm):
    s = streamer(vlm, cache=dataclasses.replace(CACHE, vision_rounds=10), stream=dataclasses.replace(STREAM, max_new_tokens=1))
    for k in range(4):
        s.step("test", chunk(k, frames=4))  # two slices of time: the temporal step counts
    flat = torch.tensor([token for span in s.spans for token in span.ids])
    vision = torch.tensor([span.grid is not None and 0 < i < len(span.ids) - 1 for span in s.spans for i in range(len(span.ids))])
    flat = torch.where(~vision & (flat == s.dialogue.video_pad), s.dialogue.im_end, flat)  # a random model may say a pad
    grids = torch.tensor([span.grid for span in s.spans if span.grid])
    theirs, _ = vlm.hf.model.get_rope_index(flat[None], vision.int()[None] * 2, video_grid_thw=grids, second_per_grid_ts=torch.ones(len(grids)))
    assert torch.equal(theirs[:, 0], torch.from_numpy(s.dialogue.positions(s.spans)))


def test_what_overlap_recomputes_is_a_cold_prefill_of_what_streaming_keeps(vlm):
    """Same spans, fresh keys: `overlap` after many evictions equals a stream that only ever saw what is left."""
    s = streamer(vlm, "overlap")
    states = final_states(s, [chunk(k) for k in range(9)])
    again = streamer(vlm, "overlap")
    again.spans, again.round, again.pixels = s.spans, s.round, s.pixels
    assert torch.equal(final_states(again, [chunk(9)]), final_states(s, [chunk(9)]))
    assert torch.isfinite(states).all()


@pytest.mark.parametrize("name", sorted(policy.POLICIES))
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_cache_and_spans_agree_after_every_chunk(vlm, name, rounds):
    """For every policy and window: the keys cached are those of the spans less the tail, at the positions the spans have."""
    s = streamer(vlm, name, dataclasses.replace(CACHE, vision_rounds=rounds, restart_rounds=4))
    for k in range(9):
        s.step("test", chunk(k))
        unfed = sum(len(span.ids) for span in s.pending)
        assert s.kv.length == len(dialogue.ids_of(s.spans)) - unfed > 0
        assert dialogue.ids_of(s.pending) == dialogue.ids_of(s.spans)[s.kv.length :]
        if "growing" not in name:
            assert s.kv.positions[:, : s.kv.length].tolist() == s.dialogue.positions(s.spans)[:, : s.kv.length].tolist()
        else:
            assert (s.kv.positions[0, : s.kv.length].diff() >= 0).float().mean() > 0.8


def test_kv_is_flat_from_the_first_full_window_on(vlm):
    """Every round says as much as it may, so from the first full window to the last chunk not one token more is cached."""
    s = streamer(vlm)
    s.dialogue.stops = frozenset()
    sizes = [s.step("test", chunk(k)).kv_tokens for k in range(60)]
    clock = lambda k: len(s.dialogue.encode(f"Time={k}.0-{k + 1}.0s"))  # noqa: E731
    words = [size - sum(clock(i) for i in range(max(0, k - CACHE.vision_rounds + 1), k + 1)) for k, size in enumerate(sizes)]
    assert len(set(words[10:])) == 1
    assert s.kv.capacity == 512


def test_two_streams_do_not_touch_each_other(vlm):
    alone = [streamer(vlm).step("a", chunk(k)).text for k in range(1)]
    a, b = streamer(vlm), streamer(vlm)
    both = [(a.step("a", chunk(k)).text, b.step("b", chunk(k + 50)).text)[0] for k in range(8)]
    c = streamer(vlm)
    assert [c.step("a", chunk(k)).text for k in range(8)] == both and both[:1] == alone


def test_the_query_is_asked_once_and_stays_only_if_pinned(vlm):
    query = vlm.tokenizer.encode(STREAM.query, add_special_tokens=False)
    for pinned in (True, False):
        s = streamer(vlm, cache=dataclasses.replace(CACHE, pin_query=pinned))
        for k in range(8):
            s.step("test", chunk(k))
        held = [list(span.ids) for span in s.spans if span.role == dialogue.QUERY and span.ids]
        assert held == ([query] if pinned else [])


def test_captions_and_lines_appear_complete_or_not_at_all(vlm, tmp_path):
    vtt, jsonl = tmp_path / "a.vtt", tmp_path / "a.jsonl"
    list(captions.write_captions(streamer(vlm).stream_chunks("a", [chunk(0), chunk(1)]), vtt, jsonl))
    rows = captions.read(jsonl)
    assert [row["chunk"] for row in rows] == [0, 1] and vtt.read_text().startswith("WEBVTT\n\n")
    assert {"stream", "chunk", "start_s", "end_s", "text", "tokens", "kv_tokens", "ms"} <= rows[0].keys()
    assert rows[0]["ms"].keys() == {"read", "encode", "evict", "prefill", "decode", "total"}

    def breaks():
        yield chunk(0)
        raise UserError("the camera is gone")

    with pytest.raises(UserError):
        list(captions.write_captions(streamer(vlm).stream_chunks("b", breaks()), tmp_path / "b.vtt", tmp_path / "b.jsonl"))
    assert len(captions.read(tmp_path / "b.jsonl")) == 1, "what was said before it broke is kept"
    with pytest.raises(UserError):
        list(captions.write_captions(iter_error(), tmp_path / "c.vtt", tmp_path / "c.jsonl"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "a.vtt", "b.jsonl", "b.vtt"]
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])["stream"] == "a"


def iter_error():
    raise UserError("nothing to see")
    yield


def test_many_streams_together_equal_each_alone(vlm):
    names = ["streaming", "full", "overlap", "window"]
    alone, side_by_side = ([streamer(vlm, name) for name in names] for _ in range(2))
    for k in range(9):
        one = [s.step("test", chunk(k + 10 * i)).text for i, s in enumerate(alone)]
        many = run_batched(vlm, [s.round_of("test", chunk(k + 10 * i)) for i, s in enumerate(side_by_side)])
        assert [c.text for c in many] == one
    for a, b in zip(alone, side_by_side, strict=True):
        torch.testing.assert_close(a.kv.store[..., : a.kv.length, :], b.kv.store[..., : b.kv.length, :], rtol=0, atol=1e-4)


def test_what_many_streams_see_is_encoded_in_one_pass(vlm, monkeypatch):
    """One pass a round for all of them, retained rounds of those that look again included; what each is told is what it asked for."""
    names, passes = ["streaming", "overlap", "upstream", "upstream_recompute"], []
    monkeypatch.setattr(vlm, "encode", lambda chunks, call=vlm.encode: passes.append(len(chunks)) or call(chunks))
    streamers = [streamer(vlm, name) for name in names]
    for k in range(5):
        comments = run_batched(vlm, [s.round_of("test", chunk(k)) for s in streamers])
        assert all(c.ms["encode"] > 0 for c in comments)
    assert passes == [4, 6, 8, 8, 8]


def test_nobody_looks_or_speaks_before_the_others_are_there(vlm, monkeypatch):
    """One has a token to compute first, another has not; they look together, and are ready together."""
    grid = (1, 4, 4)
    caches, seen, prepared = [vlm.new_cache() for _ in range(2)], [], []
    monkeypatch.setattr(vlm, "encode", lambda chunks: seen.append(len(chunks)) or chunks)
    monkeypatch.setattr(vlm.decoder, "prepare", lambda caches, tokens: prepared.append((len(caches), tokens)))

    def life(i):
        for _ in range(3 * i):
            yield DecodeToken(5, caches[i].length, caches[i])
        found = yield EncodeVision([(torch.full((1,), i), grid)] * (i + 1))
        for _ in range(2 - i):
            state = yield DecodeToken(6, caches[i].length, caches[i])
        assert (yield Reserve(caches[i], 7 + i)) is None
        return [int(pixels[0]) for pixels, _ in found], len(state.hidden)

    assert run_batched(vlm, [life(0), life(1)]) == [([0], 64), ([1, 1], 64)]
    assert seen == [3] and prepared == [(2, 8)]


@pytest.mark.parametrize("name", ["streaming", "overlap"])
def test_looking_ahead_changes_no_word_and_loses_none(vlm, name, monkeypatch):
    def source(broken):
        yield from (chunk(k) for k in range(6))
        if broken:
            raise UserError("the camera is gone")

    plain = [c.line(timed=False) for c in streamer(vlm, name).stream_chunks("a", source(False))]
    begun, encoded = [], []
    monkeypatch.setattr(vlm, "encode_aside", lambda pixels, call=vlm.encode_aside: begun.append(pixels) or call(pixels))
    monkeypatch.setattr(vlm, "encode", lambda chunks, call=vlm.encode: encoded.append(len(chunks)) or call(chunks))
    assert [c.line(timed=False) for c in streamer(vlm, name).stream_chunks("a", source(False), ahead=True)] == plain and len(begun) == 5
    assert name != "streaming" or encoded == [1] * 6, "nothing is encoded twice"
    told = []
    with pytest.raises(UserError, match="the camera is gone"):
        for comment in streamer(vlm, name).stream_chunks("a", source(True), ahead=True):
            told.append(comment.line(timed=False))
    assert told == plain, "what was said before it broke comes first"


def test_ahead_reads_a_few_chunks_before_it_speaks_and_else_none(vlm):
    for ahead in (False, True):
        read, found = [], []
        source = (read.append(k) or chunk(k) for k in range(9))
        for comment in streamer(vlm).stream_chunks("a", source, ahead):
            found.append(len(read) - comment.chunk - 1)
        assert len(read) == 9 and (min(found[:-1]) >= 1 and max(found) <= 3 if ahead else set(found) == {0}), "seconds of video in memory: few"


@pytest.mark.parametrize("name", ["streaming", "overlap", "growing", "upstream"])
@pytest.mark.parametrize("refresh", ["none", "closing"])
def test_a_saved_stream_goes_on_with_identical_output(vlm, tmp_path, name, refresh):
    cache = dataclasses.replace(CACHE, refresh=refresh)
    whole = streamer(vlm, name, cache)
    for k in range(7):
        whole.step("test", chunk(k))
    whole.save(tmp_path / "stream.pt")
    resumed = Streamer(vlm, policy.get(name), cache, VIDEO, STREAM)
    resumed.load(tmp_path / "stream.pt")
    for k in range(7, 14):
        a, b = (s.step("test", chunk(k)).line(timed=False) for s in (whole, resumed))
        assert a == b
    assert torch.equal(whole.kv.store[..., : whole.kv.length, :], resumed.kv.store[..., : resumed.kv.length, :])


def test_a_stream_is_loaded_only_as_what_it_was(vlm, tmp_path):
    streamer(vlm).save(tmp_path / "a.pt")
    with pytest.raises(UserError, match="policy `streaming`"):
        streamer(vlm, "full").load(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_text("no stream")
    with pytest.raises(UserError, match="no saved stream"):
        streamer(vlm).load(tmp_path / "b.pt")


def test_refresh_encodes_what_went_stale_where_it_now_stands(vlm):
    """With the whole previous text refreshed, the cached header is that of a cold prefill of the header as it now reads."""
    s = streamer(vlm, cache=dataclasses.replace(CACHE, refresh="previous_text"))
    for k in range(10):
        s.step("test", chunk(k))
    header = [span for span in s.spans if span.round == dialogue.HEADER]
    fresh, ids = vlm.new_cache(), dialogue.ids_of(header)
    vlm.forward([Prefill(vlm.embed(ids), torch.from_numpy(s.dialogue.positions(header)), fresh)])
    torch.testing.assert_close(s.kv.store[..., : len(ids), :], fresh.store[..., : len(ids), :], rtol=0, atol=1e-4)


@torch.inference_mode()
def test_refresh_of_the_closing_tokens_touches_only_those_and_costs_no_pass(vlm):
    plain, mended = (streamer(vlm, cache=dataclasses.replace(CACHE, refresh=refresh)) for refresh in ("none", "closing"))
    for s in (plain, mended):
        s._speak = lambda state, s=s: say(s)  # the same words, so that only the refresh differs
    forwards = []
    for s in (plain, mended):
        counted = 0
        for k in range(CACHE.vision_rounds + 1):  # up to the first eviction: later words have seen what was refreshed, and differ too
            steps = s.round_of("test", chunk(k))
            request = next(steps)
            while True:
                counted += not isinstance(request, EncodeVision | Reserve)
                try:
                    request = steps.send(compute(vlm, [request])[0])
                except StopIteration:
                    break
        forwards.append(counted)
    assert forwards[0] == forwards[1]
    header = [i for span in plain.spans for i in [span.role] * len(span.ids)]
    differs = (plain.kv.store != mended.kv.store)[2, :, :, : plain.kv.length].any(dim=(0, 1, 3))
    first = header.index(dialogue.PREVIOUS_CLOSE)
    assert not differs[:first].any() and differs[first : first + 2].all()


def say(s: Streamer):
    answer = s.dialogue.answer(s.round, s.dialogue.spoken("hit left lions"))
    yield from s._feed(answer[:2], {})
    s.spans += answer
    s.pending = answer[2:]
    return list(dialogue.ids_of(answer[:2]))


def test_streams_side_by_side_say_what_each_says_alone(vlm):
    names = ("streaming", "full", "overlap", "window", "no_text")
    chunks = [chunk(k) for k in range(9)]
    alone = [[c.line(timed=False) for c in streamer(vlm, name).stream_chunks("a", chunks)] for name in names]
    together = list(stream_side_by_side([streamer(vlm, name) for name in names], "a", chunks))
    assert [[c.line(timed=False) for c in own] for own in zip(*together, strict=True)] == alone
