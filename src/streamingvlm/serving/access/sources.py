"""Where a camera that is added over the network may be taken from: what an operator listed in `cameras.yaml`, and nothing else. Opens nothing.

    allowed = Allowed(["rtsp://10.1.0.0/16", "https://*.example.org/live/", "file:/srv/clips"]); allowed.check("rtsp://10.1.2.3/stream")

`push:`, `webrtc:`, `pattern:` and `city:` reach nowhere and are always allowed. A network means addresses written as numbers; names are compared as
they are written, so a name that leads into a private network is the operator's to list. Without a list no address of a server or a file gets in.

What an HLS playlist names (variants, segments) and where its server redirects is checked too, each before it is asked. An RTSP server that
redirects is not followed at all. What a WebRTC offer lists as its sender's addresses is sent connectivity checks (STUN, some 100 bytes of UDP): who
may operate can have those sent anywhere, and learns nothing from it but whether a WebRTC client answers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.protocol import redacted

HARMLESS = ("push:", "webrtc:")
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
PLAIN = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")  # RFC 3986: what else stands in an address, two readers read in two ways


class Refused(UserError):
    """An address that the list does not hold (HTTP 403, gRPC PERMISSION_DENIED)."""


class Allowed:
    """`rules`: scheme://host, scheme://*.domain, scheme://network/bits, each but the last with a port and the beginning of a path if wanted, or
    file:/folder. UserError for a rule that is none of these."""

    def __init__(self, rules: Sequence[str]):
        self.files = [Path(rule[5:]).resolve() for rule in rules if rule.startswith("file:/")]
        self.servers = [_rule(rule) for rule in rules if not rule.startswith("file:/")]

    def check(self, address: str) -> None:
        """`Refused`, with a sentence that repeats no password."""
        if address in HARMLESS or re.fullmatch(r"(pattern|city):[\dx@./]+", address):
            return
        scheme = address.partition(":")[0].lower()
        if scheme in PORTS and PLAIN.fullmatch(address) and any(fits(address) for fits in self.servers):
            return
        if scheme == "file" and self._within(address):
            return
        raise Refused(f"{redacted(address)[:200]!r} is not among the sources that this service may be given from outside: list it in "
                      "`access.sources` of its cameras.yaml.")

    def _within(self, address: str) -> bool:
        path = Path(address[5:].removeprefix("//").partition("?")[0])
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        return path.is_absolute() and any(real.is_relative_to(folder) for folder in self.files)


def _rule(rule: str):
    """A rule -> whether an address fits it."""
    scheme, _, rest = rule.partition("://")
    if scheme.lower() not in PORTS or not rest or not PLAIN.fullmatch(rule) or "@" in rule:
        raise UserError(f"`access.sources`: {redacted(rule)[:100]!r} is no rule: write rtsp://10.1.0.0/16, https://*.example.org/live/ or "
                        "file:/folder.")
    try:
        network = ipaddress.ip_network(rest.strip("[]")) if "/" in rest else None
    except ValueError:
        network = None
    told = None if network else _parts(rule)
    if network is None and told is None:
        raise UserError(f"`access.sources`: {redacted(rule)[:100]!r} names no host: write rtsp://10.1.0.0/16 or https://*.example.org/live/.")

    def fits(address: str) -> bool:
        parts = _parts(address)
        if parts is None or parts[0] != scheme.lower():
            return False
        if network:
            return _in(parts[1], network)
        named = parts[1].endswith(told[1][1:]) and parts[1] != told[1][1:] if told[1].startswith("*.") else parts[1] == told[1]
        return named and parts[2] == told[2] and parts[3].startswith(told[3])

    return fits


def _in(host: str, network) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


def _parts(address: str) -> tuple[str, str, int, str] | None:
    """scheme, host, port, path without what climbs; None where there is no telling."""
    try:
        parts = urlsplit(address)
        scheme, host, port, path = parts.scheme.lower(), parts.hostname, parts.port, unquote(parts.path)
    except ValueError:
        return None
    if not host or ".." in path.split("/") or "%" in host:
        return None
    return scheme, host.rstrip("."), port or PORTS.get(scheme, 0), path
