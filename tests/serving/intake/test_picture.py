"""A camera's picture on its way to the model: at most 720p, its colours as the camera meant them."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streamingvlm.media import writer
from streamingvlm.serving.intake import picture as pictures

CARDS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 120, 40], [128, 128, 128], [16, 16, 16], [240, 240, 240]], np.uint8)
BT601, BT709, UNTOLD = 6, 1, 2  # as H.273 numbers them
SHARES = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}  # of red and blue in luma


def filmed(width: int, height: int, matrix: int, full: bool, told: int) -> av.VideoFrame:
    """Stripes of the colours of CARDS as a camera sends them; `told`: the matrix that it says it has used."""
    red, blue = SHARES[matrix]
    r, g, b = (CARDS / 255.0).T
    y = red * r + (1 - red - blue) * g + blue * b
    planes = [y, (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)]
    scales = ((255, 0), (255, 128), (255, 128)) if full else ((219, 16), (224, 128), (224, 128))
    stripe = np.arange(width // 2) * len(CARDS) // (width // 2)
    y, u, v = (np.broadcast_to((plane * scale + zero)[stripe], (height // 2, width // 2)).round()
               for plane, (scale, zero) in zip(planes, scales, strict=True))
    data = np.concatenate([y.repeat(2, 0).repeat(2, 1).ravel(), u.ravel(), v.ravel()]).clip(0, 255).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(data.reshape(height * 3 // 2, width), format="yuv420p")
    frame.colorspace, frame.color_range = told, 2 if full else 1
    return frame


@pytest.mark.parametrize(("size", "matrix", "full", "told"), [
    ((1920, 1080), BT709, False, BT709), ((1920, 1080), BT601, False, BT601), ((1920, 1080), BT709, True, BT709), ((640, 360), BT709, True, BT709),
    ((1920, 1080), BT709, False, UNTOLD), ((1280, 720), BT709, False, UNTOLD), ((640, 360), BT601, False, UNTOLD)])
@pytest.mark.parametrize("side_px", [720, 360])
def test_colours_are_what_the_camera_meant(size, matrix, full, told, side_px):
    small = pictures.fitted(pictures.bounded(filmed(*size, matrix, full, told), side_px), 56, 98).astype(int)  # [H, W, C], 14 pixels a stripe
    seen = small[28, 7::14]
    assert np.abs(seen - CARDS).max() <= 4, seen


@pytest.mark.parametrize(("size", "is_then"), [((1920, 1080), (1280, 720)), ((1080, 1920), (720, 1280)), ((3840, 1080), (2560, 720)),
                                               ((1282, 722), (1278, 720))])
def test_a_large_picture_is_brought_to_720p_and_keeps_its_shape_and_colours(size, is_then):
    image = pictures.bounded(filmed(*size, BT709, False, BT709), 720)
    assert (image.width, image.height, image.format.name, image.colorspace) == (*is_then, "yuv420p", BT709)


def test_a_picture_that_is_small_enough_is_not_touched():
    for image in (filmed(1280, 720, BT709, False, BT709), np.zeros((96, 96, 3), np.uint8)):
        assert pictures.bounded(image, 720) is image
    assert pictures.fitted(image, 96, 96) is image
    large = pictures.bounded(np.full((1440, 2560, 3), 90, np.uint8), 720)
    assert (large.width, large.height) == (1280, 720) and np.abs(pictures.fitted(large, 8, 8).astype(int) - 90).max() <= 1


def test_the_models_picture_by_way_of_720p_is_the_one_taken_directly():
    noise = np.random.default_rng(0).integers(0, 256, (1620, 1920), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="yuv420p")
    by_720p, directly = (pictures.fitted(image, 96, 96).astype(int) for image in (pictures.bounded(frame, 720), frame))
    assert np.abs(by_720p - directly).mean() < 1 and np.abs(by_720p - directly).max() <= 16  # white noise: the worst there is


def test_a_preview_is_never_larger_than_the_picture():
    frame = filmed(640, 360, BT601, False, BT601)
    for side_px, size in ((480, (480, 270)), (1280, (640, 360))):
        assert pictures.preview(frame, side_px).shape == (*reversed(size), 3)


@pytest.mark.parametrize("size", [(1280, 720), (320, 180)])
def test_what_is_written_here_comes_back_in_its_colours(size, tmp_path):
    width, height = size
    card = np.broadcast_to(CARDS[np.arange(width) * len(CARDS) // width], (height, width, 3))  # [H, W, C]
    writer.write_h264(tmp_path / "card.mp4", [card], 8)
    with av.open(str(tmp_path / "card.mp4")) as container:
        (image,) = container.decode(video=0)
    seen = pictures.fitted(pictures.bounded(image, 720), 56, 98).astype(int)[28, 7::14]
    assert np.abs(seen - CARDS).max() <= 8, seen
