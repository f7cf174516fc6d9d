"""How late decisions are, as the histogram's own library reads it."""

from __future__ import annotations

import numpy as np
import pytest

from streamingvlm.serving.live.camera import QUANTILES, Latency


@pytest.mark.parametrize("ms", [[0.0], [0.3, 0.3, 7.0], [1e9], [59_999.0, *np.random.default_rng(0).lognormal(3, 1.5, 3000)]])
def test_percentiles_and_buckets_are_those_of_hdrhistogram(ms):
    latency = Latency()
    assert latency.percentiles() == {} and latency.buckets() == [[1.0, 0]]
    for one in ms:
        latency.add(one)
    assert latency.percentiles() == {f"p{q}": round(latency.histogram.get_value_at_percentile(q) / 1e3, 2) for q in QUANTILES}
    steps = [(step.value_iterated_to / 1e3, step.count_added_in_this_iter_step) for step in latency.histogram.get_recorded_iterator()]
    edge, below = 1.0, 0
    for shown, count in latency.buckets()[:-1]:
        below += count
        assert shown == round(edge, 2) and below == sum(many for upto, many in steps if upto <= edge)
        edge *= 1.25
    assert below + latency.buckets()[-1][1] == len(ms)
