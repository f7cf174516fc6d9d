"""Who somebody is, by the token they bring, and whether they may go on. Knows no door: HTTP, WebSockets and gRPC ask it the same things.

    gate = Gate(settings.access)
    async with gate.running():                       # tokens are read again each second: one that is revoked is out by then
        grant = await gate.admit(token, need, address)     # or `Denied`
        await gate.ended(grant)                      # for what lasts: returns when the token is over

Of tokens that proved true their digests are remembered, so the slow hash runs once for each. A browser's session is a random number that stands for a
token, kept here only. Nothing here is ever shown or logged: `Denied` says what is missing, not what was brought.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from streamingvlm.base.errors import UserError
from streamingvlm.serving import cameras as config
from streamingvlm.serving.access import needs, tokens
from streamingvlm.serving.access.audit import Audit
from streamingvlm.serving.access.limits import Limit
from streamingvlm.serving.access.needs import Need
from streamingvlm.serving.access.sources import Allowed
from streamingvlm.serving.service import NotFound

log = logging.getLogger(__name__)
REFRESH_S, TIDY_S = 1.0, 3600.0
REMEMBERED, SESSIONS = 4096, 1024
LONGEST = 200  # characters of what can be a token


class Denied(UserError):
    """`status`: as HTTP has it: 401 who are you, 403 not you, 429 not so often. `grant`: who it was, where that is known."""

    def __init__(self, status: int, sentence: str, wait_s: float = 0.0):
        super().__init__(sentence)
        self.status, self.wait_s, self.grant = status, wait_s, None


@dataclass(frozen=True)
class Grant:
    """What a token allows. `cameras` None: all."""

    id: str
    name: str
    role: str
    cameras: frozenset[str] | None

    def sees(self, camera: str) -> bool:
        return self.cameras is None or camera in self.cameras


class Gate:
    """`clock`: seconds since 1970; where it is set back, a token that is over stays over. UserError where the tokens can't be read, or a rule of
    `sources` is none."""

    def __init__(self, access: config.Access, clock: Callable[[], float] = time.time):
        self.clock, self.latest, self.allowed = clock, 0.0, Allowed(access.sources)
        self.tokens = tokens.Tokens(access.tokens)
        self.audit = Audit(self.tokens.engine, clock)
        self.asked, self.failed = Limit(access.per_s, access.burst), Limit(access.failures_per_minute / 60, access.failures_per_minute)
        self.rows: dict[str, tokens.Token] = self.tokens.rows()
        self._proved: OrderedDict[bytes, str] = OrderedDict()  # digest of a token -> its id
        self._sessions: OrderedDict[bytes, str] = OrderedDict()
        self._over: dict[str, tuple[Grant, str, Callable]] = {}  # camera -> what is to be ended with a token
        self._ending: set[asyncio.Task] = set()
        self._turn = asyncio.Event()

    async def admit(self, text: str | None, need: Need | None, address: str, session: str | None = None) -> Grant:
        """The grant of who brings `text` (or a browser's session), if it is enough for `need`, None being more than anybody has. `Denied` else."""
        grant = await self._known(text, session, address)
        try:
            return self._enough(grant, need)
        except Denied as denied:
            denied.grant = grant
            raise

    def _enough(self, grant: Grant, need: Need | None) -> Grant:
        if wait_s := self.asked.take(grant.id, time.monotonic()):
            raise Denied(429, "This token asks more often than it may: wait a moment.", wait_s)
        if need is None:
            raise Denied(404, "There is no such way in.")
        if not needs.enough(grant.role, need.role):
            raise Denied(403, f"This needs a token that may `{need.role}`; this one may `{grant.role}`.")
        if need.everything and grant.cameras is not None:
            raise Denied(403, "This needs a token of all cameras; this one is of some.")
        if need.camera is not None and not grant.sees(need.camera):
            raise Denied(403, "This token is not of that camera.")
        return grant

    async def _known(self, text: str | None, session: str | None, address: str) -> Grant:
        if text is None and session is None:
            raise Denied(401, "A token is needed: `Authorization: Bearer …`, or as the password in a browser; `streamingvlm token add` makes one.")
        held = self._sessions if text is None else self._proved
        digest = hashlib.sha256((session if text is None else text)[: LONGEST + 1].encode(errors="replace")).digest()
        row = self.rows.get(held.get(digest, ""))
        if row is None and text is not None:
            if wait_s := self.failed.take(address, time.monotonic()):  # a hash costs: who is wrong pays for it, who is right does so once
                raise Denied(429, "Too many tokens from this address were wrong: wait a minute.", wait_s)
            row = await self._prove(text, digest)
        if row is None or not self._alive(row):
            raise Denied(401, "This token is not valid, or no longer: ask for a new one.")
        return Grant(row.id, row.name, row.role, row.cameras)

    async def _prove(self, text: str, digest: bytes) -> tokens.Token | None:
        found = tokens.FORM.fullmatch(text)
        row = self.rows.get(found[1]) if found else None
        if row is None or not await asyncio.to_thread(tokens.matches, row, text):
            return None
        self._proved[digest] = row.id
        if len(self._proved) > REMEMBERED:
            self._proved.popitem(last=False)
        return row

    def session(self, grant: Grant) -> str:
        """A number by which a browser is known from now on, until its token or this process ends."""
        made = secrets.token_urlsafe(32)
        self._sessions[hashlib.sha256(made.encode()).digest()] = grant.id
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return made

    def valid(self, grant: Grant) -> bool:
        row = self.rows.get(grant.id)
        return row is not None and self._alive(row)

    def _alive(self, row: tokens.Token) -> bool:
        self.latest = max(self.latest, self.clock())
        return row.alive(self.latest)

    async def ended(self, grant: Grant) -> None:
        """Wait until its token is over."""
        while self.valid(grant):
            await self._turn.wait()

    def with_end(self, grant: Grant, camera: str, session: str, end: Callable[[str], Awaitable]) -> None:
        """Await `end(session)` when the token is over: for what goes on by itself. A camera has one session at a time, the newest."""
        self._over[camera] = (grant, session, end)

    def without_end(self, camera: str, session: str | None = None) -> None:
        """It has ended already, or whatever there was of the camera."""
        if camera in self._over and session in {None, self._over[camera][1]}:
            del self._over[camera]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gate]:
        task = asyncio.ensure_future(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(self.audit.flush)
            self.tokens.engine.dispose()

    async def _run(self) -> None:
        tidied = time.monotonic()
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
                await asyncio.to_thread(self.audit.flush, False)
                if time.monotonic() - tidied > TIDY_S:
                    tidied = time.monotonic()
                    await asyncio.to_thread(self.audit.tidy)
            except Exception:  # whatever it is: nobody's token would ever be over again
                log.exception("Looking after tokens and the audit log failed; it goes on in a second.")

    async def refresh(self) -> None:
        """Read the tokens again, and end what was begun with those that are over. While they can't be read, those known stay."""
        try:
            self.rows = await asyncio.to_thread(self.tokens.rows)
        except UserError as error:
            log.warning("%s", error)
        self._turn.set()
        self._turn = asyncio.Event()
        for camera in [camera for camera, (grant, *_) in self._over.items() if not self.valid(grant)]:
            task = asyncio.ensure_future(self._end(camera, *self._over.pop(camera)))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end(self, camera: str, grant: Grant, session: str, end: Callable[[str], Awaitable]) -> None:
        try:
            await end(session)
        except NotFound:
            pass  # it had ended before
        except Exception as error:
            log.warning("What %s began at camera %s could not be ended with its token, and is tried again: %s", grant.name, camera, error)
            self._over.setdefault(camera, (grant, session, end))


def credentials(said: Sequence) -> tuple[str, str]:
    """What an `Authorization` says: of which kind, in small letters, and what. ("", "") where it was said twice, or is no text."""
    kind, _, rest = said[0].partition(" ") if len(said) == 1 and isinstance(said[0], str) else ("", "", "")
    return kind.lower(), rest.strip()


def loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def required(service: config.Service) -> None:
    """UserError where others could come in and nobody asks who they are, or where they would show their tokens to everybody on the way."""
    if loopback(service.host):
        return
    if service.access is None:
        raise UserError(f"Listening at {service.host} lets others in, and no access is set up: add `access: {{}}` to `service:` and make a token "
                        "with `streamingvlm token add`, or listen at 127.0.0.1.")
    if not service.access.certificate and not service.access.proxy:
        raise UserError(f"Listening at {service.host} without TLS would show every token on the way: name `access.certificate` and `access.key`, or "
                        "the address of the proxy that does TLS as `access.proxy`.")
