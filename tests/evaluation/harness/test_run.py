"""Asking: each video once and in order of time, on disk at once, on again after a kill, never with other settings; what cannot be asked is named."""

from __future__ import annotations

import json

import pytest
from video_files import make

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.benchmarks import get
from streamingvlm.evaluation.harness import pairwise, run, templates
from streamingvlm.evaluation.harness.answers import Answers
from streamingvlm.evaluation.harness.protocol import COMMENTARY, YES_NO, Item, prompt
from streamingvlm.evaluation.judge import by_score, similarity_score

OVO, SETTINGS = get("ovo"), {"benchmark": "ovo", "fps": 2.0}


def question(name: str, video: str, at_s: float | None, start_s: float = 0.0) -> Item:
    return Item(name, video, at_s, f"Q{name}?", ("x", "y"), "B", "EPM", "backward", start_s=start_s)


ITEMS = [question("0", "b", 9), question("1", "a", 5), question("2", "a", None), question("3", "b", 1),
         question("4", "a", 2), question("5", "a", 3, 1.0)]


class Fake:
    """Answers B, and remembers who asked; fails where it is told to."""

    def __init__(self, fails: str = "", dies: int = 99, says=lambda prompt: "B"):
        self.asked, self.fails, self.dies, self.says = [], fails, dies, says

    def answer(self, video, start_s, ask_at_s, prompt, options):
        if video.name == self.fails and ask_at_s and ask_at_s > 2:
            raise UserError("The file is damaged.")
        if len(self.asked) == self.dies:
            raise KeyboardInterrupt
        self.asked.append((video.name, start_s, ask_at_s))
        return self.says(prompt)

    def commentary(self, video, row):
        return json.dumps([[0.0, 1.0, "one two"]])


def asked(answerer, answers, items=ITEMS, lost=None, benchmark=OVO, tmp=None):
    return [item.id for item in run.ask(benchmark, items, "stream", answerer, answers, answers.path.parent, [] if lost is None else lost, prompt)]


def test_a_video_is_watched_once_in_order_of_time(tmp_path):
    fake, answers = Fake(), Answers(tmp_path / "a.jsonl", SETTINGS, "r1")
    assert asked(fake, answers) == ["4", "1", "2", "5", "3", "0"]
    assert fake.asked == [("a", 0, 2), ("a", 0, 5), ("a", 0, None), ("a", 1, 3), ("b", 0, 1), ("b", 0, 9)]
    marks = run.marks(OVO, ITEMS, answers, "stream")
    assert [mark.id for mark in marks] == [item.id for item in ITEMS] and all(mark.own == mark.strict == 1 for mark in marks)


@pytest.mark.parametrize("torn", ["", '{"way": "stream", "id"'])
def test_a_killed_run_goes_on_where_it_was(torn, tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        asked(Fake(dies=3), Answers(path, SETTINGS, "r1"))
    with path.open("a") as file:
        file.write(torn)
    fake, answers = Fake(), Answers(path, SETTINGS, "r2")
    assert len(asked(fake, answers)) == 6 and fake.asked == [("a", 1, 3), ("b", 0, 1), ("b", 0, 9)]
    assert answers.revisions == ["r1", "r2"]
    again = Answers(path, SETTINGS, "r2")
    assert again.said == answers.said and again.revisions == ["r1", "r2"] and all(json.loads(line) for line in path.read_text().splitlines())


def test_with_other_settings_nothing_is_mixed(tmp_path):
    path = tmp_path / "a.jsonl"
    Answers(path, SETTINGS, "r1")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"was begun with fps 2\.0, not 1\.0: name another file with --out"):
        Answers(path, SETTINGS | {"fps": 1.0}, "r1")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["hello", '{"a": 1}\n', "[1]\n", "\n", b"\xff\n"])
