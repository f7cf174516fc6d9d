"""A window of the browser as a view of a stream: one page from this machine, kept up to date by Server-Sent Events. Knows no clock and no model.

    GET /         browser_view.html: the page, which asks nobody else for anything
    GET /events   begin, then frame, comment and answer as they come, at last end; who comes late is told all that was said and the newest frame
    POST /ask     a question, or a wish behind `/tell `, as plain text; 204
"""

from __future__ import annotations

import base64
import io
import json
import queue
import sys
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.streaming import captions

if TYPE_CHECKING:
    from streamingvlm.base.records import Answer, Comment
    from streamingvlm.cli.run_command import Job
    from streamingvlm.cli.view import LatencyStats

TYPED_BYTES = 4000  # of one question
GOODBYE_S = 2.0  # how long pages that still read are waited for at the end


class Browser:
    """A view (see `watch.View`). `port` 0: any that is free. UserError where it is taken."""

    drawn = True

    def __init__(self, job: Job, port: int = 0, opens: bool = True):
        self.opens, self.changed = opens, threading.Condition()
        self.typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.log: list[bytes] = []  # every message so far; of frames only the newest
        self.frame = -1  # where in the log that is
        self.ended, self.readers = False, 0
        try:
            self.server = Server(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"Port {port} cannot be used ({getattr(error, 'strerror', None) or error}): name another with --port, "
                            "or none for any that is free.") from None
        self.server.browser = self
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.publish("begin", {"title": files.printable(job.file.name), "policy": job.policy.name,
                               "of": captions.timestamp(job.info.start_s + job.info.duration_s)[:-4]})

    def __enter__(self) -> Browser:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        print(f"Showing the stream at {self.url}", file=sys.stderr, flush=True)
        if self.opens and _has_window():
            webbrowser.open(self.url)
        return self

    def __exit__(self, *error) -> None:
        self.publish("end", {})
        with self.changed:
            self.ended = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self.readers, GOODBYE_S)
        self.server.shutdown()
        self.server.server_close()

    def see(self, frame: np.ndarray) -> None:
        from PIL import Image

        jpeg = io.BytesIO()
        Image.fromarray(frame).save(jpeg, "JPEG", quality=90, subsampling=0)
        self.publish("frame", {"jpeg": base64.b64encode(jpeg.getvalue()).decode(), "width": frame.shape[1], "height": frame.shape[0]})

    def say(self, comment: Comment, tally: LatencyStats) -> None:
        at = captions.timestamp(comment.start_s)[:-4]
        self.publish("comment", {"at": at, "text": comment.text, "numbers": tally.numbers(comment)})

    def answer(self, answer: Answer) -> None:
        at = captions.timestamp(answer.at_s)[:-4]
        self.publish("answer", {"at": at, "question": answer.question, "text": answer.text or "...", "ms": round(answer.ms["total"])})

    def publish(self, kind: str, data: dict) -> None:
        """Tell every page, and those to come."""
        with self.changed:
            if kind == "frame":
                if self.frame >= 0:
                    self.log[self.frame] = b""
                self.frame = len(self.log)
            self.log.append(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())
            self.changed.notify_all()

    def serve(self, write) -> None:
        """Write the messages, those that were and those that come, until the end."""
        at, ended = 0, False
        with self.changed:
            self.readers += 1
        try:
            while not ended:
                with self.changed:
                    self.changed.wait_for(lambda: len(self.log) > at or self.ended)  # noqa: B023 - asked at once
                    news, at, ended = b"".join(self.log[at:]), len(self.log), self.ended
                write(news)
        finally:
            with self.changed:
                self.readers -= 1
                self.changed.notify_all()


class Server(ThreadingHTTPServer):
    daemon_threads = True  # one that hangs must not keep the process alive
    allow_reuse_address = False  # else two commands could share a port
    browser: Browser

    def handle_error(self, request, client_address) -> None:
        """A page that was closed is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds that one write may take

    def do_GET(self) -> None:
        if self.path == "/":
            page = resources.files("streamingvlm.cli").joinpath("browser_view.html").read_bytes()
            self._begin("text/html; charset=utf-8")
            self.wfile.write(page)
        elif self.path == "/events":
            self._begin("text/event-stream")
            self.server.browser.serve(self.wfile.write)
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        """A page of this very address alone may ask: another one that is open in the same browser may not."""
        size = self.headers.get("Content-Length", "")
        own = self.server.browser.url.rstrip("/")
        if self.path != "/ask" or self.headers.get("Origin", own) != own or not size.isdigit() or not 0 < int(size) <= TYPED_BYTES:
            self.send_error(400 if self.path == "/ask" else 404)
            return
        self.server.browser.typed.put(self.rfile.read(int(size)).decode("utf-8", errors="replace"))
        self.send_response(204)
        self.end_headers()

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, format: str, *args) -> None:
        """Say nothing: the terminal belongs to the commentary."""


def _has_window() -> bool:
    """Whether a browser with a window is here: one of text would take the terminal."""
    try:
        return type(webbrowser.get()) is not webbrowser.GenericBrowser
    except webbrowser.Error:
        return False
