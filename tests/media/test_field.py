"""Other people's files: kinds of faults that were met in the field, and what is right. A file that cannot be read rightly is refused by name."""

from __future__ import annotations

import importlib.util
import itertools
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import cut_by_edits, make, number, place, rotate

from streamingvlm.base.config import Video
from streamingvlm.base.errors import UserError
from streamingvlm.media import file_index, reader, timeline, writer

SMALL = Video(max_pixels=84 * 84)
EVERY = Video(fps=25.0, max_pixels=84 * 84)
COUNT = [int(k * 12.5) for k in range(8)]  # what 4 s at 25 frames a second show, twice a second
needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel for this machine")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def film(path: Path, frames: int = 100, gop: int = 25, bframes: int = 0, x264: str = "scenecut=0", **more) -> Path:
    return make(path, frames, 25, codec_options={"g": str(gop), "bf": str(bframes), "x264-params": x264}, **more)


def shown(path: Path, video: Video = SMALL, start_s: float = 0.0, backend: str | None = None) -> list[int]:
    return [number(frame) for chunk in reader.read_chunks(path, video, start_s, backend=backend) for frame in chunk.frames]


# --- packets that are needed and not shown ---


EDITS = {"trimmed": [(2.5, 1.3)], "late and trimmed": [(1.0, None), (2.0, 1.3)], "two parts": [(1.0, 0.48), (1.0, 2.2)],
         "the later first": [(1.0, 2.0), (1.0, 0.48)], "twice the same": [(1.0, 0.48), (1.0, 0.48)], "moved": [(2.0, None), (4.0, 0.0)],
         "three parts": [(0.52, None), (1.0, 0.32), (0.72, 1.72), (0.4, 2.8)]}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("bframes", [0, 2])
def test_an_edit_list_decides_what_is_shown_and_not_what_is_decoded(tmp_path, name, bframes):
    path = cut_by_edits(film(tmp_path / "cut.mp4", gop=12, bframes=bframes), EDITS[name])
    truth = [round(25 * start_s) + k for shown_s, start_s in EDITS[name] if start_s is not None for k in range(round(25 * shown_s))]
    info = reader.verify(path)
    decoded = [number(file_index.rgb(frame, file_index.UPRIGHT)) for _, frame in file_index.decode(file_index.scan(path))]
    assert info.start_s == 0 and not info.notes and len(decoded) == info.frames
    slack = 1 + 2 * (bframes > 0)  # frames, at each edge: where between two a cut falls is FFmpeg's, and B frames are cut with those they hang on
    assert abs(info.frames - len(truth)) <= slack * len(EDITS[name]) and abs(decoded[0] - truth[0]) <= 1
    assert set(decoded) >= {n for n in truth if {n - 1, n - 2, n - 3, n + 1, n + 2, n + 3} <= set(truth)}
    for k, ours in enumerate(shown(path) if not bframes else ()):
        at = int((k / 2 + reader.TOLERANCE_S) * 25)
        assert ours in decoded[max(0, at - 1) : at + 2] or at >= info.frames - 1


def test_a_part_behind_a_hidden_key_frame_is_the_same(tmp_path):
    path = cut_by_edits(film(tmp_path / "cut.mp4", gop=50, bframes=2), [(3.0, 0.8)])
    whole = shown(path, EVERY)
    for start_s in (0.04, 0.6, 1.24, 2.4):
        assert all(a == b for a, b in zip(shown(path, EVERY, start_s), whole[round(25 * start_s) :], strict=False))


# --- key frames that are none ---


REFRESH = "intra-refresh=1:keyint=50:scenecut=0:bframes=0:rc-lookahead=0"


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_intra_refresh_is_read_from_where_it_can_be(tmp_path, suffix):
    path = film(tmp_path / f"refresh.{suffix}", 150, 50, x264=REFRESH)
    assert shown(path) == [int(k * 12.5 + 1e-6) for k in range(12)]
    index = file_index.scan(path)
    assert not index.simple or len(index.key_pts) == 1
    for start_s in (0.5, 2.5, 4.0):
        assert shown(path, SMALL, start_s)[0] == int(start_s * 25 + 1e-6)


def all_keys(data: bytes) -> bytes:
    return data.replace(b"stss", b"free")  # no table of key frames: every frame is one


def wrong_keys(data: bytes) -> bytes:
    at = data.index(b"stss") + 4
    keys = np.frombuffer(data[at + 8 : at + 8 + 4 * int.from_bytes(data[at + 4 : at + 8], "big")], ">i4").copy()
    keys[1:] += 3
    return data[: at + 8] + keys.tobytes() + data[at + 8 + keys.nbytes :]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("broken", [all_keys, wrong_keys])
