"""Published layouts -> stream rows, a malformed line named by file, line and field, and broken videos listed while the good ones go on."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import picture

from streamingvlm.base.errors import UserError
from streamingvlm.data import stream_rows
from streamingvlm.data.formats import InfStreamsTrain, inf_streams_eval, live_sports_cc
from streamingvlm.media import integrity, writer
from streamingvlm.media.integrity import check
from streamingvlm.worlds.match.game import Match, parse

DATA = Path(__file__).resolve().parents[1] / "data" / "formats"
TRAIN, EVAL, SPORTS = DATA / "train_s12w24_with_seeks.jsonl", DATA / "eval_all_metadata.jsonl", DATA / "LiveSports-3K-CC.json"
CONTRACT = {"id", "video", "title", "query", "previous_text", "start_s", "end_s", "fps", "words", "frames"}
FPS = 10


def spoken(row: dict) -> str:
    return " ".join(word["text"] for word in row["words"])


def conversation(row: dict) -> str:
    """A row as a line of Inf-Streams-Train."""
    user = [{"type": "video", "video": row["video"], "video_start": row["start_s"], "video_end": row["end_s"]},
            {"type": "text", "text": row["query"], "previous": row["previous_text"], "title": row["title"], "category": "x"}]
    stream = [[word["start_s"], word["end_s"], word["text"]] for word in row["words"]]
    return json.dumps([{"role": "user", "content": user},
                       {"role": "assistant", "content": [{"type": "text_stream", "text_stream": stream}]}], ensure_ascii=False) + "\n"


def game(row: dict) -> str:
    """A row as a line of Inf-Streams-Eval."""
    return json.dumps({"video": row["video"], "title": row["title"],
                       "content": [[word["start_s"], word["end_s"], word["text"]] for word in row["words"]]}) + "\n"


def test_a_training_line_is_a_row_of_the_contract():
    rows = InfStreamsTrain(TRAIN, Path("videos"))
    assert len(rows) == 3 and all(set(row) == CONTRACT for row in rows)
    row = rows[1]
    assert row["id"] == "north_south-000001" and row["video"] == "videos/Games/north_south.mp4" and row["title"] == "North - South"
    assert row["previous_text"] == "Muñoz with the ball," and row["query"] == "Commentate on the game." and row["frames"] == []
    assert (row["start_s"], row["end_s"]) == (2.0, 6.0)
    assert row["words"][0] == {"start_s": 3.1, "end_s": 4.0, "text": "shoots!"}
    assert stream_rows.words_by_chunk(row) == ["", "shoots!", "Over", "the bar."], "words are timed by the video, chunks by the row"
    assert rows[0]["words"][0]["text"] == "Muñoz", "WhisperX puts a space before its words"
    assert len({row["id"] for row in rows}) == 3


def test_the_index_is_used_and_may_be_missing_or_the_last_line(tmp_path):
    indexed = list(InfStreamsTrain(TRAIN, Path("v")))
    assert InfStreamsTrain(TRAIN, Path("v")).seeks == DATA / "train_s12w24_seeks.jsonl"
    livecc = InfStreamsTrain(DATA / "livecc_with_seeks.jsonl", Path("v"))
    assert livecc.seeks is None and list(livecc) == indexed, "the last line is an index, not a row"
    alone = shutil.copy(TRAIN, tmp_path / "alone.jsonl")
    assert list(InfStreamsTrain(alone, Path("v"))) == indexed
    few = tmp_path / "few.json"
    few.write_text(json.dumps(json.loads((DATA / "train_s12w24_seeks.jsonl").read_text())[2:]))
    assert [row["title"] for row in InfStreamsTrain(TRAIN, Path("v"), few)] == ["East - West"], "what the index leaves out is not read"
    rows = InfStreamsTrain(TRAIN, Path("v"))
    assert rows[-1] == rows[2] == indexed[2] and rows[1:] == indexed[1:]
    with pytest.raises(IndexError):
        rows[3]


def test_only_the_line_that_is_asked_for_is_read(tmp_path):
    lines = TRAIN.read_bytes().splitlines(keepends=True)
    (tmp_path / "big_with_seeks.jsonl").write_bytes(lines[0] + b"x" * len(lines[1][:-1]) + b"\n" + lines[2])
    shutil.copy(DATA / "train_s12w24_seeks.jsonl", tmp_path / "big_seeks.jsonl")
    rows = InfStreamsTrain(tmp_path / "big_with_seeks.jsonl", Path("v"))
    assert rows[0]["title"] == "" and rows[2]["title"] == "East - West"
    with pytest.raises(UserError, match=r"big_with_seeks\.jsonl, line 2: it is not JSON"):
        rows[1]


@pytest.mark.parametrize("offset", [7, 10**9, TRAIN.stat().st_size])
def test_an_index_of_another_file_is_noticed(tmp_path, offset):
    index = tmp_path / "i.json"
    index.write_text(f"[0, {offset}]")
    with pytest.raises(UserError, match=r"i\.json does not belong to .*no line starts at byte"):
        InfStreamsTrain(TRAIN, Path("v"), index)[1]


@pytest.mark.parametrize("text", ["{}", "[0, -1]", "[0.5]", "[true]", "no", ""])
def test_an_index_must_be_a_list_of_offsets(tmp_path, text):
    index = tmp_path / "i.json"
    index.write_text(text)
    with pytest.raises(UserError, match=r"i\.json must be a JSON list of byte offsets"):
        InfStreamsTrain(TRAIN, Path("v"), index)


def test_a_whole_game_starts_where_it_is_told_to():
    first, second = inf_streams_eval(EVAL, Path("v"))
    assert set(first) == CONTRACT and (first["start_s"], first["end_s"], first["previous_text"]) == (0.0, 9.0, "")
    assert second["title"] == "" and spoken(second) == "Kick-off for West. And away."
    later = next(inf_streams_eval(EVAL, Path("v"), start_s=4.0))
    assert later["previous_text"] == "Muñoz with the ball, he shoots!", "what ended by then has been said"
    assert spoken(later) == "Over the bar. A goal kick for the South." and later["start_s"] == 4.0
    assert next(inf_streams_eval(EVAL, Path("v"), start_s=None))["start_s"] == 0.0
    assert [row["start_s"] for row in inf_streams_eval(EVAL, Path("v"), start_s=None)] == [0.0, 1.0]
    with pytest.raises(UserError, match=r"eval_all_metadata\.jsonl, line 2: `content` must be words after second 6"):
        list(inf_streams_eval(EVAL, Path("v"), start_s=6.0))


def test_the_words_of_a_sentence_share_its_time():
    words = next(inf_streams_eval(EVAL, Path("v")))["words"][:4]
    assert [word["text"] for word in words] == ["Muñoz", "with", "the", "ball,"]
    assert (words[0]["start_s"], words[-1]["end_s"]) == (0.5, 2.0)
    assert np.allclose([word["end_s"] - word["start_s"] for word in words], 0.375)
    assert all(a["end_s"] == b["start_s"] for a, b in itertools.pairwise(words))


def test_live_sports_from_json_and_from_csv():
    rows = list(live_sports_cc(SPORTS, Path("v")))
    assert rows == list(live_sports_cc(DATA / "LiveSports-3K-CC-val.csv", Path("v")))
    first, second = rows
    assert set(first) == CONTRACT and first["id"] == "north_south_2" and first["video"] == "v/north_south.mp4"
    assert (first["start_s"], first["end_s"], first["title"]) == (3.1, 9.0, "A shot over the bar")
    assert spoken(first) == "He shoots! Over the bar." and first["previous_text"] == "Munoz with the ball,"
    assert second["id"] == "east_west_0" and second["previous_text"] == "" and second["start_s"] == 0.0


def test_live_sports_without_times_or_without_a_transcript(tmp_path):
    events = json.loads(SPORTS.read_text())
    del events[0]["event_asr"], events[0]["preasr_text"], events[1]["event_asr"], events[1]["event_asr_text"]
    events[1]["video_id"] = "../b"
    (tmp_path / "e.json").write_text(json.dumps(events))
    first, second = live_sports_cc(tmp_path / "e.json", Path("v"))
    assert spoken(first) == "He shoots! Over the bar." and first["words"][0]["start_s"] == 3.1 and first["words"][-1]["end_s"] == 9.0
    assert first["previous_text"] == "Munoz with the ball," and second["words"] == [], "the test split in CSV has no transcript"
    assert second["id"] == ".._b_0", "an id becomes a file's name"


seconds = st.floats(0.001, 9000, allow_nan=False).map(lambda x: round(x, 3))
a_word = st.text("abcé'-ß!", min_size=1, max_size=6)


@given(words=st.lists(st.tuples(seconds, st.floats(0, 3).map(lambda x: round(x, 3)), a_word), min_size=1, max_size=12),
       previous=st.lists(a_word, max_size=5).map(" ".join), start_s=seconds)
@settings(max_examples=40, deadline=None)
def test_a_row_written_in_a_published_layout_comes_back(tmp_path_factory, words, previous, start_s):
    folder = tmp_path_factory.mktemp("trip")
    row = {"id": "a-000000", "video": "a.mp4", "title": "A - B", "query": "Go", "previous_text": previous, "start_s": start_s, "end_s": start_s + 7,
           "fps": 0.0, "words": [{"start_s": s, "end_s": s + d, "text": t} for s, d, t in words], "frames": []}
    (folder / "a.jsonl").write_text(conversation(row) + conversation(row | {"title": "é"}) + conversation(row), encoding="utf-8")
    rows = InfStreamsTrain(folder / "a.jsonl", Path())
    assert rows[0] == row and rows[2] == row | {"id": "a-000002"}
    whole = row | {"previous_text": "", "start_s": 0.0, "end_s": max(word["end_s"] for word in row["words"])}
    (folder / "e.jsonl").write_text(game(row), encoding="utf-8")
    assert list(inf_streams_eval(folder / "e.jsonl", Path(), 0.0, "Go")) == [whole]


def test_the_arena_can_be_told_in_the_published_layout_and_says_the_same(tmp_path):
    match = Match(5, 30)
    row = match.row("m", "m.mp4")
    (tmp_path / "m.jsonl").write_text(conversation(row))
    back = InfStreamsTrain(tmp_path / "m.jsonl", Path())[0]
    assert [parse(text).event for text in stream_rows.words_by_chunk(back)] == [second.event for second in match.timeline]


CLEAN = json.loads(TRAIN.read_text(encoding="utf-8").splitlines()[1])


def broken(*path_and_value) -> list:
    *path, value = path_and_value
    data = json.loads(json.dumps(CLEAN))
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return data


VIDEO, STREAM = (0, "content", 0), (1, "content", 0, "text_stream")


@pytest.mark.parametrize(("data", "field"), [
    ({}, "user.content"), ([], "user.content"), (CLEAN[:1], "assistant.content"), (broken(0, "content", "text"), "user.content"),
    (broken(0, "content", [3]), "user.content"), (broken(*VIDEO, "video", None), "video"), (broken(*VIDEO, "video", ""), "video"),
    (broken(*VIDEO, "video_start", "early"), "video_start"), (broken(*VIDEO, "video_start", -1), "video_end"),
    (broken(*VIDEO, "video_start", True), "video_start"), (broken(*VIDEO, "video_end", 2.0), "video_end"),
    (broken(*VIDEO, "video_end", float("nan")), "video_end"), (broken(0, "content", 1, "previous", 3.5), "previous"),
    (broken(*STREAM, None), "text_stream"), (broken(*STREAM, 2, [1.0, "word"]), r"text_stream\[2\]"),
    (broken(*STREAM, 1, [None, 1.0, "word"]), r"text_stream\[1\]"), (broken(*STREAM, 0, [0.0, float("inf"), "word"]), r"text_stream\[0\]"),
    (broken(*STREAM, 0, [0.0, 1.0, None]), r"text_stream\[0\]")])
def test_a_malformed_training_line_is_named_by_file_line_and_field(tmp_path, data, field):
    (tmp_path / "t.jsonl").write_text(json.dumps(CLEAN) + "\n" + json.dumps(data) + "\n" + json.dumps(CLEAN) + "\n")
    (tmp_path / "i.json").write_text(json.dumps([0, len(json.dumps(CLEAN)) + 1]))
    for rows in (InfStreamsTrain(tmp_path / "t.jsonl", Path()), InfStreamsTrain(tmp_path / "t.jsonl", Path(), tmp_path / "i.json")):
        with pytest.raises(UserError, match=rf"t\.jsonl, line 2: `{field}` must be ") as error:
            rows[1]
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("line", "complaint"), [
    ('{"video": "a.mp4"}', "`content` must be a list"), ('{"content": [[0, 1, "a"]]}', "`video` must be text"),
    ("[]", "`the line` must be an object"),
    ('{"video": "a.mp4", "content": [[0, 1]]}', r"`content\[0\]` must be"), ('{"video": "a.mp4", "content": []}', "`content` must be words"),
    ('{"video": "a.mp4", "content": [[0, 1, "a"]], "title": [1]}', "`title` must be text"), ("{", "it is not JSON"), ('"\xff"', "it is not JSON")])
def test_a_malformed_game_is_named_by_file_line_and_field(tmp_path, line, complaint):
    (tmp_path / "e.jsonl").write_text('{"video": "a.mp4", "content": [[0, 1, "a"]]}\n\n' + line + "\n", encoding="latin-1")
    rows = inf_streams_eval(tmp_path / "e.jsonl", Path())
    assert next(rows)["id"] == "a-000000"
    with pytest.raises(UserError, match=rf"e\.jsonl, line 3: {complaint}"):
        next(rows)


@pytest.mark.parametrize(("change", "complaint"), [
    ({"begin": None}, "entry 2: `begin` must be a number"), ({"end": 0.0}, "entry 2: `end` must be after `begin`"),
    ({"video_id": None}, "entry 2: `video_id` must be text"), ({"event_asr": "[[1, 2"}, "entry 2: `event_asr` must be a list"),
    ({"event_asr": "[[1, 2]]"}, r"entry 2: `event_asr\[0\]` must be")])
def test_a_malformed_event_is_named(tmp_path, change, complaint):
    events = json.loads(SPORTS.read_text())
    (tmp_path / "e.json").write_text(json.dumps([events[0], events[1] | change]))
    with pytest.raises(UserError, match=rf"e\.json, {complaint}"):
        list(live_sports_cc(tmp_path / "e.json", Path()))


def test_a_csv_says_its_line_and_files_that_are_none_of_these_say_so(tmp_path):
    lines = (DATA / "LiveSports-3K-CC-val.csv").read_text().splitlines()
    (tmp_path / "e.csv").write_text("\n".join([*lines[:2], lines[2].replace(",0.0,5.0,", ",soon,5.0,")]) + "\n")
    with pytest.raises(UserError, match=r"e\.csv, line 3: `begin` must be a number of seconds, not 'soon'"):
        list(live_sports_cc(tmp_path / "e.csv", Path()))
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(UserError, match="must be a JSON list of events"):
        list(live_sports_cc(tmp_path / "e.json", Path()))
    for read in (InfStreamsTrain, lambda *a: next(inf_streams_eval(*a)), lambda *a: next(live_sports_cc(*a))):
        with pytest.raises(UserError, match="There is no file"):
            read(tmp_path / "none.jsonl", Path())


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """One good video of 3 s, and everything that goes wrong with others."""
    folder = tmp_path_factory.mktemp("videos")
    writer.write_h264(folder / "good.mp4", (picture(number, 64, 48) for number in range(3 * FPS)), FPS)
    data = (folder / "good.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("<html>not found</html>\n" * 20)
    (folder / "half.mp4").write_bytes(data[: len(data) // 2])
    (folder / "folder.mp4").mkdir()
    middle = (data.index(b"mdat") + len(data)) // 2
    (folder / "damaged.mp4").write_bytes(data[:middle] + b"\xff" * (len(data) - middle))  # whole by its headers, not by its pictures
    return folder


def rows_of(*names: str) -> list[dict]:
    return [{"id": f"r{k}", "video": f"{name}.mp4", "start_s": 0.0, "end_s": 3.0, "fps": 0.0} for k, name in enumerate(names)]


def test_broken_videos_are_listed_and_the_good_ones_go_on(videos):
    rows = rows_of("good", "none", "empty", "good", "text", "half", "folder", "good")
    checked = check(rows, videos)
    assert [row["id"] for row in checked.good] == ["r0", "r3", "r7"] and all(row["fps"] == FPS for row in checked.good)
    assert checked.good[0] | {"fps": 0.0} == rows[0] and rows[0]["fps"] == 0.0, "the rest of a row stays, and the rows given stay as they are"
    assert [(f.id, f.path, f.kind) for f in checked.faults] == [
        ("r1", "none.mp4", "missing"), ("r2", "empty.mp4", "empty"), ("r4", "text.mp4", "unreadable"), ("r5", "half.mp4", "unreadable"),
        ("r6", "folder.mp4", "unreadable")]
    assert all(f.reason.endswith(".") and "\n" not in f.reason for f in checked.faults)
    assert checked.summary == "3 of 8 rows have a video to watch; left out: 1 empty, 1 missing, 3 unreadable, the first none.mp4"
    assert check(rows[:1], videos).summary == "1 of 1 rows have a video to watch" and check([], videos).good == []


def test_damage_within_shows_to_a_thorough_check(videos):
    assert not check(rows_of("damaged"), videos).faults, "its headers are whole"
    assert [f.kind for f in check(rows_of("damaged", "good"), videos, thorough=True).faults] == ["unreadable"]


def test_a_row_that_begins_after_its_video_ends_is_listed(videos):
    row = rows_of("good")[0]
    checked = check([row | {"start_s": 2.0, "end_s": 9.0}, row | {"start_s": 3.0, "end_s": 9.0}], videos)
    assert len(checked.good) == 1 and checked.faults[0].kind == "short" and "lasts 3.0 s" in checked.faults[0].reason


def test_each_file_is_opened_once(videos, monkeypatch):
    opened = []
    probe = integrity.reader.probe
    monkeypatch.setattr(integrity.reader, "probe", lambda path: opened.append(Path(path).name) or probe(path))
    check(rows_of("good", "empty", "good", "empty"), videos)
    assert opened == ["good.mp4", "empty.mp4"]
