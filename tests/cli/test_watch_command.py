"""Watching in real time: nothing is seen before its time, a late model delays and drops nothing, and the views show and end."""

from __future__ import annotations

import base64
import io
import itertools
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from helpers import CACHE, STREAM, VIDEO, chunk, one_sentence
from PIL import Image
from rich.console import Console
from video_files import number

from streamingvlm.base import config
from streamingvlm.base.records import Comment
from streamingvlm.cli import browser_view, main, run_command, terminal_view, watch_command
from streamingvlm.cli.view import LatencyStats
from streamingvlm.context import policy
from streamingvlm.media import file_index
from streamingvlm.media.clock import Clock, paced
from streamingvlm.streaming import captions
from streamingvlm.streaming.stream import Streamer


class Wall:
    """A clock on the wall that only moves when someone sleeps or works."""

    def __init__(self):
        self.at_s = 1000.0

    def now(self) -> float:
        return self.at_s

    def work(self, seconds: float) -> None:
        self.at_s += seconds

    def clock(self, speed: float = 1.0) -> Clock:
        return Clock(speed, self.now, self.work)


def comment(k: int, text: str = "hit left", **ms: float) -> Comment:
    return Comment("s", "streaming", k, float(k), k + 1.0, text, 2, 150, 2**20, ms, 0.0)


def pace(works_s: list[float], speed: float = 1.0) -> tuple[list[tuple], list[tuple]]:
    """Watch a chunk per entry with a model that takes so long -> (chunk, handed over at, late, done at), (chunk, frame, seen at); in seconds."""
    wall, handed, seen = Wall(), [], []
    chunks = map(chunk, range(len(works_s)))
    for got, _, late_s in paced(chunks, wall.clock(speed), lambda k, j: seen.append((k, j, wall.at_s - 1000))):
        at = wall.at_s - 1000
        wall.work(works_s[got.index])
        handed.append((got.index, at, late_s, wall.at_s - 1000))
    return handed, seen


# --- the clock ---


def test_a_chunk_is_handed_over_when_its_last_frame_is_there_and_no_earlier():
    handed, seen = pace([0.1] * 5)
    assert [(k, at, late) for k, at, late, _ in handed] == [(k, pytest.approx(k + 0.5), 0) for k in range(5)]
    assert seen == [(k, j, pytest.approx(k + j / 2)) for k in range(5) for j in range(2)]
    assert [at for _, at, _, _ in pace([0.1] * 5, speed=2.0)[0]] == pytest.approx([k / 2 + 0.25 for k in range(5)])


def test_a_late_model_delays_the_next_chunk_and_nothing_is_left_out():
    handed, seen = pace([0.1, 3.0, 0.1, 0.1, 0.1, 0.1])
    assert [k for k, *_ in handed] == list(range(6)) and [(k, j) for k, j, _ in seen] == [(k, j) for k in range(6) for j in range(2)]
    assert [late for *_, late, _ in handed] == pytest.approx([0, 0, 2.0, 1.1, 0.2, 0])
    assert all(at >= k + 0.5 for k, at, _, _ in handed)
    assert all(after[1] >= before[3] for before, after in itertools.pairwise(handed))


def test_a_sleep_that_ends_too_early_is_gone_on_with():
    wall = Wall()
    clock = Clock(1.0, wall.now, lambda seconds: wall.work(seconds / 2 if seconds > 0.01 else 0.01))
    clock.start()
    assert clock.wait(4.0) == 0 and clock.since(4.0) >= 0