def test_a_wrong_table_of_key_frames(tmp_path, codec, broken):
    options = {"g": "12", "bf": "0"} | ({"x264-params": "scenecut=0"} if codec == "libx264" else {})
    path = make(tmp_path / "all.mp4", 100, 25, codec=codec, codec_options=options)
    path.write_bytes(broken(path.read_bytes()))
    assert shown(path, EVERY) == list(range(100))
    assert [shown(path, EVERY, start_s)[0] for start_s in (0.2, 0.65, 1.0, 3.4)] == [5, 16, 25, 85]
    assert not file_index.scan(path).simple
    with pytest.raises(UserError, match="decord"):
        reader.read_chunks(path, SMALL, backend="decord")


@needs_decord
def test_decord_is_taken_only_where_its_frames_behind_a_seek_are_those_of_pyav(tmp_path, monkeypatch):
    from streamingvlm.media import decord_reader

    index = file_index.scan(film(tmp_path / "plain.mp4", gop=12))
    assert decord_reader.open_proven(index, reader._read_pyav) is not None

    def other(index, wanted):  # as if decord were two frames ahead behind the seek
        return reader._read_pyav(index, np.minimum(wanted + 2, index.info.frames - 1))

    assert decord_reader.open_proven(index, other) is None


# --- clocks that contradict the order of the packets ---


