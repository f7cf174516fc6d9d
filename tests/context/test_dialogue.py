"""The token layout, word for word, and the tokenizer beneath it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.context import dialogue
from streamingvlm.context.dialogue import Dialogue, Span, ids_of, rearrange
from streamingvlm.context.policy import Piece


def test_the_layout_is_that_of_the_released_code(words):
    talk = Dialogue(words)
    spans = talk.header(talk.encode("left lions right bears"))
    spans += talk.question(0, 0.0, 1.0, (1, 4, 4), "Commentate on this match", True) + talk.answer(0, talk.spoken("hit left lions"))
    spans += talk.question(1, 1.0, 2.0, (1, 4, 4), "", False) + talk.answer(1, talk.spoken(""))
    pads = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    assert words.decode(ids_of(spans)) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>previous text\nleft lions right bears<|im_end|>\n"
        f"<|im_start|>user\nTime=0.0-1.0s{pads}Commentate on this match<|im_end|>\n<|im_start|>assistant\n hit left lions ...<|im_end|>"
        f"\n<|im_start|>user\nTime=1.0-2.0s{pads}<|im_end|>\n<|im_start|>assistant\n ...<|im_end|>")


@given(text=st.text(max_size=60))
def test_any_text_survives_the_tokenizer(words, text):
    assert words.decode(words.encode(text, add_special_tokens=False), clean_up_tokenization_spaces=False) == text or "<|" in text


def test_known_words_and_digits_are_single_tokens(words):
    assert len(words.encode(" goal left lions 2 - 1 ...", add_special_tokens=False)) == 7
    assert len(words.encode("Time=12.0-13.0s", add_special_tokens=False)) == 7


def test_silence_is_split_off_only_where_it_was_said(words):
    talk = Dialogue(words)
    for text, said, dots in ((" hit left ...", " hit left", " ..."), (" hit left", " hit left", ""), (" ...", "", " ...")):
        answer = talk.answer(0, talk.encode(text))
        assert [talk.decode(span.ids) for span in answer[:2]] == [said, dots]


def test_positions_of_a_vision_block_spread_over_rows_and_columns(words):
    talk = Dialogue(words, time_step=2)
    spans = [Span("a", 0, (1, 1, 1)), Span(dialogue.VISION, 0, (5, *[6] * 12, 7), (2, 4, 6)), Span("b", 0, (1,))]
    t, h, w = talk.positions(spans, start=10)
    assert t.tolist() == [10, 11, 12, 13] + [14] * 6 + [16] * 6 + [17, 18]
    assert h[4:10].tolist() == [14, 14, 14, 15, 15, 15] and w[4:10].tolist() == [14, 15, 16] * 2
    assert talk.positions([], 3).shape == (3, 0)


def test_above_four_frames_a_second_slices_stand_at_fractions(words):
    """The released rule: slice x seconds a slice x tokens a second, in float32, from where the text stopped; text goes on one behind the largest."""
    for fps in (8.0, 3.0, 2.0):
        talk = Dialogue(words, 2 * 2 / fps if fps != 2 else 2)
        span = Span(dialogue.VISION, 0, tuple(range(18)), (4, 4, 4))
        t, h, w = talk.positions([span, Span(dialogue.QUERY, 0, (1, 2))], start=10)
        released = np.repeat(np.arange(4, dtype=np.float32) * np.float32(2 / fps) * 2, 4) + 11
        np.testing.assert_allclose(t[1:17], released, rtol=1e-6)
        assert h[1:17].tolist() == [11, 11, 12, 12] * 4 and w[1:17].tolist() == [11, 12] * 8
        assert t[17] == h[17] == max(t[1:17].max(), 12) + 1 and np.diff(t[17:]).tolist() == [1, 1]


def test_rearranging_moves_tokens_and_joins_neighbours_of_one_role():
    spans = [Span("p", -1, (1, 2, 3)), Span("c", -1, (4,)), Span("s", 0, (5, 6))]
    pieces = [Piece(0, 0, 1, "p", -1), Piece(0, 2, 3, "p", -1), Piece(2, 0, 2, "p", -1), Piece(1, 0, 1, "c", -1)]
    kept, index = rearrange(spans, pieces)
    assert kept == [Span("p", -1, (1, 3, 5, 6)), Span("c", -1, (4,))]
    assert index.tolist() == [0, 2, 4, 5, 3]
