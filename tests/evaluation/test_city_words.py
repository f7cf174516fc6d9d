"""What a commentary of the city is worth: whoever says the truth has everything, each slip costs what it should, quarters are parts of the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.records import Comment
from streamingvlm.evaluation import city_words
from streamingvlm.streaming.commentator import Commentator
from streamingvlm.training.city_words import train
from streamingvlm.training.city_words.towns import town
from streamingvlm.worlds.city import sentences
from streamingvlm.worlds.city.sentences import SHIRTS, TROUSERS, VERBS, WHERE, Said, Wrong

FALL = st.builds(Wrong, st.just("fall"), st.sampled_from(WHERE), st.tuples(st.sampled_from(SHIRTS), st.sampled_from(TROUSERS)))
WRONGS = st.lists(st.one_of(FALL, st.builds(Wrong, st.just("pavement"), st.sampled_from(WHERE))), max_size=3)
SECOND = st.builds(lambda people, verb, wrongs: Said(people, verb if people else "empty", tuple(wrongs)),
                   st.integers(0, 9), st.sampled_from(list(VERBS)), WRONGS)
SHARES = ("exact", "local_exact", "local_where", "recall", "who")


@given(st.lists(SECOND, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_truth_is_worth_everything_and_silence_what_is_empty(true):
    full, none = city_words.tally(true, true), city_words.tally([Said()] * len(true), true)
    assert all(full[name] in (1.0, None) for name in SHARES) and full["false"] in (0.0, None)
    assert all(none[name] in (0.0, None) for name in ("local_exact", "local_where", "recall")) and none["false"] in (0.0, None)
    assert none["exact"] == sum(one == Said() for one in true) / len(true)
    assert full["local_seconds"] == sum(bool(one.wrongs) for one in true)


def test_each_slip_costs_what_it_should():
    true = Said(2, "walk", (Wrong("fall", "left", ("red", "blue"), "middle"), Wrong("pavement", "right")))
    fall, car = true.wrongs

    def worth(*wrongs, **who) -> dict:
        return city_words.tally([replace(true, wrongs=wrongs, **who)], [true])

    assert worth(car, replace(fall, where="middle", or_where=None))["exact"] == 1.0
    other = worth(replace(fall, look=("red", "black")), car)
    assert (other["local_exact"], other["local_where"], other["recall"], other["by_kind"]) == (0.0, 1.0, 0.5, {"fall": 0.0, "pavement": 1.0})
    assert worth(fall, replace(car, where="middle"))["local_where"] == 0.0
    assert worth(fall, car, replace(car))["local_exact"] == 0.0, "more than there is"
    assert (worth(fall, car, people=3)["exact"], worth(fall, car, people=3)["local_exact"]) == (0.0, 1.0)
    assert city_words.tally([Said(0, "empty", (car,)), Said()], [Said(), Said()])["false"] == 0.5


class Knowing:
    """A commentator that says the truth of a city in its first seconds, and nothing later."""

    def __init__(self, city, until):
        self.city, self.until, self.settings, self.notes = city, until, train.STREAMED, []

    def say(self, chunks):
        out = {}
        for stream, chunk in chunks.items():
            self.notes.append(chunk.note)
            assert chunk.frames.shape == (2, 96, 96, 3)
            words = " ".join(sentences.say(sentences.second(self.city.truth, int(stream[-1]), chunk.index))) if chunk.index < self.until else ""
            out[stream] = Comment(stream, "streaming", chunk.index, chunk.start_s, chunk.end_s, words, 3, 50 + chunk.index, 0, {}, 0.0)
        return out

    def leave(self, stream):
        pass


def test_a_commentary_that_decays_shows_it_in_its_quarters():
    city = town(603, cameras=2)
    out = city_words.assess(Knowing(city, 6), [city])
    first, second, _, last = (out["quarters"][k]["exact"] for k in "1234")
    assert first == second == 1.0 and last < 0.9 and 0.4 < out["exact"] < 1
    assert out["kv_tokens"] == {"second_quarter": 55, "last_quarter": 61} and (out["streams"], out["seconds"]) == (2, 24)
    assert city_words.assess(Knowing(city, 12), [city], cameras=[1])["recall"] == 1.0


def test_with_eyes_each_camera_is_noted_by_its_own_name(monkeypatch):
    city = town(603, cameras=2, frames=32)
    monkeypatch.setattr(city_words, "notes", lambda eyes, city: iter([["one", "9 people meet"]] * 4))
    knowing = Knowing(city, 4)
    out = city_words.assess(knowing, [city], [1], eyes=object())
    assert out["exact"] == 1.0 and out["notes"]["exact"] == 0.0 and "notes" not in city_words.assess(knowing, [city], [0, 1])
    assert knowing.notes == ["9 people meet"] * 4 + [""] * 8


def test_the_command_prints_numbers_of_a_folder(tmp_path, capsys, monkeypatch):
    vlm = train.build()
    vlm.save(tmp_path)
    train.STREAMED.write(tmp_path)
    monkeypatch.setattr("sys.argv", ["city_words", str(tmp_path), "--cities", "1", "--cameras", "2", "--frames", "32", "--eyes", ""])
    monkeypatch.setattr(city_words, "milliseconds", lambda commentator, streams: {"p50": 1.0})
    city_words.main()
    out = json.loads(capsys.readouterr().out)
    assert out["seconds"] == 8 and out["ms"].keys() == {"1", "8"}


@pytest.mark.parametrize("streams", [1, 3])
def test_time_is_taken_of_all_streams_together(streams):
    counted = []
    commentator = Commentator(train.build(), train.STREAMED)
    told = SimpleNamespace(settings=train.STREAMED, leave=commentator.leave, say=lambda chunks: counted.append(len(chunks)))
    assert city_words.milliseconds(told, streams, seconds=2).keys() == {"p50", "p95", "p99"} and counted == [streams] * 10
