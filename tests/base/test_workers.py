"""Work on many cores: the same results in the same order as on one, errors that arrive, nothing left running."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time

import preloaded
import psutil
import pytest

from streamingvlm.base import config, workers
from streamingvlm.base.errors import UserError


@pytest.mark.parametrize("count", [1, 2, 8])
def test_results_come_in_the_order_of_the_jobs(count):
    assert list(workers.ordered(pow, [(2, n) for n in range(7)], count)) == [2**n for n in range(7)]


@pytest.mark.parametrize("count", [1, 3])
def test_items_of_each_generator_come_in_order(count):
    items = list(workers.spread(range, [(4,), (0,), (6,)], count))
    assert [[item for number, item in items if number == job] for job in range(3)] == [[*range(4)], [], [*range(6)]]


served = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods() or workers.cores() == 1,
                            reason="one core, or a system without fork servers, starts none: run this where there are two cores")


@pytest.fixture
def no_server():
    """Neither the one that other tests left, nor a warm one for those to come: a server of this process's own Python."""
    multiprocessing.forkserver._forkserver._stop()
    multiprocessing.set_executable(sys.executable)
    yield
    multiprocessing.forkserver._forkserver._stop()
    multiprocessing.set_executable(preloaded.python())


@served
def test_a_server_that_was_started_early_is_the_one_that_forks(no_server):
    workers.start(("torch",))
    servers = {child.pid for child in psutil.Process().children()}
    parents = set(workers.ordered(os.getppid, [(), ()], 2))
    assert len(parents) == 1 and parents <= servers


@served
def test_ctrl_c_while_the_server_imports_is_not_answered_by_it():
    code = "from streamingvlm.base import workers; import time; workers.start(); time.sleep(600)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C, and so would its children
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True,
                              env=os.environ | {"STREAMINGVLM_WORKERS": ""})
    signal.signal(signal.SIGINT, before)
    imports, until = False, time.monotonic() + 60
    while not imports and time.monotonic() < until:
        time.sleep(0.05)
        imports = any(child.cpu_times().user > 0.5 for child in psutil.Process(parent.pid).children())
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=60)[1].count("Traceback") == 1, "the parent's alone"


def test_what_goes_wrong_in_a_worker_is_raised_here():
    with pytest.raises(ValueError, match="invalid literal"):
        list(workers.ordered(int, [("1",), ("x",)], 2))
    with pytest.raises(ValueError, match="zero"):
        list(workers.spread(range, [(0, 3, 0), (0, 3, 1)], 2))
    with pytest.raises(UserError, match="STREAMINGVLM_WORKERS=1"):
        list(workers.ordered(os._exit, [(1,), (1,)], 2))


def test_params_travel():
    cfg = config.Config({"video": config.Video(fps=3.0)})
    assert [one.fps for one in workers.ordered(getattr, [(cfg, "video"), (cfg, "video")], 2)] == [3.0, 3.0]


def test_the_number_of_workers_is_a_number(monkeypatch):
    monkeypatch.setenv("STREAMINGVLM_WORKERS", "1")
    assert workers.cores() == 1
    monkeypatch.setenv("STREAMINGVLM_WORKERS", "many")
    with pytest.raises(UserError, match="'many'"):
        workers.cores()


def test_workers_end_with_a_parent_that_is_killed():
    code = "from streamingvlm.base import workers; import time; workers.PRELOAD = ('torch',); list(workers.ordered(time.sleep, [(600,), (600,)], 2))"
    parent = subprocess.Popen([sys.executable, "-c", code])
    children, until = [], time.monotonic() + 60
    while len(children) < 4 and time.monotonic() < until:  # the fork server, the resource tracker, two workers
        time.sleep(0.2)
        children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    gone, left = psutil.wait_procs(children, timeout=30)
    assert len(gone) >= 4 and not left
