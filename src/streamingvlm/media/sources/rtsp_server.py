"""A small RTSP server: feeds of H.264 to any number of clients, over TCP or UDP, with sender reports and, where wanted, a password. No camera needed.

    python -m streamingvlm.media.sources.rtsp_server --port 8554 street=clip.mp4 card=pattern:320x240@15 --user cam:secret

    with running({"street": Looped(path)}) as address: ...          # in a thread of its own: rtsp://127.0.0.1:…; each feed at /its name

Knows the dialogue and the sockets; `rtp` knows feeds and packets. A client that takes too little loses whole pictures, and the others nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import re
import secrets
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources import kinds
from streamingvlm.media.sources.pattern import draw
from streamingvlm.media.sources.rtp import Encoded, Feed, Looped, Packets, Wanted

REALM = "streamingvlm"
REPORT_S = 1.0
HELD_BYTES = 1 << 20  # of a client that does not keep up; what comes on top is left out, up to a key frame
IDLE_S = 90.0  # without a request from a client over UDP, whose end nobody would notice; 60 s are what it is told
BODY_BYTES = 1 << 16  # more than any request here needs
HEADERS = 64
METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER, SET_PARAMETER"
TRACK = "/track0"
Answer = tuple[str, list[str], str]  # status, headers, body


class Channel:
    """A feed and those who watch it."""

    def __init__(self, feed: Feed):
        self.feed, self.packets, self.wanted = feed, Packets(feed.setup), Wanted()
        self.viewers: set[Viewer] = set()
        self.reported = 0.0

    def add(self, viewer: Viewer) -> None:
        self.viewers.add(viewer)
        self.wanted.pictures = self.wanted.key = True
        self.reported = 0.0  # a newcomer learns at once when pictures were captured

    def remove(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        self.wanted.pictures = bool(self.viewers)

    async def run(self, pool: ThreadPoolExecutor) -> None:
        async for unit in self.feed.units(self.wanted, pool):
            report = b""
            if self.viewers and time.monotonic() - self.reported >= REPORT_S:
                self.reported, report = time.monotonic(), self.packets.report(unit)
            cut = self.packets.cut(unit) if self.viewers else []
            for viewer in tuple(self.viewers):
                if not viewer.send(cut, report, unit.key):
                    self.wanted.key = True
        for viewer in tuple(self.viewers):
            viewer.writer.close()


class Viewer:
    """A client's connection, and where its packets go: channels of the connection, or ports of its host."""

    def __init__(self, writer: asyncio.StreamWriter):
        self.writer, self.nonce = writer, secrets.token_hex(16)
        self.session = [f"Session: {secrets.token_hex(8)};timeout=60"]
        self.channel: Channel | None = None
        self.places: tuple[int, int] | None = None  # of RTP and of RTCP
        self.udp: tuple[asyncio.DatagramTransport, asyncio.DatagramTransport] | None = None
        self.begun = False

    def send(self, cut: list[bytes], report: bytes, key: bool) -> bool:
        """One access unit's packets -> whether the viewer could take them, or waits for a key frame."""
        if self.writer.transport.get_write_buffer_size() > HELD_BYTES:
            self.begun = False
            return False
        host = self.writer.get_extra_info("peername")[0]
        if report:
            self._put(1, [report], host)
        if self.begun or key:
            self.begun = True
            self._put(0, cut, host)
        return self.begun

    def _put(self, kind: int, cut: list[bytes], host: str) -> None:
        if self.udp:
            for packet in cut:
                self.udp[kind].sendto(packet, (host, self.places[kind]))
        else:
            self.writer.write(b"".join(struct.pack("!BBH", 36, self.places[kind], len(packet)) + packet for packet in cut))


