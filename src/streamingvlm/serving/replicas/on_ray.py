"""Replicas on Ray Serve: each is an application of one replica, so that a stream's home has a name. Needs the extra `ray`; the only module that does.

    make = await asyncio.to_thread(Cluster, ReplicaOf(folder)); far = await make("replica-0"); await far.call("decide", frames); make.close()

RAY_ADDRESS names a cluster to join; without it one is started on this machine, whose raylet, store of keys and workers listen on every interface, as
Ray has it: put it behind a firewall. No HTTP: the doors are the service's. What was started is stopped by its own handles.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamingvlm.base.errors import UserError

TRIES, PAUSE_S = 4, 3.0  # a start fails on a busy machine: its agent has 15 s to come up, and no option of Ray's gives it more
SLOW = "rfc3987_syntax"  # jsonschema's check of a format that Ray has no use for: each process of Ray compiles its grammar, 2 s of CPU
STORE_BYTES = 100_000_000
PREFIX = "streamingvlm-"
READY_S = 300.0  # for a replica to be there, on a machine that the cluster may have to get first
POLL_S = 0.2
ONGOING = 16  # there are two, `stay` and one more; at its limit a replica would be asked by Serve's router for room before each call
GRACE_S = 2.0  # a replica that is to go has handed its streams over already


def installed() -> None:
    """UserError where Ray Serve is not."""
    try:
        import ray
        import ray.serve  # noqa: F401
    except ImportError:
        raise UserError("--engine ray needs Ray Serve, which is not installed: `pip install -r requirements-ray.txt`.") from None


@dataclass(frozen=True)
class ReplicaOf:
    """What a replica is made of. `cpus`: of the cluster's; a replica computes in one thread."""

    folder: Path
    precision: str = "float32"
    learned: str = ""
    commentator: Path | None = None
    cpus: float = 1.0


class Served:
    """A `replica.Replica` as Ray's deployment: its methods by name, one at a time, in a thread of Serve's; `stay` beside them."""

    def __init__(self, of: ReplicaOf):
        from streamingvlm.serving.replicas.replica import Replica

        self.replica, self.turn = Replica(of.folder, of.precision, of.learned, of.commentator), threading.Lock()

    async def stay(self) -> None:
        """Answers never: the call fails at once where the process ends, which a call that comes later would wait out with Serve's router."""
        await asyncio.Event().wait()

    def call(self, method: str, *arguments):
        if method not in {"curve", "decide", "say", "hand_over", "take", "forget"}:
            raise ValueError(f"a replica has no {method!r}")
        with self.turn:
            return getattr(self.replica, method)(*arguments)


class Handle:
    """A `fleet.Far`."""

    def __init__(self, name: str, handle):
        self.name, self.handle = name, handle

    async def call(self, method: str, *arguments):
        return await self.handle.call.remote(method, *arguments)

    async def gone(self) -> None:
        await self.handle.stay.remote()

    async def stop(self) -> None:
        from ray import serve

        await asyncio.to_thread(serve.delete, self.name, False)


class Cluster:
    """Joins or starts a cluster; blocks for some 30 s. `local`: Serve's local testing mode, no cluster at all."""

    def __init__(self, of: ReplicaOf, local: bool = False):
        installed()
        self.of, self.local, self.closed = of, local, False
        self.hidden = tempfile.TemporaryDirectory(prefix="streamingvlm-ray-")  # until the last process of the cluster has begun
        if not local:
            (Path(self.hidden.name) / f"{SLOW}.py").write_text("raise ImportError\n")
            with _first_on_path(self.hidden.name):
                _started()

    async def __call__(self, name: str) -> Handle:
        return await asyncio.to_thread(self._run, PREFIX + name)

    def _run(self, name: str) -> Handle:
        from ray import serve

        made = serve.deployment(Served, name=name, num_replicas=1, max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": self.of.cpus},
                                graceful_shutdown_timeout_s=GRACE_S).bind(self.of)
        if self.local:
            return Handle(name, serve.run(made, name=name, route_prefix=None, _local_testing_mode=True))
        target = serve.RunTarget(made, name=name, route_prefix=None)
        (handle,) = serve.run_many([target], wait_for_applications_running=False)
        until = time.monotonic() + READY_S
        while (status := serve.status().applications[name].status) != "RUNNING":
            if status == "DEPLOY_FAILED" or self.closed or time.monotonic() > until:
                serve.delete(name, False)
                raise UserError(f"A replica did not start (Ray Serve: {status}): has the cluster {self.of.cpus:g} CPUs more?")
            time.sleep(POLL_S)
        return Handle(name, handle)

    def most(self) -> int | None:
        """Replicas that fit, where it is known: a cluster of our own does not grow."""
        if self.local or os.environ.get("RAY_ADDRESS"):
            return None
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1) / self.of.cpus))

    def close(self) -> None:
        self.closed = True
        if not self.local:
            import ray
            from ray import serve

            serve.shutdown()
            ray.shutdown()
        self.hidden.cleanup()


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    """For processes that begin meanwhile, and those that they begin."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _started(sleep: Callable[[float], None] = time.sleep) -> None:
    import ray
    from ray import serve

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # not Ray's 15: a replica is waited for
    address = os.environ.get("RAY_ADDRESS")
    for left in reversed(range(TRIES)):
        try:
            if address:
                ray.init(address=address, log_to_driver=False)
            else:
                ray.init(include_dashboard=False, object_store_memory=STORE_BYTES, log_to_driver=False, _node_ip_address="127.0.0.1")
            serve.start(proxy_location="Disabled")
            return
        except Exception as error:  # whatever Ray raises
            ray.shutdown()
            if not left:
                said = str(error).partition(". ")[0]
                raise UserError(f"Ray could not be started in {TRIES} tries ({said:.100}): is the machine overloaded? Without --engine ray none is "
                                "needed.") from error
            sleep(PAUSE_S)
