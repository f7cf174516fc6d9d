"""Cameras behind a bad network, measured: what gets through delay, loss and a pulled cable, and how soon everybody is back. Asserts nothing.

    python bench/network.py weather                       # as root: RTSP over TCP and UDP, and WebRTC, through a link of our own; 5 minutes
    python bench/network.py cables --cameras 4 --off 300  # no root: all cables out, each camera rebooted in turn, all off for 300 s
    python bench/network.py cables --service http://127.0.0.1:8000        # the same with the cameras of a service that runs there

`bench/outages.py` starts a service of its own and does more to it.

`weather` needs Linux, root, /dev/net/tun and `ip` (iproute2); it makes two network namespaces and removes them. `cables` puts a proxy before each
camera. Pictures carry their number, so that what is missing is known and not guessed; latencies are from capture to arrival, by one clock.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout is enough: nothing has to be installed
sys.path.insert(0, str(Path(__file__).resolve().parent))  # by -m, too

from cables import Cable
from tun_link import Link

from streamingvlm.base import files, machine
from streamingvlm.media.sources.pattern import draw, number
from streamingvlm.media.sources.protocol import Change, Picture, watched
from streamingvlm.media.sources.rtp import Encoded
from streamingvlm.media.sources.rtsp import Rtsp
from streamingvlm.media.sources.rtsp_server import running

HERE = Path(__file__).resolve()
SIZE, FPS = (640, 360), 15.0
WEATHER = {"calm": {}, "100+-50 ms": {"delay_s": 0.1, "jitter_s": 0.05}, "100+-50 ms, 2 % lost": {"delay_s": 0.1, "jitter_s": 0.05, "loss": 0.02},
           "100+-50 ms, 5 % lost": {"delay_s": 0.1, "jitter_s": 0.05, "loss": 0.05}, "cable out for 1.5 s": {"out_s": 1.5},
           "cable out for 8 s": {"out_s": 8.0}}


def camera(port: int = 0, host: str = "127.0.0.1"):
    """An RTSP camera that films numbered cards."""
    return running({"card": Encoded((draw(index, *SIZE) for index in itertools.count()), FPS)}, host, port)


def summary(items: list[tuple[float, int, Picture | Change]]) -> dict:
    """Of (when, number, picture | change): what came, what did not, how late and how evenly."""
    pictures = [(at, n, item) for at, n, item in items if isinstance(item, Picture)]
    good = [(at, n, item) for at, n, item in pictures if not item.corrupt]
    numbers = {n for _, n, _ in good}
    late_ms = [1e3 * (item.received_at - item.captured_at) for _, _, item in good if item.captured_at]
    gaps_ms = np.diff([at for at, _, _ in good]) * 1e3
    lost = sum((Counter(item.lost) for _, _, item in pictures), Counter())
    changes = [item for _, _, item in items if isinstance(item, Change)]
    missing = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else None
    return {"pictures": len(good), "missing": missing, "corrupt": len(pictures) - len(good), "lost_by_the_source": dict(lost),
            "capture_to_arrival_ms": percentiles(late_ms), "gap_ms": percentiles(gaps_ms), "reasons": [c.reason for c in changes if c.reason],
            "connections": 1 + max((change.epoch for change in changes), default=0)}


def percentiles(values) -> dict[str, float] | None:
    return {name: round(float(np.percentile(values, at)), 1) for name, at in (("p50", 50), ("p99", 99), ("max", 100))} if len(values) else None


# weather: each of these runs in a process at one end of the link


def film(host: str) -> None:
    with camera(8554, host):
        print("ready", flush=True)
        sys.stdin.read()


def view(kind: str, host: str, seconds: float) -> None:
    """Watch for so long from the first picture on, then print what came."""
    source = Rtsp(f"rtsp://{host}:8554/card", kind) if kind in {"tcp", "udp"} else _pushed_to()
    stop, items = threading.Event(), []
    for item in watched(source, stop):
        now = time.monotonic()
        if isinstance(item, Picture) and not any(isinstance(other, Picture) for _, _, other in items):
            print("begun", flush=True)
            threading.Timer(seconds, stop.set).start()
        n = number(item.image.to_ndarray(format="rgb24")) if isinstance(item, Picture) and item.image is not None else -1
        items.append((now, n, replace(item, image=None) if isinstance(item, Picture) else item))
    if close := getattr(source, "close", None):
        close()
    print(json.dumps(summary(items)), flush=True)


def _pushed_to():
    from streamingvlm.media.sources.webrtc import WebRTCSource

    source = WebRTCSource()
    print(json.dumps(source.offer(json.loads(sys.stdin.readline()))[1]), flush=True)
    return source


def weather(seconds: float, kinds: list[str], weathers: list[str]) -> list[dict]:
    rows = []
    for kind, name in itertools.product(kinds, weathers):
        with Link(seed=0) as link:
            rows.append({"kind": kind, "weather": name, **_one(link, kind, WEATHER[name], seconds)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _one(link: Link, kind: str, faults: dict, seconds: float) -> dict:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pushes, lasts_s = kind not in {"tcp", "udp"}, seconds + 2 * faults.get("out_s", 0.0)
    here = [sys.executable, str(HERE)]
    far = [sys.executable, str(HERE.with_name("publisher.py")), kind, *map(str, SIZE)] if pushes else [*here, "film", link.addresses[0]]
    with contextlib.ExitStack() as stack:
        film = stack.enter_context(link.popen(0, far, **pipes))
        stack.callback(film.kill)
        told = film.stdout.readline()
        view = stack.enter_context(link.popen(1, [*here, "view", kind, link.addresses[0], str(lasts_s)], **pipes))
        stack.callback(view.kill)
        if pushes:
            print(told.strip(), file=view.stdin, flush=True)
            print(view.stdout.readline().strip(), file=film.stdin, flush=True)
        view.stdout.readline()  # the first picture is there
        for key in ("delay_s", "jitter_s", "loss"):
            setattr(link, key, faults.get(key, 0.0))
        if "out_s" in faults:
            time.sleep(seconds / 4)
            link.state = "pulled"
            time.sleep(faults["out_s"])
            link.state = "plugged"
        return json.loads(view.stdout.readline()) | {"packets": {"passed": link.passed, "lost": link.lost}}


# cables: cameras behind proxies, and who watches them


class Here:
    """Watched in this process: `counts` is what came of each camera so far."""

    def __init__(self, addresses: list[str]):
        self.stop, self.items = threading.Event(), [[] for _ in addresses]
        self.threads = [threading.Thread(target=self._watch, args=each) for each in zip(addresses, self.items, strict=True)]
        for thread in self.threads:
            thread.start()

    def _watch(self, address: str, items: list) -> None:
        for item in watched(Rtsp(address), self.stop):
            n = number(item.image.to_ndarray(format="rgb24")) if isinstance(item, Picture) and item.image is not None else -1
            items.append((time.monotonic(), n, replace(item, image=None) if isinstance(item, Picture) else item))

    def counts(self) -> list[int]:
        return [sum(isinstance(item, Picture) for _, _, item in items) for items in self.items]

    def end(self) -> dict:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        return {"pictures": self.counts(), "holes_within_a_connection": [holes(items) for items in self.items],
                "cameras": [summary(items) for items in self.items]}


def holes(items: list[tuple[float, int, Picture | Change]]) -> int:
    """Pictures that do not follow the one before them in the same connection."""
    found, epoch, last = 0, 0, None
    for _, n, item in items:
        if isinstance(item, Change):
            epoch, last = item.epoch, last if item.epoch == epoch else None
        else:
            found, last = found + (last is not None and n != last + 1), n
    return found


class Service:
    """Watched by a service that runs: `counts` is what it decided."""

    def __init__(self, url: str, addresses: list[str]):
        import httpx

        self.client = httpx.Client(base_url=url, timeout=20)
        self.names = [f"cable-{k}" for k in range(len(addresses))]
        for name, address in zip(self.names, addresses, strict=True):
            self.client.post("/api/cameras", json={"name": name, "url": address}).raise_for_status()

    def _rows(self) -> list[dict]:
        rows = {row["id"]: row for row in self.client.get("/api/cameras").json()}
        return [rows[name] for name in self.names]

    def counts(self) -> list[int]:
        return [row["frames"]["decided"] for row in self._rows()]

    def end(self) -> dict:
        frames = [row["frames"] for row in self._rows()]
        in_metrics = scraped(self.client.get("/metrics").text, self.names)
        stats = self.client.get("/api/stats").json()
        records = self.client.get("/api/results", params={"types": "decision", "streams": ",".join(self.names)}).json()["records"]
        shown = [[record["frame"] for record in records if record["stream"] == name] for name in self.names]
        for name in self.names:
            self.client.delete(f"/api/cameras/{name}")
        return {"frames": frames, "unaccounted": [unaccounted(each) for each in frames], "unaccounted_of_all": unaccounted(stats["frames"]),
                "unaccounted_in_metrics": [unaccounted(each) for each in in_metrics], "out_of_order": sum(sorted(set(one)) != one for one in shown),
                "late": stats["late"]}


def scraped(text: str, names: list[str]) -> list[dict]:
    """The frames of these cameras as Prometheus reads them, each camera's of one moment."""
    from prometheus_client.parser import text_string_to_metric_families

    found = {name: {"dropped": {}} for name in names}
    for family in text_string_to_metric_families(text):
        kind = family.name.removeprefix("streamingvlm_frames_")
        for sample in family.samples:
            mine = found.get(sample.labels.get("stream"))
            if mine is not None and kind in {"in", "decided", "in_flight", "dropped"} and not sample.name.endswith("_created"):
                if kind == "dropped":
                    mine[kind][sample.labels["cause"]] = sample.value
                else:
                    mine[kind] = sample.value
    return list(found.values())


