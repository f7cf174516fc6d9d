"""What holds for a camera that is added while the service runs and says nothing of it: the file's `camera:`, and nothing laxer than before.

    policies = Policies(settings.service, settings.camera); policies.taken(camera)      # each camera that is watched
    policies.completed({"name": "gate", "url": "rtsp://…"})                             # still to be checked, by `parse_camera`

The rule, of `privacy` and `keep`: what comes back under its name at its address is as it was. Any other camera is hidden as strictly as its name was,
as its place was (a server or a file, whatever stands behind it in the address), and as `camera:` says. Its records stay as long as those of its name,
which they lie among; where its place or `camera:` allows less, somebody has to say `keep`. With access set up that takes a token that administers, so
nobody else lays open or deletes anything by calling a camera otherwise. A host by two names is two hosts here: `camera:` is what holds for all.
Lasts as long as the process. Knows no token and no source.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from streamingvlm.serving import cameras as config
from streamingvlm.serving.governance import kept
from streamingvlm.serving.privacy.redactor import HIDE
from streamingvlm.serving.privacy.retention import Keep
from streamingvlm.serving.service import Conflict

MOST = 20_000  # names and places that are remembered


@dataclass(frozen=True)
class Policy:
    hide: str
    hold_s: float
    keep: Keep

    @classmethod
    def of(cls, settings: config.Service, camera: config.Camera) -> Policy:
        return cls(camera.privacy.hide, camera.privacy.hold_s, kept(settings, camera))

    def strictest(self, other: Policy) -> Policy:
        """Of each part of two policies the one that shows less, or keeps less."""
        shorter = Keep(*map(min, asdict(self.keep).values(), asdict(other.keep).values()))
        return Policy(max(self.hide, other.hide, key=list(HIDE).index), max(self.hold_s, other.hold_s), shorter)

    def told(self) -> dict:
        """As cameras.yaml says it."""
        return {"privacy": {"hide": self.hide, "hold_s": self.hold_s}, "keep": asdict(self.keep)}

    def __str__(self) -> str:
        times = ", ".join(f"{kind.removesuffix('_s')} {seconds:g} s" for kind, seconds in asdict(self.keep).items())
        return f"hides {self.hide}, keeps {times}"


class Policies:
    """`usual`: the keys that cameras share, `camera:` of cameras.yaml."""

    def __init__(self, settings: config.Service, usual: Mapping[str, object]):
        self.settings, self.usual = settings, dict(usual)
        self.least = Policy.of(settings, config.parse_camera(self.usual | {"name": "usual", "url": "push:"}))
        self.names: dict[str, tuple[str, Policy]] = {}  # a name in small letters -> its last address and policy, where they were not the usual one
        self.places: dict[str, Policy] = {}

    def taken(self, camera: config.Camera) -> Policy:
        """It is watched from now on -> its policy."""
        policy, name, where = Policy.of(self.settings, camera), camera.name.casefold(), place(camera.url)
        if policy == self.least:
            self.names.pop(name, None)
        else:
            self.names[name] = (camera.url, policy)
        strict = self.places.get(where, self.least).strictest(policy)
        if where and strict != self.least:
            self.places[where] = strict
        return policy

    def completed(self, camera: Mapping[str, object]) -> dict:
        """What is told of a camera, and what it leaves out. Conflict where nobody said how long its records may stay."""
        name, address = str(camera.get("name")).casefold(), str(camera.get("url"))
        before, (last, of_name) = self.places.get(place(address), self.least), self.names.get(name, ("", self.least))
        policy = of_name if address == last else of_name.strictest(before)  # a place is as strict as `camera:` at least
        if "keep" not in camera and policy.keep != of_name.keep:
            raise Conflict("Records of this name stay longer than those of this address may: take another name, or have who administers say `keep`.")
        if len(self.names) + len(self.places) >= MOST:
            raise Conflict("So many cameras were added under so many names that what is hidden of them can't be remembered: start the service again.")
        return config.merged(config.merged(self.usual, policy.told()), dict(camera))


def place(address: str) -> str:
    """The server or file that an address leads to, as far as writing tells; "" for what reaches nowhere."""
    scheme = address.partition(":")[0].lower()
    if scheme == "file" or ":" not in address:
        path = address[5:].removeprefix("//").partition("?")[0] if scheme == "file" else address
        return os.path.realpath(path.replace("\0", ""))
    if scheme not in {"rtsp", "rtsps", "http", "https"}:
        return ""
    try:
        host = (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:  # no address; whoever makes a source of it says so
        return ""
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(getattr(number, "ipv4_mapped", None) or number)
