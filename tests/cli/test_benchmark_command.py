"""`streamingvlm benchmark` as it is typed: on the packaged model and benchmarks in miniature: the answers are nonsense, the plumbing is not."""

from __future__ import annotations

import json
from pathlib import Path

import benchmark_files
import pytest
from helpers import one_sentence

from streamingvlm.cli import main

ROOT = Path(__file__).resolve().parents[2]
MODEL = ["--model", str(ROOT / "data" / "tiny-base"), "--params", str(ROOT / "params.yaml"), "--device", "cpu"]


@pytest.fixture(scope="module")
def ovo(tmp_path_factory) -> Path:
    """OVO-Bench in miniature, one of its three videos missing."""
    folder = benchmark_files.whole(tmp_path_factory.mktemp("ovo"), "ovo")
    (folder / "src_videos" / "Ego" / "c.mp4").unlink()
    return folder


def test_a_benchmark_end_to_end_ended_and_gone_on_with(ovo, tmp_path, capsys, monkeypatch):
    out = tmp_path / "a.jsonl"
    words = ["benchmark", "ovo", "--data", str(ovo), *MODEL, "--out", str(out)]
    assert main.main([*words, "--limit", "2"]) == 0
    assert len(out.read_text().splitlines()) == 2 + 2 * 2 and "1 could" not in capsys.readouterr().out
    assert main.main(words) == 0
    text = capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["way"], line["id"]) for line in lines[2:]] == [
        (way, name) for names in (("1", "0"), ("4_0", "3_0", "3_1", "2")) for way in ("stream", "last 4 frames") for name in names]
    scores = json.loads((tmp_path / "a.scores.json").read_text())
    for way in ("stream", "last 4 frames"):
        found = scores["scores"][way]["overall"]
        assert found["questions"] == 6 and found["videos"] == 2 and found["empty"] + found["unparsed"] <= 6
        assert scores["with_lost_as_wrong"][way]["questions"] == 8
    assert [one["id"] for one in scores["lost"]] == ["5_0", "5_1"] and all("c.mp4" in one["reason"] for one in scores["lost"])
    assert "2 questions could not be asked" in text and "5_0, missing" in text and "fps 2.0" in text and "last 4 frames" in text
    before = out.read_bytes()
    assert main.main([*words, "--fps", "1"]) == 2
    assert "was begun with fps 2.0, not 1.0" in one_sentence(capsys.readouterr().err.splitlines()[-1] + "\n")
    assert out.read_bytes() == before


def test_commentary_against_an_earlier_run(tmp_path, capsys):
    folder = benchmark_files.whole(tmp_path, "livesports-cc")
    words = ["benchmark", "livesports-cc", "--data", str(folder), *MODEL]
    assert main.main([*words, "--out", str(tmp_path / "first.jsonl")]) == 0
    assert "name it with --against" in capsys.readouterr().out
    assert main.main([*words, "--out", str(tmp_path / "second.jsonl"), "--against", str(tmp_path / "first.jsonl")]) == 0
    assert "Win rate 50.00% of 1 segments" in capsys.readouterr().out
    assert json.loads((tmp_path / "second.scores.json").read_text())["win_rate"]["flip_rate"] == 0


def test_the_list_names_every_benchmark_and_what_it_wants(capsys):
    assert main.main(["benchmark", "--list"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{text}" for name in benchmark_files.ALL) and "an empty answer is right" in text


def test_predictions_of_others_are_scored_without_a_model(tmp_path, capsys):
    row = {"video": "v", "task": "EPM", "id": 1, "question": "q", "response": "B.", "ground_truth": "B"}
    rec = {"video": "w", "task": "REC", "id": 2, "activity": "x", "test_info": [{"count": 2, "response": "2"}, {"count": 1, "response": None}]}
    (tmp_path / "M_EPM.json").write_text(json.dumps({"backward": [row, row | {"id": 3, "response": ["ABCD"]}], "realtime": [], "forward": [rec]}))
    assert main.main(["benchmark", "ovo", "--rescore", str(tmp_path)]) == 0
    overall = capsys.readouterr().out.splitlines()[-1].split()
    assert overall[:2] == ["overall", "4"] and overall[2] == "75.00" and "50.00" in overall
    verdicts = [{"video_event_id": str(k), "ab_winner": "M", "ba_winner": "GPT-4o" if k else "M"} for k in range(4)]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, verdicts)))
    assert main.main(["benchmark", "livesports-cc", "--rescore", str(tmp_path / "v.jsonl")]) == 0
    assert "Win rate 62.50%" in (text := capsys.readouterr().out) and "75.0% of the pairs flip" in text and "shown second 25.0%" in text


@pytest.mark.parametrize(("words", "complaint"), [
    (["ovp"], "no benchmark `ovp` (did you mean `ovo`?)"), (["ovo"], "--data"), (["ovo", "--data", "nowhere"], "no folder nowhere"),
    (["ovo", "--data", "{data}", "--fps", "0.3"], "--fps 0.3"), (["ovo", "--data", "{data}", "--limit", "0"], "--limit"),
    (["ovo", "--data", "{data}", "--policy", "best"], "best"), (["ovo", "--data", "{data}", "--template", "none.txt"], "none.txt"),
    (["ovo", "--data", "{data}", "--out", "no/such/place"], "no/such/place"), (["ovo", "--data", "{data}", "--against", "none.jsonl"], "none.jsonl"),
    (["ovo", "--rescore", "none"], "no none"), (["mvbench", "--rescore", "."], "no rescoring for mvbench"),
    (["livesports-cc", "--data", "{mute}", "--silent"], "is commentary"), (["livesports-cc", "--data", "{mute}"], "None of the 1 questions")])
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(words, complaint, ovo, tmp_path, capsys, monkeypatch):
    benchmark_files.write(tmp_path / "mute", "livesports-cc")
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    assert main.main(["benchmark", *(word.format(data=ovo, mute=tmp_path / "mute") for word in words), *MODEL]) == 2
    assert complaint in one_sentence(capsys.readouterr().err.splitlines()[-1] + "\n") and not list(here.iterdir())
