"""A camera behind an HLS playlist, real on loopback: from the live edge on, evenly, with the sender's dates; and back again after every fault."""

from __future__ import annotations

import base64
import contextlib
import http.server
import itertools
import re
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

import numpy as np
import pytest
from cables import Cable

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources import pattern, playlist
from streamingvlm.media.sources.hls import Hls, Segments
from streamingvlm.media.sources.protocol import Change, Picture, SourceError, watched

FPS, EACH = 20, 8  # pictures a second, and in a segment of 0.4 s
STEP_S = EACH / FPS
QUICK = {"stall_s": 1.5, "patience_s": 5.0, "backoff": (0.1, 0.3)}


def shown(picture: Picture) -> int:
    return pattern.number(picture.image.to_ndarray(format="rgb24"))


def film(folder, kind: str):
    """20 segments as FFmpeg's own muxer writes them, with dates -> the folder."""
    import av

    options = {"hls_time": str(STEP_S), "hls_list_size": "0", "hls_flags": "program_date_time", "hls_segment_type": kind}
    with av.open(str(folder / "all.m3u8"), "w", format="hls", options=options) as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "superfast", "bf": "0", "g": str(EACH), "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(20 * EACH):
            frame = av.VideoFrame.from_ndarray(pattern.draw(k, 96, 64), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return folder


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    return film(tmp_path_factory.mktemp("hls"), "mpegts")


class Camera:
    """Serves `folder` as a live camera: segment k appears when it has been filmed, and six are listed. `ends`: how many there will be. `faults`: name
    -> status, or status and content."""

    def __init__(self, folder, ends: int | None = None, proof: str | None = None):
        self.folder, self.ends, self.proof, self.faults, self.asked = folder, ends, proof, {}, []
        self.newest = []  # segment of each list that was served
        self.begun = time.time() - 3 * STEP_S  # three are there already

    @contextlib.contextmanager
    def serving(self, port: int = 0):
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, data = camera.answer(self.path, self.headers.get("Authorization"))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", data.decode())
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/cam/live.m3u8"
            finally:
                server.shutdown()

    def answer(self, path: str, proof: str | None) -> tuple[int, bytes]:
        self.asked.append(path)
        name = path.rpartition("/")[2].partition("?")[0]
        if self.proof and proof != self.proof:
            return 401, b""
        if name in self.faults:
            status = self.faults[name]
            return status if isinstance(status, tuple) else (status, b"")
        if name == "live.m3u8":
            return 200, self.list().encode()
        file = self.folder / name
        return (200, file.read_bytes()) if file.is_file() else (404, b"")

    def list(self) -> str:
        there = min(int((time.time() - self.begun) / STEP_S), self.ends or 20)
        first = max(there - 6, 0)
        self.newest.append(there - 1)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for k in range(first, there):
            date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.begun + k * STEP_S)) + f"{(self.begun + k * STEP_S) % 1:.3f}"[1:] + "+0000"
            lines += [f"#EXT-X-PROGRAM-DATE-TIME:{date}", f"#EXTINF:{STEP_S:.3f},", f"all{k}.ts"]
        return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if there == self.ends else []), ""])


def follow(source, until, limit_s: float = 20.0, **no) -> list[Picture | Change]:
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


def reasons(items) -> list[str]:
    return [item.reason for item in items if isinstance(item, Change) and item.state in ("waiting", "refused", "failed")]


def test_it_begins_at_the_live_edge_and_goes_on_evenly_with_the_senders_dates_to_its_end(filmed):
    camera = Camera(filmed, ends=8)
    with camera.serving() as address:
        items = follow(Hls(address), lambda items: states(items)[-1] == "ended")
    got = pictures(items)
    assert states(items) == ["connecting", "live", "ended"]
    assert [shown(p) for p in got] == list(range(2 * EACH, 8 * EACH))  # three segments were there: the newest one first
    assert np.diff([p.pts_s for p in got]) == pytest.approx(1 / FPS, abs=0.001)
    captured = [p.captured_at - camera.begun for p in got]
    assert captured == pytest.approx([k / FPS for k in range(2 * EACH, 8 * EACH)], abs=0.005)
    handed = np.array([p.received_at for p in got])
    assert (handed - np.array([p.captured_at for p in got])).max() < 5
    assert (np.diff(handed) < 0.01).mean() < 0.6  # not a segment at a time, of which seven of eight would come at once


