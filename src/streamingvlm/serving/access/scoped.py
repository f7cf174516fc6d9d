"""The service as the bearer of one token sees it: its cameras are all there are, what its role does not allow is refused. A `service.Service`.

    scoped = Scoped(service, gate, grant, asked)      # the doors ask it as they would ask the service; `asked` gets the cameras that were named

A camera that is not the bearer's is answered as one that does not exist. Knows no door: this holds for all of them.
"""

from __future__ import annotations

from collections.abc import Collection

from streamingvlm.serving.access import needs
from streamingvlm.serving.access.audit import Entry
from streamingvlm.serving.access.gate import Denied, Gate, Grant
from streamingvlm.serving.results import Results, Subscription
from streamingvlm.serving.service import NotFound, Service
from streamingvlm.serving.store import Store


class Scoped:
    def __init__(self, service: Service, gate: Gate, grant: Grant, asked: set[str]):
        self._service, self._gate, self._grant, self._asked = service, gate, grant, asked
        self.settings = service.settings
        self.results = _Results(service.results, grant, asked)
        self.store = _Stored(service.store, self) if service.store else None

    def _may(self, role: str, name: str | None = None) -> None:
        if name is not None:
            self._asked.add(name[:64])
        if not needs.enough(self._grant.role, role):
            raise Denied(403, f"This needs a token that may `{role}`; this one may `{self._grant.role}`.")
        if name is not None and not self._grant.sees(name):
            raise NotFound(f"There is no camera {name[:60]!r}.")

    def cameras(self) -> list[dict]:
        return [row for row in self._service.cameras() if self._grant.sees(row["id"])]

    async def add(self, camera: dict) -> dict:
        self._may("operate")
        if {"privacy", "keep"} & camera.keys():  # what is hidden, and what is deleted when, is not an operator's to say
            self._may("administer")
        name, address = camera.get("name"), camera.get("url")
        if isinstance(name, str):
            self._asked.add(name[:64])
        if not isinstance(name, str) or not self._grant.sees(name):
            raise Denied(403, "This token is not of a camera of that name.")
        if isinstance(address, str):
            self._gate.allowed.check(address)
        row = await self._service.add(camera)
        self._gate.audit.note(Entry(self._grant.name, self._grant.role, "", f"it {self._service.policy(name)}", name, "added"))
        return row

    async def remove(self, name: str) -> None:
        self._may("operate", name)
        await self._service.remove(name)
        self._gate.without_end(name)

    def picture(self, name: str) -> tuple | None:
        return self._service.picture(name) if self._grant.sees(name) else None

    def want_pictures(self, names: Collection[str], seconds: float) -> None:
        self._service.want_pictures([name for name in names if self._grant.sees(name)], seconds)

    async def offer(self, name: str, sdp: str) -> tuple[str, str]:
        self._may("operate", name)
        resource, answer = await self._service.offer(name, sdp)
        self._gate.with_end(self._grant, name, resource, self._service.hang_up)
        return resource, answer

    async def hang_up(self, resource: str) -> None:
        self._may("operate", resource.rpartition("~")[0])
        await self._service.hang_up(resource)
        self._gate.without_end(resource.rpartition("~")[0], resource)

    async def push(self, name: str, pts_s: float, captured_at: float | None, picture: bytes, width: int | None, height: int | None) -> None:
        self._may("operate", name)
        await self._service.push(name, pts_s, captured_at, picture, width, height)

    async def ask(self, name: str, question: str, options: tuple[str, ...]) -> dict:
        self._may("read", name)
        return await self._service.ask(name, question, options)

    def stats(self) -> dict:
        return self._service.stats(self._grant.cameras)

    def card(self) -> str:
        return self._service.card()

    def chosen(self, streams: Collection[str] | None) -> Collection[str] | None:
        """Of these the bearer's; None for all where all are the bearer's."""
        return _within(streams, self._grant)


class _Results:
    """`results.Results`, of the bearer's cameras."""

    def __init__(self, results: Results, grant: Grant, asked: set[str]):
        self._results, self._grant, self._asked = results, grant, asked

    @property
    def newest(self) -> int:
        return self._results.newest

    def since(self, seq: int, streams=None, types=None, limit=None):
        return self._results.since(seq, _within(streams, self._grant), types, limit)

    def subscribe(self, streams=None, types=None, since=None) -> Subscription:
        """A set that its owner adds to stays that set: whoever adds asks for each camera first (`parameters.chosen`)."""
        self._asked.update(streams or ())
        return self._results.subscribe(_within(streams, self._grant), types, since)

    def picture(self, name: str, streams=None):
        return self._results.picture(name, _within(streams, self._grant))

    def erase(self, streams=None, start=None, end=None) -> int:
        if not needs.enough(self._grant.role, "administer"):
            raise Denied(403, "This needs a token that may `administer`.")
        return self._results.erase(_within(streams, self._grant), start, end)


class _Stored:
    """`store.Store`, of the bearer's cameras, read only but for who may administer."""

    def __init__(self, store: Store, scoped: Scoped):
        self._store, self._scoped = store, scoped

    def status(self) -> dict:
        told = self._store.status()
        return told if self._scoped.chosen(None) is None else {"error": told["error"]}  # counts are of all cameras

    def records(self, streams=None, types=None, start=None, end=None, limit=1000, newest=False) -> list[dict]:
        return self._store.records(self._scoped.chosen(streams), types, start, end, limit, newest)

    def picture(self, name: str, streams=None):
        return self._store.picture(name, self._scoped.chosen(streams))

    def erase(self, streams=None, start=None, end=None) -> int:
        self._scoped._may("administer")
        return self._store.erase(self._scoped.chosen(streams), start, end)


def _within(streams: Collection[str] | None, grant: Grant) -> Collection[str] | None:
    """The cameras asked for, None for all that there are. NotFound for one that is not the bearer's."""
    if streams is None or grant.cameras is None:
        return grant.cameras if streams is None else streams
    if hidden := next((name for name in streams if name not in grant.cameras), None):
        raise NotFound(f"There is no camera {hidden[:60]!r}.")
    return streams
