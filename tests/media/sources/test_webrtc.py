"""What is pushed over real ICE and DTLS arrives, in order and with its times; nothing a publisher does harms the camera or the next one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ifaddr
import pytest
from aiortc import codecs, rtp

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

import publisher as publisher_of_cards
from publisher import Publisher

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources import webrtc, webrtc_session
from streamingvlm.media.sources.pattern import number
from streamingvlm.media.sources.protocol import Change, Picture, watched
from streamingvlm.media.sources.webrtc import Gone, Taken, WebRTCSource

PATIENCE_S = 20.0
SOURCE = str(Path(webrtc.__file__).parents[3])


class Watch:
    """`watched` in a thread: all pictures and changes so far."""

    def __init__(self, source: WebRTCSource, **how):
        self.source, self.stop, self.items = source, threading.Event(), []
        self._thread = threading.Thread(target=lambda: self.items.extend(watched(source, self.stop, **how)))
        self._thread.start()
        self.until(lambda: self.reasons)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        self._thread.join(PATIENCE_S)
        self.source.close()
        assert not self._thread.is_alive()

    @property
    def pictures(self) -> list[Picture]:
        return [item for item in self.items if isinstance(item, Picture)]

    @property
    def changes(self) -> list[Change]:
        return [item for item in self.items if isinstance(item, Change)]

    @property
    def reasons(self) -> list[str]:
        return [change.reason for change in self.changes if change.reason]

    def until(self, true) -> None:
        wait_until(true, lambda: self.changes)


def wait_until(true, say=str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, say()
        time.sleep(0.02)


def offer(codec: str = "VP8", kind: str = "video") -> str:
    """An offer that nobody stands behind."""
    async def make():
        connection = publisher_of_cards.connection()
        if kind == "video":
            return await publisher_of_cards.offer_of(connection, publisher_of_cards.Cards({}), codec), await connection.close()
        connection.addTransceiver("audio", "sendonly")
        await connection.setLocalDescription(await connection.createOffer())
        return connection.localDescription.sdp, await connection.close()
    return asyncio.run(make())[0]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_cards_arrive_in_order_with_their_times_and_a_new_size(codec):
    with Watch(WebRTCSource()) as watch, Publisher(watch.source, codec, {20: (320, 256)}):
        watch.until(lambda: watch.pictures and watch.pictures[-1].captured_at and watch.pictures[-1].image.width == 320)
        pictures = watch.pictures
    assert [c.state for c in watch.changes[:3]] == ["connecting", "waiting", "live"] and watch.reasons[0] == webrtc.NOBODY
    numbers = [number(picture.image.to_ndarray(format="rgb24")) for picture in pictures if not picture.corrupt]
    assert numbers == sorted(set(numbers)) and numbers[-1] >= 20
    gaps = {later.pts_s - earlier.pts_s for earlier, later in itertools.pairwise(pictures)}
    assert min(gaps) > 0.0
    assert pictures[0].captured_at is None  # before the first report
    late_s = [picture.received_at - picture.captured_at for picture in pictures if picture.captured_at]
    assert -0.02 < min(late_s) < 0.5, late_s  # a picture is complete when the next begins: a frame time at least, of this machine's one clock
    lost = sum(sum(picture.lost.values()) for picture in pictures)
    assert len(numbers) + lost >= numbers[-1] - numbers[0] + 1


def test_who_hangs_up_and_comes_back_is_the_next_connection():
    with Watch(WebRTCSource(), backoff=(0.02, 0.02)) as watch:
        with Publisher(watch.source):
            watch.until(lambda: len(watch.pictures) > 3)
        watch.until(lambda: watch.reasons[-1] == webrtc.NOBODY and watch.changes[-1].epoch == 1)
        with Publisher(watch.source) as publisher:
            watch.until(lambda: watch.changes[-1].state == "live")
            watch.source.hang_up(publisher.resource)
            watch.until(lambda: watch.changes[-1].epoch == 2)
        with pytest.raises(Gone):
            watch.source.hang_up(publisher.resource)
    live = [change.epoch for change in watch.changes if change.state == "live"]
    assert live == [0, 1] and watch.reasons.count("The publisher hung up.") == 2
    pts = [picture.pts_s for picture in watch.pictures]
    assert any(later < earlier for earlier, later in itertools.pairwise(pts))  # a clock that begins anew


def test_a_second_publisher_is_refused_while_the_first_sends_and_takes_over_when_it_does_not(monkeypatch):
    monkeypatch.setattr(webrtc, "SILENT_S", 0.3)
    with Watch(WebRTCSource(), backoff=(0.02, 0.02)) as watch, Publisher(watch.source) as first:
        watch.until(lambda: watch.pictures)
        with pytest.raises(Taken, match="already"):
            watch.source.offer(offer())
        first.track.quiet = True
        watch.until(lambda: watch.source._session.silent(webrtc.SILENT_S))
        with Publisher(watch.source):
            watch.until(lambda: [c for c in watch.changes if c.state == "live" and c.epoch == 1])
    assert "Another publisher took its place." in watch.reasons


def test_a_publisher_that_is_killed_is_missed_soon_and_one_that_is_only_stopped_goes_on():
    """The peer's own check of who is still there takes 30 s."""
    with Watch(WebRTCSource(stall_s=0.6), stall_s=0.4, backoff=(0.02, 0.02)) as watch, process(watch.source, "VP8") as other:
        watch.until(lambda: watch.changes[-1].state == "live")
        other.send_signal(signal.SIGSTOP)
        watch.until(lambda: watch.changes[-1].epoch > 0 and watch.changes[-1].reason == webrtc.NOBODY)
        assert "The publisher has stopped sending pictures." in watch.reasons
        other.send_signal(signal.SIGCONT)
        watch.until(lambda: watch.changes[-1].state == "live")
        epoch = watch.changes[-1].epoch
        other.kill()
        watch.until(lambda: watch.changes[-1].epoch > epoch and watch.changes[-1].reason == webrtc.NOBODY)