def unaccounted(frames: dict) -> float:
    return frames["in"] - frames["decided"] - frames["in_flight"] - sum(frames["dropped"].values())


def cables(count: int, off_s: float, service: str | None) -> dict:
    with contextlib.ExitStack() as stack:
        power = [contextlib.ExitStack() for _ in range(count)]
        cable = [stack.enter_context(Cable(_on(each))) for each in power]
        for each in power:
            stack.callback(each.close)
        addresses = [f"rtsp://127.0.0.1:{each.port}/card" for each in cable]
        watch = Service(service, addresses) if service else Here(addresses)
        rows = [{"what": "the first pictures", "back_s": _back(watch, range(count))}]
        for what, state in (("all cables out", "pulled"), ("all switched off", "cut")):
            rows.append(_all(watch, what, state, off_s if state == "cut" else 10.0, cable))
        for k in range(count):
            rows.append(_reboot(watch, k, cable, power))
        for row in rows:
            print(json.dumps(row), flush=True)
        return {"rows": rows, **watch.end()}


def _on(power: contextlib.ExitStack) -> int:
    return int(power.enter_context(camera()).rpartition(":")[2])


def _all(watch, what: str, state: str, seconds: float, cable: list[Cable]) -> dict:
    for each in cable:
        each.state = state
    time.sleep(seconds)
    for each in cable:
        each.state = "plugged"
    return {"what": f"{what} for {seconds:g} s", "back_s": _back(watch, range(len(cable)))}