class Server:
    """`feeds`: path -> feed. `user`: (name, password) that every request but OPTIONS needs. `port` 0: any that is free; it is known after `start`."""

    def __init__(self, feeds: Mapping[str, Feed], host: str = "127.0.0.1", port: int = 0, user: tuple[str, str] | None = None):
        self.channels = {name: Channel(feed) for name, feed in feeds.items()}
        self.host, self.port, self.user = host, port, user
        self.udp: tuple[asyncio.DatagramTransport, asyncio.DatagramTransport] | None = None

    async def run(self, ready: threading.Event | None = None) -> None:
        """Serve until cancelled. Raises `UserError` where the port is taken."""
        try:
            server = await asyncio.start_server(self._talk, self.host, self.port)
        except OSError as error:
            raise UserError(f"Nothing can listen at {self.host}:{self.port} ({error.strerror}): choose another port, or 0 for any.") from None
        self.port = server.sockets[0].getsockname()[1]
        self.udp = await _two_ports(self.host)
        pool = ThreadPoolExecutor(1, "encode")
        try:
            async with server:
                if ready:
                    ready.set()
                await asyncio.gather(server.serve_forever(), *(channel.run(pool) for channel in self.channels.values()))
        finally:
            for viewer in [viewer for channel in self.channels.values() for viewer in channel.viewers]:
                viewer.writer.close()
            for transport in self.udp:
                transport.close()
            pool.shutdown(wait=False, cancel_futures=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        viewer = Viewer(writer)
        try:
            while request := await asyncio.wait_for(_request(reader), IDLE_S if viewer.udp else None):
                method, url, headers = request
                status, more, body = self._answer(viewer, method, url, headers)
                lines = [f"RTSP/1.0 {status}", f"CSeq: {headers.get('cseq', '0')}", *more, *([f"Content-Length: {len(body)}"] if body else [])]
                writer.write(("".join(line + "\r\n" for line in lines) + "\r\n" + body).encode())
                await writer.drain()
                if method == "TEARDOWN" and status.startswith("200"):
                    break
                if method == "PLAY" and status.startswith("200"):
                    viewer.channel.add(viewer)
        except (asyncio.IncompleteReadError, OSError, ValueError):  # it is gone, or speaks something else
            pass
        finally:
            if viewer.channel:
                viewer.channel.remove(viewer)
            writer.close()

    def _answer(self, viewer: Viewer, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        if method == "OPTIONS":
            return "200 OK", [f"Public: {METHODS}"], ""
        if self.user and not _allowed(self.user, viewer.nonce, method, url, headers.get("authorization", "")):
            return "401 Unauthorized", [f'WWW-Authenticate: Digest realm="{REALM}", nonce="{viewer.nonce}"',
                                        f'WWW-Authenticate: Basic realm="{REALM}"'], ""
        if method in {"GET_PARAMETER", "SET_PARAMETER", "TEARDOWN"}:
            return "200 OK", viewer.session, ""
        channel = self.channels.get(unquote(urlsplit(url).path).rstrip("/").removesuffix(TRACK).strip("/"))
        if channel is None:
            return "404 Not Found", [], ""
        if method == "DESCRIBE":
            base = re.sub(r"//[^/]*@", "//", url).rstrip("/")
            return "200 OK", ["Content-Type: application/sdp", f"Content-Base: {base}/"], channel.packets.description(channel.feed.fps, TRACK[1:])
        return self._begin(viewer, method, channel, headers.get("transport", ""))

    def _begin(self, viewer: Viewer, method: str, channel: Channel, wish: str) -> Answer:
        if method == "PLAY":
            return ("200 OK", [*viewer.session, "Range: npt=now-"], "") if viewer.channel else ("454 Session Not Found", [], "")
        if method != "SETUP":
            return "501 Not Implemented", [], ""
        if viewer.channel:
            return "455 Method Not Valid in This State", viewer.session, ""
        transport = self._carry(viewer, wish)
        if not transport:
            return "461 Unsupported Transport", [], ""
        viewer.channel = channel
        return "200 OK", [*viewer.session, f"Transport: {transport}"], ""

    def _carry(self, viewer: Viewer, wish: str) -> str:
        """How packets go to the viewer: the first way of its wish (RFC 2326, Transport) that there is, as the answer says it; or nothing."""
        for way in wish.split(","):
            tcp = re.search(r"RTP/AVP/TCP.*interleaved=(\d{1,3})-(\d{1,3})", way)
            udp = re.search(r"RTP/AVP(?:/UDP)?;(?!.*multicast).*client_port=(\d{1,5})-(\d{1,5})", way)
            if tcp and max(int(tcp[1]), int(tcp[2])) < 256:
                viewer.places = int(tcp[1]), int(tcp[2])
                return f"RTP/AVP/TCP;unicast;interleaved={tcp[1]}-{tcp[2]}"
            if udp and min(int(udp[1]), int(udp[2])) > 0 and max(int(udp[1]), int(udp[2])) < 1 << 16:
                viewer.places, viewer.udp = (int(udp[1]), int(udp[2])), self.udp
                ports = [transport.get_extra_info("sockname")[1] for transport in self.udp]
                return f"RTP/AVP;unicast;client_port={udp[1]}-{udp[2]};server_port={ports[0]}-{ports[1]}"
        return ""


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]] | None:
    """The next request (method, address, headers); what a client sends about its packets is read over. None: it hung up. ValueError: no RTSP."""
    while (first := await reader.read(1)) == b"$":
        await reader.readexactly(struct.unpack("!xH", await reader.readexactly(3))[0])
    if not first:
        return None
    method, url, version = (first + await reader.readline()).decode().split()
    headers: dict[str, str] = {}
    while line := (await reader.readline()).decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
        if len(headers) > HEADERS:
            raise ValueError("too many headers")
    size = int(headers.get("content-length", 0))
    if not version.startswith("RTSP/1.") or not 0 <= size <= BODY_BYTES:
        raise ValueError("no RTSP")
    await reader.readexactly(size)
    return method, url, headers


