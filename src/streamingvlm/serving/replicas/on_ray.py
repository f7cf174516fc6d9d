"""Replicas on Ray Serve: each is an application of one replica, so that a stream's home has a name. Needs the extra `ray`; the only module that does.

    make = await asyncio.to_thread(Cluster, ReplicaOf(folder)); far = await make("replica-0"); await far.call("decide", frames); make.close()

RAY_ADDRESS names a cluster to join; without it one is started on this machine, whose raylet, store of keys and workers listen on every interface, as
Ray has it: put it behind a firewall. No HTTP: the doors are the service's. What was started is stopped by its own handles.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from streamingvlm.base.errors import UserError

TRIES = 3  # a cluster's start fails on a busy machine, by a limit of 15 s of Ray's own
STORE_BYTES = 100_000_000
PREFIX = "streamingvlm-"


def installed() -> None:
    """UserError where Ray Serve is not."""
    try:
        import ray
        import ray.serve  # noqa: F401
    except ImportError:
        raise UserError("--engine ray needs Ray Serve, which is not installed: `pip install -r requirements-ray.txt`.") from None


@dataclass(frozen=True)
class ReplicaOf:
    """What a replica is made of."""

    folder: Path
    precision: str = "float32"
    learned: str = ""
    commentator: Path | None = None


class Served:
    """A `replica.Replica` as Ray's deployment: its methods by name, one at a time."""

    def __init__(self, of: ReplicaOf):
        from streamingvlm.serving.replicas.replica import Replica

        self.replica = Replica(*astuple(of))

    def call(self, method: str, *arguments):
        if method not in {"curve", "decide", "say", "hand_over", "take", "forget"}:
            raise ValueError(f"a replica has no {method!r}")
        return getattr(self.replica, method)(*arguments)


class Handle:
    """A `fleet.Far`."""

    def __init__(self, name: str, handle):
        self.name, self.handle = name, handle

    async def call(self, method: str, *arguments):
        return await self.handle.call.remote(method, *arguments)

    async def stop(self) -> None:
        from ray import serve

        await asyncio.to_thread(serve.delete, self.name, False)


class Cluster:
    """Joins or starts a cluster; blocks for some 30 s. `local`: Serve's local testing mode, no cluster at all."""

    def __init__(self, of: ReplicaOf, local: bool = False):
        installed()
        self.of, self.local = of, local
        if not local:
            _started()

    async def __call__(self, name: str) -> Handle:
        return await asyncio.to_thread(self._run, PREFIX + name)

    def _run(self, name: str) -> Handle:
        from ray import serve

        made = serve.deployment(Served, name=name, num_replicas=1, max_ongoing_requests=1, ray_actor_options={"num_cpus": 0.5})
        return Handle(name, serve.run(made.bind(self.of), name=name, route_prefix=None, _local_testing_mode=self.local))

    def close(self) -> None:
        if not self.local:
            import ray
            from ray import serve

            serve.shutdown()
            ray.shutdown()


def _started(sleep: Callable[[float], None] = time.sleep) -> None:
    import ray
    from ray import serve

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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
                raise UserError(f"Ray could not be started ({type(error).__name__}): is the machine overloaded? Without --engine ray none is "
                                "needed.") from error
            sleep(1.0)
