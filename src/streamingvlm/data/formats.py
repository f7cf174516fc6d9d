"""The published data sets -> stream rows. Knows no model and opens no video; `integrity.check` says which of theirs can be used.

    rows = InfStreamsTrain(folder / "train_s12w24_with_seeks.jsonl", videos=folder)   # a sequence: reads a line when it is asked for
    rows = list(inf_streams_eval(folder / "eval_all_metadata.jsonl", videos=folder, start_s=1000))
    rows = list(live_sports_cc(folder / "LiveSports-3K-CC.json", videos=folder / "videos"))

A row is the contract of `subset`, without its split, `frames` empty, times in seconds of the video; `fps` is 0 (no format says it) until `check`
fills in the file's own. A sentence's words share its time evenly, as the paper does with edited sentences (section 2.3.2). A malformed line is
a `UserError` that names file, line and field. Where the layouts come from, none of the data being at hand when this was written:

- Inf-Streams-Train: the released loader (mit-han-lab/streaming-vlm, streaming_vlm/data/lmm_dataset.py) and LiveCC's writer of the same layout
  (showlab/livecc, data/production/to_conversation.py). JSON lines, each [{role: user, content: [{type: video, video, video_start, video_end},
  {type: text, text, previous, title, category}]}, {role: assistant, content: [{type: text_stream, text_stream: [[start, end, word], ...]}]}].
  Words are timed by the video, not by the clip. The bytes at which lines start are a JSON list in a file of their own: x_with_seeks.jsonl has
  x_seeks.jsonl. (LiveCC's loader finds that list in the last line instead.) A `qa_stream` is left out: a row has no place for it.
- Inf-Streams-Eval: the released scripts of model_compete (generate_segments.py, score_segments.py). JSON lines {video, title, content: [[start,
  end, text], ...]}. They start at second 1000 with what was said until then as previous text; videos are looked up below the data set.
- LiveSports-3K-CC (stdKonjac/LiveSports-3K): its dataset card, LiveCC's scripts, and one entry quoted in public code. JSON, before May 2025 CSV:
  video_id, url, event_id, begin, end, event_type, video, class, event_title, event_asr and preasr (JSON in a string: [[start, end, sentence],
  ...], timed by the video), event_asr_text, preasr_text. The CSV test split had no transcript.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from streamingvlm.base import config
from streamingvlm.base.errors import UserError

QUERY = config.Stream().query
TRIPLES = "a list of [start, end, text]"
Where = Callable[[], str]  # the place of an entry in its file, in words


class _Malformed(Exception):
    def __init__(self, name: str, wanted: str, value: object):
        super().__init__(f"`{name}` must be {wanted}, not {repr(value)[:60]}")


class InfStreamsTrain(Sequence[dict]):
    """Rows of a file of conversations, one line read per row. `seeks`: its index, if not where the name says; without any, lines are counted."""

    def __init__(self, path: Path, videos: Path, seeks: Path | None = None):
        self.path, self.videos = Path(path), Path(videos)
        _exists(self.path)
        named = self.path.with_name(f"{self.path.stem.replace('_with_seeks', '')}_seeks.jsonl")
        self.seeks = Path(seeks) if seeks else named if named.exists() else None
        self._offsets = _index(self.seeks) if self.seeks else _scan(self.path)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, item):
        if isinstance(item, slice):
            return [self[k] for k in range(*item.indices(len(self)))]
        number = range(len(self))[item]  # IndexError and negative numbers as in a list
        offset = self._offsets[number]
        with self.path.open("rb") as file:
            file.seek(max(0, offset - 1))
            if (offset and file.read(1) != b"\n") or not (line := file.readline()):
                raise UserError(f"{self.seeks} does not belong to {self.path}: no line starts at byte {offset} (entry {number + 1}); fetch both "
                                "files again, or move the index away.")
        where = partial(_line_at, self.path, offset)  # counted only if it is to be said
        return _entry(self.path, where, _parse(self.path, where, line), partial(_conversation, number=number, videos=self.videos))


def inf_streams_eval(path: Path, videos: Path, start_s: float | None = 0.0, query: str = QUERY) -> Iterator[dict]:
    """Rows of whole games from `start_s` on, what was said before as their previous text. None: from the first word, for a file of clips."""
    _exists(path)
    with Path(path).open("rb") as file:
        for number, line in enumerate(file):
            where = partial("line {}".format, number + 1)
            if line.strip():
                convert = partial(_game, number=number, videos=Path(videos), start_s=start_s, query=query)
                yield _entry(path, where, _parse(path, where, line), convert)


def live_sports_cc(path: Path, videos: Path, query: str = QUERY) -> Iterator[dict]:
    """Rows of events, from the JSON file or one of the older CSV files."""
    _exists(path)
    for where, data in _csv(path) if Path(path).suffix == ".csv" else _array(path):
        yield _entry(path, where, data, partial(_event, videos=Path(videos), query=query))


def _conversation(data: object, number: int, videos: Path) -> dict:
    user, assistant = (_elements(data, role) for role in ("user", "assistant"))
    name = _text(user, "video")
    start_s, end_s = _span(user, "video_start", "video_end")
    return _row(f"{Path(name).stem}-{number:06d}", videos / name, _text(user, "title", ""), _text(user, "text", QUERY), _text(user, "previous", ""),
                start_s, end_s, _words(assistant.get("text_stream"), "text_stream"))


def _elements(data: object, role: str) -> dict:
    """Everything one side of the conversation says about itself: its elements' keys in one dict."""
    messages = [m for m in data if isinstance(m, dict) and m.get("role") == role] if isinstance(data, list) else []
    content = messages[0].get("content") if messages else None
    if not isinstance(content, list) or not all(isinstance(element, dict) for element in content):
        raise _Malformed(f"{role}.content", "a list of elements", content)
    return {key: value for element in content for key, value in element.items()}


