"""Answers of students: what counts as right, that nothing they type ends in a traceback or gives the answer away, and that every exercise of the
lessons can be answered. The answers stand here, computed another way than in the lessons."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import VIDEO, chunk
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.base import config, notebook_file
from streamingvlm.base.paths import repository_root
from streamingvlm.context import dialogue, policy
from streamingvlm.context.dialogue import Dialogue
from streamingvlm.data import stream_rows
from streamingvlm.evaluation import judge
from streamingvlm.models.multicamera.hrm import PERIOD
from streamingvlm.models.qwen25 import compress, loading, tokenizer
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.reporting import figures
from streamingvlm.streaming import trace
from streamingvlm.streaming.stream import Streamer
from streamingvlm.training import windowing
from streamingvlm.workbench.exercise import check
from streamingvlm.worlds.city.world import ANOMALIES, City
from streamingvlm.worlds.match import dataset, game, practice, scoring

ROOT = repository_root(Path(__file__).parent)
CPU = torch.device("cpu")
CITY = City(23, 4, 256)
SECRET = 271_828
HELD = np.array([0.25, 0.3, 0.8, 0.7, 1.2, 0.26])  # s, by a network, frame by frame


def said(capsys, *args, **options) -> str:
    capsys.readouterr()
    check(*args, **options)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    return line.strip()


@pytest.mark.parametrize(("answer", "right"), [
    (9, 9), (9.0, 9), (np.int64(9), 9), (torch.tensor(9), 9), (0.333, 1 / 3), (np.float32(0.5), 0.5), (0.0, 0.0), (True, np.bool_(True)),
    (" Goal  LEFT ", "goal left"), ((1, 2), [1, 2]), (np.arange(3), [0, 1, 2]), (torch.tensor([[1.0], [2.0]]), [[1], [2]]), (range(2), (0, 1)),
    ({"full", "window"}, {"window", "full"}), (["window", "full", "full"], {"window", "full"}), ({"a": 1.004}, {"a": 1.0}), ({1: 2}.keys(), {1}),
    ([{"a": [1]}], [{"a": (1,)}]), (4, lambda: 2 + 2),
])
def test_right(capsys, answer, right):
    assert said(capsys, answer, right, "a hint") == "right"


def test_how_far_off_is_near_enough(capsys):
    assert said(capsys, 1040, 1000, within=0.05) == said(capsys, -0.96, -1.0, within=0.05) == "right"
    assert said(capsys, 1060, 1000, within=0.05) == said(capsys, -0.94, -1.0, within=0.05) == "not yet"


@pytest.mark.parametrize(("answer", "right"), [
    (8, 9), (9.01, 9), (0.34, 1 / 3), (float("nan"), 1.0), (10**400, 1.0), (1e-3, 0.0), (False, True), ("goal", "hit"), ([1, 2], [2, 1]),
    ([1], [1, 2]), ({"full"}, {"full", "window"}), ({"full", "window", "none"}, {"full", "window"}), ({"a": 2}, {"a": 1}), ({"b": 1}, {"a": 1}),
    ([[1], 2], [1, 2]),
    ([[]], {"full"}), (4, lambda: 5), (["1"], [1]),
])
def test_wrong_gives_the_hint(capsys, answer, right):
    assert said(capsys, answer, right, "a hint") == "not yet: a hint"
    assert said(capsys, answer, right) == "not yet"


@pytest.mark.parametrize(("answer", "right", "sentence"), [
    ("9", 9, "this asks for a number, not text in quotes"), (True, 1, "this asks for a number, not True or False"),
    (1, True, "this asks for True or False, not a number"), (9, "nine", "this asks for text in quotes, not a number"),
    ({1, 2}, [1, 2], "this asks for a list, not a set"), ("full", {"full"}, "this asks for a set, not text in quotes"),
    ([1], {"a": 1}, "this asks for a dict, not a list"), (len, 9, "this asks for a number, not a value of type builtin_function_or_method"),
    (1j, 9, "this asks for a number, not a value of type complex"), (..., 9, "this asks for a number, not a value of type ellipsis"),
])
def test_a_wrong_kind_is_a_sentence(capsys, answer, right, sentence):
    assert said(capsys, answer, right, "a hint") == f"not yet: {sentence}"


def test_no_answer_asks_for_nothing(capsys):
    assert said(capsys, None, lambda: 1 / 0) == "not answered yet"


anything = st.recursive(st.none() | st.booleans() | st.integers(0, 99) | st.floats() | st.text(max_size=3) | st.binary(max_size=2) | st.just(object),
                        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=2), inner, max_size=2))


@given(anything, st.sampled_from([SECRET, float(SECRET), str(SECRET), [SECRET], {SECRET}, {"a": SECRET}]))
def test_whatever_is_typed_gives_one_line_without_the_answer(answer, right):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        check(answer, right, "a hint")
    assert out.getvalue().count("\n") == 1 and str(SECRET) not in out.getvalue() and not out.getvalue().startswith("right")


# --- the exercises of the lessons ---


def cells_of(name: str) -> list:
    return notebook_file.read(ROOT / "notebooks" / f"{name}.ipynb").cells


def exercises_of(cells: list) -> list[list]:
    """The cells of each exercise, from its question to the one that is answered."""
    begin = next(i for i, cell in enumerate(cells) if cell.source.startswith("## Exercises"))
    out: list[list] = [[]]
    for cell in cells[begin + 1 :]:
        out[-1].append(cell)
        if "check(" in cell.source:
            out.append([])
    assert out.pop() == [], "a lesson ends with its last exercise"
    return out


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_lesson_says_how_long_it_takes_and_ends_with_exercises(path):
    cells = cells_of(path.stem)
    assert re.search(r"\bminutes? to\s+read, [^.]*\b(second|minute)s? to\s+run", cells[0].source)
    found = exercises_of(cells)
    assert 2 <= len(found) <= 4
    for number, (question, *tools, answer) in enumerate(found, start=1):
        assert question.cell_type == "markdown" and question.source.startswith(f"**{number}.** ")
        assert all(cell.cell_type == "code" for cell in (*tools, answer))
        assert f"answer_{number} = None\n" in answer.source and f"check(answer_{number}, " in answer.source


def run(cell, names: dict) -> None:
    exec(compile(cell.source, "a cell of the lesson", "exec"), names)


def base() -> VLM:
    return loading.load(ROOT / "data/tiny-base", CPU)


def tour(monkeypatch) -> dict:
    """The whole lesson, as it stands."""
    monkeypatch.chdir(ROOT)
    names = {}
    for cell in cells_of("00_tour"):
        if "check(" in cell.source:
            return names
        if cell.cell_type == "code":
            run(cell, names)
    raise AssertionError("no exercise")


def a_subset(monkeypatch) -> dict:
    words = [{"end_s": 0.4, "text": "hit"}, {"end_s": 1.0, "text": "left"}, {"end_s": 2.5, "text": "out"}]
    rows = [{"start_s": 0.0, "end_s": 5.0, "words": words}, {"start_s": 0.0, "end_s": 3.0, "words": []}]
    return {"stream_rows": stream_rows, "train": rows, "match": game.Match(seed=5_000, seconds=12, evaluation=True)}


def an_sft(monkeypatch) -> dict:
    talk = Dialogue(tokenizer.build(game.WORDS))
    lesson = practice.blind_video(game.Match(3, 30), config.Video(), game.EVENTS)
    spans = windowing.window_spans(talk, lesson, 0, 3, config.Retention())
    shares = {"clock": 0.9, "previous text": 0.8, "turns": 0.6}
    return {"windowing": windowing, "talk": talk, "bulk": [lesson], "batch": windowing.collate(talk, [(lesson, spans)], look=False),
            "share_right": shares.__getitem__}


def a_compression(monkeypatch) -> dict:
    """The base model for the student; what it gets right is taken to be the share of the weights that are left."""
    small = base()
    compress.apply(small, "int8")
    scores = SimpleNamespace(held_out=lambda vlm, held, cfg, root: {"event_f1": 1 - compress.zeros(vlm)})
    return {"compress": compress, "loading": SimpleNamespace(load=lambda path, device: base()), "device": CPU,
            "table": [{"variant": "int8", "memory_bytes": compress.memory_bytes(small)}], "runs": scores, "held": [], "cfg": None, "norms": None,
            "paths": SimpleNamespace(sft=ROOT, root=ROOT)}


def a_stream(monkeypatch) -> dict:
    cache = base().new_cache()
    cache.length = 1
    lines = []
    for name, prefill_ms in (("streaming", 5.0), ("full", 6.0), ("overlap", 11.0)):
        for k in range(100):
            tokens = 50 + 34 * k if name == "full" else 200
            ms = dict.fromkeys(figures.STAGES, 2.0) | {"prefill": prefill_ms, "decode": 9.0 if name == "full" else 4.0}
            lines.append({"stream": "long", "student": "overlapped", "policy": name, "pass": "in turns", "kv_tokens": tokens,
                          "kv_bytes": tokens * cache.bytes, "end_s": k + 1.0, "ms": ms})
    return {"watched": lines, "timed": lines, "LONG": dataset.LONG, "figures": figures, "pd": pd}


def an_evaluation(monkeypatch) -> dict:
    texts = ["goal left lions 1 - 0", "", "goal right bears 1 - 1", "hit left", "goal left lions 2 - 1"]
    truth = [game.parse(text) for text in texts]
    said = [*truth[:2], game.Said("none"), truth[3], game.parse("goal left lions 2 - 0")]  # one goal missed, then the score is wrong
    return {"game": game, "scoring": scoring, "judge": judge, "said": {"streaming": said}, "truth": truth}


ROW = {"id": "test", "previous_text": "left lions right bears", "query": "Commentate on this match", "start_s": 0.0, "end_s": 12.0, "words": []}
CFG = config.Config({"cache": config.Retention(), "video": VIDEO, "stream": config.Stream(["streaming"], max_new_tokens=6)})
SECONDS = [chunk(k) for k in range(12)]


def a_cache(monkeypatch) -> dict:
    vlm = base()
    return {"trace": trace, "vlm": vlm, "cfg": CFG, "row": ROW, "chunks": SECONDS, "film": trace.trace_stream(vlm, "streaming", CFG, ROW, SECONDS)}


def a_city(monkeypatch) -> dict:
    return {"truth": CITY.truth, "ANOMALIES": ANOMALIES}


def an_outlook(monkeypatch) -> dict:
    kinds = ("fall", "pavement", "loiter", "bag", "clone", "surge")
    f1 = {name: dict(zip(kinds, (0.9, 0.8, 0.7, 0.6, *cross), strict=True)) for name, cross in (("model", (0.8, 0.8)), ("no_hrm", (0.2, 0.5)))}
    network = SimpleNamespace(memory=SimpleNamespace(knobs=SimpleNamespace(period=PERIOD)))
    return {"torch": torch, "numbers": {name: {"f1": each} for name, each in f1.items()}, "network": network}


def a_network(monkeypatch) -> dict:
    return {"held": HELD}


def streamed(name: str, **windows) -> tuple[Streamer, int]:
    """The stream after its last second, and the most tokens it ever held."""
    streamer = Streamer(base(), policy.get(name), dataclasses.replace(CFG.cache, **windows), VIDEO, CFG.stream)
    streamer.start(ROW["previous_text"], ROW["query"])
    return streamer, max(streamer.step("test", second).kv_tokens for second in SECONDS)


def first_of_previous() -> str:
    streamer, _ = streamed("no_sink")
    span = next(span for span in streamer.spans if span.role == dialogue.PREVIOUS)
    return streamer.vlm.tokenizer.decode(list(span.ids)[:1]).strip()


def two_rounds() -> int:
    """The most tokens held by a stream that never keeps more than its header and two rounds."""
    def plan(windows, extents, upcoming):
        stays = [(i, e) for i, e in enumerate(extents) if (e.round == dialogue.HEADER or e.round == upcoming - 1) and e.length]
        return policy.Plan(tuple(policy.Piece(i, 0, e.length, e.role, e.round) for i, e in stays))

    streamer = Streamer(base(), policy.Policy("two", "", plan), CFG.cache, VIDEO, CFG.stream)
    streamer.start(ROW["previous_text"], ROW["query"])
    return max(streamer.step("test", second).kv_tokens for second in SECONDS)


def base_share() -> float:
    """Of the base model's parameters, by their names: the weights of Linear layers."""
    sizes = {name: p.numel() for name, p in base().hf.named_parameters()}
    other = ("embed_tokens", "patch_embed", "norm", "ln_q", ".bias")
    return sum(size for name, size in sizes.items() if not any(part in name for part in other)) / sum(sizes.values())


