"""Replicas as Ray Serve's deployments in its local testing mode: no cluster. Needs the extra: `make test-ray` installs it."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import chunk

from streamingvlm.base.paths import repository_root
from streamingvlm.base.records import Frame, Stamp
from streamingvlm.serving.replicas import on_ray


@pytest.fixture(autouse=True)
def ray():
    return pytest.importorskip("ray", reason="Ray is not installed: `make test-ray`")


def test_processes_of_a_cluster_start_without_what_takes_long():
    made = on_ray.Cluster(on_ray.ReplicaOf(repository_root()), local=True)
    Path(made.hidden.name, f"{on_ray.SLOW}.py").write_text("raise ImportError\n")
    code = f"import sys, ray; assert 'jsonschema' in sys.modules and '{on_ray.SLOW}' not in sys.modules and 'lark' not in sys.modules"
    with on_ray._first_on_path(made.hidden.name):
        subprocess.run([sys.executable, "-c", code], check=True)
    made.close()
    assert not Path(made.hidden.name).exists()


def test_a_stream_moves_between_deployments():
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


def test_what_was_said_moves_along():
    """The commentary's cache, its sink and its window: the next sentences are those of a stream that stayed, token for token."""
    data = repository_root() / "data"

    async def whole():
        make = on_ray.Cluster(on_ray.ReplicaOf(data / "city-base", commentator=data / "city-commentator"), local=True)
        alone, first, second = [await make(name) for name in ("talks alone", "talks first", "talks second")]
        for k in range(5):
            if k == 3:
                told = await first.call("hand_over", "gate")
                assert told["commentary"]
                await second.call("take", "gate", told)
                first = second
            one, other = [replace((await far.call("say", {"gate": chunk(k)}))["gate"], ms={}, memory_mb=0.0) for far in (alone, first)]
            assert one == other and one.kv_tokens

    asyncio.run(whole())