@pytest.mark.parametrize("kind", ["fmp4", "mpegts"])
def test_a_list_that_is_complete_is_seen_from_its_beginning_with_the_muxers_own_dates(kind, tmp_path):
    camera = Camera(film(tmp_path, kind))
    with camera.serving() as address:
        got = pictures(follow(Hls(address.replace("live", "all")), lambda items: len(pictures(items)) == 2 * EACH))
    dates = [line for line in (tmp_path / "all.m3u8").read_text().splitlines() if "DATE-TIME" in line]
    assert [shown(p) for p in got] == list(range(2 * EACH))
    assert [got[0].captured_at, got[EACH].captured_at] == pytest.approx([playlist._date(line.partition(":")[2]) for line in dates[:2]], abs=0.002)


def test_a_segment_that_is_missing_is_a_gap_and_no_end(filmed):
    camera = Camera(filmed, ends=7)
    camera.faults["all4.ts"] = 404
    with camera.serving() as address:
        items = follow(Hls(address), lambda items: states(items)[-1] == "ended")
    assert [shown(p) for p in pictures(items)] == [*range(2 * EACH, 4 * EACH), *range(5 * EACH, 7 * EACH)]
    assert states(items) == ["connecting", "live", "ended"]
    assert [p.captured_at - camera.begun for p in pictures(items)] == pytest.approx([shown(p) / FPS for p in pictures(items)], abs=0.005)
    assert camera.asked.count("/cam/all4.ts") == 2


def test_a_list_that_vanishes_and_comes_back_is_a_new_connection_from_the_live_edge_on(filmed):
    camera, again = Camera(filmed), []

    def step(items) -> bool:
        if len(pictures(items)) == 4:
            camera.faults["live.m3u8"] = 404
        if len(reasons(items)) == 2 and camera.faults:
            time.sleep(2 * STEP_S)  # meanwhile it films on
            again.append(len(camera.newest))
            camera.faults.clear()
        return len(reasons(items)) >= 2 and states(items)[-1] == "live" and isinstance(items[-1], Picture)

    with camera.serving() as address:
        items = follow(Hls(address), step)
    assert all("nothing at this path (404)" in reason for reason in reasons(items)) and states(items)[-1] == "live"
    assert [item.epoch for item in items if isinstance(item, Change)][-1] >= 2
    assert shown(items[-1]) == camera.newest[again[0]] * EACH


def test_a_late_and_uneven_network_leaves_nothing_out(filmed):
    camera = Camera(filmed, ends=6)
    with camera.serving() as address, Cable(int(re.search(r":(\d+)/", address)[1])) as cable:
        cable.delay_s, cable.jitter_s = 0.1, 0.1
        items = follow(Hls(address.replace(str(cable.target), str(cable.port))), lambda items: states(items)[-1] == "ended")
    numbers = [shown(picture) for picture in pictures(items)]
    assert numbers == list(range(numbers[0], 6 * EACH)) and cable.passed > 10 and states(items) == ["connecting", "live", "ended"]


def test_a_server_that_begins_to_count_anew_is_a_new_connection(filmed):
    camera = Camera(filmed)

    def step(items) -> bool:
        if len(pictures(items)) == 4:
            camera.faults["live.m3u8"] = (200, camera.list().replace("MEDIA-SEQUENCE:0", "MEDIA-SEQUENCE:-50").encode())
        if reasons(items):
            camera.faults.clear()
        return bool(reasons(items)) and isinstance(items[-1], Picture)

    with camera.serving() as address:
        items = follow(Hls(address), step)
    assert reasons(items) == ["Its playlist began anew."]


