"""A stream asked on the way: every kind that can be asked, under every policy, told from the truth; the stream as it would be unasked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.base import config
from streamingvlm.context import dialogue
from streamingvlm.evaluation.harness import questions
from streamingvlm.streaming.stream import Streamer
from streamingvlm.worlds.match import practice
from streamingvlm.worlds.match.game import Match
from streamingvlm.worlds.match.task import MATCH

CFG = config.Config({"video": VIDEO, "cache": CACHE, "stream": STREAM})
ROW = Match(5, 9).row("m", "m.mp4")


def test_times_lie_between_multiples_and_never_behind_the_end():
    assert questions.times({"start_s": 0.0, "end_s": 120.0}, 60) == [30, 90] and questions.times({"start_s": 5.0, "end_s": 12.0}, 60) == [7]
    assert questions.times({"start_s": 0.0, "end_s": 20.0}, 10, shift_s=1.0) == [10, 20]


def test_every_kind_is_asked_in_every_way_under_every_policy(vlm):
    lines = list(questions.examine(vlm, ROW, ("streaming", "overlap"), CFG, map(chunk, range(9)), [5.0]))
    for name in ("streaming", "overlap"):
        own, truth = [line for line in lines if line["policy"] == name], {question.kind: question for question in MATCH.questions(ROW, 5.0)}
        assert [(line["kind"], line["way"]) for line in own] == [(kind, way) for kind in truth for way in questions.WAYS]
        assert all(line["answer"] == truth[line["kind"]].answer and line["right"] == (line["said"] == line["answer"]) for line in own)
        assert all(line["said"] in truth[line["kind"]].options for line in own if line["way"] == "chosen")
        assert all(line["at_s"] == 5.0 and line["ttft_ms"] > 0 and line["total_ms"] >= line["ttft_ms"] for line in own)
    with pytest.raises(StopIteration):
        next(questions.examine(vlm, ROW, ("full",), CFG, iter([]), [3.0]))


def test_clips_are_asked_as_an_offline_model_is(vlm, monkeypatch):
    """The prompt is that of training but for the answer: one video, the title, the question."""
    video = practice.drawn_video(Match(5, 9), config.Video(fps=2.0, chunk_s=1.0, max_pixels=56 * 56), MATCH.labels)
    fed: list[list[int]] = []
    feed = Streamer._feed
    monkeypatch.setattr(Streamer, "_feed", lambda self, spans, vision: fed.append(dialogue.ids_of(spans)) or feed(self, spans, vision))
    lines = list(questions.on_clips(vlm, ROW, video, CFG, [(1, 4)]))
    truth = MATCH.questions(ROW, 4.0, 1.0)
    assert [(line["kind"], line["answer"]) for line in lines] == [(question.kind, question.answer) for question in truth]
    prompts = [vlm.tokenizer.decode(ids) for ids in fed if len(ids) > 1]
    assert len(prompts) == len(truth) and all(p.endswith("<|im_start|>assistant\n") and "Time=" not in p for p in prompts)
    assert all(f"{question.text}<|im_end|>" in prompt for question, prompt in zip(truth, prompts, strict=True))
    assert all(prompt.count("<|video_pad|>") == 3 * 4 and ROW["previous_text"] in prompt for prompt in prompts)


def test_a_clip_s_options_are_weighed_behind_the_same_prompt(vlm):
    video = practice.drawn_video(Match(5, 9), config.Video(fps=2.0, chunk_s=1.0, max_pixels=56 * 56), MATCH.labels)
    lines = list(questions.on_clips(vlm, ROW, video, CFG, [(1, 4)], ways=questions.WAYS))
    truth = {question.kind: question for question in MATCH.questions(ROW, 4.0, 1.0)}
    assert [(line["kind"], line["way"]) for line in lines] == [(kind, way) for kind in truth for way in ("free", "chosen")]
    assert all(line["said"] in truth[line["kind"]].options for line in lines if line["way"] == "chosen")
    found = questions.shares({"student": "base", **line} for line in lines)["clip"]["base"]
    assert found["chosen"]["asked"] == found["free"]["asked"] == len(truth) and found["free"]["chance"] == 0
    assert list(found["free"]["kinds"]) == list(truth)
    assert found["chosen"]["accuracy"] == pytest.approx(sum(found["chosen"]["kinds"].values()) / len(truth), abs=1e-3)


def test_a_model_that_knows_is_right_and_what_is_counted_adds_up(vlm, monkeypatch):
    """With the truth put into its mouth every answer counts; with anything else none does."""
    for said, accuracy in ((lambda truth: truth, 1.0), (lambda truth: truth + " left", 0.0)):
        truths = {question.text: question.answer for question in MATCH.questions(ROW, 9)}

        def answer(self, text, said=said, truths=truths, **how):
            return SimpleNamespace(text=said(truths[text]), kv_tokens=1, ms={"ttft": 1.0, "total": 2.0})

        monkeypatch.setattr("streamingvlm.streaming.stream.Streamer.ask", answer)
        cells = questions.table(questions.examine(vlm, ROW, ("streaming",), CFG, map(chunk, range(9)), [9.0]))
        assert {cell.accuracy for cell in cells} == {accuracy} and {cell.asked for cell in cells} == {1}
        assert {cell.chance for cell in cells if cell.way != "chosen"} == {0.0} and all(0 < c.chance <= 0.5 for c in cells if c.way == "chosen")
