"""Documents and clips: how they read, what of them is learned, and that one block of many seconds holds the tokens of each."""

from __future__ import annotations

import numpy as np
import torch
from helpers import VIDEO

from streamingvlm.context.dialogue import Dialogue, ids_of
from streamingvlm.training import loop, offline, windowing
from streamingvlm.worlds.match import clips, game, practice

ASKED = [("what happened?", "goal left lions 1 - 0"), ("who plays?", "lions - bears")]


def lesson():
    return practice.drawn_video(game.Match(3, 8), VIDEO, game.EVENTS)


def test_a_clip_reads_as_an_offline_vlm_is_instructed_and_only_answers_are_learned(vlm):
    talk, video = Dialogue(vlm.tokenizer, 2), lesson()
    spans = offline.clip(talk, video, 2, 5, "teams left lions right bears 0 - 0", ASKED)
    pads = 3 * 4
    assert vlm.tokenizer.decode(ids_of(spans)) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>" + "<|video_pad|>" * pads + "<|vision_end|>"
        " teams left lions right bears 0 - 0 what happened?<|im_end|>\n<|im_start|>assistant\n goal left lions 1 - 0<|im_end|>"
        "\n<|im_start|>user\n who plays?<|im_end|>\n<|im_start|>assistant\n lions - bears<|im_end|>")
    batch = windowing.collate(talk, [(video, spans)])
    assert vlm.tokenizer.decode(batch.labels[batch.labels != -100]) == " goal left lions 1 - 0<|im_end|> lions - bears<|im_end|>"
    assert batch.events.tolist() == video.labels[2:5] and batch.sizes.tolist() == [4, 4, 4]


def test_a_block_of_many_seconds_holds_the_vision_tokens_of_each(vlm):
    talk, video = Dialogue(vlm.tokenizer, 2), lesson()
    student = loop.CommentaryLoss(vlm.hf)
    together = windowing.collate(talk, [(video, offline.clip(talk, video, 2, 5, "", ASKED))])
    alone = windowing.collate(talk, [(video, windowing.window_spans(talk, video, 2, 5, None))])
    with torch.no_grad():
        assert torch.equal(student._seen(together), student._seen(alone))


def test_a_document_is_learned_whole_and_stands_beside_clips_in_a_batch(vlm):
    talk, video = Dialogue(vlm.tokenizer, 2), lesson()
    read, shown = offline.document(talk, video, 8), offline.clip(talk, video, 0, 2, "", ASKED)
    assert vlm.tokenizer.decode(ids_of(read)) == " " + " ".join([video.previous, *(words for words in video.words if words)])
    batch = windowing.collate(talk, [(video, read), (video, shown)])
    assert (batch.labels[0] != -100).sum() == len(ids_of(read)) and not batch.is_vision[0].any()
    student = loop.CommentaryLoss(vlm.hf, len(game.EVENTS))
    assert torch.isfinite(student(windowing.collate(talk, [(video, read)], look=False), loop.TELL)[0])
    assert torch.isfinite(student(batch)[0])


def test_what_is_written_beside_a_clip_is_true_of_it():
    video = practice.blind_video(game.Match(11, 60, lively=True), VIDEO, game.EVENTS)
    for start in (0, 7, 30):
        title, ((question, described), *asked) = clips.told(video, start, start + 6)
        before = next((s for s in (game.parse(words).score for words in reversed(video.words[:start])) if s), (0, 0))
        assert title == f"{video.previous} {before[0]} - {before[1]}" and question == clips.DESCRIBE
        assert described == " ".join(words for words in video.words[start : start + 6] if words)
        goals = sum(game.parse(words).event.startswith("goal") for words in video.words[start : start + 6])
        assert dict(asked)["how many goals so far?"] == str(goals)
    silent = next(k for k in range(60) if np.array_equal(video.words[k : k + 1], [""]))
    assert clips.told(video, silent, silent + 1)[1][0] == (clips.DESCRIBE, clips.NOTHING)
