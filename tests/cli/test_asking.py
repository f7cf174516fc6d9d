"""Asked from the command: at a time that was named, by a line typed into a terminal or a page. The commentary is what it is without."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from browser import FOUND, NONE, Browser
from helpers import CACHE, STREAM, VIDEO, chunk, one_sentence

from streamingvlm.base import config
from streamingvlm.base.records import Answer
from streamingvlm.cli import asking, browser_view, main, run_command
from streamingvlm.cli.typed_line import TypedLine
from streamingvlm.context import policy
from streamingvlm.media import file_index
from streamingvlm.media.clock import Clock
from streamingvlm.streaming import captions
from streamingvlm.streaming.stream import Streamer


@pytest.mark.parametrize(("words", "at_s"), [("0:07:30 who?", 450), ("00:07:30.5 who?", 450.5), ("90:00 who?", 5400), ("12 who?", 12),
                                              (" 1.25\twho?", 1.25)])
def test_a_time_is_read_as_it_is_written(words, at_s):
    assert asking.due(words, "--ask") == asking.Due(at_s, "who?") and asking.due(words, "--tell") == asking.Due(at_s, "who?", wish=True)


def test_a_bad_time_is_one_sentence_and_nothing_is_written(film, model, capfd):
    for words in ("who?", "0:7:30 who?", "0:07:61 who?", "12", "-3 who?", "1:00:00:00 who?", ""):
        for option in ("--ask", "--tell"):
            assert main.main(["run", str(film), "--model", model, f"{option}={words}"]) == 2
            said = one_sentence(capfd.readouterr().err)
            assert f"{option} \"{words}\"" in said and "0:07:30" in said and not list(Path.cwd().iterdir())


def test_asked_at_given_times_and_told_the_commentary_stays(film, model, capfd):
    assert main.main(["run", str(film), "--model", model, "--out", "plain"]) == 0
    plain = capfd.readouterr().out.splitlines()
    assert main.main(["run", str(film), "--model", model, "--out", "asked", "--ask", "2 <b> who --> plays?", "--ask", "0:00:00 first?",
                      "--ask", "1:00:00 too late?", "--tell", "90:00 only goals"]) == 0
    shown = capfd.readouterr()
    lines = captions.read(Path("asked.jsonl"))
    answers, comments = [line for line in lines if "question" in line], [line for line in lines if "chunk" in line]
    assert [(line["at_s"], line["question"]) for line in answers] == [(0.0, "first?"), (2.0, "<b> who --> plays?"), (3.0, "too late?")]
    assert [lines.index(line) for line in answers] == [0, 3, 5] and all(line["ms"]["total"] >= line["ms"]["ttft"] > 0 for line in answers)
    untimed = [{key: line[key] for key in line if key not in {"ms", "memory_mb"}} for line in comments]
    assert untimed == [{key: line[key] for key in line if key not in {"ms", "memory_mb"}} for line in captions.read(Path("plain.jsonl"))]
    blocks = Path("asked.vtt").read_text().split("\n\n")
    assert [block for block in blocks if not block.startswith("NOTE")] == Path("plain.vtt").read_text().split("\n\n")
    assert any(block.startswith("NOTE 00:00:02.000 &lt;b&gt; who --&gt; plays?\n") for block in blocks)
    assert [line for line in shown.out.splitlines() if line in plain] == plain and "first?  > " in shown.out
    assert "3 answers in" in shown.err and "asked now" in shown.err and "too late to be told" in shown.err


def test_what_is_told_reaches_the_stream(film, model, capfd, monkeypatch):
    told = []
    monkeypatch.setattr(Streamer, "tell", lambda self, wish: told.append((self.now_s, wish)))
    assert main.main(["run", str(film), "--model", model, "--tell", "0:01 only goals"]) == 0
    assert told == [(1.0, "only goals")] and "told: only goals" in capfd.readouterr().err


def test_a_typed_line_is_asked_while_the_next_frame_is_waited_for(vlm):
    s = Streamer(vlm, policy.get("streaming"), CACHE, VIDEO, STREAM)
    shown: list[Answer] = []
    asker = asking.Asker(s, "a", shown.append)
    for line in ("  who plays? ", "", "/tell only goals"):
        asker.typed.put(line)
    Clock(20, sleep=asker.wait).wait(1e-9)
    asker.wait(5.0)  # would be long, were nothing typed
    said = list(asker.beside((s.step("a", chunk(k)) for k in range(2)), []))
    assert [one.question for one in shown] == ["who plays?"] and said[0] is shown[0] and len(said) == 3 and s.wish == "only goals"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there; python -m pytest tests/cli/test_asking.py on another system")
def test_keys_become_lines_and_the_terminal_is_as_it_was():
    import termios

    ours, theirs = os.openpty()
    before, lines = termios.tcgetattr(theirs), asking.queue.SimpleQueue()
    with TypedLine(theirs, lines.put) as typing:
        assert typing.active
        os.write(ours, b"whx\x7fo \x1b[Aplays?\n")
        assert lines.get(timeout=10) == "who plays?"
        os.write(ours, "wrong\x15é?\n".encode())
        assert lines.get(timeout=10) == "é?"
    assert termios.tcgetattr(theirs) == before
    with TypedLine(-1, lines.put) as typing:
        assert not typing.active


def job(film: Path) -> run_command.Job:
    info, cfg = file_index.scan(film).info, config.Config({"video": VIDEO})
    return run_command.Job(film, info, cfg, policy.get("streaming"), "none", Path("a.vtt"), Path("a.jsonl"), None)


def post(url: str, text: bytes, **headers: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, text, headers), timeout=10) as answer:
        return answer.status


@pytest.mark.skipif(FOUND is None, reason=NONE)
def test_what_is_typed_into_the_page_is_asked(film, tmp_path):
    with browser_view.Browser(job(film), opens=False) as shown, Browser(tmp_path / "chromium") as page:
        page.open(shown.url)
        page.until("document.querySelector('#title')?.textContent === 'film.mp4'")
        page("document.querySelector('#question').value = ' who plays? '; document.querySelector('#ask').requestSubmit()")
        assert shown.typed.get(timeout=20) == "who plays?"
        shown.answer(Answer("a", "streaming", 2.0, "<i>who plays?", "<b>lions", 3, 100, {"total": 12.3}, {}))
        page.until("document.querySelector('li.answer')?.textContent.includes('<i>who plays?<b>lions (12 ms)')")
        assert not page.complaints


def test_the_page_asks_and_shows_the_answer(film):
    with browser_view.Browser(job(film), opens=False) as shown:
        assert post(f"{shown.url}ask", "who plays, é?".encode()) == 204 and shown.typed.get(timeout=10) == "who plays, é?"
        elsewhere = {"Origin": "http://example.org"}
        for path, text, headers in (("ask", b"", {}), ("ask", b"x" * 5000, {}), ("ask", b"who?", elsewhere), ("tell", b"x", {})):
            with pytest.raises(urllib.error.HTTPError, match=r"40[04]"):
                post(shown.url + path, text, **headers)
        shown.answer(Answer("a", "streaming", 2.0, "who plays?", "lions - bears", 3, 100, {"total": 12.3}, {}))
        assert shown.typed.empty() and json.loads(shown.log[-1].decode().split("data: ")[1])["text"] == "lions - bears"
