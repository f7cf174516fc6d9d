"""`streamingvlm serve`: many live cameras, a page, and an end in order. Everything that can be wrong with the file is looked at before a model is loaded.

    streamingvlm serve cameras.yaml        streamingvlm serve --demo
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
import webbrowser
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root

MODEL, COMMENTATOR = "data/city-base", "data/city-commentator"


def serve(args: argparse.Namespace) -> None:
    """Run until Ctrl-C, SIGTERM or, with --seconds, for so long."""
    from streamingvlm.serving import cameras

    if args.demo == bool(args.file):
        raise UserError("Name a cameras.yaml, or say --demo: eight made-up cameras, no file.")
    settings = cameras.parse({}) if args.demo else cameras.load(args.file)
    changes = {key: value for key, value in (("port", args.port), ("host", args.host)) if value is not None}
    settings = settings.model_copy(update={"service": settings.service.model_copy(update=changes)})
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(settings, args))


async def _run(settings, args: argparse.Namespace) -> None:
    from streamingvlm.serving.live import demo
    from streamingvlm.serving.live.service import Service

    listening = _listen(settings.service.host, settings.service.port)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    async with contextlib.AsyncExitStack() as stack:
        if args.demo:
            settings = settings.model_copy(update={"cameras": await stack.enter_async_context(demo.cameras(args.cameras))})
        service = Service(settings, _folder(settings.service.model, MODEL), _commentator(settings.service.commentator), _store(settings.service))
        stack.push_async_callback(service.stop)
        await service.start()
        await _doors(service, settings, listening, stack)
        address = f"http://{settings.service.host}:{listening.getsockname()[1]}"
        print(f"{len(settings.cameras)} cameras at {address}   Ctrl-C ends it", flush=True)
        if not args.no_open:
            webbrowser.open(address)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), args.seconds)
        print("ending", file=sys.stderr)


def _listen(host: str, port: int) -> socket.socket:
    """The socket of the page, taken first: a port in use is said before a model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port} cannot be listened at ({reason}): choose another with --port, or 0 for any that is free.") from None
    return listening


def _folder(named: str, usual: str) -> Path:
    """A model's folder: as named, else this clone's."""
    if named:
        return Path(named)
    try:
        return repository_root() / usual
    except UserError:
        raise UserError("This folder is not in a clone of the workbench, so no packaged model is at hand: name one with `service.model`.") from None


def _commentator(named: str) -> Path | None:
    """None where nothing is named and none is packaged: then nobody speaks."""
    folder = _folder(named, COMMENTATOR)
    return folder if named or folder.is_dir() else None


def _store(service):
    from streamingvlm.serving.store import Store

    return Store(service.store, keep_s=service.keep_s) if service.store else None


async def _doors(service, settings, listening: socket.socket, stack: contextlib.AsyncExitStack) -> None:
    """HTTP and WebSocket, and gRPC if it has a port."""
    import uvicorn

    from streamingvlm.serving.api import application

    server = uvicorn.Server(uvicorn.Config(application(service), log_level="warning", lifespan="off", ws_per_message_deflate=False,
                                           timeout_graceful_shutdown=2))
    server.capture_signals = contextlib.nullcontext  # ours are set already
    task = asyncio.create_task(server.serve(sockets=[listening]))

    async def close() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(close)
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
