"""The reviewer's page, made from a small hand-made reports folder that DVC tracks as it does the real one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from dvc.repo import Repo
from PIL import Image

from streamingvlm.base import config
from streamingvlm.base.paths import repository_root
from streamingvlm.evaluation import claims, ledger_inputs, ledger_text
from streamingvlm.reporting import report_page

ROOT = repository_root(Path(__file__).parent)
SCORES = {"event_accuracy": 0.9, "event_f1": 0.8, "who": None, "score": 0.7, "increment": 0.6}
NUMBERS = {"ablation": {"streaming": {"overlapped": SCORES | {"first_quarter": SCORES, "last_quarter": SCORES, "kv_tokens": 214}}},
           "asked": {"clip": {"base": {way: {"asked": 91, "accuracy": right, "chance": 0.13, "kinds": {"side": 0.25, "goals": 1.0}}
                                       for way, right in (("free", 0.5), ("chosen", 0.75))}}},
           "compress": {"int8": SCORES | {"zeros": 0.0, "bytes": 1_500_000, "memory_bytes": 1_400_000}}}
LINES = [{"stream": "long", "student": "overlapped", "pass": "alone", "policy": "streaming", "chunk": k, "kv_tokens": 40, "memory_mb": 500.0,
          "ms": {"total": 10.0 + k % 3}} for k in range(40)]
NOTEBOOKS = ("03_compress", "04_stream", "05_evaluate")
DVC_YAML = """
stages:
  evaluate:
    cmd: "true"
    params: [evaluate]
    outs: [reports/figures, reports/notebooks/03_compress.ipynb, reports/notebooks/04_stream.ipynb, reports/notebooks/05_evaluate.ipynb]
    metrics: [reports/metrics.json: {cache: false}]
"""


def reports(root: Path) -> None:
    """Everything that a run leaves and the page shows, as small as it can be."""
    folder = root / "reports"
    for name in ("figures", "timings", "notebooks", "reference", "city", "live"):
        (folder / name).mkdir(parents=True)
    (folder / "timings" / "stream.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    compress_ms = [{"variant": "int8", "chunk_ms_p50": 5.0}]
    (folder / "timings" / "compress.json").write_text(json.dumps(compress_ms))
    (folder / "metrics.json").write_text(json.dumps(NUMBERS))
    measured = ledger_inputs.measured(NUMBERS, LINES, compress_ms, config.load(root / "params.yaml"))
    ledger_text.write(claims.ledger(measured, dict.fromkeys(claims.CONDITIONS, "two cores")), folder)
    Image.new("RGB", (40, 10)).save(folder / "timings" / "band.png")
    (folder / "timings" / "band.txt").write_text("Verdicts: P1 flat cost: not measured.\n")
    for name in report_page.FIGURES:
        Image.new("RGB", (4, 3)).save(folder / f"{name}.png")
        (folder / f"{name}.html").write_text(f'{{"title":{{"text":"{name}: 1.5 \\u003cbr\\u003eagainst \\"2\\""}}}}')
    text = nbformat.v4.new_markdown_cell("# 5 · Evaluation\n\n![latency](../timings/latency.png)", id="a")
    code = nbformat.v4.new_code_cell("1 + 1", id="b", outputs=[nbformat.v4.new_output("stream", text="two & a half")])
    for name in NOTEBOOKS:
        nbformat.write(nbformat.v4.new_notebook(cells=[text, code]), folder / "notebooks" / f"{name}.ipynb")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A repository after a run: its reports and a dvc.lock that describes them."""
    root = tmp_path_factory.mktemp("finished")
    for name in ("params.yaml", "requirements.in", "requirements.txt"):
        shutil.copy(ROOT / name, root / name)
    (root / "dvc.yaml").write_text(DVC_YAML)
    reports(root)
    with contextlib.chdir(root), Repo.init(no_scm=True) as repo:
        repo.commit(force=True)
    return root


@pytest.fixture
def root(finished, tmp_path, monkeypatch) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory) -> Path:
    """The same, and the page was made: to look at, not to change."""
    copy = tmp_path_factory.mktemp("made") / "copy"
    shutil.copytree(finished, copy)
    with contextlib.chdir(copy):
        assert report_page.main() == 0
    return copy


