"""The command as a user types it: odd videos work, bad input is one sentence and writes nothing, and what was said outlives an interruption."""

from __future__ import annotations

import errno
import html
import importlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from fractions import Fraction
from pathlib import Path

import huggingface_hub
import preloaded
import pytest
import torch
from helpers import one_sentence
from safetensors.torch import load_file, save_file
from video_files import make, make_audio, rotate

from streamingvlm.cli import main, run_command
from streamingvlm.models.qwen25 import compress
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.streaming import captions

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
CUE = re.compile(r"(\d\d):(\d\d):(\d\d)\.(\d{3}) --> (\d\d):(\d\d):(\d\d)\.(\d{3})\n([^\n]+)")
VFR = [0, *itertools.accumulate([20, 33, 100, 250] * 15)][:60]

# name -> (file, how to make it, seconds that are commented on)
ODD = {
    "vfr": ("vfr.mp4", dict(frames=60, ticks=VFR), 6),
    "23.976 fps": ("film.mp4", dict(frames=60, fps=Fraction(24000, 1001)), 3),
    "60 fps": ("fast.mp4", dict(frames=130, fps=60), 3),
    "odd size": ("odd.mp4", dict(frames=45, size=(85, 49), pix_fmt="yuv444p"), 2),
    "portrait": ("portrait.mp4", dict(frames=30, size=(48, 96)), 1),
    "rotated": ("rotated.mp4", dict(frames=75, size=(128, 64)), 3),
    "no duration in the header": ("live.mkv", dict(frames=60, container_options={"live": "1"}), 2),
    "no duration, WebM": ("live.webm", dict(frames=60, codec="libvpx", container_options={"live": "1"}), 2),
    "half a second": ("v1.5 half.mp4", dict(frames=15), 1),
    "one frame": ("frame.mp4", dict(frames=1), 1),
}


