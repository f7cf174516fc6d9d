"""A camera behind an HLS playlist: its newest segment first."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from streamingvlm.media.sources.decoding import Decoder
from streamingvlm.media.sources.protocol import Picture, SourceError, redacted
from streamingvlm.media.sources.rtsp import ANSWER_S, why


class Hls:
    live = True

    def __init__(self, address: str):
        self.address, self.label = address, redacted(address)

    def connect(self, stop: threading.Event) -> Iterator[Picture]:
        import av

        try:
            with av.open(self.address, format="hls", options={"live_start_index": "-1"}, timeout=ANSWER_S) as container:
                decoder = Decoder(container.streams.video[0], lambda packet, pts_s: None)
                for packet in container.demux(container.streams.video[0]):
                    if stop.is_set():
                        return
                    if packet.size:
                        yield from decoder.pictures(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(why(error, self.address)) from None
        raise SourceError("It stopped.")
