"""Packets of a live connection -> pictures: which of them to trust, and a clock that must not jump. Knows FFmpeg's packets, and no protocol.

A decoder fed with losses goes on and says little: it flags a picture with a hole, and not those that refer to it. What follows a hole counts as
corrupt here until a picture comes that refers to nothing, or `HEALED_S` have passed: a sender that refreshes its picture in stripes has no such one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from streamingvlm.media.sources.protocol import Picture, SourceError

if TYPE_CHECKING:
    import av

BACK_S, AHEAD_S = 1.0, 10.0  # how far a sender's clock may step back, or on beyond the time that passed here, within one connection
HEALED_S = 10.0
Captured = Callable[["av.Packet", float], "float | None"]  # (packet, a picture's pts_s) -> when it was captured


class Decoder:
    """One connection's. `captured` is asked for each picture."""

    def __init__(self, stream: av.VideoStream, captured: Captured):
        stream.thread_type = "NONE"  # a thread of the decoder's own would hold pictures back, and costs more
        self.captured = captured
        self.torn_at: float | None = None  # when something was lost that later pictures may refer to
        self.last: tuple[float, float] | None = None  # pts_s and arrival of the picture before

    def pictures(self, packet: av.Packet) -> Iterator[Picture]:
        """What `packet` completes. Raises `SourceError` where the sender's clock jumps."""
        import av

        received_at = time.time()
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self.torn_at = received_at
            if self.last:
                pts_s = self.last[0] if packet.pts is None else float(packet.pts * packet.time_base)
                yield Picture(pts_s, None, received_at, self.captured(packet, pts_s), True)
            return
        for frame in frames:
            if frame.is_corrupt:
                self.torn_at = received_at
            elif frame.key_frame or received_at - (self.torn_at or received_at) > HEALED_S:
                self.torn_at = None
            if frame.pts is None:  # the first one or two of some senders: without a time they are nowhere in the stream
                continue
            pts_s = float(frame.pts * frame.time_base)
            self._check(pts_s, received_at)
            yield Picture(pts_s, frame, received_at, self.captured(packet, pts_s), self.torn_at is not None)

    def _check(self, pts_s: float, received_at: float) -> None:
        """`received_at` is the wall's clock, which may be set: a step of it forward only makes this more lenient."""
        if self.last:
            step_s, passed_s = pts_s - self.last[0], received_at - self.last[1]
            if step_s < -BACK_S or step_s > passed_s + AHEAD_S:
                raise SourceError(f"Its clock jumped by {step_s:.1f} s.")
        self.last = pts_s, received_at