def _game(data: object, number: int, videos: Path, start_s: float | None, query: str) -> dict:
    data = _object(data)
    name, words = _text(data, "video"), _words(data.get("content"), "content")
    start_s = start_s if start_s is not None else math.floor(words[0]["start_s"]) if words else 0.0
    rest = [word for word in words if word["end_s"] > start_s]
    if not rest:
        raise _Malformed("content", f"words after second {start_s:g}", data["content"])
    previous = " ".join(word["text"] for word in words if word["end_s"] <= start_s)
    end_s = max(word["end_s"] for word in rest)
    return _row(f"{Path(name).stem}-{number:06d}", videos / name, _text(data, "title", ""), query, previous, start_s, end_s, rest)


def _event(data: object, videos: Path, query: str) -> dict:
    data = _object(data)
    start_s, end_s = _span(data, "begin", "end")
    words, text = _transcript(data, "event_asr"), _text(data, "event_asr_text", "")
    if not words and text:  # without times of its own it is said at any time of the event
        words = _words([[start_s, end_s, text]], "event_asr_text")
    previous = _text(data, "preasr_text", "") or " ".join(word["text"] for word in _transcript(data, "preasr"))
    identity = f"{_text(data, 'video_id')}_{_text(data, 'event_id')}"  # as LiveCC's scripts join them
    return _row(identity, videos / _text(data, "video"), _text(data, "event_title", ""), query, previous, start_s, end_s, words)


def _row(name: str, path: Path, title: str, query: str, previous: str, start_s: float, end_s: float, words: list[dict]) -> dict:
    return {"id": name.replace("/", "_"), "video": str(path), "title": title, "query": query, "previous_text": " ".join(previous.split()),
            "start_s": float(start_s), "end_s": float(end_s), "fps": 0.0, "words": words, "frames": []}


def _object(data: object) -> dict:
    if not isinstance(data, dict):
        raise _Malformed("the line", "an object", data)
    return data