@contextlib.contextmanager
def process(source: WebRTCSource, codec: str):
    command = [sys.executable, publisher_of_cards.__file__, codec]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": SOURCE}) as other:
        _, answer = source.offer(json.loads(other.stdout.readline()))
        print(json.dumps(answer), file=other.stdin, flush=True)
        try:
            yield other
        finally:
            other.kill()


def test_one_that_connects_and_sends_nothing_is_told_of_once():
    with Watch(WebRTCSource(stall_s=0.3), backoff=(0.02, 0.02)) as watch, Publisher(watch.source, quiet=True):
        watch.until(lambda: len(watch.reasons) > 2)
        time.sleep(0.5)
        assert watch.reasons == [webrtc.NOBODY, "The publisher's offer was answered, but nothing comes from it.", webrtc.NOBODY]
    assert not watch.pictures


def test_one_that_sends_something_else_than_it_announced_is_told_so(monkeypatch):
    monkeypatch.setattr(codecs.vpx.Vp8Encoder, "encode", lambda self, frame, force_keyframe=False: ([b"\x10" + bytes(50)], frame.pts))
    with Watch(WebRTCSource(stall_s=0.5), backoff=(0.02, 0.02)) as watch, Publisher(watch.source):
        watch.until(lambda: len(watch.reasons) > 1)
    assert "cannot be decoded" in watch.reasons[1] and not watch.pictures


