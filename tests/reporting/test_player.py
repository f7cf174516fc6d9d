"""The player's page: everything in one file, nothing from a network, and nothing that was said is ever taken for HTML."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.reporting import player

TEXTS = ["hit left", "", "goal <script>alert(1)</script> & \"so\" {lines} </button>", "save right\nstill 0 - 0"]
ROWS = [{"start_s": float(k), "end_s": k + 1.0, "text": text, "kv_tokens": 50 + k, "ms": {"total": 12.5 * k}} for k, text in enumerate(TEXTS)]
TRUTH = ["hit left", "", "goal left 1 - 0", "save right still 0 - 0"]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a match.mp4"
    path.write_bytes(b"not really a video")
    return path


class Page(HTMLParser):
    """Every tag with its attributes, and the text of each transcript line."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.lines, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "button":
            self.inside = True
            self.lines.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "button"

    def handle_data(self, data):
        if self.inside:
            self.lines[-1] += data

    def of(self, name: str) -> list[dict]:
        return [attrs for tag, attrs in self.tags if tag == name]


def test_the_transcript_has_every_comment_where_it_starts(video):
    page = Page(player.page("a match", video, ROWS, TRUTH))
    assert [float(line["data-start"]) for line in page.of("button")] == [row["start_s"] for row in ROWS]
    for line, row, true in zip(page.lines, ROWS, TRUTH, strict=True):
        assert (row["text"] or "…") in line and (true or "…") in line


def test_what_is_said_is_text(video):
    page = Page(player.page("<script>title</script>", video, ROWS, ["<img src=x onerror=alert(1)>"] * 4))
    assert len(page.of("script")) == 1 and not page.of("img")
    assert len(page.of("button")) == len(page.lines) == 4


def test_the_captions_are_the_comments(video):
    source = Page(player.page("a match", video, ROWS)).of("track")[0]["src"]
    vtt = base64.b64decode(source.removeprefix("data:text/vtt;base64,")).decode()
    cues = re.findall(r"^(\S+) --> (\S+)\n(.+)$", vtt, re.MULTILINE)
    assert vtt.startswith("WEBVTT") and [cue[0] for cue in cues] == [f"00:00:0{k}.000" for k in (0, 2, 3)], "silence has no cue"
    assert cues[2][2] == "save right still 0 - 0" and "<" not in cues[1][2]


def test_the_page_needs_nothing_else(video):
    text = player.page("a match", video, ROWS, TRUTH)
    sources = [attrs[key] for _, attrs in Page(text).tags for key in ("src", "href") if key in attrs]
    assert sources and all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?:|//\w+\.|@import|url\(", text)
    assert base64.b64encode(video.read_bytes()).decode() in text
    assert not re.search(r"\{(title|video|captions|charts|note|head|columns)\}", text)


def test_a_large_video_is_linked_to_from_where_the_page_lies(video, tmp_path, monkeypatch):
    monkeypatch.setattr(player, "EMBED_BYTES", 3)
    path = tmp_path / "reports" / "inside" / "player.html"
    player.write(path, "a match", video, ROWS)
    source = Page(path.read_text()).of("video")[0]["src"]
    assert source == "../../a%20match.mp4" and (path.parent / "../../a match.mp4").resolve() == video


def test_what_is_wrong_is_marked_only_where_it_was_judged(video):
    assert "≠" not in player.page("a match", video, ROWS, TRUTH)
    page = Page(player.page("a match", video, ROWS, TRUTH, [True, True, False, True]))
    assert ["≠" in line for line in page.lines] == [False, False, True, False]
    assert "3 of 4 chunks" in player.page("a match", video, ROWS, TRUTH, [True, True, False, True])


def test_charts_show_what_every_comment_has(video):
    assert player.page("a match", video, ROWS).count("<figure>") == 2
    untimed = [{key: value for key, value in row.items() if key != "ms"} for row in ROWS]
    assert player.page("a match", video, untimed).count("<figure>") == 1
    bare = [{"start_s": 0.0, "end_s": 1.0, "text": "hit left"}]
    assert player.page("a match", video, bare).count("<figure>") == 0


def test_bad_input_is_one_sentence(video, tmp_path):
    with pytest.raises(UserError, match="no comment"):
        player.page("a match", video, [])
    with pytest.raises(UserError, match="4 comments cannot stand beside 1"):
        player.page("a match", video, ROWS, ["hit left"])
    with pytest.raises(UserError, match="cannot be read"):
        player.write(tmp_path / "page.html", "a match", tmp_path / "none.mp4", ROWS)
    assert not (tmp_path / "page.html").exists()
