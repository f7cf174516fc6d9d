"""`streamingvlm serve`: many live cameras, a page, and an end in order. What can be wrong with the file is looked at before a model is loaded.

    streamingvlm serve cameras.yaml        streamingvlm serve --demo
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from streamingvlm.base.errors import UserError
from streamingvlm.cli.footage.places import COCO, in_clone

if TYPE_CHECKING:
    from streamingvlm.serving.cameras import Settings

MODEL, COMMENTATOR = "data/city-base", "data/city-commentator"
EYES = {"coco": COCO}


def serve(args: argparse.Namespace) -> None:
    """Run until Ctrl-C, SIGTERM or, with --seconds, for so long."""
    from streamingvlm.serving import cameras, profiles
    from streamingvlm.serving.access.gate import required

    if args.demo == bool(args.file):
        raise UserError("Name a cameras.yaml, or say --demo, which needs none.")
    told = {} if args.demo else cameras.read_yaml(args.file) or {}
    told = profiles.under(told, profiles.named(args.profile)) if args.profile else told
    settings = cameras.parse(told, "the demo" if args.demo else args.file.name)
    if args.eyes and (args.demo or settings.service.model):
        raise UserError("--eyes looks at real cameras in the place of a model: leave out --demo and `service.model`.")
    changes = {key: value for key, value in (("port", args.port), ("host", args.host)) if value is not None}
    if args.learned:
        if not args.eyes:
            raise UserError("--learned is for what looks at real cameras: say `--eyes coco` too.")
        changes["learned"] = str(args.learned)
    if args.eyes:  # who only spots things has nothing to tell that the commentator knows
        changes |= {"model": str(_eyes(args.eyes)), "commentary": False}
    settings = settings.model_copy(update={"service": settings.service.model_copy(update=changes)})
    required(settings.service)
    if args.engine == "ray":
        from streamingvlm.serving.replicas import on_ray

        on_ray.installed()
    asyncio.run(_run(settings, args))


async def _run(settings: Settings, args: argparse.Namespace) -> None:
    from streamingvlm.media.arrivals import Recorder
    from streamingvlm.serving.access.gate import Gate
    from streamingvlm.serving.api.listen import Tls, bound
    from streamingvlm.serving.live import demo
    from streamingvlm.serving.live.service import Service

    told, loop, service = asyncio.Event(), asyncio.get_running_loop(), settings.service
    for port in (service.port, service.grpc_port):  # one that is taken is said before a model is loaded
        if port is not None:
            bound(service.host, port).close()
    access = service.access
    tls = Tls(access.certificate, access.key).checked() if access and access.certificate else None
    gate = Gate(access) if access else None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    async with contextlib.AsyncExitStack() as stack:
        if gate:
            await stack.enter_async_context(gate.running())
        if store := _store(service.store, service.keep_s):
            stack.push_async_callback(asyncio.to_thread, store.close)
        recorder = stack.enter_context(Recorder(args.record)) if args.record else None
        model = _folder(service.model, MODEL)
        engine = await _engine(stack, args.engine, service, model)
        running = Service(service, model, _commentator(service.commentator), store, recorder=recorder, engine=engine, usual=settings.camera)
        stack.push_async_callback(running.stop)
        if args.demo:  # the city is drawn while the model is loaded
            cameras, _ = await asyncio.gather(stack.enter_async_context(demo.cameras(args.cameras)), running.start())
        else:
            cameras = settings.cameras
            running.check(cameras)
            await running.start()
        running.begin(cameras)
        address, rpc = await _doors(stack, running, service, gate, tls)
        gc.freeze()  # see `processes._begin`
        print(f"{len(running.cameras())} cameras at {address}{rpc}   Ctrl-C ends it", flush=True)
        if not args.no_open:
            webbrowser.open(address)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), args.seconds)
        print("Ending.", file=sys.stderr)


async def _engine(stack: contextlib.AsyncExitStack, name: str, service, model: Path):
    """What runs the model: None, one process of this machine; or replicas on Ray Serve."""
    if name != "ray":
        return None
    from functools import partial

    from streamingvlm.serving.replicas.fleet import Fleet
    from streamingvlm.serving.replicas.on_ray import Cluster, ReplicaOf
    from streamingvlm.serving.replicas.policy import Knobs

    print("Starting Ray Serve, some 30 s", file=sys.stderr, flush=True)
    cluster = await asyncio.to_thread(Cluster, ReplicaOf(model.resolve(), service.precision, service.learned))
    stack.push_async_callback(asyncio.to_thread, cluster.close)
    return partial(Fleet, cluster, knobs=Knobs(maximum=cluster.most() or Knobs.maximum, budget_ms=service.budget_ms))


async def _doors(stack: contextlib.AsyncExitStack, running, service, gate, tls) -> tuple[str, str]:
    """Let people in -> where the page is, and what to say of gRPC."""
    from streamingvlm.serving.api.app import application
    from streamingvlm.serving.api.listen import listening
    from streamingvlm.serving.api.rpc import answering

    proxy = service.access.proxy if service.access else ""
    address = await stack.enter_async_context(listening(application(running, gate), service.host, service.port, tls, proxy))
    if service.grpc_port is None:
        return address, ""
    port = await stack.enter_async_context(answering(running, service.host, service.grpc_port, gate, tls))
    return address, f", gRPC at {service.host}:{port}"


def _folder(named: str, usual: str) -> Path:
    """A model's folder: as named, else this clone's."""
    if named:
        return Path(named)
    return in_clone(usual, "a model with `service.model`")


def _eyes(name: str) -> Path:
    folder = _folder("", EYES[name])
    if not (folder / "model.json").is_file():
        raise UserError(f"The eyes `{name}` are not here: `make real-eyes` fetches them (17 MB, once).")
    return folder


def _commentator(named: str) -> Path | None:
    """None where none is named and none is packaged: then nobody speaks."""
    folder = _folder(named, COMMENTATOR)
    return folder if named or folder.is_dir() else None


def _store(where: str, keep_s: float):
    from streamingvlm.serving.store import Store

    return Store(where, keep_s=keep_s) if where else None