@pytest.fixture(scope="module")
def model(vlm: VLM, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    vlm.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for file, options, _ in ODD.values():
        make(folder / file, **options)
    rotate(folder / "rotated.mp4", 90)
    plain = make(folder / "plain.mp4", 200, size=(160, 120), codec_options={"g": "12"})
    front = make(folder / "front.mp4", 200, size=(160, 120), codec_options={"g": "12"}, container_options={"movflags": "faststart"})
    (folder / "no-moov.mp4").write_bytes(plain.read_bytes()[: plain.stat().st_size * 6 // 10])
    (folder / "cut.mp4").write_bytes(front.read_bytes()[: front.stat().st_size * 7 // 10])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 200)
    make_audio(folder / "sound.mp4", 2.0)
    make(folder / "long.mp4", 1200, fps=2)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The folder in which the command runs: empty, in no clone."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(here, capfd):
    """Run the command; it must fail with one sentence, which is returned, and leave nothing behind."""

    def call(*words: object, spoken: bool = False) -> str:
        before = sorted(here.parent.rglob("*"))
        assert main.main(["run", *map(str, words)]) == 2
        printed = capfd.readouterr()
        assert spoken or not printed.out
        assert sorted(here.parent.rglob("*")) == before
        return one_sentence(printed.err)

    return call


def cues(path: Path) -> list[tuple[float, float, str]]:
    """A strict reader of the WebVTT that we write."""
    head, *blocks = path.read_text(encoding="utf-8").split("\n\n")
    assert head == "WEBVTT" and blocks.pop() == ""
    found = [CUE.fullmatch(block) for block in blocks]
    assert all(found), path.read_text()
    return [(seconds(*match.groups()[:4]), seconds(*match.groups()[4:8]), html.unescape(match[9])) for match in found]


def seconds(h: str, m: str, s: str, ms: str) -> float:
    return int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000


def check(stem: Path, chunks: int | None = None) -> list[dict]:
    """`stem`.vtt and `stem`.jsonl stand alone in their folder and tell the same story, second by second."""
    vtt, jsonl = Path(f"{stem}.vtt"), Path(f"{stem}.jsonl")
    assert {vtt, jsonl} == set(stem.parent.iterdir())
    rows = captions.read(jsonl)
    assert rows and (chunks is None or len(rows) == chunks)
    assert [(row["chunk"], row["start_s"], row["end_s"]) for row in rows] == [(k, k, k + 1) for k in range(len(rows))]
    assert cues(vtt) == [(row["start_s"], row["end_s"], " ".join(row["text"].split())) for row in rows if row["text"].split()]
    return rows


# --- what works ---


@pytest.mark.parametrize("name", ODD)
def test_odd_videos_are_commented_on_to_their_end(here, videos, model, capfd, name):
    file, _, chunks = ODD[name]
    assert main.main(["run", str(videos / file), "--model", model]) == 0
    rows = check(here / f"{Path(file).stem}.said", chunks)
    printed = capfd.readouterr()
    spoken = [row for row in rows if row["text"]]
    assert spoken and printed.out == "".join(f"{captions.timestamp(row['start_s'])}  {row['text']}\n" for row in spoken)
    assert printed.err == f"{len(spoken)} comments in {Path(file).stem}.said.vtt and {Path(file).stem}.said.jsonl\n"
    assert {row["stream"] for row in rows} == {Path(file).stem}


@pytest.mark.parametrize(("out", "stem"), [("said.vtt", "said"), ("said.jsonl", "said"), ("said", "said"), ("said.srt", "said.srt"),
                                           ("v1.5", "v1.5"), (".vtt", ".vtt")])
def test_the_two_files_never_fall_together(here, videos, model, out, stem):
    for _ in range(2):  # the second run replaces what the first one wrote
        assert main.main(["run", str(videos / "frame.mp4"), "--model", model, "--out", out]) == 0
        check(here / stem, 1)


def test_options_reach_the_model_and_a_params_file_may_hold_what_differs(here, videos, model, capfd):
    (here.parent / "mine.yaml").write_text("video: {chunk_s: 0.5}\n")
    words = ["--model", model, "--policy", "overlap", "--query", "Wo ist der Ball? ⚽", "--previous", "left lions right bears", "--device", "cpu"]
    assert main.main(["run", str(videos / "plain.mp4"), *words, "--params", str(here.parent / "mine.yaml")]) == 0
    rows = captions.read(here / "plain.said.jsonl")
    assert [row["end_s"] for row in rows] == [(k + 1) / 2 for k in range(14)] and {row["policy"] for row in rows} == {"overlap"}
    assert main.main(["run", str(videos / "plain.mp4"), "--model", model, "--out", "plain"]) == 0
    assert [row["text"] for row in captions.read(here / "plain.jsonl")] != [row["text"] for row in rows]


def test_help_reads_well(capsys):
    both = ["VIDEO", "WebVTT", "streaming, full, window", "example: "]
    for words, wanted in ((["--help"], [*main.COMMANDS, "examples:", "make repro", "make lab", "README"]), (["run", "--help"], both),
                          (["watch", "--help"], [*both, "--speed", "--browser"]), (["doctor", "--help"], ["--json"])):
        with pytest.raises(SystemExit) as ended:
            main.main(words)
        printed = capsys.readouterr().out
        assert ended.value.code == 0 and all(text in printed for text in wanted)
    assert main.main([]) == 2 and "COMMAND" in capsys.readouterr().out


def test_every_command_has_its_line_and_its_place():
    assert set(main.COMMANDS) == set(main.parser()._subparsers._group_actions[0].choices)
    for name, (module, line) in main.COMMANDS.items():
        assert callable(getattr(importlib.import_module(f"streamingvlm.cli.{module}"), name)) and len(line) < 66, "one line on 80 columns"


# --- bad input ---


@pytest.mark.parametrize(("words", "why"), [
    (["wach"], "no command `wach` (did you mean `watch`?)"), (["xyzzy"], "no command `xyzzy`: there are doctor, run, watch"),
    (["run", "a.mp4", "--polcy", "full"], "`--polcy` means nothing here (did you mean `--policy`?)"), (["doctor", "more"], "`more` means nothing"),
    (["run"], "VIDEO; `streamingvlm run --help`"), (["watch", "a.mp4", "--speed", "fast"], "'fast'; `streamingvlm watch --help`")])
def test_what_is_typed_wrong_is_one_sentence(here, capfd, words, why):
    assert main.main(words) == 2
    printed = capfd.readouterr()
    assert why in one_sentence(printed.err) and not printed.out and not list(here.iterdir())


@pytest.mark.parametrize("command", ["run", "watch"])
def test_ctrl_c_while_the_model_loads(here, videos, model, capfd, monkeypatch, command):
    monkeypatch.setattr(run_command, "streamer", lambda job, args: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    assert main.main([command, str(videos / "plain.mp4"), "--model", model]) == 130
    signal.signal(signal.SIGINT, before)
    assert one_sentence(capfd.readouterr().err) == "stopped; nothing was said yet." and not list(here.iterdir())


def test_a_package_that_is_broken_is_one_sentence(refused, videos, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.utils", None)
    assert "`streamingvlm doctor`" in refused(videos / "plain.mp4", "--model", model)
    monkeypatch.setitem(sys.modules, "streamingvlm.media.file_index", None)
    monkeypatch.delattr("streamingvlm.media.file_index")
    assert "`streamingvlm doctor`" in refused(videos / "plain.mp4", "--model", model)


@pytest.mark.parametrize(("name", "why"), [
    ("missing.mp4", "There is no file"), ("n" * 300, "There is no file"), (".", "is not a file"), ("empty.mp4", "is empty"),
    ("text.mp4", "not a video"), ("no-moov.mp4", "not written to its end"), ("cut.mp4", "its end is missing"), ("sound.mp4", "only audio")])
def test_bad_videos(refused, videos, model, name, why):
    message = refused(videos / name, "--model", model)
    assert why in message and str(videos / name) in message


@pytest.mark.parametrize(("text", "why"), [
    ("video: {fpz: 2}", "unknown key `video.fpz`"), ("videos: {}", "unknown section `videos`"), ("video: {fps: two}", "must be float, not 'two'"),
    ("video: {fps: 0}", "must be above 0"), ("- video", "must hold sections"), ("", "must hold sections")])
def test_bad_params(refused, videos, model, tmp_path, text, why):
    (tmp_path / "mine.yaml").write_text(text)
    message = refused(videos / "plain.mp4", "--model", model, "--params", tmp_path / "mine.yaml")
    assert why in message and "mine.yaml" in message


def test_params_that_are_no_yaml(here, videos, model, tmp_path, capfd):
    (tmp_path / "mine.yaml").write_text("video: [2")
    assert main.main(["run", str(videos / "plain.mp4"), "--model", model, "--params", str(tmp_path / "mine.yaml")]) == 2
    printed = capfd.readouterr().err
    assert "mine.yaml is not valid YAML" in printed and printed.count("\n") == 1 and not list(here.iterdir())


def test_names_that_mean_nothing(refused, videos, model, tmp_path, monkeypatch):
    film = videos / "plain.mp4"
    assert "nosuch.yaml" in refused(film, "--model", model, "--params", tmp_path / "nosuch.yaml")
    assert "streaming, full, window" in refused(film, "--model", model, "--policy", "steaming")
    assert "`tpu`" in refused(film, "--model", model, "--device", "tpu")
    assert "name one with --model" in refused(film)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "No CUDA device" in refused(film, "--model", model, "--device", "cuda")
    (tmp_path / "params.yaml").write_text("run: {device: cuda}\n")  # a clone in which nothing was trained
    assert "make repro" in refused(film)
    assert "No CUDA device" in refused(film, "--model", model)


def test_places_where_nothing_can_be_written(refused, videos, model, tmp_path):
    (tmp_path / "file").touch()
    for folder in ("folder", "taken.vtt", "also.jsonl"):
        (tmp_path / folder).mkdir()
    for out in ("nowhere/x.vtt", "file/x.vtt", "folder", "taken.vtt", "taken", "also.vtt", "n" * 300, ""):
        message = refused(videos / "plain.mp4", "--model", model, "--out", tmp_path / out)
        assert "--out" in message and str(tmp_path / out).removesuffix(".vtt") in message


def test_a_page_to_watch_holds_the_video_and_every_comment(refused, here, videos, model, capfd):
    assert "--html" in refused(videos / "plain.mp4", "--model", model, "--html", here / "nowhere" / "page.html")
    for taken in (videos / "plain.mp4", here / "plain.said.vtt"):
        assert "name another place with --html" in refused(videos / "plain.mp4", "--model", model, "--html", taken)
    assert not list(here.glob("*")) and (videos / "plain.mp4").stat().st_size > 1000
    assert main.main(["run", str(videos / "plain.mp4"), "--model", model, "--html", str(here.parent / "page.html")]) == 0
    page, rows = html.unescape((here.parent / "page.html").read_text()), check(here / "plain.said", 7)
    assert "data:video/mp4;base64," in page and all(row["text"] in page for row in rows)
    assert "page.html" in capfd.readouterr().err


# --- models that are none ---


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def drop_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def squeeze(folder: Path, vlm: VLM) -> None:
    shutil.rmtree(folder)
    compress.save(vlm, folder, "float32")


BROKEN = {
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
    "config only": lambda folder: [path.unlink() for path in folder.iterdir() if path.name != "config.json"],
    "config is no JSON": lambda folder: cut(folder / "config.json", 100),
    "config is binary": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00\x80"),
    "config is empty": lambda folder: (folder / "config.json").write_text("{}"),
    "config is a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config of another model": lambda folder: edit(folder, model_type="llama"),
    "config with a wrong type": lambda folder: edit(folder, text_config={"hidden_size": "many"}),
    "weights cut": lambda folder: cut(folder / "model.safetensors", 100_000),
    "weights empty": lambda folder: cut(folder / "model.safetensors", 0),
    "weights are text": lambda folder: (folder / "model.safetensors").write_text("nonsense" * 99),
    "weights missing": lambda folder: (folder / "model.safetensors").unlink(),
    "a weight missing": drop_weight,
    "no tokenizer": lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
    "tokenizer cut": lambda folder: cut(folder / "tokenizer.json", 100),
    "compressed cut": lambda folder: cut(folder / "compressed.safetensors", 100_000),
    "compressed, no manifest": lambda folder: cut(folder / "compressed.json", 5),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_models(refused, videos, vlm, model, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    if "compressed" in name:
        squeeze(folder, vlm)
    BROKEN[name](folder)
    assert str(folder) in refused(videos / "plain.mp4", "--model", folder)


def test_a_model_of_other_shapes_is_refused_and_a_compressed_one_loads(refused, here, videos, vlm, model, tmp_path):
    shutil.copytree(model, tmp_path / "other")
    text = json.loads((tmp_path / "other" / "config.json").read_text())["text_config"]
    edit(tmp_path / "other", text_config={**text, "hidden_size": 128})
    assert "no complete" in refused(videos / "plain.mp4", "--model", tmp_path / "other")
    compress.save(vlm, tmp_path / "small", "float32")
    assert main.main(["run", str(videos / "frame.mp4"), "--model", str(tmp_path / "small")]) == 0
    check(here / "frame.said", 1)


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """A machine whose network answers nothing -> its hub cache, empty."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["some-org/some-model", "some-model", "./some/model", "/no/such/model", "no such model", "n" * 300])
def test_a_model_that_is_not_here_is_said_at_once(refused, offline, videos, name):
    began = time.perf_counter()
    assert f"`{name}`" in refused(videos / "plain.mp4", "--model", name)
    assert time.perf_counter() - began < 5, "the hub's client retries for 23 s unless it is asked once first"


def test_a_model_that_was_downloaded_before_works_offline(here, offline, videos, model):
    stored = offline / "models--some-org--some-model"
    shutil.copytree(model, stored / "snapshots" / ("0" * 40))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0" * 40)
    assert main.main(["run", str(videos / "frame.mp4"), "--model", "some-org/some-model"]) == 0
    check(here / "frame.said", 1)


# --- what goes wrong on the way ---


def full_disk(monkeypatch, room: int) -> None:
    """Only `room` more writes fit into files that are not finished."""
    opened, left = Path.open, [room]

    def open_(path, *args, **options):
        file = opened(path, *args, **options)
        if path.suffix == ".part":
            write = file.write

            def limited(text):
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return write(text)

            file = Wrapped(file, limited)
        return file

    monkeypatch.setattr(Path, "open", open_)


class Wrapped:
    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)


@pytest.mark.parametrize("room", [0, 1, 2, 5, 6])
def test_a_full_disk_leaves_nothing_half_written(refused, here, videos, model, monkeypatch, room):
    (here / "plain.said.vtt").write_text("from an earlier run")
    full_disk(monkeypatch, room)
    message = refused(videos / "plain.mp4", "--model", model, spoken=True)
    assert "No space left on device" in message and (here / "plain.said.vtt").read_text() == "from an earlier run"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("suffix", ["vtt", "jsonl"])
def test_a_disk_that_is_full_when_the_files_are_closed(here, videos, model, capfd, suffix):
    (here / f"plain.said.{suffix}.part").symlink_to("/dev/full")
    assert main.main(["run", str(videos / "plain.mp4"), "--model", model]) == 2
    assert "No space left on device" in one_sentence(capfd.readouterr().err) and not list(here.iterdir())


def start(here: Path, *words: object, python: str | None = None, **environment: str) -> subprocess.Popen:
    command = [python or preloaded.python(), "-m", "streamingvlm.cli", "run", *map(str, words)]
    return subprocess.Popen(command, cwd=here, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**ENVIRONMENT, **environment})


def test_ctrl_c_keeps_what_was_said(here, videos, model):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C, and so would its children
    process = start(here, videos / "long.mp4", "--model", model)
    signal.signal(signal.SIGINT, before)
    said = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "on disk" in one_sentence(stderr)
    rows = check(here / "long.said")
    assert 1 <= len(rows) < 600
    assert said.endswith(f"  {next(row['text'] for row in rows if row['text'])}\n")


def test_a_reader_that_leaves_ends_the_run_quietly(here, videos, model):
    process = start(here, videos / "long.mp4", "--model", model, python=sys.executable)  # the one that imports all by itself
    process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(timeout=60) == 141 and process.stderr.read() == ""
    assert 1 <= len(check(here / "long.said")) < 600


def test_the_real_command_fails_in_one_sentence(here, videos, model):
    for words, environment, why in (([videos / "text.mp4"], {}, "not a video"), ([videos / "cut.mp4"], {}, "its end is missing"),
                                    ([videos / "plain.mp4", "--model", "some-org/some-model"],
                                     {"HF_HUB_OFFLINE": "1", "HF_HOME": str(here.parent / "home")}, "the hub")):
        process = start(here, *words, **environment)
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (2, "") and why in one_sentence(stderr)
        assert not list(here.iterdir())


def test_a_wrong_name_is_answered_before_torch_is_imported():
    code = "import sys; from streamingvlm.cli.main import main; main(['run', 'nosuch.mp4']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, check=False).returncode == 0


# --- captions ---


def test_whatever_is_said_is_one_cue(tmp_path):
    from streamingvlm.base.records import Comment

    texts = ["a & b", "<i>no tag</i>", "--> 00:00:01.000", "two\n\nlines\r\nand\x85more", "進球!⚽", ""]
    said = [Comment("s", "streaming", k, float(k), k + 1.0, text, 1, 1, 1, {}, 0.0) for k, text in enumerate(texts)]
    list(captions.write_captions(said, tmp_path / "x.vtt", tmp_path / "x.jsonl"))
    assert [text for _, _, text in cues(tmp_path / "x.vtt")] == [*texts[:3], "two lines and more", texts[4]]
    assert [row["text"] for row in captions.read(tmp_path / "x.jsonl")] == texts


def test_timestamps_round_and_carry():
    assert [captions.timestamp(s) for s in (0, 59.9996, 3599.9999, 360000.5)] == ["00:00:00.000", "00:01:00.000", "01:00:00.000", "100:00:00.500"]


# --- the field's habits ---


def test_more_frames_than_the_video_has_are_held_and_it_is_said(here, model, capfd):
    make(here.parent / "slow.mp4", frames=4, fps=1)
    assert main.main(["run", str(here.parent / "slow.mp4"), "--model", model]) == 0
    assert capfd.readouterr().err.startswith("slow.mp4: it shows 1 pictures a second at most and `video.fps` asks for 2")
    check(here / "slow.said", 4)


def test_what_is_put_right_is_one_line_and_cues_have_the_players_times(here, model, capfd):
    parts = [make(here.parent / f"{k}.ts", 50, 25, first=1000 * k) for k in range(2)]
    (here.parent / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert main.main(["run", str(here.parent / "joined.ts"), "--model", model]) == 0
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("joined.ts: its clock jumps by -2.0 s at 2.0 s;")
    check(here / "joined.said", 4)
    make(here.parent / "late.mp4", 50, 25, ticks=[3000 + 40 * k for k in range(50)], audio=True)
    assert main.main(["run", str(here.parent / "late.mp4"), "--model", model, "--out", "late", "--html", "late.html"]) == 0
    rows = captions.read(here / "late.jsonl")
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(3.0, 4.0), (4.0, 5.0)]
    assert {start_s for start_s, _, _ in cues(here / "late.vtt")} <= {3.0, 4.0} and 'data-start="3.0"' in (here / "late.html").read_text()


@pytest.mark.parametrize("name", ["12:30:00.mp4", "-x.mp4", "--html.mp4", os.fsdecode(b"caf\xe9.mp4")])
def test_any_name_is_read_and_can_be_written_of(here, videos, model, name):
    shutil.copy(videos / "frame.mp4", here / name)
    assert main.main(["run", name, "--model", model, "--html", "page.html", "--out", "said"]) == 0
    assert (here / "page.html").read_text(encoding="utf-8") and captions.read(here / "said.jsonl")[0]["stream"].encode()
    (here / name).write_bytes((here / name).read_bytes() + bytes(9_000_000))  # too large to be held in the page: it is linked to
    assert main.main(["run", name, "--model", model, "--html", "page.html", "--out", "said"]) == 0
    link = re.search(r'src="([^"]+)"', (here / "page.html").read_text(encoding="utf-8"))[1]
    assert os.fsencode(name) == urllib.parse.unquote_to_bytes(link)


@pytest.mark.parametrize(("word", "said"), [("rtsp://camera/1", "for `streamingvlm serve`"), ("http://host/a.mp4", "downloaded first"),
                                            ("file:///tmp/a.mp4", "without file://")])
def test_an_address_is_called_one(refused, word, said):
    assert said in refused(word)


def test_links_are_written_through(here, videos, model):
    (here / "there").mkdir()
    (here / "there" / "old.vtt").write_text("old")
    for link, to in (("said.vtt", "old.vtt"), ("said.jsonl", "new.jsonl"), ("page.html", "new.html")):
        (here / link).symlink_to(Path("there") / to)  # two of them to files that are not there yet
    assert main.main(["run", str(videos / "frame.mp4"), "--model", model, "--out", "said.vtt", "--html", "page.html"]) == 0
    assert all((here / link).is_symlink() for link in ("said.vtt", "said.jsonl", "page.html"))
    assert sorted(path.name for path in (here / "there").iterdir()) == ["new.html", "new.jsonl", "old.vtt"]
    assert (here / "there" / "old.vtt").read_text().startswith("WEBVTT")


def test_links_that_lead_nowhere_or_to_the_video_are_refused(refused, here, videos):
    film = shutil.copy(videos / "frame.mp4", here / "film.mp4")
    (here / "circle.vtt").symlink_to("circle.vtt")
    (here / "film.vtt").symlink_to("film.mp4")
    (here / "one.vtt").symlink_to("same")
    (here / "one.jsonl").symlink_to("same")
    (here / "far.vtt").symlink_to("no/such/folder.vtt")
    for out, said in (("circle.vtt", "cannot be written"), ("film.vtt", "neither of them the video"), ("one.vtt", "two files"),
                      ("far.vtt", "cannot be written")):
        assert said in refused(film, "--out", out)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n"
AWQ = {"quant_method": "awq", "bits": 4}


def shard(folder: Path) -> None:
    tensors = sorted(load_file(folder / "model.safetensors"))
    names = {name: f"model-0000{1 + k % 2}-of-00002.safetensors" for k, name in enumerate(tensors)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct"}))
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def spoil(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.language_model.norm.weight" if "model.language_model.norm.weight" in tensors else sorted(tensors)[0]][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


REASONS = {
    "AWQ": (lambda folder: edit(folder, quantization_config=AWQ), "is quantised (awq)"),
    "GPTQ of old": (lambda folder: (folder / "quantize_config.json").write_text('{"bits": 4}'), "is quantised (quantize_config.json)"),
    "bitsandbytes": (lambda folder: edit(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "(bitsandbytes)"),
    "LoRA": (adapter, "is a LoRA adapter for Qwen/Qwen2.5-VL-7B-Instruct"),
    "a shard is missing": (shard, "lacks model-00002-of-00002.safetensors"),
    "LFS": (lambda folder: (folder / "model.safetensors").write_bytes(LFS), "holds model.safetensors only as a pointer of Git LFS"),
    "LFS tokenizer": (lambda folder: (folder / "tokenizer.json").write_bytes(LFS), "tokenizer.json only as a pointer"),
    "half downloaded": (lambda folder: cut(folder / "model.safetensors", 100_000), "model.safetensors only in part"),
    "NaN": (spoil, "numbers that are not finite, in "),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_wrong_with_a_model_is_said_as_it_is(refused, videos, model, tmp_path, name):
    shutil.copytree(model, tmp_path / "model")
    spoiled, said = REASONS[name]
    spoiled(tmp_path / "model")
    message = refused(videos / "plain.mp4", "--model", tmp_path / "model")
    assert said in message and "make repro" not in message


@pytest.mark.parametrize("line", ["video: {fps: .nan}", "video: {fps: .inf}", "video: {chunk_s: .nan}", "video: {chunk_s: 1e300}",
                                  "run: {threads: 99999999999}",
                                  "stream: {repetition_penalty: .nan}", "stream: {max_new_tokens: 99999999999}",
                                  "video: {max_pixels: 1" + 400 * "0" + "}",
                                  "cache: {text_window: 99999999999999999999}", "video: {fps: 1000, chunk_s: 3600}"])
def test_numbers_that_are_none_are_refused_before_anything_starts(refused, here, videos, model, line):
    (here.parent / "mine.yaml").write_text(line + "\n")
    assert "must be" in refused(videos / "plain.mp4", "--model", model, "--params", here.parent / "mine.yaml")
