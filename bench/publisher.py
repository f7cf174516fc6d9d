"""Somebody who pushes numbered test cards over WebRTC, in a thread or in a process of its own that can be stopped and killed.

    with Publisher(source, "VP8") as publisher: ...       # source.offer(SDP) -> (resource, SDP answer): a source, a service, a cable in between
    python bench/publisher.py VP8     # writes its offer as a line of JSON, reads the answer as one, pushes until it is ended

Needs aiortc. `number(picture)` of media.sources.pattern reads what a card says.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import av
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack

from streamingvlm.media.sources.pattern import draw
from streamingvlm.media.sources.webrtc import loopback_if_need_be


class Cards(VideoStreamTrack):
    """Test cards, 30 a second, of `size` (width, height), from the card `sizes` names on of another. `quiet`: none is sent, and time goes on."""

    def __init__(self, sizes: dict[int, tuple[int, int]], size: tuple[int, int] = (160, 128)):
        super().__init__()
        self._sizes, self._number, self.size, self.quiet = sizes, 0, size, False

    async def recv(self) -> av.VideoFrame:
        while True:
            pts, time_base = await self.next_timestamp()
            index, self._number = self._number, self._number + 1
            self.size = self._sizes.get(index, self.size)
            if not self.quiet:
                break
        frame = av.VideoFrame.from_ndarray(draw(index, *self.size), format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def connection() -> RTCPeerConnection:
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def offer_of(connection: RTCPeerConnection, track: VideoStreamTrack, codec: str) -> str:
    transceiver = connection.addTransceiver(track, "sendonly")
    transceiver.setCodecPreferences([c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType == f"video/{codec}"])
    await connection.setLocalDescription(await connection.createOffer())
    return connection.localDescription.sdp


class Publisher:
    """In a thread; hangs up at the end."""

    def __init__(self, source, codec: str = "VP8", sizes: dict[int, tuple[int, int]] | None = None, quiet: bool = False):
        loopback_if_need_be()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.source, self.codec, self.track = source, codec, Cards(sizes or {})
        self.track.quiet = quiet

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def __enter__(self) -> Publisher:
        self.run(self.push())
        return self

    async def push(self) -> None:
        mine = connection()
        offer = await offer_of(mine, self.track, self.codec)
        self.resource, answer = await asyncio.to_thread(self.source.offer, offer)
        self.connection = mine
        await mine.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def __exit__(self, *_) -> None:
        self.run(self.connection.close())
        self.loop.call_soon_threadsafe(self.loop.stop)


async def _main(codec: str, width: int, height: int) -> None:
    mine = connection()
    print(json.dumps(await offer_of(mine, Cards({}, (width, height)), codec)), flush=True)
    await mine.setRemoteDescription(RTCSessionDescription(json.loads(sys.stdin.readline()), "answer"))
    await asyncio.Event().wait()


if __name__ == "__main__":
    loopback_if_need_be()
    asyncio.run(_main(sys.argv[1], *([int(side) for side in sys.argv[2:]] or (160, 128))))
