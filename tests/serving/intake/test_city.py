"""The made-up city as cameras of cameras.yaml."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources import kinds
from streamingvlm.serving.intake.city import FPS, CityCamera, Filming


def test_it_films_the_moment_it_is_asked_in():
    stop = threading.Event()
    first, second = itertools.islice(kinds.source("city:2/3", more={"city": CityCamera}).connect(stop), 2)
    assert first.pts_s == 0 and second.pts_s >= 1 / FPS and second.captured_at - first.captured_at == pytest.approx(second.pts_s)
    assert 0 <= first.received_at - first.captured_at < 30 and first.image.dtype == np.uint8 and first.image.shape == (96, 96, 3)
    again = Filming(3)  # as another process would, from the clock alone
    assert np.array_equal(again.draw(1, round(second.captured_at * FPS)), second.image)
    assert not np.array_equal(again.draw(0, round(second.captured_at * FPS)), second.image)


@pytest.mark.parametrize("address", ["city:", "city:0/8", "city:9/8", "city:1/1", "city:1/33", "city:a/b", "city:1/8/2"])
def test_a_camera_that_is_none_is_a_sentence(address):
    with pytest.raises(UserError, match="write city:1/8"):
        CityCamera(address)