def _allowed(user: tuple[str, str], nonce: str, method: str, url: str, given: str) -> bool:
    """Whether `given`, the header, proves that the client knows the password: Basic (RFC 7617) or Digest (RFC 2069)."""
    name, password = user
    if given.startswith("Basic "):
        return hmac.compare_digest(given[6:].strip(), base64.b64encode(f"{name}:{password}".encode()).decode())
    fields = dict(re.findall(r'(\w+)="([^"]*)"', given))
    if not given.startswith("Digest ") or fields.get("uri") != url or fields.get("username") != name:
        return False
    secret, request = (hashlib.md5(text.encode()).hexdigest() for text in (f"{name}:{REALM}:{password}", f"{method}:{url}"))
    return hmac.compare_digest(fields.get("response", ""), hashlib.md5(f"{secret}:{nonce}:{request}".encode()).hexdigest())


async def _two_ports(host: str) -> tuple[asyncio.DatagramTransport, asyncio.DatagramTransport]:
    """An even port for RTP, and the next one for RTCP."""
    loop = asyncio.get_running_loop()
    for _ in range(100):
        even, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(host, 0))
        port = even.get_extra_info("sockname")[1]
        if port % 2 == 0:
            with contextlib.suppress(OSError):
                odd, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(host, port + 1))
                return even, odd
        even.close()
    raise UserError(f"There are no two free UDP ports side by side at {host}: end what holds them.")


@contextlib.contextmanager
def running(feeds: Mapping[str, Feed], host: str = "127.0.0.1", port: int = 0, user: tuple[str, str] | None = None) -> Iterator[str]:
    """A server in a thread of its own -> its address. Raises `UserError` where the port is taken."""
    server, ready, failed = Server(feeds, host, port, user), threading.Event(), []
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.run(ready))

    def serve() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            if left := asyncio.all_tasks(loop):  # connections, which are closed by now
                loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        except Exception as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve, daemon=True, name="rtsp server")
    thread.start()
    ready.wait()
    if failed:
        raise failed[0]
    try:
        yield f"rtsp://{host}:{server.port}"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(5)
        loop.close()


def _feed(address: str) -> Feed:
    """A test pattern is encoded as it is drawn, a file repeated as it is."""
    if not address.startswith("pattern:"):
        return Looped(Path(address))
    card = kinds.pattern(address)
    return Encoded((draw(index, card.width, card.height) for index in itertools.count()), card.fps)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve videos and test patterns as if they were cameras.")
    parser.add_argument("feed", nargs="+", help="name=clip.mp4 or name=pattern:320x240@15")
    parser.add_argument("--port", type=int, default=8554)
    parser.add_argument("--user", help="name:password that clients must give")
    given = parser.parse_args()
    feeds = {name: _feed(address) for name, _, address in (feed.partition("=") for feed in given.feed)}
    user = tuple(given.user.split(":", 1)) if given.user else None
    with running(feeds, port=given.port, user=user) as address:
        print(*(f"{address}/{name}" for name in feeds), sep="\n", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