def test_latency_is_from_the_arrival_of_the_last_frame_to_the_text(vlm, monkeypatch):
    wall, works_s = Wall(), iter([0.2, 2.0, 0.2, 0.2])
    streamer = Streamer(vlm, policy.get("streaming"), CACHE, VIDEO, STREAM)
    step = streamer.step
    monkeypatch.setattr(streamer, "step", lambda name, chunk: (wall.work(next(works_s)), step(name, chunk))[1])
    tally = LatencyStats(VIDEO.fps, 1.0)
    said = list(tally.of(watch_command.comments(streamer, "s", map(chunk, range(4)), wall.clock(), lambda k, j: None)))
    assert [c.ms["latency"] for c in said] == pytest.approx([200, 2000, 1200, 400])
    assert [c.ms["late"] for c in said] == pytest.approx([0, 0, 1000, 200])
    assert (tally.late, tally.latest_ms) == (2, pytest.approx(1000))
    assert str(tally) == "From the last frame to the text: 800 ms (p50), 1880 ms (p95); of 4 chunks 2 had to wait, at most 1000 ms."
    fresh = Streamer(vlm, policy.get("streaming"), CACHE, VIDEO, STREAM)
    assert [c.text for c in said] == [c.text for c in fresh.stream_chunks("s", map(chunk, range(4)))], "a clock must not change what is said"


def test_frames_a_second_fall_when_the_model_is_late():
    tally = LatencyStats(2.0, 1.0)
    for k, late in enumerate((0.0, 2000.0)):
        tally.add(comment(k, late=late, latency=100.0))
    assert dict(tally.numbers(comment(1, late=2000.0, latency=100.0)))["frames"] == "1.0 / s"
    assert dict(tally.numbers(comment(1, late=0.0, latency=100.0)))["frames"] == "2.0 / s"


# --- the command ---


def test_watch_says_what_run_says(film, model, capfd):
    assert main.main(["run", str(film), "--model", model, "--out", "run"]) == 0
    printed = capfd.readouterr().out
    assert main.main(["watch", str(film), "--model", model, "--out", "watch", "--speed", "1000"]) == 0
    shown = capfd.readouterr()
    assert shown.out == printed and "From the last frame to the text: " in shown.err and "3 comments" in shown.err
    assert Path("run.vtt").read_bytes() == Path("watch.vtt").read_bytes()
    rows = captions.read(Path("watch.jsonl"))
    assert len(rows) == 3 and all(row["ms"]["latency"] >= row["ms"]["total"] > 0 for row in rows)


def test_what_makes_no_sense_is_one_sentence(film, model, capfd):
    taken = browser_view.Browser(job(film))
    port = str(taken.server.server_port)
    for words, why in ((["--speed", "0"], "--speed must be above 0"), (["--speed", "nan"], "--speed must be above 0"),
                       (["--port", "80"], "add --browser"), (["--no-open"], "add --browser"),
                       (["--browser", "--no-open", "--port", port], "name another with --port"),
                       (["--browser", "--port", "99999"], "name another with --port"), (["--speed", "fast"], "invalid float value")):
        assert main.main(["watch", str(film), "--model", model, *words]) == 2
        assert why in one_sentence(capfd.readouterr().err) and not list(Path.cwd().iterdir())
    taken.server.server_close()


# --- the terminal ---


def job(film: Path) -> run_command.Job:
    info, cfg = file_index.scan(film).info, config.Config({"video": VIDEO})
    return run_command.Job(film, info, cfg, policy.get("streaming"), "none", Path("a.vtt"), Path("a.jsonl"), None)


def test_two_pixels_a_character():
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[0], frame[1, :, 1], frame[3, 2] = 255, 200, (9, 8, 7)
    cells = terminal_view.Picture(frame).cells(6, 2)
    assert cells.shape == (2, 6, 2, 3)
    assert (cells[0, :, 0] == 255).all() and (cells[0, :, 1] == (0, 200, 0)).all()
    assert cells[1, 2].tolist() == [[0, 0, 0], [9, 8, 7]] and not cells[1, 3].any()
    console = Console(file=io.StringIO(), width=6, height=2, force_terminal=True, color_system="truecolor")
    console.print(terminal_view.Picture(frame), height=2)
    drawn = console.file.getvalue()
    assert drawn.count("▀") == 12 and "38;2;255;255;255;48;2;0;200;0m▀" in drawn and "38;2;0;0;0;48;2;9;8;7m▀" in drawn