def _reboot(watch, k: int, cable: list[Cable], power: list[contextlib.ExitStack]) -> dict:
    others = [other for other in range(len(cable)) if other != k]
    before, begun = watch.counts(), time.monotonic()
    cable[k].state = "cut"
    power[k].close()
    time.sleep(3.0)
    cable[k].target, cable[k].state = _on(power[k]), "plugged"
    back = _back(watch, [k])
    after, lasted_s = watch.counts(), time.monotonic() - begun
    return {"what": f"camera {k} rebooted", "back_s": back, "others_a_second": [round((after[o] - before[o]) / lasted_s, 1) for o in others]}


def _back(watch, which) -> dict[int, float]:
    """Seconds until each of them shows pictures again."""
    begun, before, back = time.monotonic(), watch.counts(), {}
    while len(back) < len(list(which)) and time.monotonic() < begun + 60:
        time.sleep(0.05)
        now = watch.counts()
        back |= {k: round(time.monotonic() - begun, 2) for k in which if k not in back and now[k] > before[k] + 2}
    return back


def main() -> None:
    if sys.argv[1:2] == ["film"]:
        return film(sys.argv[2])
    if sys.argv[1:2] == ["view"]:
        return view(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("weather", "cables"))
    parser.add_argument("--seconds", type=float, default=12.0, help="of each weather (12)")
    parser.add_argument("--kinds", nargs="+", default=["tcp", "udp", "VP8", "H264"], choices=("tcp", "udp", "VP8", "H264"))
    parser.add_argument("--weathers", nargs="+", default=list(WEATHER), choices=list(WEATHER))
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--off", type=float, default=30.0, help="seconds for which all are switched off (30)")
    parser.add_argument("--service", help="address of a service that runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # namespaces are removed on the way out
    found = weather(args.seconds, args.kinds, args.weathers) if args.what == "weather" else cables(args.cameras, args.off, args.service)
    if args.out:
        files.write(args.out, json.dumps({"what": args.what, "found": found, **machine.provenance(vars(args))}, indent=1) + "\n")
    elif args.what == "cables":
        print(json.dumps({key: value for key, value in found.items() if key != "rows"}))


if __name__ == "__main__":
    main()