@pytest.mark.parametrize("ended", [True, False])
def test_behind_a_discontinuity_it_goes_on_with_nothing_lost_and_nothing_twice(ended, filmed):
    camera = Camera(filmed)
    part = [line for k in (0, 1) for line in (f"#EXTINF:{STEP_S:.3f},", f"all{k}.ts")]
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", *(part[2:] if not ended else part), "#EXT-X-DISCONTINUITY", *part]
    camera.faults["live.m3u8"] = (200, "\n".join([*(lines if ended else lines[:4]), *(["#EXT-X-ENDLIST"] if ended else [])]).encode())

    def step(items) -> bool:
        if not ended and len(pictures(items)) == EACH // 2:
            camera.faults["live.m3u8"] = (200, "\n".join(lines).encode())
        return states(items)[-1] == "ended" or (not ended and len(pictures(items)) == 2 * EACH)

    with camera.serving() as address:
        items = follow(Hls(address), step)
    numbers = [*(range(2 * EACH) if ended else range(EACH, 2 * EACH)), *range(2 * EACH if ended else EACH)]
    assert [shown(p) for p in pictures(items)] == numbers
    assert reasons(items) == ["Its stream begins anew."]


def test_a_list_that_no_longer_grows_is_dead(filmed, monkeypatch):
    monkeypatch.setattr("streamingvlm.media.sources.hls.STALE", 0.5)
    camera = Camera(filmed)
    camera.faults["live.m3u8"] = (200, camera.list().encode())
    with camera.serving() as address:
        items = follow(Hls(address, answer_s=0.3), lambda items: bool(reasons(items)), stall_s=10.0)
    assert reasons(items) == ["Its playlist no longer grows."] and len(pictures(items)) == EACH


@pytest.mark.parametrize(("user", "says"), [("cam:s3cret@", "401"), ("", "401"), ("cam:ri%40ght@", None)])
def test_passwords_open_it_or_are_in_no_text(user, says, filmed):
    camera = Camera(filmed, proof="Basic " + base64.b64encode(b"cam:ri@ght").decode())
    with camera.serving() as address:
        source = Hls(address.replace("//", f"//{user}"))
        items = follow(source, lambda items: bool(reasons(items)) or len(items) > 5)
    assert (reasons(items) == []) if says is None else says in reasons(items)[0]
    assert "s3cret" not in f"{items} {source.label}"


def test_a_password_goes_to_no_other_host(filmed):
    other, camera = Camera(filmed), Camera(filmed)
    proofs = []
    answer = other.answer
    other.answer = lambda path, proof: (proofs.append(proof), answer(path, proof))[1]
    with other.serving() as there, camera.serving() as address:
        elsewhere = there.replace("127.0.0.1", "localhost")
        camera.faults["live.m3u8"] = (302, elsewhere.encode())
        assert pictures(follow(Hls(address.replace("//", "//cam:pw@")), lambda items: len(pictures(items)) > 2))
    assert proofs and set(proofs) == {None}


def test_nothing_listens_then_it_does(filmed):
    with Camera(filmed).serving() as address:
        pass
    camera, pool = Camera(filmed), contextlib.ExitStack()
    with pool:
        def step(items) -> bool:
            if len(reasons(items)) == 1 and states(items)[-1] == "waiting":
                pool.enter_context(camera.serving(int(re.search(r":(\d+)/", address)[1])))
            return isinstance(items[-1], Picture)

        items = follow(Hls(address), step)
    assert "Nothing answers" in reasons(items)[0] and states(items)[-1] == "live"


