"""A real Chromium for tests, driven by its DevTools protocol: `with Browser(folder) as page: page.open(url); page("1 + 1")`.

Debian: `apt-get install chromium`. Knows no page of ours.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from websockets.sync.client import connect

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NONE = "no Chromium: `apt-get install chromium`, then run this test again"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-extensions", "--mute-audio", "--hide-scrollbars", "--remote-debugging-port=0",
         "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--allow-loopback-in-peer-connection",
         "--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter,OptimizationHints")
KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}


class Browser:
    def __init__(self, folder: Path, width: int = 1280, height: int = 800, flags: tuple[str, ...] = ()):
        self.folder, self.size, self.flags = folder, (width, height), flags
        self.number, self.complaints = 0, []

    def __enter__(self) -> Browser:
        command = [FOUND, *FLAGS, *self.flags, f"--window-size={self.size[0]},{self.size[1]}", f"--user-data-dir={self.folder}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        door = self.folder / "DevToolsActivePort"
        until = time.monotonic() + 30
        while not (door.exists() and len(door.read_text().split()) == 2):
            assert time.monotonic() < until and self.process.poll() is None, "Chromium does not start"
            time.sleep(0.05)
        port, path = door.read_text().split()
        self.open_socket = ExitStack()
        # unlimited and without pings: between two calls nobody reads what the browser tells
        self.socket = self.open_socket.enter_context(
            connect(f"ws://127.0.0.1:{port}{path}", max_size=None, max_queue=None, ping_interval=None, proxy=None))
        self.session = None
        target = next(one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *raised) -> None:
        self.open_socket.close()
        self.process.terminate()
        self.process.wait(20)

    def send(self, method: str, **parameters) -> dict:
        self.number += 1
        place = {"sessionId": self.session} if self.session else {}
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters} | place))
        while True:
            message = json.loads(self.socket.recv(60))
            if message.get("id") == self.number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _note(self, message: dict) -> None:
        """What a developer would see in red in the console."""
        said = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(said["exceptionDetails"].get("exception", {}).get("description", said["exceptionDetails"]["text"]))
        elif message.get("method") == "Runtime.consoleAPICalled" and said["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str([one.get("value", one.get("description")) for one in said["args"]]))
        elif message.get("method") == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def __call__(self, script: str):
        """The value of a JavaScript expression; promises are waited for."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"].get("exception", {}).get("description", result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, script: str, timeout_s: float = 15.0):
        """Wait for an expression to be true -> its value."""
        end = time.monotonic() + timeout_s
        while not (value := self(f"(found => found instanceof Node || found)({script})")):
            assert time.monotonic() < end, f"never true: {script}\nconsole: {self.complaints}"
            time.sleep(0.05)
        return value

    def key(self, name: str) -> None:
        """Press and release a key, as a person does."""
        text = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
        common = {"key": name, "windowsVirtualKeyCode": KEYS.get(name, ord(name[0].upper()))}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screen(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
