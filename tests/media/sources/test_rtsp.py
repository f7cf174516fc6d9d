"""An RTSP camera, real on loopback: what it sends arrives with its times, and whatever is done to it, it comes back. Its peer is our own server,
which ffmpeg vouches for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import io
import itertools
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import quote

import numpy as np
import pytest
import video_files
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources import kinds, pattern, rtp, rtsp_server
from streamingvlm.media.sources.protocol import Change, Picture, SourceError, watched
from streamingvlm.media.sources.rtp import AccessUnit, Encoded, Looped
from streamingvlm.media.sources.rtsp import Rtsp, passed, why
from streamingvlm.media.sources.rtsp_server import running

QUICK = {"stall_s": 0.7, "patience_s": 3.0, "backoff": (0.1, 0.4)}


def card(width: int = 96, height: int = 64, fps: float = 25.0) -> Encoded:
    return Encoded((pattern.draw(k, width, height) for k in itertools.count()), fps, key_s=0.5)


def shown(picture: Picture) -> int:
    return pattern.number(picture.image.to_ndarray(format="rgb24"))


def follow(source, until, limit_s: float = 30.0, **no) -> list[Picture | Change]:
    """What `watched` says of `source` until `until(items)`."""
    stop, items = threading.Event(), []
    timer = threading.Timer(limit_s, stop.set)
    timer.start()
    for item in watched(source, stop, **{**QUICK, **no}):
        items.append(item)
        if until(items):
            stop.set()
    timer.cancel()
    assert until(items), [item for item in items if isinstance(item, Change)]
    return items


def pictures(items) -> list[Picture]:
    return [item for item in items if isinstance(item, Picture)]


def states(items) -> list[str]:
    return [item.state for item in items if isinstance(item, Change)]


def some(count: int):
    return lambda items: len(pictures(items)) >= count


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """20 frames at 25 a second, with B frames and one key frame."""
    return video_files.make(tmp_path_factory.mktemp("clips") / "a.mp4", 20, 25, size=(96, 64), codec_options={"bf": "2"})


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_each_picture_comes_once_in_order_and_captured_when_it_was_drawn(transport):
    drawn = {}

    def draw():
        for k in itertools.count():
            drawn[k] = time.time()
            yield pattern.draw(k, 96, 64)

    with running({"card": Encoded(draw(), 25.0, key_s=0.5)}) as address:
        got = pictures(follow(Rtsp(f"{address}/card", transport), some(30)))
    numbers = [shown(p) for p in got]
    assert numbers == list(range(numbers[0], numbers[0] + 30)) and not any(p.corrupt for p in got)
    assert np.diff([p.pts_s for p in got]).min() > 0.035  # a moment may be left out on a busy machine, a picture not
    captured = np.array([p.captured_at for p in got], float)  # from the very first one
    assert captured - captured[0] == pytest.approx(np.array([p.pts_s - got[0].pts_s for p in got]), abs=0.002)
    late = np.array([drawn[n] for n in numbers]) - captured
    assert late.min() > -0.01 and np.median(late) < 0.2  # due, then drawn
    assert all(p.received_at > p.captured_at for p in got)


def test_a_file_repeats_with_rising_times_and_its_b_frames_in_order(clip):
    with running({"street/1": Looped(clip)}) as address:
        got = pictures(follow(Rtsp(f"{address}/street/1"), some(45)))
    numbers = [video_files.number(p.image.to_ndarray(format="rgb24")) for p in got]
    assert all((b - a) % 20 == 1 for a, b in itertools.pairwise(numbers))
    assert np.diff([p.pts_s for p in got]) == pytest.approx(0.04, abs=0.001)
    assert all(-0.01 < p.received_at - p.captured_at < 5 for p in got)


def test_ffmpeg_reads_the_same_pictures_from_our_server(clip):
    if not shutil.which("ffmpeg"):
        pytest.skip("ffmpeg is the witness here and is not installed: apt-get install ffmpeg")

    def sums(*source: str) -> list[str]:
        command = ["ffmpeg", "-v", "error", *source, "-frames:v", "20", "-fps_mode", "passthrough", "-an", "-f", "framemd5", "-"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
        return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]

    with running({"a": Looped(clip)}, user=("cam", "pass word")) as address:
        over = {way: sums("-rtsp_transport", way, "-i", f"{address.replace('//', '//cam:pass%20word@')}/a") for way in ("tcp", "udp")}
    stored = sums("-i", str(clip))
    assert len(set(stored)) == 20 and over == {way: stored for way in ("tcp", "udp")}


@contextlib.contextmanager
def process(port: int, size: str):
    """The server as a process, so that it can be stopped and killed."""
    command = [sys.executable, "-m", "streamingvlm.media.sources.rtsp_server", "--port", str(port), f"card=pattern:{size}@25"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline()
            yield server
        finally:
            server.kill()


def test_a_camera_that_freezes_is_killed_and_comes_back_with_another_size():
    port, acts, pool = free_port(), [], contextlib.ExitStack()
    with pool:
        first = pool.enter_context(process(port, "96x64"))

        def step(items) -> bool:
            now = states(items)
            if not acts and len(pictures(items)) == 10:
                acts.append(first.send_signal(signal.SIGSTOP))
            elif len(acts) == 1 and now[-1] == "stalled":
                acts.append(first.send_signal(signal.SIGCONT))
            elif len(acts) == 2 and now[-1] == "live" and isinstance(items[-1], Picture):
                acts.append(first.kill())
            elif len(acts) == 3 and now[-2:] == ["connecting", "waiting"]:
                acts.append(pool.enter_context(process(port, "128x96")))
            return len(acts) == 4 and isinstance(items[-1], Picture)

        items = follow(Rtsp(f"rtsp://127.0.0.1:{port}/card", answer_s=2.0), step)
    seen = [key for key, _ in itertools.groupby(state for state in states(items) if state not in ("connecting", "waiting"))]
    assert seen == ["live", "stalled", "live"]
    changes = [item for item in items if isinstance(item, Change)]
    assert changes[-1].epoch == sum(change.state == "connecting" for change in changes) - 1 >= 2
    assert (items[-1].image.width, items[-1].image.height) == (128, 96) and pictures(items)[0].image.width == 96
    reasons = [change.reason for change in changes if change.state == "waiting"]
    assert reasons[0] == "It closed the connection." and "Nothing answers" in reasons[1]


def test_a_camera_that_is_not_there_yet_is_found_once_it_is():
    port, pool = free_port(), contextlib.ExitStack()
    with pool:

        def step(items) -> bool:
            if states(items).count("waiting") == 2 and states(items)[-1] == "waiting":
                pool.enter_context(running({"card": card()}, port=port))
            return isinstance(items[-1], Picture)

        items = follow(Rtsp(f"rtsp://127.0.0.1:{port}/card"), step)
    assert states(items) == ["connecting", "waiting", "connecting", "waiting", "connecting", "live"]


@pytest.mark.parametrize(("place", "says", "state"), [("cam:s3cret@/card", "401", "refused"), ("/card", "401", "refused"),
                                                      ("cam:right@/no/such", "404", "waiting")])
def test_a_refusal_is_a_sentence_without_the_password_and_is_tried_again(place, says, state, capfd, caplog):
    user, _, path = place.rpartition("@")
    with running({"card": card()}, user=("cam", "right")) as address:
        source = Rtsp(address.replace("//", f"//{user}@" if user else "//") + path)
        items = follow(source, lambda items: states(items).count(state) == 2, refused_backoff=(0.1, 0.1))
    reasons = {change.reason for change in items if change.state == state}
    assert len(reasons) == 1 and says in reasons.pop()
    everything = f"{items} {source.label} {capfd.readouterr()} {caplog.text}"
    assert "s3cret" not in everything and "right" not in everything.replace("right ones", "")


@contextlib.contextmanager
def leading_to(answer: str):
    """A server that gives one answer to whatever it is asked -> its address, and how often it was called."""
    called = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                line, _ = door.accept()
                with line, contextlib.suppress(OSError):
                    called.append(line.recv(4096))
                    sequence = called[-1].decode().partition("CSeq: ")[2].partition("\r\n")[0]
                    line.sendall(answer.replace("CSEQ", f"CSeq: {sequence}").encode())
                    line.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=serve, daemon=True).start()
        yield f"rtsp://127.0.0.1:{door.getsockname()[1]}/1", called
        door.shutdown(socket.SHUT_RDWR)


def test_a_server_leads_nobody_elsewhere_who_was_not_let_go_there():
    with leading_to("RTSP/1.0 404 Not Found\r\nCSEQ\r\n\r\n") as (forbidden, called):
        moved = f"RTSP/1.0 302 Moved\r\nCSEQ\r\nLocation: {forbidden}\r\n\r\n"
        with leading_to(moved) as (listed, _):
            follow(Rtsp(listed), lambda items: "waiting" in states(items))
            assert called, "FFmpeg goes there by itself: else all of this may go"
            called.clear()
            items = follow(kinds.source(listed, check=lambda address: None), lambda items: states(items)[-1] == "failed")
            assert "another address (302)" in items[-1].reason and not called
        refused = UserError("not among the sources")
        items = follow(Rtsp(forbidden, check=lambda address: (_ for _ in ()).throw(refused)), lambda items: states(items)[-1] == "failed")
        assert items[-1].reason == str(refused) and not called
    assert "UDP" in follow(Rtsp(forbidden, "udp", check=lambda address: None), lambda items: states(items)[-1] == "failed")[-1].reason


def test_what_may_lead_elsewhere_is_no_answer_however_it_is_written():
    def heard(text: str) -> bytes:
        said = io.BytesIO(text.encode("latin-1"))
        return b"".join(iter(lambda: passed(said), b""))

    packet = "$\0\0\3abc"
    plain = "RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-length: 4\r\n\r\n3 x\n"
    assert heard(packet + plain + packet) == (packet + plain + packet).encode("latin-1")
    assert heard(plain.replace("CSeq", "Location: rtsp://elsewhere/\r\nCSeq")) == plain.encode()
    for wrong in (plain.replace("200", "302"), plain.replace("200", "399"), plain.replace("OK", "OK\rRTSP/1.0 302 Moved"), " " + plain,
                  plain.replace("CSeq", packet + "CSeq"), plain.replace(": 4", ": -4"), plain.replace(": 4", ": 9999999"),
                  plain.replace("CSeq", "Content-Length: 1\r\nCSeq"), plain.replace("CSeq: 2\r\n", " Location: a\r\n"),
                  plain.replace("CSeq", "a: " + 5000 * "b" + "\r\nCSeq"), plain.replace("CSeq", 80 * "a: b\r\n" + "CSeq"),
                  "REDIRECT rtsp://elsewhere RTSP/1.0\r\n\r\n", plain.replace("\r\nCSeq: 2", "\r\nLocation\0: x"), plain.partition("\n")[0]):
        with pytest.raises(SourceError):
            heard(wrong)


def test_a_host_that_is_not_there_is_told_from_one_that_is_not_known(monkeypatch):
    def nobody(*_):
        raise socket.gaierror

    address = "rtsp://cam:s3cret@nowhere.example/1"
    unreached, failed = OSError(errno.EHOSTUNREACH, "No route to host"), OSError(errno.EIO, f"failed: {address}")
    assert "No way leads" in why(unreached, address) and why(failed, "rtsp://127.0.0.1/1") == "It cannot be read: failed: rtsp://***@nowhere.example/1."
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert "No host of this name" in why(failed, address)


@pytest.mark.parametrize("password", ["simple", "with space", "a@b:c/d?e#f", "ünï"])
def test_passwords_of_any_kind_open_the_camera(password):
    with running({"card": card()}, user=("cam", password)) as address:
        place = address.replace("//", f"//cam:{quote(password, safe='')}@") + "/card"
        assert follow(Rtsp(place), some(1))
        assert follow(Rtsp(place, check=lambda address: None), some(2)), "and where it may lead nowhere else"


def test_a_camera_that_accepts_and_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        source, began = Rtsp(f"rtsp://127.0.0.1:{deaf.getsockname()[1]}/1", answer_s=0.4), time.monotonic()
        items = follow(source, lambda items: states(items).count("waiting") == 2)
        assert "sent nothing" in items[-1].reason and time.monotonic() - began < 10
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()
        list(watched(Rtsp(source.address, answer_s=20.0), stop))  # while FFmpeg waits for an answer
        assert time.monotonic() - began < 2


def test_a_camera_that_answers_and_sends_no_picture_is_given_up():
    class Blind:
        setup, fps = card().setup, 25.0

        async def units(self, wanted, pool):
            await asyncio.sleep(60)
            yield

    with running({"blind": Blind()}) as address:
        items = follow(Rtsp(f"{address}/blind"), lambda items: states(items).count("waiting") == 1, patience_s=0.6)
    assert states(items) == ["connecting", "waiting"] and "No picture came" in items[-1].reason


class Scripted:
    """A clip of 40 pictures, a key frame every 10, whose times `at` may change."""

    def __init__(self, at=lambda k: k / 25):
        self.inner, self.at = card(), at
        self.setup, self.fps = self.inner.setup, 25.0
        self.stored = [self.inner._encode(pattern.draw(k, 96, 64), k + 1, k % 10 == 0) for k in range(40)]

    async def units(self, wanted, pool):
        while not wanted.pictures:
            await asyncio.sleep(0.01)
        for k, (units, key) in enumerate(self.stored):
            yield AccessUnit(units, key, self.at(k), 1e9 + self.at(k))
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("lost", [slice(None, None, 2), slice(0)], ids=["half of it", "all of it"])
def test_what_refers_to_a_lost_picture_is_corrupt_until_a_key_frame(lost, monkeypatch):
    cut, split, count = rtp.Packets.cut, rtp.fragments, itertools.count()
    monkeypatch.setattr(rtp, "fragments", lambda nal: split(nal, 60))
    monkeypatch.setattr(rtp.Packets, "cut", lambda self, unit: cut(self, unit)[lost if next(count) == 14 else slice(None)])
    with running({"clip": Scripted()}) as address:
        got = pictures(follow(Rtsp(f"{address}/clip", "udp"), lambda items: len(items) > 1 and states(items)[-1] == "waiting"))
    whole = [shown(p) for p in got if not p.corrupt]
    assert whole == [*range(whole[0], 14), *range(20, 40)] and sum(p.corrupt for p in got) in (5, 6)


def test_a_clock_that_jumps_is_a_new_connection():
    for at in (lambda k: k / 25 - 5 * (k >= 20), lambda k: k / 25 + 3600 * (k >= 20)):
        with running({"clip": Scripted(at)}) as address:
            items = follow(Rtsp(f"{address}/clip"), lambda items: states(items)[-1] == "waiting")
        assert "clock jumped" in items[-1].reason and 15 < len(pictures(items)) <= 20


def ask(address: str, request: str) -> str:
    """What the server answers to bytes of any kind: everything, until it hangs up or falls silent."""
    host, port = address.removeprefix("rtsp://").split(":")
    with socket.create_connection((host, int(port)), timeout=2) as line:
        line.sendall(request.encode("latin-1"))
        line.settimeout(0.3)
        got = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while more := line.recv(65536):
                got += more
    return got.decode("latin-1")


def test_both_kinds_of_proof_open_the_server_and_others_do_not():
    with running({"card": card()}, user=("cam", "pw")) as address:
        url = f"{address}/card"
        basic = base64.b64encode(b"cam:pw").decode()
        assert "200 OK" in ask(address, f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: Basic {basic}\r\n\r\n")
        refused = ask(address, f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 7\r\n\r\n")
        assert "401" in refused and "CSeq: 7" in refused and "Digest realm=" in refused and "Basic realm=" in refused
        secret, request = (hashlib.md5(text.encode()).hexdigest() for text in ("cam:streamingvlm:pw", f"DESCRIBE:{url}"))
        old = hashlib.md5(f"{secret}:old:{request}".encode()).hexdigest()
        forged = f'Digest username="cam", realm="streamingvlm", nonce="old", uri="{url}", response="{old}"'
        assert "401" in ask(address, f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: {forged}\r\n\r\n")


def test_nonsense_ends_its_own_connection_only():
    with running({"card": card()}) as address:
        for request in ("GET / HTTP/1.1\r\n\r\n", "\x00\xff" * 500, "$\x00", "DESCRIBE\r\n\r\n", "A" * 200_000,
                        "OPTIONS * RTSP/1.0\r\n" + "".join(f"a{k}: b\r\n" for k in range(100)) + "\r\n",
                        f"SETUP {address}/card/track0 RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -5\r\n\r\n",
                        f"SETUP {address}/card/track0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;multicast\r\n\r\n"):
            assert "200 OK" not in ask(address, request)
        assert "461" in ask(address, f"SETUP {address}/card/track0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;interleaved=300-301\r\n\r\n")
        assert "454" in ask(address, f"PLAY {address}/card RTSP/1.0\r\nCSeq: 1\r\n\r\n")
        assert follow(Rtsp(f"{address}/card"), some(2))


def test_a_client_that_does_not_read_costs_the_others_nothing(monkeypatch):
    monkeypatch.setattr(rtsp_server, "HELD_BYTES", 1 << 14)
    noise = np.random.default_rng(0).integers(0, 255, (8, 240, 320, 3), np.uint8)
    with running({"noise": Encoded(itertools.cycle(noise), 25.0)}) as address:
        host, port = address.removeprefix("rtsp://").split(":")
        with socket.create_connection((host, int(port))) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            way = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"
            for request in (f"SETUP {address}/noise/track0 RTSP/1.0\r\nCSeq: 1\r\n{way}", f"PLAY {address}/noise RTSP/1.0\r\nCSeq: 2"):
                deaf.sendall(f"{request}\r\n\r\n".encode())
            got = pictures(follow(Rtsp(f"{address}/noise"), some(25)))
    assert not any(p.corrupt for p in got) and np.diff([p.pts_s for p in got]).max() < 1


def test_a_client_that_fell_behind_goes_on_with_a_key_frame():
    class Line:
        held, sent = 0, b""
        transport = property(lambda self: self)

        def get_write_buffer_size(self):
            return self.held

        def get_extra_info(self, _):
            return "127.0.0.1", 1

        def write(self, data):
            self.sent += data[4:]

    line = Line()
    viewer = rtsp_server.Viewer(line)
    viewer.places = 0, 1
    for name in "aBcd!eFg":  # a capital is a key frame, behind ! there is too much to send
        line.held = 1 << 21 if name == "!" else 0
        viewer.send([name.encode()], b"", name.isupper())
    assert line.sent == b"BcdFg"


def test_a_newcomer_need_not_wait_for_the_next_key_frame():
    with running({"card": Encoded((pattern.draw(k, 96, 64) for k in itertools.count()), 25.0, key_s=60.0)}) as address:
        for _ in range(2):
            assert not pictures(follow(Rtsp(f"{address}/card"), some(3)))[0].corrupt


def test_a_client_over_udp_that_never_speaks_again_is_forgotten(monkeypatch):
    monkeypatch.setattr(rtsp_server, "IDLE_S", 0.4)
    with running({"card": card()}) as address, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(2)
        host, port = address.removeprefix("rtsp://").split(":")
        with socket.create_connection((host, int(port)), timeout=3) as line:
            way = f"Transport: RTP/AVP;unicast;client_port={ear.getsockname()[1]}-{ear.getsockname()[1]}"
            for request in (f"SETUP {address}/card/track0 RTSP/1.0\r\nCSeq: 1\r\n{way}", f"PLAY {address}/card RTSP/1.0\r\nCSeq: 2"):
                line.sendall(f"{request}\r\n\r\n".encode())
            assert ear.recv(2000)[1] == 200 and ear.recv(2000)[1] & 127 == 96  # a report first, then pictures
            while line.recv(4096):
                pass  # until it hangs up
        ear.settimeout(0.3)
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                ear.recv(2000)


def test_many_clients_see_the_same(clip):
    seen = {}
    with running({"a": Looped(clip)}) as address:
        def watch(k: int) -> None:
            seen[k] = [video_files.number(p.image.to_ndarray(format="rgb24")) for p in pictures(follow(Rtsp(f"{address}/a", "tcp"), some(15)))]

        threads = [threading.Thread(target=watch, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 6 and all((b - a) % 20 == 1 for numbers in seen.values() for a, b in itertools.pairwise(numbers))


def test_a_port_that_is_taken_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as held, pytest.raises(UserError, match="choose another port"), \
            running({"card": card()}, port=held.getsockname()[1]):
        pass


def test_what_is_no_h264_is_a_sentence(tmp_path):
    other = video_files.make(tmp_path / "a.mp4", 3, codec="mpeg4")
    with pytest.raises(UserError, match="mpeg4, and only"):
        Looped(other)
    (tmp_path / "b.mp4").write_text("nothing")
    for path in (tmp_path / "b.mp4", tmp_path / "none.mp4"):
        with pytest.raises(UserError, match="no video that can be read"):
            Looped(path)


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=500), st.integers(10, 60))
def test_fragments_put_together_are_the_unit(nal, limit):
    parts = rtp.fragments(nal, limit)
    assert all(len(part) <= limit for part in parts)
    if len(parts) > 1:
        assert {part[0] & 31 for part in parts} == {28} and [part[1] >> 6 for part in parts] == [2, *[0] * (len(parts) - 2), 1]
        parts = [bytes((parts[0][0] & 0xE0 | parts[0][1] & 31,)), *(part[2:] for part in parts)]
    assert b"".join(parts) == nal


def test_only_a_file_ends_a_camera_does_not():
    with running({"short": Encoded((pattern.draw(k, 64, 48) for k in range(10)), 25.0)}) as address, pytest.raises(SourceError, match="closed"):
        list(Rtsp(f"{address}/short").connect(threading.Event()))