class Seen(HTMLParser):
    """Tags with their attributes in order, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def seen(root: Path) -> Seen:
    assert report_page.main() == 0
    return Seen((root / "reports" / "index.html").read_text())


def refused(root: Path, capsys) -> str:
    """The one sentence said, where no page may be left, not even that of an earlier run."""
    for name in ("index", "notebooks/00_tour"):
        (root / "reports" / f"{name}.html").write_text("of an earlier run")
    assert report_page.main() == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "`make repro" in said.err
    assert not [path for path in (root / "reports").rglob("*") if path.match("reports/*.html") or path.match("notebooks/*.html")]
    assert not list((root / "reports").rglob("*.part"))
    return said.err


def index(made: Path) -> Seen:
    return Seen((made / "reports" / "index.html").read_text())


def test_the_ledger_comes_first_and_is_whole(made):
    found = index(made)
    ids = [attrs["id"] for attrs in found.all("article")]
    assert ids == [f"claim-{name}" for name in claims.claims()["claims"]]
    order = [attrs["id"] for name, attrs in found.tags if name == "h2"]
    assert order == ["ledger", "second", "figures", "tables", "published", "provenance", "notebooks"]
    for row in json.loads((made / "reports/claims.json").read_text()):
        assert row["claim"] in found.text and row["verdict"] in found.text and row["why"].replace("`", "") in found.text


def test_every_link_leads_somewhere_and_nothing_is_fetched(made):
    pages = {made / "reports" / "index.html": index(made)}
    pages |= {path: Seen(path.read_text()) for path in (made / "reports/notebooks").glob("*.html")}
    assert len(pages) == 1 + len(NOTEBOOKS)
    for path, found in pages.items():
        assert not found.all("script")
        assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//|@import", path.read_text())
        ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        for target in [attrs["href"] for attrs in found.all("a")] + [attrs["src"] for attrs in found.all("img")]:
            if target.startswith("#"):
                assert target[1:] in ids, target
            elif not target.startswith("data:image/png;base64,"):
                assert (path.parent / target).is_file(), target


def test_a_figure_says_its_own_facts_and_tables_say_what_they_are(made):
    found = index(made)
    drawn = [f'{name}: 1.5  against "2"' for name in report_page.FIGURES]
    assert [attrs["alt"] for attrs in found.all("img")] == ["Verdicts: P1 flat cost: not measured.", *drawn]
    assert len(found.all("caption")) == len(found.all("table")) > 3
    assert all(attrs.get("scope") for attrs in found.all("th"))


def test_questions_stand_by_what_is_asked(made):
    text = "".join(index(made).text.partition("Questions about held-out matches")[2].split())
    assert "firstscorergoalsclipbase910.5000.7500.1300.250–––––1.000" in text


def test_what_was_not_measured_is_said(root):
    text = seen(root).text
    assert "Win rates: not measured." in text and "Over several seeds: not measured" in text and "There is nothing to compare with" in text
    assert text.count("not measured") > 5 and "–" in text and not re.search(r"\bnan\b", text, re.IGNORECASE)
    (root / "reports/timings.json").write_text(json.dumps({"ablation": {"streaming": {"overlapped": {"chunk_ms_p50": 12.34}}}}))
    (root / "reports/timings/wall.json").write_text('{"evaluate": 61.25}')
    text = seen(root).text
    assert "12.3" in text and "within this machine's noise" not in text and text.count("61.2") == 2, "of the stage, and of all stages together"


def test_the_first_screen_has_the_date_the_band_and_why_full_fails(made):
    numbers = json.loads((made / "reports/metrics.json").read_text())
    found = index(made)
    first = found.text.partition("Words used here")[0]
    assert "The run of two cores" in first and "Of the paper's claims:" in first and "exact score in 70.0%" in first
    assert next(name for name, _ in found.tags if name in {"img", "h2"}) == "img", "the band stands before the first heading"
    assert "a length it never saw" not in first, "full was not run"
    assert "event F1" not in first and numbers


def test_times_that_equal_models_reach_too_are_grey(root):
    ms = {"streaming": {"overlapped": {"chunk_ms_p50": 10.0}}, "full": {"overlapped": {"chunk_ms_p50": 40.0}}}
    assert report_page._noisy({"ablation": ms, "noise": 1.2}) == set()
    near = ms | {"window": {"overlapped": {"chunk_ms_p50": 9.0}}}
    compressed = {"float32": {"chunk_ms_p50": 8.0}, "int8": {"chunk_ms_p50": 9.5}, "pruned25": {"chunk_ms_p50": 9.7}}
    assert report_page._noisy({"ablation": near, "compress": compressed, "noise": 1.2}) == {
        ("ablation", "window", "overlapped"), ("compress", "int8")}
    assert report_page._noisy({"ablation": near}) == report_page._noisy({}) == set()
    (root / "reports/timings.json").write_text(json.dumps({"compress": {name: compressed["float32"] for name in ("float32", "int8")}, "noise": 1.1}))
    found = seen(root)
    assert [attrs for attrs in found.all("td") if attrs.get("class") == "noise"] and "Equal models took up to 1.10 times" in found.text


def test_what_comes_from_data_is_text_and_never_markup(root):
    path = root / "reports/claims.json"
    rows = json.loads(path.read_text())
    rows[0]["why"] = "<script>alert(1)</script> & `<img src=x>`"
    path.write_text(json.dumps(rows))
    found = seen(root)
    assert not found.all("script") and len(found.all("img")) == len(report_page.FIGURES) + 1
    assert "<script>alert(1)</script> & <img src=x>" in found.text


def test_the_same_reports_give_the_same_bytes(root, made, capsys):
    files = ["index.html", "notebooks/05_evaluate.html"]
    seen(root)
    assert capsys.readouterr().out == "The report: reports/index.html\n"
    assert [(made / "reports" / name).read_bytes() for name in files] == [(root / "reports" / name).read_bytes() for name in files]


@pytest.mark.parametrize("name", ["figures/quality.png", "figures/quality.html", "timings/memory.png", "timings/band.png", "timings/stream.jsonl",
                                  "timings/compress.json", "metrics.json", "claims.json", "notebooks/05_evaluate.ipynb"])
def test_what_is_missing_is_named_and_no_page_is_left(root, capsys, name):
    (root / "reports" / name).unlink()
    folder = "reports/figures" if name.startswith("figures") else f"reports/{name}"  # DVC knows the folder, not its files
    assert folder in refused(root, capsys)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(("name", "old", "new", "named"), [
    ("reports/figures/quality.html", "1.5", "1.6", "reports/figures"),
    ("reports/metrics.json", "0.8", "0.81", "reports/metrics.json"),
    ("reports/notebooks/05_evaluate.ipynb", "1 + 1", "1 + 2", "reports/notebooks/05_evaluate.ipynb"),
    ("params.yaml", "tolerance_s: 1.0", "tolerance_s: 2.0", "params.yaml (evaluate)"),
    ("reports/timings/stream.jsonl", '"total": 11.0', '"total": 19.0', "P1 does not follow"),
    ("reports/claims.json", claims.NOT_MEASURED, claims.REPRODUCED, "does not follow"),
])
def test_what_is_of_another_run_is_named_and_no_page_is_left(root, capsys, name, old, new, named):
    change(root / name, old, new)
    assert named in refused(root, capsys)


def test_a_timed_figure_older_than_its_numbers_is_of_another_run(root, capsys):
    old = (root / "reports/timings/stream.jsonl").stat().st_mtime - 3600
    os.utime(root / "reports/timings/latency.png", (old, old))
    assert "reports/timings/latency.png is older" in refused(root, capsys)


def test_a_band_older_than_the_ledger_is_of_another_run(root, capsys):
    old = (root / "reports/claims.json").stat().st_mtime - 3600
    os.utime(root / "reports/timings/band.png", (old, old))
    assert "reports/timings/band.png is older" in refused(root, capsys)


@pytest.mark.parametrize("name", ["claims.json", "timings/stream.jsonl", "timings/wall.json"])
def test_half_a_file_is_named(root, capsys, name):
    (root / "reports" / name).write_text('{"P1": ')
    assert f"reports/{name} cannot be read" in refused(root, capsys)