def joined(folder: Path, suffix: str, *starts_s: float, audio: bool = False) -> Path:
    """Recordings of 4 s, copied one behind the other; the k-th has the numbers from 1000 k on and a clock that begins at `starts_s`[k]."""
    path = folder / f"joined.{suffix}"
    parts = [make(folder / f"{k}.{suffix}", 100, 25, ticks=[round(1000 * start_s) + 40 * n for n in range(100)], first=1000 * k, audio=audio,
                  codec_options={"g": "25", "bf": "2"}) for k, start_s in enumerate(starts_s)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(("suffix", "starts_s"), [
    ("ts", (0, 0)), ("ts", (0, 3600)), ("ts", (3600, 0)), ("ts", (0, 1.5)), ("ts", (0, 3600, 100)), ("ts", (0, 90000)), ("ts", (50, 0, 0)),
    ("mkv", (0, 0)), ("mkv", (0, 1))])
def test_joined_recordings_follow_one_another_and_it_is_said(tmp_path, suffix, starts_s):
    path = joined(tmp_path, suffix, *starts_s)
    info = reader.verify(path)
    assert info.frames == 100 * len(starts_s) and info.duration_s == pytest.approx(4.0 * len(starts_s), abs=0.02)
    assert shown(path) == [1000 * part + n for part in range(len(starts_s)) for n in COUNT]
    assert [note for note in info.notes if "clock jumps" in note and "at 4.0 s" in note]
    assert shown(path, SMALL, 4.0) == shown(path)[8:]


@pytest.mark.parametrize("suffix", ["mp4", "flv"])
def test_a_recording_that_is_not_reached_is_said(tmp_path, suffix):
    path = joined(tmp_path, suffix, 0, 0)
    assert shown(path) == COUNT and "another recording is joined to its end" in reader.probe(path).notes[0]


def test_joined_fragments_are_refused(tmp_path):
    parts = [film(tmp_path / f"{k}.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}) for k in range(2)]
    (tmp_path / "both.mp4").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(UserError, match="several recordings"):
        reader.probe(tmp_path / "both.mp4")


def stamps(*parts: tuple[float, int], step: int = 40) -> np.ndarray:
    return np.concatenate([start + step * np.arange(count) for start, count in parts]).astype(np.int64)


def mend(dts: np.ndarray, pts: np.ndarray | None = None, sound: int = 0, jumps: bool = True):
    keys = np.arange(len(dts)) % 25 == 0
    return timeline.mend(dts if pts is None else pts, dts, keys, np.full(len(dts), sound), 0.001, jumps)


def test_a_clock_without_a_fault_is_left_alone():
    for pts in (stamps((0, 500)), stamps((-900, 80)), np.cumsum([0, 20, 33, 100, 250] * 20)):
        assert mend(pts) == (None, []) and timeline.mend(pts, None, np.arange(len(pts)) % 12 == 0, 0 * pts, 0.001, False) == (None, [])
    still = stamps((0, 50), (21_000, 50))
    assert mend(still, jumps=False) == (None, [])
    assert mend(stamps((0, 50), (200_000, 50)), jumps=False)[1] == ["its picture stands still from 2 to 200 s, as its clock says"]
    heard = np.zeros(100, np.int64)
    heard[50] = 40 * 19
    assert timeline.mend(still, still, np.arange(100) % 50 == 0, heard, 0.001, True) == (None, [])


@pytest.mark.parametrize("bad", [9_999_999, -5000, 0, 7000, 10**9])
@pytest.mark.parametrize("jumps", [True, False])
def test_one_bad_stamp_costs_no_other_frame_its_time(bad, jumps):
    pts = stamps((0, 200))
    broken = pts.copy()
    broken[77] = bad
    mended, said = mend(broken, jumps=jumps)
    assert np.abs(mended - pts).max() <= 40 and len(said) == 1 and "1 of its timestamps" in said[0]
    mended, said = mend(pts, broken, jumps=jumps)  # the order of decoding is sound, that of display is not
    assert np.abs(mended - pts).max() <= 40 and said


@pytest.mark.parametrize("second", [-90_000_000, -1, 0, 7_800, 30_000, 3_600_000, 10**11])
def test_every_second_clock_is_joined_without_a_gap_or_a_loss(second):
    mended, said = mend(stamps((0, 200), (second, 100)))
    assert np.array_equal(mended, stamps((0, 300))) and len(said) == 1


# --- several pictures ---


def tracks(path: Path, *pictures: dict) -> Path:
    """Several pictures in one file: size, frames, and first number of each."""
    import av
    from video_files import picture

    with av.open(str(path), "w") as out:
        streams = []
        for one in pictures:
            stream = out.add_stream(one.get("codec", "libx264"), rate=25, options={"threads": "1", "bf": "0"} if "codec" not in one else {})
            stream.width, stream.height = one["size"]
            stream.pix_fmt = one.get("pix_fmt", "yuv420p")
            if "disposition" in one:
                stream.disposition = one["disposition"]
            streams.append(stream)
        for stream, one in zip(streams, pictures, strict=True):
            for k in range(one.get("frames", 50)):
                frame = av.VideoFrame.from_ndarray(picture(one.get("first", 0) + k, *one["size"]), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def test_the_default_picture_is_watched_else_the_largest_never_a_thumbnail(tmp_path):
    from av.stream import Disposition

    small, large = {"size": (64, 48), "first": 500}, {"size": (128, 96)}
    both, one_frame = {"disposition": Disposition.default}, {"size": (256, 192), "frames": 1, "first": 900}
    for suffix, pictures, right in (("mkv", (small | both, large | both), (128, 96)), ("mkv", (large | both, small | both), (128, 96)),
                                    ("mp4", (one_frame, small), (64, 48)),
                                    ("mkv", (large | {"disposition": Disposition(0)}, small | {"disposition": Disposition.default}), (64, 48)),
                                    ("mkv", (small | {"disposition": Disposition.default}, large | {"disposition": Disposition(0)}), (64, 48))):
        info = reader.probe(tracks(tmp_path / f"x.{suffix}", *pictures))
        assert (info.width, info.height) == right and "holds 2 pictures" in info.notes[0]
        assert shown(tmp_path / f"x.{suffix}")[:2] == ([500, 512] if right == (64, 48) else [0, 12])


# --- how a picture is displayed ---


def quarters(path: Path, width: int = 128, height: int = 64) -> Path:
    frame = np.full((height, width, 3), 220, np.uint8)
    frame[: height // 2, : width // 2], frame[: height // 2, width // 2 :], frame[height // 2 :, : width // 2] = 40, 100, 160
    writer.write_h264(path, [frame] * 30, 25)
    return path


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
                                    (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])
@pytest.mark.parametrize("backend", [None, "pyav"])
def test_all_eight_display_matrices(tmp_path, matrix, backend):
    path = place(quarters(tmp_path / "x.mp4"), *matrix)
    chunk = next(reader.read_chunks(path, Video(max_pixels=256 * 256), backend=backend))
    a, b, c, d = matrix
    for (y, x), grey in {(-1, -1): 40, (-1, 1): 100, (1, -1): 160, (1, 1): 220}.items():
        at_x, at_y = a * x + c * y, b * x + d * y
        height, width = chunk.frames.shape[1:3]
        assert abs(int(chunk.frames[0, height * (2 + at_y) // 4, width * (2 + at_x) // 4, 0]) - grey) < 8
    info = reader.probe(path)
    assert (info.width, info.height) == ((128, 64) if b == 0 else (64, 128))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mov"])
@pytest.mark.parametrize(("pixels", "right"), [(Fraction(64, 45), (1024, 576)), (Fraction(16, 15), (768, 576)), (Fraction(1, 2), (720, 1152))])
def test_what_is_displayed_has_square_pixels(tmp_path, suffix, pixels, right):
    path = make(tmp_path / f"wide.{suffix}", 4, 25, size=(720, 576), pixels=pixels)
    info = reader.probe(path)
    assert (info.width, info.height) == right
    frames = next(reader.read_chunks(path, Video(max_pixels=1024 * 1024))).frames
    assert frames.shape[2] / frames.shape[1] == pytest.approx(right[0] / right[1], rel=0.05) and number(frames[0]) == 0
    if suffix == "mp4":
        info = reader.probe(rotate(path, 90))
        assert (info.width, info.height) == right[::-1]


# --- when a picture begins, and how long it shows ---


def test_a_picture_that_begins_after_the_sound_has_the_times_that_players_show(tmp_path):
    for suffix, start_s, right in (("mp4", 3.0, 3.0), ("mkv", 3.0, 3.0), ("mp4", 0.5, 0.5), ("mp4", 0.0, 0.0), ("ts", 2.0, 2.0)):
        path = make(tmp_path / f"x.{suffix}", 50, 25, ticks=[round(start_s * 1000) + 40 * k for k in range(50)], audio=True)
        chunks = list(reader.read_chunks(path, SMALL))
        assert [(chunk.start_s, chunk.end_s) for chunk in chunks] == [(pytest.approx(right + k, abs=0.1), pytest.approx(right + k + 1, abs=0.1))
                                                                     for k in (0, 1)]
        assert chunks[0].times_s[0] == 0 and [number(frame) for chunk in chunks for frame in chunk.frames] == [0, 12, 25, 37]
    alone = make(tmp_path / "alone.mkv", 50, 25, ticks=[3000 + 40 * k for k in range(50)])  # nothing is there before it: players begin with it
    assert next(reader.read_chunks(alone, SMALL)).start_s == 0


def test_a_picture_counts_as_long_as_it_shows(tmp_path):
    ticks = [*range(0, 1000, 40), *range(20_000, 21_000, 40), 30_000, 39_960]
    path = make(tmp_path / "still.mp4", len(ticks), 25, ticks=ticks)
    right = [int(np.searchsorted(ticks, 500 * k + 0.7, side="right")) - 1 for k in range(80)]
    assert shown(path) == right and not reader.probe(path).notes
    slides = make(tmp_path / "slides.mp4", 4, 1, ticks=[0, 5000, 10000, 15000])
    assert shown(slides)[:30] == [k // 10 for k in range(30)]
    index = file_index.scan(slides)
    assert "0.2 pictures a second" in file_index.check_rate(index, 2.0)[0] and not file_index.check_rate(file_index.scan(path), 2.0)


# --- what cannot be read whole, or at all ---


def test_a_fragmented_file_is_read_wherever_its_recorder_was_killed(tmp_path):
    path = film(tmp_path / "x.mp4", bframes=2, container_options={"movflags": "frag_keyframe+empty_moov"})
    data, read = path.read_bytes(), []
    first = data.index(b"moof", data.index(b"moof") + 4)  # where the second fragment begins
    for at in np.linspace(first + 40, len(data) - 1, 12).astype(int):
        path.write_bytes(data[:at])
        numbers, info = shown(path, EVERY), reader.verify(path)
        read.append(info.frames)
        assert len(numbers) >= info.frames - 2 and numbers == sorted(numbers) and set(numbers) <= set(range(100))
    assert read == sorted(read) and read[0] >= 25 and read[-1] >= 98


def test_a_format_that_is_not_known_or_protected_is_named(tmp_path):
    path = make(tmp_path / "x.mp4", 50, 25, audio=True)
    data = path.read_bytes()
    for old, new, said in ((b"avc1", b"zzz9", "no decoder here knows"), (b"avc1", b"drmi", "protected")):
        path.write_bytes(data.replace(old, new))
        with pytest.raises(UserError, match=said):
            reader.probe(path)
    path.write_bytes(data.replace(b"mp4a", b"zzz9"))  # the sound alone is unknown: nobody listens
    assert shown(path) == [0, 12, 25, 37]
    keys = {"encryption_key": "76a6c65c5ea762046bd749a2e632ccbb", "encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}
    locked = make(tmp_path / "locked.mp4", 50, 25, container_options={"encryption_scheme": "cenc-aes-ctr", **keys})
    with pytest.raises(UserError, match="protected"):
        reader.probe(locked)


@pytest.mark.parametrize("name", ["12:30:00.mp4", "a:b.mp4", "-x.mp4", "%d.mp4", "file:x.mp4", os.fsdecode(b"caf\xe9.mp4"), "ü #%20?.mp4"])
def test_a_name_is_a_name_and_no_address(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    film(Path("plain.mp4"), 50).rename(name)
    for path in (name, Path(name), tmp_path / name):
        assert shown(path) == [0, 12, 25, 37]


def test_numbers_that_are_none_are_refused(tmp_path):
    path = film(tmp_path / "x.mp4", 10)
    for value, key in itertools.product((float("nan"), float("inf"), -1.0), ("fps", "chunk_s")):
        with pytest.raises(UserError, match="above 0"):
            reader.read_chunks(path, Video(**{key: value}))
