"""The figures of the live system: two files each, a title made of the numbers drawn, and no picture of nothing."""

from __future__ import annotations

import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.reporting import live_figures

FRAMES = [{"sent_s": k / 8, "arrived_s": k / 8 + 0.02 * (1 + k % 3), "released_s": k / 8 + 0.25} for k in range(16)]
CURVES = {"model": [{"streams": n, "p99_ms": 20.0 * n, "skipped": 0.0} for n in (1, 4)],
          "baseline_vlm": [{"streams": n, "p99_ms": 90.0 * n, "skipped": 0.2 * n} for n in (1, 4)]}
LOAD = [{"skipped": 0.0, "event_recall": 0.8, "action": 0.9, "f1": 0.7}, {"skipped": 0.5, "event_recall": 0.75, "action": 0.88, "f1": 0.6}]

STEP = [{"t_s": t, "streams": streams, "replicas": count, "late_p95_ms": late, "dropped": 0}
        for t, streams, count, late in ((1, 2, 1, None), (2, 8, 1, 300.0), (3, 8, 2, 40.0), (4, 2, 1, 9.0))]


@pytest.mark.parametrize(("draw", "said"), [
    (lambda folder: live_figures.buffer(FRAMES, folder), "20 to 60 ms"),
    (lambda folder: live_figures.capacity(CURVES, {"model": 6, "baseline_vlm": 1}, 120.0, folder), "camera model 6, frame-based VLM 1"),
    (lambda folder: live_figures.load(LOAD, folder), "With 50 % of the frames skipped 75%"),
    (lambda folder: live_figures.replicas({"ray": STEP}, 120.0, folder), "2 cameras, then 8, then 2: so many replicas. Ray Serve, this machine: 1"),
])
def test_a_figure_says_what_it_shows(tmp_path, draw, said):
    png = draw(tmp_path)
    page = png.with_suffix(".html").read_text().replace("\\u003cbr\\u003e", " ")  # titles are wrapped
    assert png.read_bytes().startswith(b"\x89PNG") and said in page


def test_no_picture_of_nothing(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        live_figures.buffer([], tmp_path)
    with pytest.raises(UserError, match="no number"):
        live_figures.load([LOAD[0], LOAD[1] | {"event_recall": None}], tmp_path)
    assert list(tmp_path.iterdir()) == []
