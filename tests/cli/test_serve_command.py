"""`streamingvlm serve`, all of it but the processes that it starts: from the file to the page, and an end in order."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
import webbrowser

from streamingvlm.cli.main import main
from streamingvlm.media import arrivals
from streamingvlm.serving.live.decider import Decider
from streamingvlm.serving.live.service import Service
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Scheduler


def test_a_file_becomes_a_page_and_ends_in_order(tmp_path, monkeypatch, capsys):
    seen, ended = [], []

    async def start(service):
        service.decider.scheduler = Scheduler(LatencyCurve({1: 10.0}, 1))

    async def stop(service):
        ended.append([row["id"] for row in service.cameras()])

    def look(address):
        def fetch():
            seen.extend(urllib.request.urlopen(address + path, timeout=60).read().decode() for path in ("/", "/api/cameras"))
            os.kill(os.getpid(), signal.SIGTERM)  # as a service manager does

        threading.Thread(target=fetch).start()

    monkeypatch.setattr(Service, "start", start)
    monkeypatch.setattr(Service, "stop", stop)
    monkeypatch.setattr(Decider, "_setup", lambda self: None)
    monkeypatch.setattr(webbrowser, "open", look)
    told, trace = tmp_path / "cameras.yaml", tmp_path / "run.jsonl.gz"
    told.write_text(f"service: {{port: 0, grpc_port: 0, store: {tmp_path}/records.sqlite}}\ncameras: [{{name: gate, url: 'push:'}}]\n")
    assert main(["serve", str(told), "--seconds", "60", "--record", str(trace)]) == 0
    out = capsys.readouterr()
    assert out.out.startswith("1 cameras at http://127.0.0.1:") and "gRPC at 127.0.0.1:" in out.out and out.err.endswith("Ending.\n")
    assert "<html" in seen[0] and '"gate"' in seen[1] and ended == [["gate"]]
    assert any(row.event == "StreamAdded" for row in arrivals.read(trace)) and (tmp_path / "records.sqlite").stat().st_size
