"""A camera that speaks RTSP: one connection, its pictures as they come, captured when the camera's sender reports say. FFmpeg does the talking.

Each call into FFmpeg ends by itself after a time, whatever the camera does; how long a silence may last, `protocol.watched` says.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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


class Rtsp:
    """`transport`: tcp (through the RTSP connection itself, nothing is lost) or udp (what is late is lost, and nothing waits for it)."""

    live = True

    def __init__(self, address: str, transport: str = "tcp", answer_s: float = ANSWER_S, read_s: float = READ_S):
        self.address, self.transport, self.answer_s, self.read_s = address, transport, answer_s, read_s
        self.label = redacted(address)

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        import av

        try:
            with av.open(self.address, options={**OPTIONS, "rtsp_transport": self.transport}, timeout=(self.answer_s, self.read_s)) as container:
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
             (av.error.EOFError, "It closed the connection at once: see whether the address should begin with rtsp or with rtsps."),
             (av.error.ExitError, "It fell silent."),
             (av.error.TimeoutError, "It did not answer in time."),
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
