"""A real Chromium pushes its made-up camera by WHIP, over the service's own HTTP, to a source: both codecs, and a page that is closed."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from browser import FOUND, NONE, Browser
from fastapi import FastAPI

from streamingvlm.media.sources.protocol import Change, Picture, watched
from streamingvlm.media.sources.webrtc import WebRTCSource
from streamingvlm.serving.access.door import Door
from streamingvlm.serving.api import whip
from streamingvlm.serving.api.listen import listening

PATIENCE_S = 30.0
PUSH = """(async () => {
  const stream = await navigator.mediaDevices.getUserMedia({video: {width: 320, height: 240, frameRate: 15}})
  const connection = window.connection = new RTCPeerConnection()
  const sender = connection.addTransceiver(stream.getVideoTracks()[0], {direction: "sendonly", streams: [stream]})
  sender.setCodecPreferences(RTCRtpSender.getCapabilities("video").codecs.filter(one => one.mimeType === "video/CODEC"))
  await connection.setLocalDescription()
  await new Promise(done => connection.onicegatheringstatechange = () => connection.iceGatheringState === "complete" && done())
  const answer = await fetch("/whip/door", {method: "POST", headers: {"Content-Type": "application/sdp"}, body: connection.localDescription.sdp})
  if (answer.status !== 201) return answer.status + " " + await answer.text()
  await connection.setRemoteDescription({type: "answer", sdp: await answer.text()})
  return "201"
})()"""


class OneCamera:
    """As much of a service as WHIP needs."""

    def __init__(self):
        self.source, self.items, self.stop = WebRTCSource(), [], threading.Event()
        self.thread = threading.Thread(target=lambda: self.items.extend(watched(self.source, self.stop, backoff=(0.05, 0.05))))
        self.thread.start()

    async def offer(self, name: str, sdp: str) -> tuple[str, str]:
        return await asyncio.to_thread(self.source.offer, sdp)

    def pictures(self, epoch: int) -> list[Picture]:
        began = [k for k, item in enumerate(self.items) if isinstance(item, Change) and item.state == "live" and item.epoch == epoch]
        return [item for item in self.items[began[0]:] if isinstance(item, Picture)] if began else []

    @property
    def changes(self) -> list[Change]:
        return [item for item in self.items if isinstance(item, Change)]

    def end(self) -> None:
        self.stop.set()
        self.source.close()
        self.thread.join(PATIENCE_S)


@pytest.mark.skipif(not FOUND, reason=NONE)
def test_a_browser_pushes_and_may_come_again(tmp_path):
    service = OneCamera()
    try:
        with Browser(tmp_path) as browser:
            asyncio.run(_push_twice(service, browser))
    finally:
        service.end()
    pictures = service.pictures(0)
    assert {(picture.image.width, picture.image.height) for picture in pictures} <= {(320, 240), (240, 180), (160, 120)}  # it adapts to the bandwidth
    late_s = sorted(picture.received_at - picture.captured_at for picture in pictures if picture.captured_at)
    assert -0.05 < late_s[len(late_s) // 2] < 2.0


async def _push_twice(service: OneCamera, browser: Browser) -> None:
    app = FastAPI()
    app.add_middleware(Door, service=service, gate=None)
    app.include_router(whip.router)
    async with listening(app, "127.0.0.1", 0) as address:
        await asyncio.to_thread(browser.open, f"{address}/docs")  # a page of this origin
        for epoch, codec in enumerate(("VP8", "H264")):
            assert await asyncio.to_thread(browser, PUSH.replace("CODEC", codec)) == "201"
            await _until(lambda epoch=epoch: any(picture.captured_at for picture in service.pictures(epoch)), service)
            await asyncio.to_thread(browser, "connection.close()")
            await _until(lambda epoch=epoch: service.changes[-1].state == "waiting" and service.changes[-1].epoch == epoch + 1, service)


async def _until(true, service: OneCamera) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, service.changes
        await asyncio.sleep(0.05)
