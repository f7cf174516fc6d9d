"""What a picture costs on its way in, step by step: decode, colour and size, normalised colours, stamp and jitter buffer. Claim A8: 5-10 ms.

    python -m bench.ingest                       # 1080p and 720p, one thread, medians; some half a minute
    python -m bench.ingest --clip match.mp4      # pictures of another film, scaled to both sizes

The film is encoded anew in each size, as a camera would (H.264, no B frames). `cpu_ms` counts this process's own time and is what to read on a
machine that others use too; `ms` is the wall's. `fresh` steps are `VideoFrame.reformat` as it comes: it sets swscale and its threads up for every
picture. The others keep one set up, with one thread. `service` steps are the live service's own; `model_input` says how far the city model's
picture, taken by way of 720p in planes or in RGB, is from the one that is taken directly (levels of 255, mean and largest).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from streamingvlm.base.machine import provenance
from streamingvlm.base.records import Frame, Stamp
from streamingvlm.media.buffer import JitterBuffer
from streamingvlm.media.writer import write_h264
from streamingvlm.serving.intake import picture as pictures

SIZES = {"1080p": (1920, 1080), "720p": (1280, 720)}
INFERENCE_PX = (1280, 720)
MODELS_PX = {"vlm": (448, 252), "city": (96, 96)}
MEAN, STD = np.array([0.481, 0.458, 0.408], np.float32), np.array([0.269, 0.261, 0.276], np.float32)  # CLIP's, as Qwen2.5-VL has them
SCALE, SHIFT = 1 / (255 * STD), -MEAN / STD
WARM = 3


def film(clip: Path, size: tuple[int, int], frames: int, folder: Path) -> Path:
    """`frames` pictures of `clip` in `size`, as H.264."""
    keep = VideoReformatter()

    def scaled() -> Iterator[np.ndarray]:
        done = 0
        while done < frames:
            with av.open(str(clip)) as container:
                for frame in container.decode(video=0):
                    yield keep.reformat(frame, *size, "rgb24", interpolation="BICUBIC").to_ndarray()  # [H, W, C]
                    done += 1
                    if done == frames:
                        return

    path = folder / f"{size[1]}p.mp4"
    write_h264(path, scaled(), 30)
    return path


class Times:
    """Of each step: a picture's milliseconds, own and the wall's."""

    def __init__(self) -> None:
        self.own: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}

    def __call__(self, name: str, step: Callable, *given):
        began, used = time.perf_counter(), time.process_time()
        out = step(*given)
        self.own.setdefault(name, []).append(1e3 * (time.process_time() - used))
        self.wall.setdefault(name, []).append(1e3 * (time.perf_counter() - began))
        return out

    def row(self) -> dict[str, dict[str, float]]:
        """Medians and a 95th percentile, the first few left out."""
        return {name: {"cpu_ms": round(statistics.median(own[WARM:]), 3), "cpu_ms_p95": round(float(np.quantile(own[WARM:], 0.95)), 3),
                       "ms": round(statistics.median(self.wall[name][WARM:]), 3), "frames": len(own) - WARM} for name, own in self.own.items()}


def normalised(pixels: np.ndarray, out: np.ndarray) -> np.ndarray:
    """[H, W, C] uint8 -> float32 with mean 0 and deviation 1 a channel, into `out` [H, W * C]: numpy is ten times slower on rows of three."""
    height, width, _ = pixels.shape
    np.multiply(pixels.reshape(height, -1), np.tile(SCALE, width), out=out, dtype=np.float32)
    out += np.tile(SHIFT, width)
    return out.reshape(pixels.shape)


def walk(path: Path) -> tuple[Times, dict[str, list[float]]]:
    """The film through all steps, picture by picture; nothing is kept, as in a service -> times, and how far model inputs are apart."""
    apart: dict[str, list[np.ndarray]] = {}
    times, keep, buffer = Times(), VideoReformatter(), JitterBuffer(0.1)
    sizes = {"720p": INFERENCE_PX, **MODELS_PX}
    room = {name: np.empty((height, 3 * width), np.float32) for name, (width, height) in sizes.items()}  # [H, W * C]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            for number, frame in enumerate(times("decode", packet.decode) if packet.size else (), len(times.own.get("stamp_and_buffer", ()))):
                for name, size in sizes.items():
                    times(f"resize_{name}_fresh", lambda f=frame, size=size: f.reformat(*size, "rgb24", interpolation="BILINEAR").to_ndarray())
                    pixels = times(f"resize_{name}", lambda f=frame, size=size: keep.reformat(
                        f, *size, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray())
                    times(f"normalise_{name}", normalised, pixels, room[name])
                _served(times, frame, pixels.astype(int), apart)
                times("stamp_and_buffer", _buffered, buffer, number, pixels)
    return times, {name: [round(float(np.mean(levels)), 3), int(np.max(levels))] for name, levels in apart.items()}


def _served(times: Times, frame: av.VideoFrame, direct: np.ndarray, apart: dict[str, list[np.ndarray]]) -> None:
    """As `serving.intake.reading` does it, and through RGB at 720p; `direct`: the model's picture [H, W, C] without 720p in between."""
    size_px = MODELS_PX["city"][::-1]
    bounded = times("service_to_720p", pictures.bounded, frame, INFERENCE_PX[1])
    small = times("service_model_from_720p", pictures.fitted, bounded, *size_px)
    whole = pictures.frame_of(pictures.fitted(frame, *INFERENCE_PX[::-1]))
    for name, other in (("planes", small), ("rgb", times("model_from_720p_rgb", pictures.fitted, whole, *size_px))):
        apart.setdefault(name, []).append(np.abs(other.astype(int) - direct))
    times("service_jpeg_of_an_alarm", pictures.preview, bounded, INFERENCE_PX[0])


def _buffered(buffer: JitterBuffer, number: int, pixels: np.ndarray) -> list:
    pts_s = number / 30
    buffer.push(Frame(Stamp("bench", number, 0, pts_s, pts_s, "sender", pts_s, 30.0), pixels), 0, pts_s, pts_s)
    return buffer.pop(pts_s)


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, default=Path(__file__).resolve().parents[1] / "data" / "basketball.mp4")
    parser.add_argument("--frames", type=int, default=90)
    wanted = parser.parse_args()
    rows: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            times, apart = walk(film(wanted.clip, size, wanted.frames + WARM, Path(folder)))
            rows[name] = times.row() | {"model_input": apart}
    for row in rows.values():  # what claim A8 counts: size, colour normalisation, metadata; no decoding
        for name, parts in (("article", ("resize_720p", "normalise_720p")), ("service", ("service_to_720p", "service_model_from_720p"))):
            row[f"{name}_cpu_ms"] = round(sum(row[part]["cpu_ms"] for part in (*parts, "stamp_and_buffer")), 3)
    print(json.dumps(rows | provenance({"clip": wanted.clip.name, "frames": wanted.frames})))


if __name__ == "__main__":
    main()
