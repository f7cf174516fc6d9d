"""W&B: off unless asked for, offline without an account, and whatever breaks in it, the run goes on and says so once."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from streamingvlm.workbench import tracking


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty repository, and none of the caller's own W&B settings."""
    (tmp_path / "params.yaml").write_text("run: {}\n")
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_RUN_GROUP", "WANDB_SWEEP_ID", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


class Fake:
    """wandb with something broken in it: breaks at `init`, `log` or `finish`."""

    Settings = staticmethod(lambda **settings: settings)
    Table, Image, Html = (staticmethod(lambda *args, **kwargs: (args, kwargs)) for _ in range(3))

    def __init__(self, breaks: str = ""):
        self.breaks, self.logged, self.begun, self.ended = breaks, [], [], []

    def _maybe(self, what):
        if self.breaks == what:
            raise OSError(f"no {what}\nat all")

    def init(self, **settings):
        self._maybe("init")
        self.begun.append(settings)
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, row):
        self._maybe("log")
        self.logged.append(row)

    def finish(self, exit_code):
        self._maybe("finish")
        self.ended.append(exit_code)


@pytest.fixture
def fake(here, monkeypatch):
    def use(breaks=""):
        made = Fake(breaks)
        monkeypatch.setitem(sys.modules, "wandb", made)
        monkeypatch.setenv("WANDB_MODE", "offline")
        return made
    return use


def everything(folder, params=None):
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "score.png").write_bytes(b"\x89PNG")
    (folder / "figures" / "score.html").write_text('<script src="plotly.min.js"></script>')
    with tracking.run("test", params or {"lr": 1.0}) as log:
        for step in range(3):
            log({"loss": 1.0 / (step + 1), "who": None})
        log.table("said", [{"second": 1, "said": "goal"}, {"second": 2, "said": ""}])
        log.table("empty", [])
        log.figures(folder / "figures")


def test_it_is_off_unless_asked_for(fake, here, monkeypatch):
    wandb = fake()
    for mode in (None, "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode) if mode else monkeypatch.delenv("WANDB_MODE")
        everything(here)
    assert not wandb.begun
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")  # W&B's agent runs this: that is asking
    everything(here)
    assert len(wandb.begun) == 1


def test_what_is_logged(fake, here):
    wandb = fake()
    everything(here)
    *curve, table, figures = wandb.logged
    assert curve == [{"loss": 1.0}, {"loss": 0.5}, {"loss": 1.0 / 3}]
    assert table == {"said": ((), {"columns": ["second", "said"], "data": [[1, "goal"], [2, ""]]})}
    assert set(figures) == {"score", "score/interactive"}
    (page,), _ = figures["score/interactive"]
    assert 'src="https://cdn.plot.ly/plotly-' in page
    config = wandb.begun[0]["config"]
    assert config["lr"] == 1.0 and {"hardware", "versions", "git", "params_hash"} <= set(config["provenance"]) and wandb.ended == [0]


def test_the_stages_of_one_run_are_one_group_unless_it_is_named(fake, here, monkeypatch):
    wandb = fake()
    everything(here, {"lr": 1.0})
    everything(here, {"policy": "full"})
    (here / "params.yaml").write_text("run: {threads: 2}\n")
    everything(here)
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    everything(here)
    groups = [one["group"] for one in wandb.begun]
    assert groups[0] == groups[1] != groups[2] and groups[3] == "mine"


@pytest.mark.parametrize("breaks", ["init", "log", "finish"])
def test_whatever_breaks_the_run_goes_on_and_says_so_once(breaks, fake, here, capsys):
    wandb = fake(breaks)
    everything(here)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and f"no {breaks} at all" in said[0] and "going on without it" in said[0]
    assert len(wandb.logged) == (5 if breaks == "finish" else 0)


def test_nobody_is_asked_for_a_key(fake, here, monkeypatch, capsys):
    wandb = fake()
    monkeypatch.setenv("WANDB_MODE", "online")
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)

    def asks(**settings):  # as W&B does where a terminal listens
        if sys.stdin.isatty():
            pytest.fail("it would wait for an answer")
        raise RuntimeError("No API key configured")

    wandb.init = asks
    everything(here)
    assert "No API key configured" in capsys.readouterr().err and sys.stdin is terminal


@pytest.mark.parametrize("module", [None, SimpleNamespace()], ids=["not installed", "not W&B"])
def test_a_missing_wandb(module, here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_MODE", "offline")
    everything(here)
    assert capsys.readouterr().err.count("going on without it") == 1


def test_an_error_of_the_run_itself_is_not_swallowed(fake):
    wandb = fake("")
    with pytest.raises(ZeroDivisionError), tracking.run("test", {}):
        raise ZeroDivisionError
    assert wandb.ended == [1]


def test_offline_needs_no_account_and_can_be_synced_later(here, monkeypatch):
    """The real thing: a run file with the curve, the table and the figures in it, which `wandb sync` would send."""
    import wandb
    from PIL import Image

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (here / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(here / "figures" / "score.png")
    with tracking.run("test", {"lr": 1.0}) as log:
        log({"a.b.score": 0.25})
        log.table("said", [{"second": 1, "said": "goal left"}])
        log.figures(here / "figures")
    wandb.teardown()  # as a program's end does: until then the file may lag behind
    (folder,) = (here / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    kept = list(records(file))
    rows = [{item["nested_key"] or item["key"]: json.loads(item["value_json"]) for item in row} for row in kept]
    assert any(row.get("a.b.score") == 0.25 for row in rows)
    assert {path.suffix for path in (folder / "files" / "media").rglob("*.*") if path.is_file()} == {".png", ".json"}


def records(file):
    """The history rows in a .wandb file: after seven bytes, blocks of 32 KiB of chunks, each with checksum, length and kind (LevelDB's log)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, text = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no room for another chunk: the block is padded
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
        text += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            record, text = Record.FromString(text), b""
            if record.WhichOneof("record_type") == "history":
                yield [{"key": item.key, "nested_key": ".".join(item.nested_key), "value_json": item.value_json} for item in record.history.item]
