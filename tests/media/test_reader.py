"""A file in, the frame on display at each sample out: the same frames, times and pixels whatever the container, clock or reader."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import preloaded
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import make, make_audio, number, picture, rotate

from streamingvlm.base.config import Video
from streamingvlm.base.errors import UserError
from streamingvlm.base.patches import smart_size
from streamingvlm.media import decord_reader, file_index, reader, writer
from streamingvlm.models.qwen25.pixels import CLIP_MEAN, CLIP_STD, to_patches
from streamingvlm.worlds.match import rendering
from streamingvlm.worlds.match.game import Match

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ("basketball.mp4", "bigbuckbunny.mp4", "vtest.avi")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
RATES = (Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, Fraction(60000, 1001), 60)
SMALL = Video(fps=2.0, chunk_s=1.0, max_pixels=84 * 84)
needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel for this machine")
BACKENDS = (pytest.param("decord", marks=needs_decord), "pyav")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# name -> (suffix, how to make it, source times in seconds or None for index / fps)
VFR = np.cumsum([0] + [20, 33, 100, 250] * 15)[:60].tolist()
LATE = [5000 + 40 * i for i in range(60)]
GOOD = {
    "b-frames": ("mp4", dict(frames=90, codec_options={"bf": "3", "g": "12"})),
    "open-gop": ("mp4", dict(frames=90, codec_options={"bf": "3", "g": "12", "x264-params": "open-gop=1:scenecut=0"})),
    "vfr": ("mp4", dict(frames=60, ticks=VFR)),
    "23.976": ("mp4", dict(frames=60, fps=Fraction(24000, 1001))),
    "60fps": ("mp4", dict(frames=130, fps=60)),
    "odd-size": ("mp4", dict(frames=30, size=(853, 481), pix_fmt="yuv444p")),
    "portrait": ("mp4", dict(frames=30, size=(48, 96))),
    "half-second": ("mp4", dict(frames=15)),
    "one-frame": ("mp4", dict(frames=1)),
    "slow": ("mp4", dict(frames=4, fps=1)),
    "late": ("mp4", dict(frames=60, ticks=LATE)),
    "late-mkv": ("mkv", dict(frames=60, ticks=LATE)),
    "sound": ("mp4", dict(frames=60, audio=True)),
    "mkv": ("mkv", dict(frames=90, codec_options={"g": "12"})),
    "mkv-no-duration": ("mkv", dict(frames=60, container_options={"live": "1"})),
    "webm-no-duration": ("webm", dict(frames=60, codec="libvpx", container_options={"live": "1"})),
    "ts": ("ts", dict(frames=60, codec_options={"bf": "2", "g": "12"})),
    "raw": ("h264", dict(frames=60, file_format="h264")),
    "avi-b-frames": ("avi", dict(frames=60, codec="mpeg4", codec_options={"bf": "2"})),
    "fragmented": ("mp4", dict(frames=90, codec_options={"g": "12"}, container_options={"movflags": "frag_keyframe+empty_moov"})),
}
DECORD_MISREADS = ("open-gop", "portrait", "ts", "raw", "avi-b-frames", "mkv-no-duration", "webm-no-duration",
                   "fragmented")  # right from its start, wrong behind every seek


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    return {name: make(folder / f"{name}.{suffix}", **options) for name, (suffix, options) in GOOD.items()}


def true_times(name: str) -> np.ndarray:
    """When each frame was said to be shown when the file was made, from 0."""
    options = GOOD[name][1]
    if "ticks" in options:
        return (np.array(options["ticks"]) - options["ticks"][0]) / 1000
    return np.arange(options["frames"]) / float(options.get("fps", 30))


def numbers(chunks) -> list[list[int]]:
    return [[number(frame) for frame in chunk.frames] for chunk in chunks]


# --- which frame is on display ---


def check_selection(times, fps, chunk_s, chosen, start_s=0.0):
    samples = start_s + np.arange(len(chosen))[:, None] * chunk_s + np.arange(chosen.shape[1]) / fps
    flat, at = chosen.ravel(), samples.ravel()
    assert np.all(np.diff(flat) >= 0)
    following = np.append(times, np.inf)[flat + 1]
    assert np.all(times[flat] <= at + 0.001)
    assert np.all(following > at)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.0011, 3.0), min_size=0, max_size=60), st.sampled_from([1.0, 2.0, 3.0, 4.0, 7.5]),
       st.sampled_from([0.5, 1.0, 2.0]), st.floats(0.0, 5.0))
def test_any_clock_gives_the_frame_on_display_and_never_goes_back(gaps, fps, chunk_s, start_s):
    times = np.cumsum([0.0, *gaps])
    duration_s = times[-1] + 0.04
    if round(fps * chunk_s) < 1 or start_s >= duration_s:
        return
    chosen = reader.select(times, fps, chunk_s, start_s, None, duration_s)
    assert chosen.shape[1] == round(fps * chunk_s) and len(chosen) >= 1
    check_selection(times, fps, chunk_s, chosen, start_s)
    assert len(chosen) in (np.floor((duration_s - start_s) / chunk_s + 0.001), np.floor((duration_s - start_s) / chunk_s + 0.001) + 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.005, 0.4999), min_size=1, max_size=200), st.floats(0.0, 2.0))
def test_no_frame_repeats_while_the_source_has_new_ones(gaps, start_s):
    times = np.cumsum([0.0, *gaps])
    chosen = reader.select(times, 2.0, 1.0, start_s, None, times[-1] + 0.01) if start_s < times[-1] else np.zeros((0, 2), int)
    inside = chosen.ravel()[(start_s + np.arange(chosen.size) / 2) <= times[-1]]
    assert np.all(np.diff(inside) > 0)


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{float(rate):.3f}")
@pytest.mark.parametrize("clock", ["exact", "float32", "milliseconds", "90 kHz"])
def test_three_hours_at_every_rate_and_clock(rate, clock):
    times = np.arange(int(3 * 3600 * rate)) / float(rate)
    times = {"exact": times, "float32": times.astype(np.float32).astype(float), "milliseconds": np.round(times, 3),
             "90 kHz": np.round(times * 90000) / 90000}[clock]
    for fps in (1.0, 2.0, 4.0, 8.0, float(rate)) if clock != "float32" else (1.0, 2.0, 4.0, 8.0):
        chunk_s = 1.0 if fps != float(rate) else round(rate) / float(rate)
        chosen = reader.select(times, fps, chunk_s).ravel()
        steps = np.diff(chosen[chosen < len(times) - 1])
        assert steps.min() >= np.floor(float(rate) / fps + 1e-9) and steps.max() <= np.ceil(float(rate) / fps - 1e-9)
        assert steps.min() >= 1


def test_the_last_partial_chunk_stays_only_if_a_frame_starts_in_it():
    at_30 = np.arange(300) / 30
    assert len(reader.select(at_30, 2.0, 1.0, duration_s=10.0)) == 10
    assert reader.select(np.arange(301) / 30, 2.0, 1.0, duration_s=301 / 30)[-1].tolist() == [300, 300]
    slow = np.arange(300) * 1001 / 30000  # the last frame leaves at 10.01 s, no frame starts after 10 s
    assert len(reader.select(slow, 2.0, 1.0, duration_s=300 * 1001 / 30000)) == 10
    assert reader.select(at_30[:15], 2.0, 1.0, duration_s=0.5).tolist() == [[0, 14]]
    assert reader.select(np.array([0.0, 1.0]), 2.0, 1.0, duration_s=4.0).tolist() == [[0, 0], [1, 1], [1, 1], [1, 1]]
    assert reader.select(at_30, 2.0, 1.0, start_s=1.0, end_s=2.5, duration_s=10.0).tolist() == [[30, 45], [60, 74]]


# --- files ---


@pytest.mark.parametrize("backend", [None, "pyav"])
@pytest.mark.parametrize("name", GOOD)
def test_every_good_file_gives_the_right_frames(good, name, backend):
    times = true_times(name)
    info = reader.verify(good[name])
    last_s = 0.04 if "ticks" in GOOD[name][1] else 1 / float(GOOD[name][1].get("fps", 30))
    assert info.frames == len(times) and info.duration_s == pytest.approx(times[-1] + last_s, abs=0.3 if name == "vfr" else 0.01)
    assert info == reader.probe(good[name])
    chosen = reader.select(times, 2.0, 1.0, duration_s=info.duration_s)
    chunks = list(reader.read_chunks(good[name], SMALL, backend=backend))
    assert numbers(chunks) == chosen.tolist()
    assert [chunk.index for chunk in chunks] == list(range(len(chosen)))
    assert [chunk.start_s for chunk in chunks] == [float(k) for k in range(len(chosen))]
    for chunk, row in zip(chunks, chosen, strict=True):
        assert chunk.times_s == pytest.approx(times[row], abs=6e-4)
        assert chunk.frames.dtype == np.uint8 and chunk.frames.shape[1:] == (*smart_size(info.height, info.width, 84 * 84), 3)


@needs_decord
@pytest.mark.parametrize("name", GOOD)
def test_decord_is_refused_where_it_misreads_and_else_agrees(good, name):
    if name in DECORD_MISREADS:
        with pytest.raises(UserError, match="decord"):
            reader.read_chunks(good[name], SMALL, backend="decord")
        return
    pairs = zip(*(reader.read_chunks(good[name], Video(fps=7.0), backend=backend) for backend in ("decord", "pyav")), strict=True)
    for ours, theirs in pairs:
        assert ours.times_s == theirs.times_s
        assert np.array_equal(ours.frames, theirs.frames)


@needs_decord
@pytest.mark.parametrize("clip", CLIPS)
def test_decord_and_pyav_give_the_same_pixels_of_the_clips(clip):
    # Measured: 0 for H.264; for MPEG-4 in AVI a mean of 0.0003 and at most 3, since the two link different FFmpeg releases.
    config = Video(fps=5.0, max_pixels=200_000)
    for ours, theirs in zip(*(reader.read_chunks(ROOT / "data" / clip, config, 0.0, 4.0, backend) for backend in ("decord", "pyav")), strict=True):
        assert ours.times_s == theirs.times_s
        assert np.abs(ours.frames.astype(int) - theirs.frames).mean() < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["b-frames", "late", "mkv"])
def test_a_part_is_the_same_as_that_part_of_the_whole(good, name, backend):
    every = Video(fps=30.0, chunk_s=0.5, max_pixels=84 * 84)
    whole = list(reader.read_chunks(good[name], every, backend=backend))
    part = list(reader.read_chunks(good[name], every, 1.0, 2.0, backend))
    assert [chunk.index for chunk in part] == [0, 1] and [chunk.start_s for chunk in part] == [0.0, 0.5]
    for ours, theirs in zip(part, whole[2:4], strict=True):
        assert ours.times_s == theirs.times_s
        assert np.array_equal(ours.frames, theirs.frames)


@pytest.mark.parametrize("name", ["open-gop", "ts", "raw", "mkv-no-duration"])
def test_starting_anywhere_finds_the_same_frames(good, name):
    times = true_times(name)
    for start_s in np.arange(0.0, times[-1] - 0.1, 0.13):
        chunk = next(reader.read_chunks(good[name], SMALL, float(start_s)))
        assert number(chunk.frames[0]) == np.searchsorted(times, start_s + reader.TOLERANCE_S, side="right") - 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_as_the_file_says(tmp_path, degrees, backend):
    path = rotate(make(tmp_path / "turned.mp4", 12, size=(256, 128)), degrees)
    chunk = next(reader.read_chunks(path, Video(fps=10.0, max_pixels=256 * 256), backend=backend))
    upright = np.stack([np.rot90(frame, degrees // 90) for frame in chunk.frames])
    assert [number(frame) for frame in upright[:4]] == [0, 3, 6, 9]
    info = reader.probe(path)
    assert (info.width, info.height) == ((256, 128) if degrees in (0, 180) else (128, 256))
    assert chunk.frames.shape[1:3] == smart_size(info.height, info.width, 256 * 256)


# --- bad input ---


def cut(path: Path, source: Path, share: float) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.mp4").touch()
    for name in ("text.mp4", "text.txt"):
        (folder / name).write_text("this is not a video\n" * 200)
    large = {"frames": 200, "size": (160, 120), "codec_options": {"g": "12"}}
    plain = make(folder / "plain.mp4", **large)
    front = make(folder / "front.mp4", container_options={"movflags": "faststart"}, **large)
    return {
        "missing": folder / "missing.mp4", "folder": folder, "empty": folder / "empty.mp4", "text": folder / "text.mp4",
        "text.txt": folder / "text.txt", "no-moov": cut(folder / "no-moov.mp4", plain, 0.6), "cut": cut(folder / "cut.mp4", front, 0.7),
        "cut-late": cut(folder / "cut-late.mp4", front, 0.995), "cut-mkv": cut(folder / "cut.mkv", make(folder / "x.mkv", **large), 0.6),
        "cut-avi": cut(folder / "cut.avi", make(folder / "x.avi", 200, size=(160, 120), codec="mpeg4"), 0.6),
        "sound": make_audio(folder / "sound.mp4", 2.0),
    }


@pytest.mark.parametrize("name", ["missing", "folder", "empty", "text", "text.txt", "no-moov", "cut", "cut-late", "cut-mkv", "cut-avi", "sound"])
def test_bad_input_is_one_sentence_before_anything_is_read(bad, name):
    for call in (reader.probe, reader.verify, lambda path: reader.read_chunks(path, SMALL)):
        with pytest.raises(UserError) as caught:
            call(bad[name])
        message = str(caught.value)
        assert str(bad[name]) in message and message.endswith(".") and "\n" not in message and ": " in message


@pytest.mark.parametrize("backend", [None, "pyav"])
def test_damage_in_the_middle_is_said_and_never_a_silent_end(tmp_path, backend):
    data = bytearray((ROOT / "data" / "basketball.mp4").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20000] = np.random.default_rng(0).bytes(20000)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    reader.probe(path)
    with pytest.raises(UserError, match="damaged"):
        reader.verify(path)
    with pytest.raises(UserError, match="damaged"):
        list(reader.read_chunks(path, SMALL, backend=backend))


def test_a_packet_without_a_picture_keeps_the_frame_before_it(good, monkeypatch):
    decode = file_index.decode

    def lossy(index, start_pts=None):
        return ((pts, frame) for pts, frame in decode(index, start_pts) if pts != index.pts[15])

    monkeypatch.setattr(file_index, "decode", lossy)
    assert numbers(reader.read_chunks(good["b-frames"], SMALL, backend="pyav"))[0] == [0, 14]

    def ends_early(index, start_pts=None):
        return ((pts, frame) for pts, frame in decode(index, start_pts) if pts < index.pts[-5])

    monkeypatch.setattr(file_index, "decode", ends_early)
    with pytest.raises(UserError, match="no frame comes after"):
        list(reader.read_chunks(good["b-frames"], Video(fps=30.0), backend="pyav"))
    with pytest.raises(UserError, match="last frame"):
        reader.verify(good["b-frames"])


def test_verify_wants_rising_timestamps(good, monkeypatch):
    decode = file_index.decode
    monkeypatch.setattr(file_index, "decode", lambda index, start_pts=None: ((pts // 1024 * 1024, frame) for pts, frame in decode(index, start_pts)))
    with pytest.raises(UserError, match="timestamps"):
        reader.verify(good["b-frames"])


def test_impossible_requests_are_user_errors(good):
    path = good["b-frames"]
    for call in (lambda: reader.read_chunks(path, SMALL, 3.0), lambda: reader.read_chunks(path, SMALL, 2.0, 2.0),
                 lambda: reader.read_chunks(path, SMALL, -1.0), lambda: reader.read_chunks(path, SMALL, backend="other"),
                 lambda: reader.read_chunks(path, Video(fps=0.2)), lambda: reader.read_chunks(path, Video(max_pixels=700))):
        with pytest.raises(UserError):
            call()


# --- sizes and patches ---


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(784, 2_000_000), st.integers(1, 100_000))
def test_smart_size_is_qwens_rule_within_the_budget(height, width, max_pixels, min_pixels):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    min_pixels = min(min_pixels, max_pixels)
    h, w = smart_size(height, width, max_pixels, min_pixels)
    assert h % 28 == 0 and w % 28 == 0 and min(h, w) >= 28 and h * w <= max_pixels
    if min(height, width) > 14 and max(height, width) <= 200 * min(height, width):
        theirs = smart_resize(height, width, min_pixels=min_pixels, max_pixels=max_pixels)
        assert theirs == (h, w) or theirs[0] * theirs[1] > max_pixels


@pytest.mark.parametrize(("height", "width"), [(28, 28), (56, 84), (84, 56)])
def test_patches_are_those_of_transformers(height, width):
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    theirs = Qwen2VLImageProcessorPil(do_resize=False)(Image.fromarray(frame), return_tensors="pt")
    patches, grid = to_patches(frame[None])  # the processor, too, repeats a single frame
    assert list(grid) == theirs["image_grid_thw"][0].tolist()
    assert patches.dtype == torch.float32
    assert torch.allclose(patches, theirs["pixel_values"], atol=1e-5)


def test_patch_order_spelled_out():
    frames = np.random.default_rng(1).integers(0, 256, (3, 56, 84, 3), dtype=np.uint8)
    patches, (t, h, w) = to_patches(torch.from_numpy(frames))
    assert (t, h, w) == (2, 4, 6) and patches.shape == (48, 1176)
    frames = np.concatenate([frames, frames[-1:]])
    mean, std = 255 * np.float32(CLIP_MEAN), 255 * np.float32(CLIP_STD)
    expected = []
    for pair in range(t):
        for top in range(0, h, 2):
            for left in range(0, w, 2):
                for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                    block = frames[2 * pair : 2 * pair + 2, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
                    expected.append(((block - mean) / std).transpose(3, 0, 1, 2).ravel())
    assert np.array_equal(patches.numpy(), np.stack(expected).astype(np.float32))
    with pytest.raises(ValueError, match="multiples of 28"):
        to_patches(frames[:, :50])


def test_import_and_patches_need_neither_decord_nor_av():
    code = ("import sys; sys.modules['av'] = sys.modules['decord'] = None\n"
            "from streamingvlm.models.qwen25 import pixels; import torch\n"
            "print(pixels.to_patches(torch.zeros(2, 28, 28, 3, dtype=torch.uint8))[0].shape)")
    done = subprocess.run([preloaded.python(), "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr


# --- writing ---


def pictures(count: int, width: int = 64, height: int = 48):
    return (picture(index, width, height) for index in range(count))


@pytest.mark.parametrize("fps", [10.0, 24000 / 1001, 30.0])
def test_write_h264_keeps_frames_and_rate(tmp_path, fps):
    writer.write_h264(tmp_path / "x.mp4", pictures(50), fps)
    info = reader.verify(tmp_path / "x.mp4")
    assert (info.frames, info.width, info.height) == (50, 64, 48)
    assert info.fps == pytest.approx(fps, rel=1e-6) and info.duration_s == pytest.approx(50 / fps, abs=1e-3)
    data = (tmp_path / "x.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert numbers(reader.read_chunks(tmp_path / "x.mp4", SMALL))[0] == [0, int((0.5 + reader.TOLERANCE_S) * fps)]


def test_write_h264_gives_the_same_bytes_and_leaves_no_half_file(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        writer.write_h264(tmp_path / name, pictures(40), 25)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()

    def breaks():
        yield from pictures(10)
        raise RuntimeError("the renderer fell over")

    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(RuntimeError):
        writer.write_h264(tmp_path / "a.mp4", breaks(), 25)
    with pytest.raises(ValueError, match="even size"):
        writer.write_h264(tmp_path / "c.mp4", pictures(2, 63), 25)
    with pytest.raises(ValueError, match="no frame"):
        writer.write_h264(tmp_path / "c.mp4", [], 25)
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(("name", "loop_s"), [("b-frames", 10.0), ("vfr", 14.0), ("late", 7.0), ("b-frames", 1.5), ("raw", 5.0)])
def test_loop_repeats_the_source_with_rising_timestamps(good, tmp_path, name, loop_s):
    target, times = tmp_path / "loop.mp4", true_times(name)
    writer.loop(good[name], target, loop_s, max_pixels=48 * 36)
    info, pass_s = reader.verify(target), reader.probe(good[name]).duration_s
    assert info.duration_s == pytest.approx(loop_s, abs=0.3) and (info.width, info.height) == (48, 36)
    for chunk in reader.read_chunks(target, SMALL):
        for frame, time_s in zip(chunk.frames, chunk.times_s, strict=True):
            assert number(frame) == np.searchsorted(times, time_s % pass_s + 0.002, side="right") - 1
    assert [path.name for path in tmp_path.iterdir()] == ["loop.mp4"]


MEASURE = """
import psutil, torch
from streamingvlm.media import file_index, reader, writer
from streamingvlm.base.config import Video
torch.set_num_threads(1)
process, start = psutil.Process(), 0
for chunk in reader.read_chunks({path!r}, Video(), backend={backend!r}):
    now = process.memory_info().rss
    start = now if chunk.index == 30 else start
    most = now if chunk.index <= 30 else max(most, now)
