"""A camera that speaks RTSP: one connection, its pictures as they come, captured when the camera's sender reports say. FFmpeg does the talking.

Each call into FFmpeg ends by itself after a time, whatever the camera does; how long a silence may last, `protocol.watched` says.

FFmpeg follows a server's redirect to any host and has no option against that. An address that somebody else gave (`check`) is therefore read through
a `Relay`: FFmpeg talks to this machine alone, and the answer that would lead it elsewhere never reaches it.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.decoding import Decoder
from streamingvlm.media.sources.protocol import Picture, SourceError, redacted

if TYPE_CHECKING:
    import av

TRANSPORTS = ("tcp", "udp")
REFUSALS = {401: "It refuses the user name or the password (401): put the right ones into the address.",
            403: "It forbids this address to this user (403)."}
UNHEARD = "Nothing answers at this host and port: see whether the camera is on, and whether the port is right."
NO_HOST = "No host of this name is known: see whether it is written right, and whether the network is up."
UNREACHED = "No way leads to this host: see whether the camera is on, and in a network that this machine is in."
ANSWER_S = 5.0  # how long FFmpeg waits for an answer, before it gives up by itself
READ_S = 8.0  # and for a packet: longer than `watched` does, since it then first hands out the picture that it held back, as if the camera lived
# Nothing is looked at before the first packet is handed over (else 1-2 s of a slow camera are held back), and its sound is not sent at all.
OPTIONS = {"probesize": "32", "analyzeduration": "0", "allowed_media_types": "video"}


PORTS = {"rtsp": 554, "rtsps": 322}
LINE_BYTES, HEADERS, BODY_BYTES = 4096, 64, 1 << 20  # of an answer; more is none
ELSEWHERE = "It leads on to another address ({}), and nobody goes there unasked: add that address instead."
NO_ANSWER = "What it says is no answer of RTSP."
OVER_UDP = "A server can have packets over UDP sent anywhere: `transport: udp` is for cameras of cameras.yaml, say tcp."


class Rtsp:
    """`transport`: tcp (through the RTSP connection itself, nothing is lost) or udp (what is late is lost, and nothing waits for it). `check`:
    UserError for an address that is not to be asked; with it, nothing else is."""

    live = True

    def __init__(self, address: str, transport: str = "tcp", answer_s: float = ANSWER_S, read_s: float = READ_S,
                 check: Callable[[str], None] | None = None):
        self.address, self.transport, self.answer_s, self.read_s, self.check = address, transport, answer_s, read_s, check
        self.label = redacted(address)

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        if not self.check:
            yield from self._pictures(self.address, stop)
            return
        if self.transport != "tcp":
            raise SourceError(OVER_UDP, fatal=True)
        try:
            self.check(self.address)
            relay = Relay(self.address, self.answer_s)
        except UserError as error:
            raise SourceError(str(error), fatal=True) from None
        except OSError as error:
            raise SourceError(why(error, self.address)) from None
        try:
            yield from self._pictures(relay.address, stop)
        except SourceError as error:
            raise relay.failed or error from None
        finally:
            relay.close()

    def _pictures(self, address: str, stop: threading.Event) -> Iterator[Picture]:
        import av

        try:
            with av.open(address, options={**OPTIONS, "rtsp_transport": self.transport}, timeout=(self.answer_s, self.read_s)) as container:
                if not container.streams.video:
                    raise SourceError("It sends no picture.")
                stream = container.streams.video[0]
                decoder = Decoder(stream, CaptureClock().captured_at)
                for packet in container.demux(stream):
                    if stop.is_set():
                        return
                    if packet.size:
                        yield from decoder.pictures(packet)
        except (av.error.FFmpegError, OSError) as error:
            refused = isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError))
            raise SourceError(why(error, self.address), refused=refused) from None
        if not stop.is_set():
            raise SourceError("It closed the connection.")  # FFmpeg says no more; a camera has no end


class Relay:
    """One connection to the server of `address`, at an address of this machine. What the server says comes through as it is, but for answers that are
    none, or redirect: there it ends, and `failed` says why. Raises OSError where the server is not to be had."""

    def __init__(self, address: str, answer_s: float):
        parts = urlsplit(address)
        self.failed: SourceError | None = None
        self.far = socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), answer_s)
        if parts.scheme == "rtsps":
            told = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            told.check_hostname, told.verify_mode = False, ssl.CERT_NONE  # cameras sign their own certificates, and FFmpeg checks none either
            self.far = told.wrap_socket(self.far, server_hostname=parts.hostname)
        self.far.settimeout(None)
        self.near = socket.create_server(("127.0.0.1", 0))
        user = parts.netloc.rpartition("@")[0]
        host = f"{user}@127.0.0.1" if user else "127.0.0.1"
        self.address = parts._replace(scheme="rtsp", netloc=f"{host}:{self.near.getsockname()[1]}").geturl()
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            door, self.near = self.near, self.near.accept()[0]
            door.close()
            threading.Thread(target=self._ask, daemon=True).start()
            try:
                with self.far.makefile("rb") as said:
                    while part := passed(said):
                        self.near.sendall(part)
            except SourceError as error:
                self.failed = error
        self.close()

    def _ask(self) -> None:
        with contextlib.suppress(OSError):
            while part := self.near.recv(1 << 16):
                self.far.sendall(part)
        self.close()


def passed(said: BinaryIO) -> bytes:
    """The next packet or answer of a server, as FFmpeg may have it; b"" at the end. `SourceError` for what leads elsewhere, or might be read in two
    ways, one of which does."""
    if (first := said.read(1)) in {b"", b"$"}:
        head = first + said.read(3)
        return head + said.read(int.from_bytes(head[2:])) if first else b""
    begins = first + said.readline(LINE_BYTES)
    if not (status := re.fullmatch(rb"RTSP/1\.[01] ([1-5]\d\d)( [^\r\n\0]*)?\r?\n", begins)):
        raise SourceError(NO_ANSWER)
    if status[1].startswith(b"3"):
        raise SourceError(ELSEWHERE.format(status[1].decode()), fatal=True)
    lines, size = [begins], 0
    while (line := said.readline(LINE_BYTES)) not in {b"\r\n", b"\n"}:
        header = re.fullmatch(rb"([A-Za-z][\w-]*):([^\r\n\0]*)\r?\n", line)
        name = header[1].lower() if header else b""
        if not header or len(lines) > HEADERS or (name == b"content-length" and (size or not re.fullmatch(rb" *\d{1,7} *", header[2]))):
            raise SourceError(NO_ANSWER)
        size = int(header[2]) if name == b"content-length" else size
        lines += [line] if name != b"location" else []
    if size > BODY_BYTES:
        raise SourceError(NO_ANSWER)
    return b"".join([*lines, line, said.read(size)])


class CaptureClock:
    """When pictures were captured, by the camera: FFmpeg hands on its sender reports with the packets, once there was one."""

    def __init__(self) -> None:
        self.offset_s: float | None = None  # from the stream's clock to seconds since 1970

    def captured_at(self, packet: av.Packet, pts_s: float) -> float | None:
        if packet.pts is not None and packet.has_sidedata("prft"):
            data = bytes(packet.get_sidedata("prft"))
            if len(data) >= 8:  # AVProducerReferenceTime: microseconds since 1970, and flags
                self.offset_s = struct.unpack_from("<q", data)[0] / 1e6 - float(packet.pts * packet.time_base)
        return None if self.offset_s is None else pts_s + self.offset_s


def why(error: Exception, address: str) -> str:
    """FFmpeg's error as a sentence. Its own text repeats the address with the password."""
    import av

    known = ((av.error.HTTPUnauthorizedError, REFUSALS[401]), (av.error.HTTPForbiddenError, REFUSALS[403]),
             (av.error.HTTPNotFoundError, "It has nothing at this path (404): see the camera's manual for the path."),
             (av.error.HTTPOtherClientError, "It sends no picture at this path, or not in this way: try another path, or the other `transport`."),
             (ConnectionRefusedError, UNHEARD),
             (socket.gaierror, NO_HOST),
             (av.error.EOFError, "It closed the connection at once: see whether the address should begin with rtsp or with rtsps."),
             (av.error.ExitError, "It fell silent."),
             (TimeoutError, "It did not answer in time."),
             (av.error.InvalidDataError, "It accepted the connection and sent nothing that is a picture."))
    for kind, sentence in known:
        if isinstance(error, kind):
            return sentence
    number = getattr(error, "errno", None)
    if number in {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}:
        return UNREACHED
    if number == errno.EIO and not _known(urlsplit(address).hostname or ""):
        return NO_HOST
    return f"It cannot be read: {redacted(getattr(error, 'strerror', None) or type(error).__name__)}."


def _known(host: str) -> bool:
    """FFmpeg has one error for a name that nobody knows and for much else."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False
