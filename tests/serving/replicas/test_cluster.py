"""One real cluster of Ray Serve on this machine, with the whole service on it: a replica is killed, its cameras go on, nothing is unaccounted for and
no process is left. `make test-ray` runs it, alone, and installs Ray."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from streamingvlm.base.paths import repository_root
from streamingvlm.serving import cameras as config
from streamingvlm.serving.live.service import Service
from streamingvlm.serving.replicas.fleet import Fleet
from streamingvlm.serving.replicas.on_ray import Cluster, ReplicaOf
from streamingvlm.serving.replicas.policy import Knobs

LONG_S = 240.0  # for what a busy machine may take its time over; a machine of its own needs a tenth
SOON_S = 10.0  # on a busy machine too; it took 0.6 to 1.6
ALONE = "PYTEST_XDIST_WORKER" not in os.environ


async def until(true, seconds: float = LONG_S) -> float:
    """-> how long it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "it took too long"
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


def below() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def killed(cluster: Cluster) -> tuple[float, dict]:
    """Two cameras on two replicas, one of which is killed -> how long until both cameras have new decisions, and the fleet's counts."""
    told = config.Service(budget_ms=2000.0, commentary=False, utilisation=None)
    service = Service(told, repository_root() / "data" / "city-base", engine=partial(Fleet, cluster, knobs=Knobs(minimum=2, maximum=2)))
    frames: dict[str, list[int]] = {"one": [], "two": []}
    service.results.listen(lambda record, picture: frames[record["stream"]].append(record["frame"]) if record["type"] == "decision" else None)
    try:
        await service.start()
        fleet, totals = service.decider.worker, service.decider.scheduler.totals
        service.begin([config.parse_camera({"name": name, "url": "pattern:96x96@4"}) for name in frames])
        await until(lambda: len(set(fleet.homes.values())) == 2 and all(frames.values()))
        victim = fleet.homes["one"]
        [process] = [one for one in below() if f"ServeReplica:streamingvlm-{victim}" in " ".join(one.cmdline())]
        before = {name: len(told) for name, told in frames.items()}
        process.kill()
        took_s = await until(lambda: all(len(told) >= before[name] + 3 for name, told in frames.items()))
        counts = totals()
        assert counts.balanced and counts.in_flight <= 2 * 16
        assert fleet.counts() | {"wanted": 2, "running": 2, "moved": 0} == {"running": 2, "wanted": 2, "deaths": 1, "moved": 0, "lost": 1}
        await until(lambda: len(fleet.replicas) == 2)  # another one has taken its place
        assert all(told == sorted(set(told)) for told in frames.values()), "out of order"
        return took_s, fleet.counts()
    finally:
        await service.stop()


@pytest.mark.skipif(not ALONE, reason="a cluster wants the machine for itself: `make test-ray`")
def test_a_killed_replicas_cameras_go_on_elsewhere():
    ray = pytest.importorskip("ray", reason="Ray is not installed: `make test-ray`")
    already = set(below())
    cluster = Cluster(ReplicaOf(repository_root() / "data" / "city-base"))
    try:
        started = set(below()) - already
        assert started, "a cluster is processes of ours"
        took_s, _ = asyncio.run(killed(cluster))
        started |= set(below()) - already
    finally:
        cluster.close()
    print(f"went on after {took_s:.1f} s")
    assert took_s < SOON_S, "a dead replica is known before a call to it has waited its time"
    psutil.wait_procs(started, 20)
    theirs = ("ray::", str(Path(ray.__file__).parent))
    left = [words for words in map(_words, started) if any(sign in words for sign in theirs)]
    assert not [words for words in left if "multiprocessing" not in words], "the fork server of this process stays as long as it, and has Ray's path"


def _words(process: psutil.Process) -> str:
    """Its command line; of one that has ended, nothing."""
    try:
        return " ".join(process.cmdline()) if process.is_running() else ""
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
