"""What each way in needs: the one list, and what is not on it is refused. Knows no token and no framework.

    of("GET", "/api/cameras/gate/picture.jpg")      # Need(role "read", camera "gate"); None: there is no such way in
    of("gRPC", "/streamingvlm.v1.Analytics/Watch")  # WebSockets are "WS"

Roles: who may `operate` may read, who may `administer` may do both. `everything`: a token of some cameras only is not enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ROLES = ("read", "operate", "administer")
NAME = r"(?P<name>[^/]+)"
WAYS: tuple[tuple[str, str, str, bool], ...] = (  # methods, path, role, everything
    ("GET", r"/", "read", False),
    ("GET HEAD", r"/static/[\w.-]+", "read", False),
    ("GET HEAD", r"/api/openapi\.json", "read", False),
    ("GET", r"/healthz", "read", False),
    ("GET", r"/metrics", "read", True),
    ("GET", r"/datacard", "read", True),
    ("GET", r"/api/cameras", "read", False),
    ("POST", r"/api/cameras", "operate", False),
    ("DELETE", rf"/api/cameras/{NAME}", "operate", False),
    ("GET", rf"/api/cameras/{NAME}/picture\.jpg", "read", False),
    ("POST", rf"/api/cameras/{NAME}/ask", "read", False),
    ("GET", r"/api/results", "read", False),
    ("GET", r"/api/alarms", "read", False),
    ("GET", r"/api/alarms/[^/]+\.jpg", "read", False),
    ("GET", r"/api/stats", "read", False),
    ("GET", r"/api/history", "read", False),
    ("DELETE", r"/api/records", "administer", False),
    ("GET", r"/api/audit", "administer", True),
    ("POST", rf"/whip/{NAME}", "operate", False),
    ("DELETE", rf"/whip/{NAME}/[^/]+", "operate", False),
    ("WS", r"/ws", "read", False),
    ("WS", r"/ws/pictures", "read", False),
    ("gRPC", r"/streamingvlm\.v1\.Analytics/Watch", "read", False),
    ("gRPC", r"/streamingvlm\.v1\.Analytics/Cameras", "read", False),
    ("gRPC", r"/streamingvlm\.v1\.Analytics/Analyse", "operate", False),
    ("gRPC", r"/grpc\.health\.v1\.Health/(Check|Watch)", "read", False),
)
_COMPILED = tuple((frozenset(methods.split()), re.compile(path), role, everything) for methods, path, role, everything in WAYS)


@dataclass(frozen=True)
class Need:
    """`camera`: the one that the path names."""

    role: str
    everything: bool
    camera: str | None

    @property
    def changes(self) -> bool:
        return self.role != "read"


def of(method: str, path: str) -> Need | None:
    """`path`: decoded, as the application reads it."""
    for methods, pattern, role, everything in _COMPILED:
        if method in methods and (found := pattern.fullmatch(path)):
            return Need(role, everything, found.groupdict().get("name"))
    return None


def enough(held: str, wanted: str) -> bool:
    return ROLES.index(held) >= ROLES.index(wanted)