# What stands before the exercises, then for each one a right answer, found another way than the lesson does, and a wrong one.
LESSONS = {
    "00_tour": (tour, [(2 * 2 * 4, 8), (1 + 5 + 1, 17), ({"full", "window", "no_text"}, {"full"})]),
    "01_subset": (a_subset, [([2, 3, 4], [3, 3, 4]), (["none", "goal right"], ["goal right", "goal right"]), (6 / 8, 1 / 2)]),
    "02_sft": (an_sft, [([2, 1], [1, 1]), (lambda: learned_share(3), 1.0), (lambda: tokens_said(29), 40), ("turns", "clock")]),
    "03_compress": (a_compression, [(base_share, 1.0), (lambda: by_hand_bytes(base_share()), 4_561_824), (0.6, 0.5)]),
    "04_stream": (a_stream, [(3 * 4 * 2 * 32 * 4, 1024), (2**34 / (34 * 3072) / 3600, 1.0), ("prefill", "decode")]),
    "05_evaluate": (an_evaluation, [(2 / 3, 1 / 2), (4, 2), (35, 12)]),
    "06_inside_the_cache": (a_cache, [(5 + CFG.cache.vision_rounds, 5), (lambda: streamed("streaming", vision_rounds=8)[1], 100),
                                      (first_of_previous, "teams"), (two_rounds, 200)]),
    "07_city": (a_city, [([0, 2, 4, 5], [0, 2]), (lambda: int((CITY.truth.clocks[..., 1] >= 1).sum()), 0), (1 / 3, 0.2)]),
    "08_many_streams": (an_outlook, [(math.log(2) / -math.log(0.9) / 8, 6.6), ("clone", "surge"), (2.0, 16)]),
    "09_live": (a_network, [(8 * 1000 / 28, 8 / 0.012), (590 / 1600, 0.001), (sum(sorted(HELD)[k] > 0.75 for k in range(6)) / 6, 0.5)]),
}


