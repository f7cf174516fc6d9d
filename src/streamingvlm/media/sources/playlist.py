"""An HLS playlist (RFC 8216) as text -> its segments with their dates, or the variants to choose from. Pure: fetches nothing.

Read here and not by FFmpeg, whose reader keeps the dates, the end of the list and the reasons of a failure to itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urljoin

from streamingvlm.media.sources.protocol import SourceError

HEIGHT_PX = 720  # models look at no more


@dataclass(frozen=True)
class Segment:
    """`number` counts the stream's segments. `date`: when its first picture was captured, seconds since 1970, by the sender. `part`: (first byte,
    bytes) of the address. `setup`: the address of what has to be read before it."""

    number: int
    address: str
    length_s: float
    date: float | None = None
    breaks: bool = False  # nothing goes on from the segment before
    locked: bool = False  # encrypted
    part: tuple[int, int] | None = None
    setup: str | None = None


@dataclass(frozen=True)
class Playlist:
    """`target_s`: no segment is longer. `ended`: none will be added. `variants`: (height, bits a second, address) where this is a list of lists."""

    target_s: float
    segments: tuple[Segment, ...]
    ended: bool
    variants: tuple[tuple[int, int, str], ...]

    def variant(self) -> str | None:
        """The address of the best picture that is no higher than HEIGHT_PX, else of the smallest; None if there is nothing to choose."""
        small = [v for v in self.variants if v[0] <= HEIGHT_PX]
        return max(small)[2] if small else min(self.variants)[2] if self.variants else None


def parse(text: str, address: str) -> Playlist:
    """`address`: where it was found. Raises `SourceError` for what is no playlist."""
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines()]
    if not lines or not lines[0].startswith("#EXTM3U"):
        raise SourceError("What it sends is no HLS playlist: see whether the address is right.")
    tags = [tuple(line.partition(":")[::2]) for line in lines if line]
    named = dict(tags)
    try:
        segments = _segments(tags, address, int(named.get("#EXT-X-MEDIA-SEQUENCE", 0)))
        target_s = float(named.get("#EXT-X-TARGETDURATION", 0)) or max((s.length_s for s in segments), default=2.0)
        return Playlist(target_s, tuple(segments), "#EXT-X-ENDLIST" in named, tuple(_variants(tags, address)))
    except ValueError:
        raise SourceError("Its HLS playlist is damaged: see what serves it.") from None


def _segments(tags: list[tuple[str, str]], address: str, number: int) -> list[Segment]:
    found, fresh = [], Segment(number, "", 0.0)
    following, at = fresh, 0  # at: where in its file a part begins that does not say so
    for name, value in tags:
        if name == "#EXTINF":
            following = replace(following, length_s=float(value.partition(",")[0]))
        elif name == "#EXT-X-PROGRAM-DATE-TIME":
            following = replace(following, date=_date(value))
        elif name == "#EXT-X-DISCONTINUITY":
            following = replace(following, breaks=True, date=None)
        elif name == "#EXT-X-KEY":
            following = replace(following, locked="METHOD=NONE" not in value)
        elif name == "#EXT-X-MAP":
            following = replace(following, setup=urljoin(address, _attributes(value).get("URI", "")))
        elif name == "#EXT-X-BYTERANGE":
            size, _, first = value.partition("@")
            following = replace(following, part=(int(first) if first else at, int(size)))
            at = sum(following.part)
        elif not name.startswith("#") and following.length_s:
            place = urljoin(address, f"{name}:{value}" if value else name)
            found.append(replace(following, address=place))
            date = None if following.date is None else following.date + following.length_s
            following = replace(following, number=following.number + 1, length_s=0.0, date=date, breaks=False, part=None)
    return found


def _variants(tags: list[tuple[str, str]], address: str) -> list[tuple[int, int, str]]:
    found, about = [], None
    for name, value in tags:
        if name == "#EXT-X-STREAM-INF":
            about = _attributes(value)
        elif not name.startswith("#") and about is not None:
            height = int(about.get("RESOLUTION", "0x0").partition("x")[2])
            found.append((height, int(about.get("BANDWIDTH", 0)), urljoin(address, f"{name}:{value}" if value else name)))
            about = None
    return found


def _attributes(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in re.findall(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)', text)}


def _date(text: str) -> float:
    """ISO 8601, also with +0000 and with more digits than a microsecond has; without a zone it is taken for UTC."""
    text = re.sub(r"(\.\d{1,6})\d*", r"\1", text.strip())
    date = datetime.fromisoformat(text)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
