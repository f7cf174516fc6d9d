"""How long from `streamingvlm serve --demo` until its page is there, and until each of the eight cameras has decisions. Measures; asserts nothing.

    python bench/first_page.py --tries 3
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from streamingvlm.base.machine import provenance

ROOT = Path(__file__).resolve().parents[1]
WAIT_S = 120.0


def once() -> dict[str, float]:
    """Seconds until the service says where its page is, until the page was read, and until every camera has a decision; `cpu_s`: what all of its
    processes took of the CPU until then, which other load hardly changes."""
    begun, found = time.monotonic(), {}
    command = [sys.executable, "-m", "streamingvlm.cli", "serve", "--demo", "--no-open", "--port", "0", "--seconds", str(WAIT_S)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as served:
        try:
            address = next(word for word in served.stdout.readline().split() if word.startswith("http"))
            found["address_s"] = time.monotonic() - begun
            processes = [psutil.Process(served.pid), *psutil.Process(served.pid).children(recursive=True)]
            found["cpu_s"] = sum(sum(one.cpu_times()[:2]) for one in processes)
            found["main_mib"] = processes[0].memory_info().rss / 2**20
            urllib.request.urlopen(address, timeout=WAIT_S).read()
            found["page_s"] = time.monotonic() - begun
            while time.monotonic() < begun + WAIT_S:
                cameras = json.loads(urllib.request.urlopen(f"{address}/api/cameras", timeout=WAIT_S).read())
                if all(camera["frames"]["decided"] for camera in cameras):
                    found["every_camera_s"] = time.monotonic() - begun
                    break
                time.sleep(0.1)
        finally:
            served.send_signal(signal.SIGTERM)
            served.wait(30)
    return {name: round(seconds, 2) for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=3)
    tries = [once() for _ in range(parser.parse_args().tries)]
    middle = {name: statistics.median(one[name] for one in tries if name in one) for name in tries[0]}
    print(json.dumps({"bench": "first_page", "median": middle, "tries": tries, "load": os.getloadavg()[0], **provenance({})}))


if __name__ == "__main__":
    main()
