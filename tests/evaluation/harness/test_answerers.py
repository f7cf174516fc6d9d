"""What a question is answered from: never a frame from behind it, the video once, and for the baseline its last four frames alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import video_files
from helpers import CACHE, STREAM

from streamingvlm.base import config
from streamingvlm.context import policy
from streamingvlm.evaluation.harness import answerers
from streamingvlm.evaluation.harness.answerers import LastFrames, Streamed

FPS = 4
CFG = config.Config({"video": config.Video(fps=2.0, chunk_s=1.0, max_pixels=64 * 64), "cache": CACHE, "stream": STREAM})


class Recorder:
    """In a streamer's place: which frames it was shown since it started."""

    def __init__(self, *args):
        self.starts, self.seen = 0, []

    def start(self, previous="", query=None):
        self.starts, self.seen, self.told = self.starts + 1, [], (previous, query)

    def step(self, name, chunk):
        self.seen.append([video_files.number(frame) for frame in chunk.frames])
        return SimpleNamespace(text=f"said {chunk.index}", chunk=chunk.index)

    def ask(self, prompt, options=(), constrained=""):
        self.offered = options
        return SimpleNamespace(text=options[-1].strip() if options else json.dumps(self.seen))


@pytest.fixture
def film(tmp_path) -> Path:
    """5.5 s, so that the last chunk is half a one; frame k is on display from k / 4 s on."""
    return video_files.make(tmp_path / "film.mp4", frames=22, fps=FPS, size=(64, 64))


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(answerers, "Streamer", lambda *args: found)
    return found


def seen(stream: Streamed, film: Path, at_s: float | None, start_s: float = 0.0) -> list[list[int]]:
    return json.loads(stream.answer(film, start_s, at_s, "?", ()))


def test_a_stream_has_seen_every_whole_chunk_before_the_question_and_nothing_behind(film, recorder):
    stream = Streamed(None, policy.get("streaming"), CFG)
    assert seen(stream, film, 2.0) == [[0, 2], [4, 6]] and seen(stream, film, 3.9) == [[0, 2], [4, 6], [8, 10]]
    assert seen(stream, film, 3.9) == [[0, 2], [4, 6], [8, 10]], "asked twice in one second"
    assert seen(stream, film, 5.0)[-1] == [16, 18] and len(seen(stream, film, None)) == 6 and recorder.starts == 1, "once through the video"
    assert len(seen(stream, film, 1.0)) == 1 and recorder.starts == 2, "back in time there is only the beginning"


def test_a_question_in_the_first_chunk_sees_it_cut_there(film, recorder):
    stream = Streamed(None, policy.get("streaming"), CFG)
    assert seen(stream, film, 0.6) == [[0, 2]] and seen(stream, film, 0.4) == [[0, 1]] and seen(stream, film, 0.0) == [[0, 0]]
    assert seen(stream, film, 1.0) == [[0, 2]], "and is no beginning for the next"


def test_a_stretch_that_begins_later_is_another_stream(film, recorder):
    stream = Streamed(None, policy.get("streaming"), CFG)
    seen(stream, film, 1.0)
    assert seen(stream, film, 4.0, start_s=2.0) == [[8, 10], [12, 14]] and recorder.starts == 2


def test_commentary_has_the_times_of_the_video(film, recorder):
    row = {"start_s": 2.0, "end_s": 4.0, "previous_text": "before", "query": "comment"}
    said = json.loads(Streamed(None, policy.get("streaming"), CFG).commentary(film, row))
    assert said == [[2.0, 3.0, "said 0"], [3.0, 4.0, "said 1"]] and recorder.told == ("before", "comment") and recorder.seen == [[8, 10], [12, 14]]


@pytest.mark.parametrize(("at_s", "frames"), [
    (4.0, [8, 10, 12, 14]), (None, [14, 16, 18, 20]), (1.0, [0, 2, 3, 3]), (0.0, [0, 0, 0, 0]), (7.0, [14, 16, 18, 20])])
def test_the_baseline_sees_the_last_four_frames_and_the_question(at_s, frames, film, recorder):
    last = LastFrames(None, CFG)
    assert last.answer(film, 0.0, at_s, "who?", ()) == "said 0"
    assert recorder.told == ("", "who?") and recorder.seen == [frames]


def test_by_letters_the_answer_is_one_and_equal_options_are_told_apart(film, recorder, monkeypatch):
    monkeypatch.setattr(answerers, "_silence", lambda streamer: None)
    for way in (Streamed(None, policy.get("streaming"), CFG, letters=True), LastFrames(None, CFG, letters=True)):
        assert way.answer(film, 0.0, 2.0, "who?", ("red", "blue", "red ")) == "C" and len(set(recorder.offered)) == 3
        assert way.answer(film, 0.0, 2.0, "now?", ("Yes", "No")) == "No"
    assert recorder.told == ("", ""), "the baseline's question comes behind its frames, as the stream's does"


def test_by_letters_a_model_answers_with_an_option(film, vlm):
    for way in (Streamed(vlm, policy.get("streaming"), CFG, letters=True), LastFrames(vlm, CFG, letters=True)):
        assert way.answer(film, 0.0, 2.0, "who?", ("lions", "bears", "hits")) in "ABC"


def test_a_silent_stream_says_nothing_and_can_be_asked(film, vlm):
    silent = Streamed(vlm, policy.get("streaming"), CFG, silent=True)
    assert [text for _, _, text in json.loads(silent.commentary(film, {"start_s": 0, "end_s": 3, "previous_text": "", "query": ""}))] == [""] * 3
    talking = Streamed(vlm, policy.get("streaming"), CFG)
    assert any(text for _, _, text in json.loads(talking.commentary(film, {"start_s": 0, "end_s": 3, "previous_text": "", "query": ""})))
    assert isinstance(silent.answer(film, 0.0, 2.0, "who?", ()), str)
