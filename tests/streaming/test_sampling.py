"""Words drawn by chance: as transformers' `generate` draws them, by a seed, and by nobody else's chance."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import CACHE, STREAM, VIDEO, chunk
from transformers import GenerationConfig

from streamingvlm.context import policy
from streamingvlm.streaming.batching import State, run_batched
from streamingvlm.streaming.sampling import Sampler
from streamingvlm.streaming.stream import Streamer

DRAWN = dataclasses.replace(STREAM, temperature=0.9, top_k=50, repetition_penalty=1.05, seed=42)


def stream(vlm, settings=DRAWN) -> Streamer:
    streamer = Streamer(vlm, policy.get("streaming"), CACHE, VIDEO, settings)
    streamer.start("left lions right bears")
    return streamer


def said(streamer: Streamer, chunks) -> list[str]:
    return [streamer.step("test", chunk(k)).text for k in chunks]


def test_the_chances_are_those_of_transformers(vlm):
    """Of every word, after all of its processors, in its order."""
    logits, context = 3 * torch.randn(200, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 5, 5, 9])
    told = GenerationConfig(do_sample=True, temperature=0.9, top_k=50, repetition_penalty=1.05)
    theirs = vlm.hf._get_logits_processor(told, input_ids_seq_length=4)(context[None], logits[None].clone())[0].softmax(-1)
    sampler = Sampler(DRAWN, torch.device("cpu"))
    drawn = torch.tensor([sampler(State(logits, logits.clone(), lambda: -1), context) for _ in range(4000)]).bincount(minlength=200) / 4000
    assert (theirs[drawn > 0] > 0).all() and (drawn - theirs).abs().max() < 0.03


def test_a_seed_says_the_same_again_and_another_does_not(vlm):
    once, again, other = (said(stream(vlm, settings), range(4)) for settings in (DRAWN, DRAWN, dataclasses.replace(DRAWN, seed=7)))
    assert once == again != other
    assert once != said(stream(vlm, STREAM), range(4)), "greedy says something else"


def test_neither_a_question_nor_a_save_nor_a_neighbour_changes_what_is_drawn(vlm, tmp_path):
    whole = said(stream(vlm), range(6))
    asked, resumed, beside = stream(vlm), stream(vlm), [stream(vlm), stream(vlm, dataclasses.replace(DRAWN, seed=7))]
    first = said(asked, range(3))
    assert asked.ask("what is the score?").tokens
    assert first + said(asked, range(3, 6)) == whole
    said(resumed, range(3))
    resumed.save(tmp_path / "stream.pt")
    fresh = stream(vlm)
    fresh.load(tmp_path / "stream.pt")
    assert said(fresh, range(3, 6)) == whole[3:]
    assert [run_batched(vlm, [s.round_of("test", chunk(k)) for s in beside])[0].text for k in range(6)] == whole


@pytest.mark.parametrize("top_k", [0, 1])
def test_all_words_or_only_the_likeliest(top_k):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(dataclasses.replace(STREAM, temperature=5.0, top_k=top_k), torch.device("cpu"))
    drawn = {sampler(State(logits, logits.clone(), lambda: -1), torch.tensor([])) for _ in range(300)}
    assert (drawn == {int(logits.argmax())}) == (top_k == 1) and (len(drawn) > 40) == (top_k == 0)
