"""A Python that has its heavy packages already: what tests start is forked from one process that imported them, once, on first use.

    subprocess.run([preloaded.python(), "-m", "streamingvlm.cli", "doctor"])      # as sys.executable, some five seconds of a core sooner

Only packages of others are there beforehand, nothing of streamingvlm: that is imported from the asker's PYTHONPATH, and so is all it decides at
import. What a process shares with its siblings is the order of sets of strings (the hash seed is drawn when an interpreter starts): two that
shall differ take `python("one")` and `python("other")`. Interpreter options are not for this: such a command gets a Python of its own.

Three processes for one command: the *asker*, which stands in for it (its pid, its signals, its exit status), a *keeper* forked from the server,
and the forked child itself. Either of the first two gone, the child is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

PACKAGES = ("torch", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "torch.optim", "pandas", "pyarrow.parquet", "datasets", "PIL.Image",
            "matplotlib.figure", "matplotlib.backends.backend_agg", "plotly.graph_objects", "papermill.execute", "ipykernel.kernelapp", "av",
            "decord", "ruamel.yaml", "dvc.cli.parser", "dvc.repo.reproduce", "dvc_data.index", "dvc_http", "networkx")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # a fork takes one thread along, the one that forks
NAMES = ("one", "other")
FOLDER = "STREAMINGVLM_PRELOADED"  # in the environment of the tests: where the two sockets are
ASKER = '#!/bin/sh\nexec "{python}" -I -S "{file}" ask "{folder}" "$@"\n'


def python(name: str = "one") -> str:
    """The path of an executable that takes what `sys.executable` takes."""
    folder = os.environ.get(FOLDER)
    return str(Path(folder, name, "python")) if folder else sys.executable


@contextlib.contextmanager
def servers():
    """While this runs, `python` is quick, in this process and in those it starts; where that cannot be, it is `sys.executable`."""
    with tempfile.TemporaryDirectory() as folder:
        started = [_start(Path(folder, name)) for name in NAMES] if _possible(Path(folder)) else []
        if started:
            os.environ[FOLDER] = folder
        try:
            yield
        finally:
            os.environ.pop(FOLDER, None)
            for server in started:
                server.terminate()
                server.wait()


def _possible(folder: Path) -> bool:
    """Linux, with descriptors of processes, a folder whose files may be run, and a path that is short enough for a socket."""
    probe = folder / "probe"
    probe.touch(0o755)
    with contextlib.suppress(OSError, AttributeError):
        os.close(os.pidfd_open(os.getpid()))
        return sys.platform == "linux" and os.access(probe, os.X_OK) and len(str(folder)) < 90
    return False


def _start(folder: Path) -> subprocess.Popen:
    folder.mkdir()
    asker = folder / "python"
    asker.write_text(ASKER.format(python=sys.executable, file=Path(__file__).resolve(), folder=folder))
    asker.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen(64)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | ONE_THREAD
        return subprocess.Popen([sys.executable, __file__, "serve", str(listening.fileno())], env=environment, start_new_session=True,
                                stdin=subprocess.PIPE, pass_fds=[listening.fileno()])


# --- the asker: no packages, a fiftieth of a second -----------------------------------------------------------------------------

def ask(folder: str, *argv: str) -> int:
    """Have the command run by a fork; pass its signals on; end as it ends."""
    options = list(itertools.takewhile({"-B", "-u"}.__contains__, argv))  # what multiprocessing and execnet give
    argv = argv[len(options) :]
    if not argv or (argv[0].startswith("-") and argv[0] not in {"-m", "-c"}):
        os.execv(sys.executable, [sys.executable, *options, *argv])
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(Path(folder, "socket")))
        numbers = [number for number in map(int, os.listdir("/proc/self/fd")) if number != line.fileno() and _is_open(number)]
        wanted = {"argv": argv, "folder": folder, "cwd": os.getcwd(), "env": dict(os.environ), "numbers": numbers,
                  "options": options, "deaf": signal.getsignal(signal.SIGINT) is signal.SIG_IGN}
        socket.send_fds(line, [b"!"], numbers)
        line.sendall(json.dumps(wanted).encode() + b"\n")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: line.sendall(bytes([number])))
        status = int(line.makefile().readline() or -signal.SIGKILL)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    return status


def _is_open(number: int) -> bool:
    with contextlib.suppress(OSError):
        return fcntl.fcntl(number, fcntl.F_GETFD) is not None
    return False  # the one that listed the folder


# --- the server, and a keeper for each that asks -------------------------------------------------------------------------------

def serve(listening: socket.socket) -> tuple[dict, list[int]]:
    """Answer whoever asks, until who started this is gone, however it ended; returns in a forked child only, with what was asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if 0 in ready:
            os._exit(0)
        line, _ = listening.accept()
        if "torch" not in sys.modules:
            sys.modules["rfc3987_syntax"] = None  # as `base.notebook_file` has it: two seconds of jsonschema's for nothing
            for package in PACKAGES:
                import_module(package)
            gc.collect()
            gc.freeze()  # what is there stays, and no fork copies it only to look it through
            assert len(os.listdir("/proc/self/task")) == 1, "a package of PACKAGES starts a thread when it is imported"
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork():
            line.close()
            continue
        listening.close()
        _, fds, _, _ = socket.recv_fds(line, 1, 256)
        with line.makefile() as text:
            wanted = json.loads(text.readline())
        if child := os.fork():
            _keep(child, line, fds)
        line.close()
        return wanted, fds