def words_said(seconds: int) -> int:
    return sum(len(second.words) for second in game.Match(3, 30).timeline[:seconds])


def learned_share(seconds: int) -> float:
    """Of a window at the start of a match. Learned are the words and, every second, ` ...` and the end of the turn."""
    learned = words_said(seconds) + 2 * seconds
    header, query, joints = 10 + 4 + 5 + 2, 4, seconds - 1
    user = 3 + 5 + 11 + 2 + 3  # its opening, the time, nine vision tokens between two, its end, and the assistant's opening
    return learned / (header + query + joints + user * seconds + learned)


def tokens_said(seconds: int) -> int:
    return len(game.Match(3, 30).previous_text.split()) + words_said(seconds)


def by_hand_bytes(share: float) -> float:
    total = sum(p.numel() for p in base().hf.parameters())
    return share * total + 4 * (1 - share) * total


@pytest.mark.parametrize("name", LESSONS)
def test_every_exercise_can_be_answered(name, monkeypatch, capsys):
    before, answers = LESSONS[name]
    names = before(monkeypatch)
    found = exercises_of(cells_of(name))
    assert len(found) == len(answers)
    for number, ((_, *tools, cell), (right, wrong)) in enumerate(zip(found, answers, strict=True), start=1):
        for tool in tools:
            run(tool, names)
        for answer, begin in ((None, "not answered yet"), (wrong, "not yet: "), (right, "right")):
            capsys.readouterr()
            names["given"] = answer() if callable(answer) else answer
            cell.source, kept = cell.source.replace(f"answer_{number} = None\n", f"answer_{number} = given\n"), cell.source
            run(cell, names)
            cell.source = kept
            line = capsys.readouterr().out
            assert line.startswith(begin) and line.count("\n") == 1, f"{name}, exercise {number}, answer {names['given']}: {line}"
