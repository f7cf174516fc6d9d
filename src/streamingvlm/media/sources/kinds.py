"""An address -> the source that it names. The one list of kinds; knows what each address looks like, and nothing of what a source does with it.

    kinds.source("rtsp://camera.local/1")     kinds.source("file:match.mp4?loop=1")     kinds.source("pattern:640x360@30")

A kind that lives elsewhere (one that is pushed to, a world) comes in by `more`: its scheme -> what makes a source of an address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.file import File
from streamingvlm.media.sources.hls import Hls
from streamingvlm.media.sources.pattern import Pattern
from streamingvlm.media.sources.protocol import Source, redacted
from streamingvlm.media.sources.rtsp import TRANSPORTS, Rtsp

Make = Callable[[str], Source]
ADDRESSES = "rtsp://…, rtsps://…, https://….m3u8, file:clip.mp4?loop=1, a file's path, pattern:640x360@30, city:1/8, or webrtc: to push to"


def source(address: str, *, transport: str = "tcp", more: Mapping[str, Make] | None = None,
           check: Callable[[str], None] | None = None) -> Source:
    """`transport`: tcp or udp, of RTSP. `check`: see `Hls`, `Rtsp`. Raises `UserError` for an address that names no source; whether anything
    answers there shows later."""
    scheme = address.partition(":")[0].lower() if re.match(r"[A-Za-z][\w+.-]+:", address) else ""
    if transport not in TRANSPORTS:
        raise UserError(f"RTSP comes by {' or '.join(TRANSPORTS)}, not by {transport!r}: change `transport`.")
    if more and scheme in more:
        return more[scheme](address)
    if scheme in {"rtsp", "rtsps"}:
        return Rtsp(_with_host(address), transport, check=check)
    if scheme in {"http", "https"}:
        return Hls(_playlist(address), check=check)
    if scheme == "pattern":
        return pattern(address)
    if address == "webrtc:":
        from streamingvlm.media.sources.webrtc import WebRTCSource  # aiortc takes a while to load, and most have no use for it

        return WebRTCSource()
    if scheme in {"file", ""} and address:
        return _file(address)
    raise UserError(f"{redacted(address)!r} names no source: write {ADDRESSES}.")


def _with_host(address: str) -> str:
    try:
        parts = urlsplit(address)
        if parts.hostname and (parts.port is None or parts.port > 0):
            return address
    except ValueError:
        pass
    raise UserError(f"{redacted(address)!r} has no host, or a port that is no number: write rtsp://host:554/path, "
                    "and @ : / of a password as %40 %3A %2F.")


def _playlist(address: str) -> str:
    if urlsplit(_with_host(address)).path.lower().endswith((".m3u8", ".m3u")):
        return address
    raise UserError(f"{redacted(address)!r} is no HLS playlist: give the address that ends in .m3u8.")


def pattern(address: str) -> Pattern:
    """Raises `UserError` where `address` is no pattern:WIDTHxHEIGHT@FPS."""
    found = re.fullmatch(r"pattern:(\d+)x(\d+)(?:@(\d+(?:\.\d+)?))?", address, re.IGNORECASE)
    width, height, fps = (int(found[1]), int(found[2]), float(found[3] or 30)) if found else (0, 0, 0.0)
    if not (16 <= width <= 8192 and 16 <= height <= 8192 and 0 < fps <= 240):
        raise UserError(f"{address!r} is no test pattern: write pattern:640x360@30, sides of 16 to 8192 pixels, at most 240 pictures a second.")
    return Pattern(width, height, fps)


def _file(address: str) -> File:
    """A path is taken as it is; behind `file:` an address may end in options."""
    if not address.lower().startswith("file:"):
        return File(Path(address))
    path, _, query = address[5:].removeprefix("//").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    wrong = [f"{key}={value}" for key, value in options.items() if key not in {"loop", "pace"} or value not in {"0", "1"}]
    if wrong or not path:
        raise UserError(f"{address!r} names no file source: write file:clip.mp4, with ?loop=1 to repeat it, ?pace=0 to read it as fast as it goes.")
    return File(Path(path), options.get("loop") == "1", options.get("pace", "1") == "1")
