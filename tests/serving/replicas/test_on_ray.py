"""Replicas as Ray Serve's deployments in its local testing mode: no cluster. Needs the extra: `pip install -r requirements-ray.txt`."""

import asyncio

import numpy as np
import pytest

from streamingvlm.base.paths import repository_root
from streamingvlm.base.records import Frame, Stamp
from streamingvlm.serving.replicas import on_ray


def test_a_stream_moves_between_deployments():
    pytest.importorskip("ray", reason="Ray is not installed: `pip install -r requirements-ray.txt`")

    def frames(k):
        return [Frame(Stamp("gate", k, 0, k / 8, k / 8, "sender", k / 8, 8.0), np.zeros((96, 96, 3), np.uint8))]

    async def whole():
        make = on_ray.Cluster(on_ray.ReplicaOf(repository_root() / "data/city-base"), local=True)
        alone, first, second = [await make(name) for name in ("alone", "first", "second")]
        for k in range(4):
            if k == 2:
                await second.call("take", "gate", await first.call("hand_over", "gate"))
                first = second
            (one, _), (other, _) = await alone.call("decide", frames(k)), await first.call("decide", frames(k))
            assert one[0] | {"ms": None} == other[0] | {"ms": None}

    asyncio.run(whole())