print(chunk.index + 1, (most - start) >> 20)
"""


@pytest.fixture(scope="module")
def ten_minutes(tmp_path_factory) -> Path:
    """Small frames: 80 kB each, all 1200 of which are asked for. Keeping one in eight would show."""
    path = tmp_path_factory.mktemp("long") / "ten.mp4"
    writer.write_h264(path, pictures(1200, 192, 144), 2.0)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_stays_flat_over_ten_minutes(ten_minutes, backend):
    code = MEASURE.format(path=str(ten_minutes), backend=backend)
    done = subprocess.run([preloaded.python(), "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    chunks, growth_mb = map(int, done.stdout.split())
    assert chunks == 600 and growth_mb < 12


def test_decord_is_asked_only_where_it_can_skip_groups_of_pictures(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(decord_reader, "open_proven", lambda index, truth: asked.append(index))
    writer.write_h264(tmp_path / "x.mp4", pictures(200), 10.0)  # a key frame every two seconds
    for fps, chunk_s, skips in ((2.0, 1.0, False), (0.2, 5.0, True)):
        assert len(list(reader.read_chunks(tmp_path / "x.mp4", Video(fps=fps, chunk_s=chunk_s)))) == 20 / chunk_s
        assert bool(asked) == skips


@needs_decord
def test_decord_is_rewound_after_every_batch(good):
    # Unwound, it kept 350 MB more after a minute of 1080p; the small file above would not show it.
    index, calls = file_index.scan(good["b-frames"]), []

    class Reader:
        def get_batch(self, wanted):
            calls.append(len(wanted))
            pixels = np.zeros((len(wanted), *index.first.shape), np.uint8)
            return SimpleNamespace(asnumpy=lambda: pixels)

        def seek(self, place):
            calls.append(f"seek {place}")

    assert len(list(decord_reader.read(index, Reader(), np.arange(40), None))) == 40
    assert calls == [16, "seek 0", 16, "seek 0", 8, "seek 0"]


def test_the_same_frames_give_the_same_bytes_whatever_lay_in_memory_before(tmp_path):
    """x264's look-ahead reads memory it never wrote; between encodes the heap is filled with other bytes each time."""
    frames = [frame for _, frame in zip(range(60), rendering.draw(Match(17, 6)), strict=False)]
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        junk = [np.full(rng.integers(1_000, 400_000), rng.integers(256), np.uint8) for _ in range(25)]
        del junk
        writer.write_h264(tmp_path / "a.mp4", frames, 10)
        seen.add((tmp_path / "a.mp4").read_bytes())
    assert len(seen) == 1