@pytest.mark.parametrize(("answer", "says"), [
    ((200, b"<html>no</html>"), "no HLS playlist"), ((200, b"#EXTM3U\n#EXTINF:abc,\na.ts\n"), "damaged"), ((500, b""), "error (500)"),
    ((200, b"#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n#EXTINF:1,\na.ts\n"), "encrypted"),
    ((200, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "not of the web"),
    ((200, b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nx.ts\n#EXTINF:1,\ny.ts\n#EXTINF:1,\nz.ts\n#EXT-X-ENDLIST\n"), "not there, 3 in a row"),
    ((200, b"#EXTM3U\n#EXTINF:1,\nlive.m3u8\n"), "neither MPEG-TS nor MP4")])
def test_what_is_wrong_is_said(answer, says, filmed):
    camera = Camera(filmed)
    camera.faults["live.m3u8"] = answer
    with camera.serving() as address:
        items = follow(Hls(address), lambda items: bool(reasons(items)))
    assert says in reasons(items)[0]


def test_the_best_picture_that_is_not_too_large_is_chosen():
    text = "#EXTM3U\n" + "".join(f'#EXT-X-STREAM-INF:BANDWIDTH={rate},CODECS="avc1,mp4a",RESOLUTION={size}\n{name}.m3u8\n' for rate, size, name in (
        (5_000_000, "1920x1080", "high"), (800_000, "640x360", "low"), (3_000_000, "1280x720", "mid"), (2_000_000, "1280x720", "lean")))
    assert playlist.parse(text, "http://h/a/b.m3u8").variant() == "http://h/a/mid.m3u8"
    assert playlist.parse("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=1920x1080\nx\n", "http://h/").variant() == "http://h/x"
    assert playlist.parse("#EXTM3U\n", "http://h/").variant() is None


def test_what_a_list_says_of_its_segments():
    text = ("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-MAP:URI=\"init.mp4\"\n"
            "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:01:40.5Z\n#EXTINF:4,title\n#EXT-X-BYTERANGE:100@50\nall.mp4\n"
            "#EXTINF:3.5,\n#EXT-X-BYTERANGE:70\nall.mp4\n#EXT-X-DISCONTINUITY\n#EXTINF:4,\nhttps://x:1/b.mp4?a=b:c\n")
    a, b, c = playlist.parse(text, "http://h/d/list.m3u8").segments
    assert (a.number, a.address, a.length_s, a.date, a.part, a.setup) == (7, "http://h/d/all.mp4", 4.0, 100.5, (50, 100), "http://h/d/init.mp4")
    assert (b.number, b.date, b.part, b.breaks) == (8, 104.5, (150, 70), False)
    assert (c.number, c.address, c.date, c.part, c.breaks) == (9, "https://x:1/b.mp4?a=b:c", None, None, True)


@pytest.mark.parametrize("date", ["21:30:00.123+0000", "21:30:00.1230000Z", "22:30:00.123+01:00", "21:30:00.123"])
def test_dates_of_all_spellings(date):
    assert playlist._date(f"2026-11-28T{date}") == pytest.approx(1795901400.123)


def test_a_reader_that_fell_behind_goes_on_at_the_newest(filmed):
    camera, slept = Camera(filmed), []

    def step(items) -> bool:
        if len(pictures(items)) == 4 and not slept:
            slept.append(time.sleep(10 * STEP_S))  # what was fetched ahead is seen all the same
        return len(pictures(items)) >= 5 * EACH

    with camera.serving() as address:
        items = follow(Hls(address), step)
    numbers = [shown(p) for p in pictures(items)]
    assert numbers == sorted(set(numbers)) and max(b - a for a, b in itertools.pairwise(numbers)) > EACH
    last = pictures(items)[-1]
    assert last.received_at - last.captured_at < 4 * STEP_S + 2


MEDIA = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n{}#EXTINF:0.4,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("lists", [
    {"live.m3u8": (302, "{other}/list.m3u8")}, {"live.m3u8": (200, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{other}/list.m3u8\n")},
    {"live.m3u8": (200, MEDIA.format("", "{other}/a.ts"))}, {"live.m3u8": (200, MEDIA.format('#EXT-X-MAP:URI="{other}/a.ts"\n', "b.ts"))},
    {"live.m3u8": (200, MEDIA.format("", "b.ts")), "b.ts": (302, "{other}/a.ts")}], ids=["redirect", "variant", "segment", "map", "segment redirect"])
def test_what_may_not_be_asked_is_not_asked_whoever_names_it(lists, tmp_path):
    camera = Camera(tmp_path)
    with camera.serving() as address:
        other = address.rpartition("/")[0].replace("127.0.0.1", "localhost").replace("/cam", "/other")
        camera.faults = {"list.m3u8": (200, MEDIA.format("", "a.ts").encode()), "a.ts": (200, b"a"), "b.ts": (200, b"b")}
        camera.faults |= {name: (status, text.replace("{other}", other).encode()) for name, (status, text) in lists.items()}

        def check(asked: str) -> None:
            if "localhost" in asked:
                raise UserError("It is not among the sources.")

        with pytest.raises(SourceError, match="not among") as refused:
            list(Segments(address, 5.0, threading.Event(), check=check))
        assert refused.value.fatal and not any(path.startswith("/other") for path in camera.asked)
        assert list(Segments(address, 5.0, threading.Event())) and any(path.startswith("/other") for path in camera.asked), "unchecked it is followed"