def _keep(child: int, line: socket.socket, fds: list[int]) -> None:
    """Until the child has ended: hand it the asker's signals, kill it when the asker is gone. Then say how it ended."""
    for number in (0, 1, 2, *fds):
        os.close(number)  # else whoever reads the child's output would wait for the keeper too
    ended = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([line, ended], [], [])
        if ended in ready:
            break
        for number in line.recv(16) or [signal.SIGKILL]:
            os.kill(child, number)
            if number == signal.SIGKILL:
                line = ended
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        line.sendall(b"%d\n" % code)
    os._exit(0)


# --- the child -----------------------------------------------------------------------------------------------------------------

def become(wanted: dict, fds: list[int]) -> None:
    """Take over the asker's files, folder, environment and command line, and run what it was asked to run."""
    import multiprocessing.spawn
    import runpy

    import numpy as np

    _take(fds, wanted["numbers"])
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN if wanted["deaf"] else signal.default_int_handler)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    tempfile.tempdir = None
    sys.dont_write_bytecode = "-B" in wanted["options"] or "PYTHONDONTWRITEBYTECODE" in os.environ
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through="-u" in wanted["options"] or "PYTHONUNBUFFERED" in os.environ)
    np.random.seed()
    sys.executable = str(Path(wanted["folder"], "python"))
    multiprocessing.spawn.set_executable(sys.executable)
    first, *more = wanted["argv"]
    sys.path[:1] = [str(Path(first).resolve().parent) if first[0] != "-" else "" if first == "-c" else os.getcwd(),
                    *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = more if first == "-m" else [first, *more[1:]] if first == "-c" else [first, *more]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    if first == "-m":
        runpy._run_module_as_main(more[0])
    elif first == "-c":
        exec(compile(more[0], "<string>", "exec"), main.__dict__)
    else:
        runpy.run_path(first, run_name="__main__")


def _end(run: Callable[[], None]) -> None:
    """Run it and end as Python ends, but for taking all modules apart again, which would copy every page of them: three seconds."""
    status = 0
    try:
        run()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if status and not isinstance(leaving.code, int):
            print(leaving.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, a reader that left, closed
            stream.flush()
    os._exit(status & 0xFF)


def _take(fds: list[int], numbers: list[int]) -> None:
    """The files that came as `fds` get the numbers they had for the asker."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 500) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(high, numbers, strict=True):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        sys.exit(ask(*sys.argv[2:]))
    wanted = serve(socket.socket(fileno=int(sys.argv[2])))
    _end(lambda: become(*wanted))