@pytest.mark.parametrize(("room", "cells"), [((80, 10), (10, 40)), ((20, 30), (5, 20)), ((1, 1), (1, 1))])
def test_a_picture_keeps_its_proportions(room, cells):
    assert terminal_view.Picture(np.zeros((56, 112, 3), np.uint8)).cells(*room).shape[:2] == cells


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 24), (50, 20)])
def test_the_screen_shows_everything_at_any_size(film, size):
    console = Console(file=io.StringIO(), width=size[0], height=size[1], force_terminal=True, color_system="truecolor", legacy_windows=False)
    tally = LatencyStats(2.0, 1.0)
    with terminal_view.Screen(job(film), console) as shown:
        for k in range(40):
            shown.see(np.full((56, 112, 3), k, np.uint8))
            shown.say(next(tally.of([comment(k, f"goal {k}" if k % 2 else "", late=0.0, latency=40.0 + k)])), tally)
    left_behind = console.file.getvalue().rpartition("\x1b[?1049l")[2]
    assert all(text in left_behind for text in ("film.mp4", "goal 39", "79 ms", "0 of 40", "150 tokens", "1.0 MiB", "▀"))
    assert left_behind.count("\n") < size[1]


# --- the browser ---


def get(url: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read()


def events(body: bytes) -> list[tuple[str, dict]]:
    found = [block.split("\n", 1) for block in body.decode().split("\n\n") if block]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in found]


def test_the_browser_is_given_page_and_events_and_ends(film, capfd):
    tally, read = LatencyStats(2.0, 1.0), {}
    with browser_view.Browser(job(film), opens=False) as shown:
        kind, page = get(shown.url)
        assert kind.startswith("text/html") and b"EventSource" in page and b"http" not in page, "no address elsewhere"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(shown.url + "../params.yaml")
        early = threading.Thread(target=lambda: read.update(early=get(shown.url + "events")))
        early.start()
        for k in range(3):
            shown.see(np.full((4, 8, 3), 80 * k, np.uint8))
            shown.say(next(tally.of([comment(k, f"<b>{k}", late=0.0, latency=40.0)])), tally)
        late = threading.Thread(target=lambda: read.update(late=get(shown.url + "events")))
        late.start()
        with shown.changed:
            assert shown.changed.wait_for(lambda: shown.readers == 2, timeout=10)
    early.join(10)
    late.join(10)
    for kind, body in read.values():
        got = events(body)
        assert kind == "text/event-stream" and got[0] == ("begin", {"title": "film.mp4", "policy": "streaming", "of": "00:00:03"})
        assert [data["text"] for name, data in got if name == "comment"] == ["<b>0", "<b>1", "<b>2"] and got[-1][0] == "end"
        assert [dict(data["numbers"])["cache"] == "150 tokens" for name, data in got if name == "comment"] == [True] * 3
        picture = Image.open(io.BytesIO(base64.b64decode([data for name, data in got if name == "frame"][-1]["jpeg"])))
        assert picture.size == (8, 4) and abs(np.asarray(picture).mean() - 160) < 3
    with pytest.raises(urllib.error.URLError):
        get(shown.url)
    assert shown.url in capfd.readouterr().err


def test_only_the_newest_frame_is_kept(film):
    shown = browser_view.Browser(job(film))
    for k in range(50):
        shown.see(np.full((4, 8, 3), k, np.uint8))
    assert sum(b"event: frame" in message for message in shown.log) == 1
    shown.server.server_close()


def test_the_files_are_there_when_the_browser_showed_it(film, model, capfd):
    assert main.main(["watch", str(film), "--model", model, "--browser", "--no-open", "--speed", "1000"]) == 0
    assert "http://127.0.0.1:" in capfd.readouterr().err and len(captions.read(Path("film.said.jsonl"))) == 3


def test_what_is_drawn_is_what_was_seen(film):
    """The larger reading for people keeps step with the model's."""
    shown: list[int] = []
    chunks, clock, see = watch_command._source(job(film), Clock(1e6), Drawing(shown))
    assert [got.index for got, _, _ in paced(chunks, clock, see)] == [0, 1, 2]
    assert shown == [0, 15, 30, 45, 60, 75]


class Drawing:
    drawn = True

    def __init__(self, shown: list[int]):
        self.shown = shown

    def see(self, frame: np.ndarray) -> None:
        assert frame.shape == (56, 112, 3)
        self.shown.append(number(frame))
