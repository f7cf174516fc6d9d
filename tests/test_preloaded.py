"""A process forked from the warm interpreter is, for whoever starts it, a Python like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import preloaded
import psutil
import pytest

pytestmark = pytest.mark.skipif(preloaded.FOLDER not in os.environ, reason="here it is sys.executable itself: run this on Linux, with /tmp as it is")


def ran(code: str, *args: str, name: str = "one", **given) -> subprocess.CompletedProcess:
    return subprocess.run([preloaded.python(name), *args, "-c", code, "word"], capture_output=True, text=True, check=False, timeout=60, **given)


def test_it_has_the_askers_words_folder_environment_and_files(tmp_path):
    (tmp_path / "streamingvlm.py").write_text("about = 'made up'")
    code = ("import os, sys, torch, streamingvlm\n"
            "print(os.getcwd(), sys.argv, os.environ['ODD'], streamingvlm.about, input(), torch.get_num_threads())")
    done = ran(code, cwd=tmp_path, input="typed\n", env=os.environ | {"ODD": "value", "PYTHONPATH": str(tmp_path)})
    assert (done.stdout, done.stderr, done.returncode) == (f"{tmp_path} ['-c', 'word'] value made up typed 1\n", "", 0)


def test_nothing_of_ours_is_there_beforehand():
    assert ran("import sys; print([name for name in sys.modules if name.startswith('streamingvlm')])").stdout == "[]\n"


def test_two_interpreters_put_strings_in_different_orders():
    orders = {name: ran("print([*map(hash, 'abc')])", name=name).stdout for name in preloaded.NAMES}
    assert len(set(orders.values())) == len(orders)


@pytest.mark.parametrize(("code", "status", "said"), [
    ("", 0, ""), ("raise SystemExit(3)", 3, ""), ("raise SystemExit('so')", 1, "so\n"), ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ("import atexit; atexit.register(print, 'end', file=__import__('sys').stderr)", 0, "end\n"),
    ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
])
def test_it_ends_as_python_ends(code, status, said):
    done = ran(code)
    assert done.returncode == status and done.stderr.endswith(said) and bool(done.stderr) == bool(said)


def test_signals_reach_it_and_it_ends_with_its_asker():
    code = ("import os, time\ntry:\n  print(os.getpid(), flush=True)\n  time.sleep(600)\n"
            "except KeyboardInterrupt: print('heard', flush=True)\ntime.sleep(600)")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C, and so would its children
    asker = subprocess.Popen([preloaded.python(), "-c", code], stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    child = psutil.Process(int(asker.stdout.readline()))
    asker.send_signal(signal.SIGINT)
    assert asker.stdout.readline() == "heard\n"
    asker.kill()
    asker.wait()
    assert psutil.wait_procs([child], timeout=30)[1] == []


def test_the_servers_end_with_who_started_them():
    code = ("import os, preloaded, time\nwith preloaded.servers():\n    os.system(preloaded.python() + ' -S -c 0')\n"
            "    print('started', flush=True)\n    time.sleep(600)")
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": str(Path(preloaded.__file__).parent)})
    assert starter.stdout.readline() == "started\n"
    servers = psutil.Process(starter.pid).children()
    starter.kill()
    starter.wait()
    assert len(servers) == 2 and psutil.wait_procs(servers, timeout=30)[1] == []


def test_an_option_it_does_not_know_gets_a_python_of_its_own():
    assert ran("import sys; print(sys.flags.isolated, 'torch' in sys.modules)", "-I").stdout == "1 False\n"
