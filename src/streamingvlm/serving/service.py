"""What the doors may ask of the service: the seam between the network and what watches the cameras. Plain data on both sides.

`live.service.Service` is one, `access.scoped.Scoped` another, the tests have more, without cameras and models. Methods run in the event loop of the
doors, and those that are not `async` answer at once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, TypedDict

from streamingvlm.base.errors import UserError
from streamingvlm.serving.privacy.redactor import Redacted
from streamingvlm.serving.results import Results
from streamingvlm.serving.store import Store


class NotFound(UserError):
    """What was named is not there (HTTP 404, gRPC NOT_FOUND)."""


class Conflict(UserError):
    """What was asked for is there already, or full (HTTP 409, gRPC ALREADY_EXISTS)."""


class Busy(UserError):
    """Too much waits just now: the same again a moment later may work (HTTP 429; gRPC waits itself, so that the sender slows down)."""


class Frames(TypedDict):
    """Conservation: in = decided + in_flight + the sum of `dropped`, by cause."""

    decided: int
    in_flight: int
    dropped: dict[str, int]


class Process(TypedDict):
    alive: bool
    restarts: int


class Settings(Protocol):
    title: str
    budget_ms: float


class Service(Protocol):
    settings: Settings
    results: Results
    store: Store | None

    def cameras(self) -> list[dict]:
        """id, url (without secrets), kind, state, reason, since, fps, width, height, delay_s, priority, mode, frames ({"in": n} | Frames),
        latency_ms ({p50, p95, p99, capture_p50, …}), action, alarms [kinds], comment."""

    async def add(self, camera: dict) -> dict:
        """As one of `cameras()`. UserError where a key is wrong, Conflict where the name is taken."""

    async def remove(self, name: str) -> None:
        """NotFound where there is no such camera."""

    def picture(self, name: str) -> tuple[dict, Redacted] | None:
        """The newest preview: {stream, frame, pts_s} and what may be shown of it. None: none yet, ask `want_pictures` for them."""

    def want_pictures(self, names: Collection[str], seconds: float) -> None:
        """Somebody looks at these cameras for so long: make previews of them."""

    async def ask(self, name: str, question: str, options: tuple[str, ...] = ()) -> dict:
        """Ask the commentator about a camera -> its answer, as a line of `records.Answer`. NotFound, Conflict where nobody comments on it, Busy,
        UserError."""

    async def offer(self, name: str, sdp: str) -> tuple[str, str]:
        """WHIP: a sender's offer -> the name of its session, the answer. NotFound, Conflict, UserError."""

    async def hang_up(self, resource: str) -> None:
        """End a WHIP session. NotFound."""

    async def push(self, name: str, pts_s: float, captured_at: float | None, picture: bytes, width: int | None, height: int | None) -> None:
        """A frame for a camera that is pushed to: a JPEG, or with width and height bytes of RGB. NotFound, Busy, UserError."""

    def policy(self, name: str) -> str:
        """What is hidden and kept of a camera, in a few words; "" where there is no such camera."""

    def card(self) -> str:
        """The data card, in Markdown (`serving.governance`). May ask the store, so not in the loop."""

    def stats(self, streams: Collection[str] | None = None) -> dict:
        """Of these cameras, and of what tells nothing of others; None: of all that there were. latency_ms ({release: {p50, p95, p99}, capture: {…}}),
        buckets ([[ms, count], …] of release -> decision), frames ({"in": n} | Frames), late, batch ({count, mean, sizes: {"8": n}}), uptime_s,
        processes ({name: Process}; `analytics` decides), and where there are several replicas of what decides, of all cameras only, replicas
        ({running, wanted, deaths, moved, lost}; the last two are streams)."""
