"""Many live streams and one commentator: together as alone, joining and leaving at any time, saved and restored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import CACHE, STREAM, VIDEO, chunk
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue
from streamingvlm.streaming.commentator import SETTINGS, Commentator, Settings

TOLD = Settings(dataclasses.replace(VIDEO, max_pixels=56 * 56), CACHE, dataclasses.replace(STREAM, max_new_tokens=4))
SAID = ("text", "tokens", "kv_tokens", "chunk", "stream")


def line(comment) -> tuple:
    return tuple(getattr(comment, name) for name in SAID)


@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=7))
@settings(max_examples=8, deadline=None)
def test_streams_that_come_and_go_say_what_each_says_alone(vlm, present):
    """Whoever has a chunk now is in the batch; who is away waits and loses nothing."""
    together, alone, at = Commentator(vlm, TOLD), Commentator(vlm, TOLD), dict.fromkeys("abc", 0)
    for names in present:
        chunks = {name: chunk(at[name] + 20 * ord(name)) for name in sorted(names)}
        said = together.say(chunks)
        assert list(said) == list(chunks)
        for name in names:
            assert line(said[name]) == line(alone.say({name: chunks[name]})[name])
            at[name] += 1
    assert set(together.streams) == set().union(*present)


def test_who_left_begins_anew_and_others_notice_nothing(vlm):
    one, other = Commentator(vlm, TOLD), Commentator(vlm, TOLD)
    first = one.say({"a": chunk(0), "b": chunk(1)})
    other.say({"b": chunk(1)})
    one.leave("a")
    one.leave("nobody")
    again = one.say({"a": chunk(0), "b": chunk(2)})
    assert line(again["a"]) == line(first["a"]) and line(again["b"]) == line(other.say({"b": chunk(2)})["b"])


def test_a_saved_stream_goes_on_under_any_name(vlm, tmp_path):
    one, other = Commentator(vlm, TOLD), Commentator(vlm, TOLD)
    for k in range(5):
        one.say({"a": chunk(k)})
    one.save("a", tmp_path / "a.pt")
    other.restore("b", tmp_path / "a.pt")
    for k in range(5, 9):
        mine, theirs = one.say({"a": chunk(k)})["a"], other.say({"b": chunk(k)})["b"]
        assert line(mine)[:-1] == line(theirs)[:-1]
    (tmp_path / "no.pt").write_text("none")
    with pytest.raises(UserError, match="no saved stream"):
        other.restore("b", tmp_path / "no.pt")
    assert other.streams == ("b",) and other.say({"b": chunk(9)})["b"].kv_tokens > 0
    with pytest.raises(UserError, match="no stream nobody"):
        one.save("nobody", tmp_path / "x.pt")


def test_pictures_of_any_size_are_seen_as_the_model_knows_them(vlm):
    commentator = Commentator(vlm, TOLD)
    own = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    assert np.array_equal(commentator.fit("a", dataclasses.replace(chunk(0), frames=own)).frames, own)
    large = commentator.fit("a", dataclasses.replace(chunk(0), frames=own.repeat(3, 1).repeat(5, 2)))
    assert large.frames.shape == own.shape and np.abs(large.frames.astype(int) - own).mean() < 25
    for wrong in (own[0], own.astype(np.float32), own[:0], own[..., :1]):
        with pytest.raises(UserError, match="must hold frames"):
            commentator.say({"b": chunk(0), "a": dataclasses.replace(chunk(0), frames=wrong)})
    assert commentator.streams == ()


def test_a_note_reaches_only_who_heeds_it_and_leaves_with_its_round(vlm):
    deaf, heeding = Commentator(vlm, TOLD), Commentator(vlm, dataclasses.replace(TOLD, heeds_notes=True))
    for k, note in enumerate(("goal left", "", "save right")):
        noted = dataclasses.replace(chunk(k), note=note)
        assert line(deaf.say({"a": noted})["a"])[:-1] == line(deaf.say({"b": chunk(k)})["b"])[:-1]
        heeding.say({"a": noted})
        spans = heeding.streamers["a"].spans
        roles = [span.role for span in spans if span.round == k]
        assert roles[roles.index(dialogue.VISION) - 1] == (dialogue.NOTE if note else dialogue.TIME)
        noted = {span.round: vlm.tokenizer.decode(span.ids).strip() for span in spans if span.role == dialogue.NOTE}
        assert noted == {at: ("goal left", "", "save right")[at] for at in range(max(0, k - CACHE.vision_rounds + 1), k + 1) if at != 1}


def test_settings_lie_beside_the_weights(vlm, tmp_path):
    TOLD.write(tmp_path)
    assert Settings.read(tmp_path) == TOLD
    vlm.save(tmp_path)
    loaded = Commentator.load(tmp_path)
    assert line(loaded.say({"a": chunk(0)})["a"]) == line(Commentator(vlm, TOLD).say({"a": chunk(0)})["a"])
    (tmp_path / SETTINGS).write_text('{"policy": "streaming", "video": {"fps": 0}}')
    with pytest.raises(UserError, match=r"video\.fps"):
        Settings.read(tmp_path)
    for text in ("{}", "[1]", "no"):
        (tmp_path / SETTINGS).write_text(text)
        with pytest.raises(UserError, match="name the folder of a commentator"):
            Settings.read(tmp_path)