def test_a_file_that_holds_something_else_is_left_alone(content, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    with pytest.raises(UserError, match="name another file with --out"):
        Answers(path, SETTINGS, "r1")
    assert path.read_bytes() == before


def test_a_video_that_fails_on_the_way_is_named_with_all_it_was_to_answer(tmp_path):
    lost: list = []
    answers = Answers(tmp_path / "a.jsonl", SETTINGS, "r1")
    assert len(asked(Fake(fails="a"), answers, lost=lost)) == 6
    assert [(item.id, reason) for item, reason in lost] == [(name, "failed: The file is damaged.") for name in ("1", "2", "5")]
    assert {mark.id for mark in run.marks(OVO, ITEMS, answers, "stream")} == {"0", "3", "4"}


def test_missing_short_and_broken_videos_are_found_before(tmp_path):
    make(tmp_path / "a", frames=12, fps=4, file_format="mp4")
    (tmp_path / "c").write_bytes(b"no video")
    found = run.check([question("0", "a", 2), question("1", "a", 4.5), question("2", "a", 9), question("3", "b", 1),
         question("4", "c", 1)], tmp_path)
    assert [item.id for item in found.good] == ["0", "1"]
    assert {item.id: reason.split(":")[0] for item, reason in found.lost} == {"2": "short", "3": "missing", "4": "unreadable"}


def test_polls_are_put_again_each_in_its_second_until_a_yes(tmp_path):
    polls = get("streamingbench-proactive")
    first, second = (Item(name, "a", 1.0, "Now?", (), "3", "PO", "proactive", YES_NO, context=name, closes_s=closes).at(opens, "")
                     for name, opens, closes in (("q", 1.0, 6.0), ("p", 2.0, 4.0)))
    fake = Fake(says=lambda text: "yes" if text.startswith("q\nNow?") and fake.asked[-1][2] == 3 else "no")
    answers = Answers(tmp_path / "a.jsonl", SETTINGS, "r1")
    assert asked(fake, answers, [second, first], benchmark=polls) == ["q@3output", "p@4"]
    assert [at for _, _, at in fake.asked] == [1, 2, 2, 3, 3, 3, 4], "both in one pass through the video"
    assert [turn.item.id for turn in run.turns(polls, first, answers, "stream")] == ["q@1", "q@2", "q@3", "q@3output"]
    assert [mark.own for mark in run.marks(polls, [first, second], answers, "stream")] == [1, 0, 0, 0], "said at 3, true at 2; the output is wrong"


# Commentary


def commented() -> list:
    words = [{"start_s": k, "end_s": k + 0.9, "text": f"word{k}"} for k in range(10)]
    row = {"id": "x_7", "video": "x.mp4", "start_s": 0.0, "end_s": 10.0, "words": words, "previous_text": "", "query": ""}
    return [Item("x_7", "x.mp4", None, "", (), "", "CC", "CC", COMMENTARY, row=row)]


def test_commentary_is_kept_and_judged_against_what_others_said(tmp_path):
    (item,) = commented()
    ours = json.dumps([[k, k + 1.0, f"word{k}"] for k in range(10)])
    turns = [run.Turn(item, ours)]
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(json.dumps({"video_id": "x", "event_id": 7, "begin": 0.0, "end": 10.0, "pred": "a cat"}))
    result = pairwise.compare(turns, pairwise.opponent(theirs), by_score(similarity_score()))
    assert result.win_rate == 1.0 and "Win rate 100.00% of 1 segments" in pairwise.told(result) and "0.0% of the pairs flip" in pairwise.told(result)
    theirs.write_text(json.dumps({"way": "stream", "id": "x_7", "response": ours}))
    assert pairwise.compare(turns, pairwise.opponent(theirs), by_score(similarity_score()), segment_s=5.0).count("tie") == 2
    items = [{"end_time": k + 1, "response": "a"} for k in range(6)]
    theirs.write_text(json.dumps({"video": "v/x.mp4", "chunk_start": 0, "chunk_end": 6, "items": items}))
    short = pairwise.compare(turns, pairwise.opponent(theirs), by_score(similarity_score()), segment_s=5.0)
    assert (len(short.judged), short.skipped) == (1, 1), "they did not reach the end of the second segment"
    assert pairwise.compare(turns, {}, by_score(similarity_score())).skipped == 1


def test_a_word_belongs_to_the_second_in_which_it_ends():
    (item,) = commented()
    shown = []
    ours = json.dumps([[k, k + 1.0, f"word{k}"] for k in range(10)])
    pairwise.compare([run.Turn(item, ours)], {"x_7": [(4.0, 5.0, "before"), (4.5, 5.01, "behind"), (9.0, 10.0, "last")]},
               lambda segment: shown.append(segment) or "tie", segment_s=5.0)
    assert [segment.b for segment in shown[::2]] == [("", "", "", "", "before"), ("behind", "", "", "", "last")]
    assert shown[0].a == tuple(f"word{k}" for k in range(5))


@pytest.mark.parametrize("content", ["", "[", '{"a": 1}', '{"pred": 1}'])
def test_what_is_no_commentary(content, tmp_path):
    (tmp_path / "x").write_text(content)
    with pytest.raises(UserError, match="holds no commentary"):
        pairwise.opponent(tmp_path / "x")


# Templates


def test_the_users_own_words(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Look: {question}\n{options}\n{letter}?")
    assert templates.wording(OVO, path)(ITEMS[0]) == "Look: Q0?\nA. x\nB. y\n{letter}?"
    assert templates.wording(OVO, None)(ITEMS[0]) == prompt(ITEMS[0])


def test_the_text_of_the_benchmarks_repository_is_read_and_not_run(tmp_path):
    path = tmp_path / "constant.py"
    path.write_text('BR_PROMPT_TEMPLATE = """Q {} of {}"""\nraise SystemExit\nOTHER = 3\n')
    words = templates.wording(OVO, path)
    assert words(ITEMS[0]) == "Q Q0? of A. x; B. y;"
    with pytest.raises(UserError, match=r"lacks what ovo asks with \(CRR_PROMPT_TEMPLATE\)"):
        words(Item("0", "a", 1, "Can it: Who?", (), "No", "CRR", "forward", YES_NO))


@pytest.mark.parametrize(("name", "content", "complaint"), [
    ("t.txt", "no place", r"has no \{question\}"), ("t.py", "a = (", "cannot be read as Python"), ("none.txt", None, "cannot be read as text")])
def test_a_template_that_cannot_be_used(name, content, complaint, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=complaint):
        templates.wording(OVO, tmp_path / name)
