"""The published annotation files in miniature: every benchmark reads its own, and says in one sentence which field another file lacks."""

from __future__ import annotations

import copy
import json
import re

import benchmark_files
import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation import benchmarks
from streamingvlm.evaluation.harness import reading
from streamingvlm.evaluation.harness.protocol import prompt

UNUSED = {"time", "required_ability", "video_categories", "tutorial", "all_steps", "start_time", "end_time", "start_times", "end_times", "ask_time",
          "clue_time", "video_id", "duration", "subtitle_path", "starting_timestamp_for_subtitles", "domain", "sub_category", "url", "question_id"}
OPTIONAL = {"mvbench": {"start"}, "livesports-qa": {"video", "video_start", "video_end"}, "ovo": {"answer"}}
QA = [name for name in benchmark_files.ALL if name not in ("livesports-cc", "infstreams")]


def test_there_is_a_miniature_of_every_benchmark():
    assert list(benchmarks.known()) == list(benchmark_files.ALL)


@pytest.mark.parametrize("name", benchmark_files.ALL)
def test_the_published_file_becomes_questions(name, tmp_path):
    benchmark_files.write(tmp_path, name)
    items = benchmarks.get(name).read(tmp_path)
    assert items and len({item.id for item in items}) == len(items), "an id is a question"
    assert {item.video for item in items} == set(benchmark_files.ALL[name][2]), "where a video would be, if it were there"
    for item in items:
        assert all(not re.match(r"[A-D]\. ", option) for option in item.options), "options come without letters"
        assert item.row or item.question in prompt(item)
        if item.options:
            assert f"\n{item.answer}. {item.options['ABCDE'.index(item.answer)]}" in prompt(item)


def test_what_ovo_asks_and_when(tmp_path):
    benchmark_files.write(tmp_path, "ovo")
    items = {item.id: item for item in benchmarks.get("ovo").read(tmp_path)}
    assert [(item.ask_at_s, item.answer, item.group) for item in items.values()] == [
        (3, "B", "backward"), (1.4, "B", "realtime"), (5, "A", "backward"), (2, "0", "forward"), (4, "1", "forward"), (1, "Yes", "forward"),
        (1, "No", "forward"), (4, "Yes", "forward")]
    clip = tmp_path / "chunked_videos" / "3_1.mp4"
    clip.parent.mkdir()
    clip.touch()
    clipped = {item.id: item for item in benchmarks.get("ovo").read(tmp_path)}["3_1"]
    assert (clipped.video, clipped.ask_at_s) == ("chunked_videos/3_1.mp4", None), "where only the clip is there, it is asked about at its end"


def test_mvbench_looks_between_the_start_and_the_end_unless_the_clip_was_cut(tmp_path):
    benchmark_files.write(tmp_path, "mvbench")
    (item,) = benchmarks.get("mvbench").read(tmp_path)
    assert (item.start_s, item.ask_at_s, item.answer) == (1, 3, "B")
    cut = tmp_path / "video" / "star" / "Charades_segment" / "x.mp4"
    cut.parent.mkdir(parents=True)
    cut.touch()
    (item,) = benchmarks.get("mvbench").read(tmp_path)
    assert (item.start_s, item.ask_at_s) == (0, None)


def test_questions_in_a_row_tell_what_was_asked_before(tmp_path):
    benchmark_files.write(tmp_path, "streamingbench-sqa")
    first, second = benchmarks.get("streamingbench-sqa").read(tmp_path)
    assert first.context == "" and "How many?" in second.context and second.context.endswith("2"), "with the right answer, as published"


def fields(value: object, path: tuple = ()):
    """The place of every field of nested entries."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(key, str):
            yield (*path, key)
        yield from fields(inner, (*path, key))


@pytest.mark.parametrize("name", QA)
def test_a_field_that_is_missing_is_named_in_one_sentence(name, tmp_path):
    entries = benchmark_files.ALL[name][1]()
    wanted = [place for place in fields(entries) if place[-1] not in UNUSED | OPTIONAL.get(name, set())]
    assert wanted
    for place in wanted:
        broken = copy.deepcopy(entries)
        inner = broken
        for key in place[:-1]:
            inner = inner[key]
        del inner[place[-1]]
        benchmark_files.write(tmp_path, name, broken)
        with pytest.raises(UserError, match=rf"entry \d+: the field `{place[-1]}` is missing; name the folder") as error:
            benchmarks.get(name).read(tmp_path)
        assert str(error.value).count(". ") == 0


@pytest.mark.parametrize(("content", "complaint"), [
    ("[", "cannot be read as json"), ("{}", "must be a list of objects"), ("[]", "must be a list"), ("[1]", "must be a list of objects"),
    (json.dumps([{"id": 1, "task": "XYZ", "video": "a"}]), "`task` must be one of EPM"),
    (json.dumps([{"id": 1, "task": "EPM", "video": "a", "question": "q", "options": ["x", "y"], "gt": 2}]), "`gt` must be a whole number below 2"),
    (json.dumps([{"id": 1, "task": "EPM", "video": "a", "question": "q", "options": "xy", "gt": 1}]), "`options` must be a list of options")])
def test_a_file_that_is_not_the_published_one(content, complaint, tmp_path):
    (tmp_path / "ovo_bench_new.json").write_text(content)
    with pytest.raises(UserError, match=complaint):
        benchmarks.get("ovo").read(tmp_path)


def test_a_folder_without_the_file(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        for name in benchmark_files.ALL:
            with pytest.raises(UserError, match="with --data"):
                benchmarks.get(name).read(folder)


def test_parquet_is_read_too(tmp_path):
    import pandas as pd

    rows = [{**row, **{f"option{k}": text for k, text in enumerate([*row.pop("candidates"), "N/A"])}} for row in benchmark_files.longvideobench()]
    pd.DataFrame(rows).to_parquet(tmp_path / "validation-00000.parquet")
    (item,) = benchmarks.get("longvideobench").read(tmp_path)
    assert item.options == ("red", "green") and item.answer == "B"
    (tmp_path / "videomme").mkdir()
    pd.DataFrame(benchmark_files.videomme()).to_parquet(tmp_path / "videomme" / "test-00000-of-00001.parquet")
    assert benchmarks.get("videomme").read(tmp_path)[0].options[2] == "blue"


@pytest.mark.parametrize(("options", "bare"), [(["A. x", "B. y"], ("x", "y")), (["(A) x", "(B) y"], ("x", "y")), (["A. x", "C. y"], ("A. x", "C. y")),
                                               (["A man", "B road"], ("A man", "B road")), (["A: x", "B: y"], ("x", "y"))])
def test_letters_are_taken_off_where_every_option_has_its_own(options, bare):
    assert reading.unlettered(options) == bare


def test_options_that_were_cut_into_pieces_are_joined_again():
    cut = ["A. one", "", "B. two", "half a sentence", "C. three", "D. four", "D. four again"]
    assert reading.unlettered(reading.rejoined(cut)) == ("one", "two, half a sentence", "three", "four, D. four again")
    assert reading.unlettered(reading.rejoined(["A. one", "C. three", "B. two"])) == ("one", "two", "three"), "in the order of their letters"
    assert reading.rejoined(["one", "A. two"]) == ["one", "A. two"], "where there are no letters nothing is known"


def test_an_unknown_benchmark():
    with pytest.raises(UserError, match=r"no benchmark `ovo2` \(did you mean `ovo`\?\)"):
        benchmarks.get("ovo2")