def _text(data: Mapping, name: str, default: str | None = None) -> str:
    value = data.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, str | int) or (default is None and value == ""):
        raise _Malformed(name, "text", value)
    return str(value)


def _span(data: Mapping, start: str, end: str) -> tuple[float, float]:
    values = []
    for name in (start, end):
        try:  # CSV holds numbers as text
            values.append(float(data.get(name)) if not isinstance(data.get(name), bool) else math.nan)
        except (TypeError, ValueError):
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise _Malformed(name, "a number of seconds", data.get(name))
    if not 0 <= values[0] < values[1]:
        raise _Malformed(end, f"after `{start}`, which is {values[0]:g} and must not be negative", data.get(end))
    return values[0], values[1]


def _transcript(data: Mapping, name: str) -> list[dict]:
    """A list of sentences, as it is or as JSON in a string; nothing where there is none."""
    value = data.get(name)
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError:
            raise _Malformed(name, TRIPLES, value) from None
    return _words(value, name) if value else []


def _words(value: object, name: str) -> list[dict]:
    """[[start, end, text], ...] -> the contract's words; a text of several words is shared out evenly over its time."""
    if not isinstance(value, list):
        raise _Malformed(name, TRIPLES, value)
    words = []
    for k, item in enumerate(value):
        match item:
            case [int() | float() as start, int() | float() as end, str() as text] if math.isfinite(start) and math.isfinite(end):
                pieces = text.split()
                edges = np.linspace(start, end, len(pieces) + 1).tolist()
                words += [{"start_s": edges[j], "end_s": edges[j + 1], "text": piece} for j, piece in enumerate(pieces)]
            case _:
                raise _Malformed(f"{name}[{k}]", "[start, end, text]", item)
    return words


def _array(path: Path) -> Iterator[tuple[Where, object]]:
    entries = _parse(path, lambda: "the whole file", Path(path).read_bytes())
    if not isinstance(entries, list):
        raise UserError(f"{path} must be a JSON list of events: fetch the file again, or name another one.")
    for number, data in enumerate(entries):
        yield partial("entry {}".format, number + 1), data


def _csv(path: Path) -> Iterator[tuple[Where, object]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for data in reader:
                yield partial("line {}".format, reader.line_num), data
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}, line {reader.line_num}: it is not CSV ({error}); fetch the file again.") from None


def _parse(path: Path, where: Where, line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # also bytes that are not UTF-8
        raise UserError(f"{path}, {where()}: it is not JSON; fetch the file again, or remove the line.") from None


def _entry(path: Path, where: Where, data: object, convert: Callable[[object], dict]) -> dict:
    try:
        return convert(data)
    except _Malformed as error:
        raise UserError(f"{path}, {where()}: {error}; mend or remove it.") from None


def _exists(path: Path) -> None:
    if not os.path.isfile(path):
        raise UserError(f"There is no file {path}: download the data set, or name another file.")


def _index(path: Path) -> list[int]:
    _exists(path)
    try:
        offsets = json.loads(Path(path).read_bytes())
    except ValueError:
        offsets = None
    if not isinstance(offsets, list) or not all(type(offset) is int and offset >= 0 for offset in offsets):
        raise UserError(f"{path} must be a JSON list of byte offsets: fetch it again, or move it away and lines are counted.")
    return offsets


def _scan(path: Path) -> list[int]:
    """Where the lines of a file without an index start; a last line that is itself an index is none of them."""
    offsets, at = [], 0
    with path.open("rb") as file:
        for line in file:
            if line.strip() and not re.match(rb"\s*\[\s*\d", line):
                offsets.append(at)
            at += len(line)
    return offsets


def _line_at(path: Path, offset: int) -> str:
    number = 1
    with path.open("rb") as file:
        while offset > 0 and (block := file.read(min(offset, 1 << 20))):
            number, offset = number + block.count(b"\n"), offset - len(block)
    return f"line {number}"