def test_an_offer_that_cannot_lead_to_pictures_gets_a_sentence_and_disturbs_nobody():
    sound = offer(kind="audio")
    video = offer()
    bad = {"no video": [sound, "", "v=0\r\n"], "sends none": [video.replace("a=sendonly", "a=recvonly")],
           "only as AV1": [video.replace("VP8/90000", "AV1/90000")], "longer": ["a" * 200_000],
           "no SDP": ["m=video 9 UDP/TLS/RTP/SAVPF\r\n", "m=video x y z\r\n", video.replace("a=rtpmap:97 ", "a=rtpmap:")],
           "cannot be answered": [video.replace("a=ice-pwd", "a=nothing"), video.replace("a=rtcp-mux\r\n", "")]}
    with Watch(WebRTCSource()) as watch:
        for words, offers in bad.items():
            for each in offers:
                with pytest.raises(UserError, match=words) as error:
                    watch.source.offer(each)
                assert "VP8" in str(error.value) and len(str(error.value)) < 300
        with Publisher(watch.source):
            watch.until(lambda: watch.pictures)
    assert watch.reasons[0] == webrtc.NOBODY and set(watch.reasons[1:]) <= {"The publisher hung up."}  # heard before the watch ends, or not
    with pytest.raises(Taken, match="removed"):
        watch.source.offer(video)


@pytest.mark.parametrize("slow", ["reader", "decoder"])
def test_a_slow_reader_or_decoder_makes_nothing_grow_and_every_picture_counts(monkeypatch, slow):
    monkeypatch.setattr(webrtc_session, "BEHIND", 10)
    decode = codecs.vpx.Vp8Decoder.decode
    if slow == "decoder":
        monkeypatch.setattr(codecs.vpx.Vp8Decoder, "decode", lambda self, frame: time.sleep(0.1) or decode(self, frame))
    pictures, waiting, undecoded, deadline = [], [], [], time.monotonic() + PATIENCE_S
    with contextlib.closing(WebRTCSource()) as source, Publisher(source):
        for picture in source.connect(threading.Event()):
            if isinstance(picture, str):
                continue
            pictures.append(picture)
            waiting.append(len(source._session._pictures))
            undecoded.append(source._session.tap._receiver._RTCRtpReceiver__decoder_queue.qsize())
            assert time.monotonic() < deadline, pictures[-1]
            if slow == "reader":
                time.sleep(0.2)
            if sum(picture.lost.get("buffer_full", 0) for picture in pictures) > 20:
                break
    assert max(waiting) <= webrtc_session.HOLD_S * 30 + 2 and max(undecoded) <= webrtc_session.BEHIND
    numbers = [number(picture.image.to_ndarray(format="rgb24")) for picture in pictures if not picture.corrupt]
    missed = numbers[-1] - numbers[0] + 1 - len(numbers)
    lost = sum(sum(picture.lost.values()) for picture in pictures[1:])
    assert missed <= lost if slow == "decoder" else missed == lost, (missed, lost)


def test_packets_are_put_in_order_and_one_that_stays_away_is_not_waited_for_without_end():
    now = [0.0]
    buffer = webrtc_session.InOrder(lambda: now[0])

    def give(*numbers: int) -> list[int]:
        """One packet a picture -> the pictures that come out, by number; -1: a key frame is asked for."""
        out = []
        for n in numbers:
            now[0] += 0.03
            packet = rtp.RtpPacket(sequence_number=n % 2**16, timestamp=n)
            packet._data = b""
            ask, picture = buffer.add(packet)
            out += [-1] * ask + ([picture.timestamp] if picture else [])
        return out

    start = 2**16 - 3  # numbers wrap
    assert give(start, start + 1, start + 3, start + 2, start + 4) == [start, start + 1, start + 2]
    lost = start + 6
    out = give(start + 5, *range(lost + 1, lost + 60))
    assert out[:3] == [start + 3, start + 4, -1] and out[3] > lost and out[3:] == list(range(out[3], lost + 59))
    assert give(lost, lost + 61, lost + 60)== [lost + 59]  # what is repeated too late changes nothing


def test_a_machine_without_a_network_is_offered_its_loopback(monkeypatch):
    """Fails where aioice lists its addresses another way: then `loopback_if_need_be` does nothing."""
    video, source = offer(), WebRTCSource()
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [])
    _, answer = source.offer(video)
    source.close()
    assert " 127.0.0.1 " in answer and "stun" not in answer
