"""The process that reads cameras takes what it is told whatever becomes of what it says. Its threads only; no process is started."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np

from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.intake import worker


def test_it_takes_messages_while_nobody_empties_its_pipe_and_lets_go_what_would_pile_up():
    """Both pipes full and each side waiting for the other would be the end: who takes messages draws no picture and sends none."""
    emptied, sent = threading.Event(), []

    def send(message):
        emptied.wait(20)
        sent.append(message)

    here = worker.Cameras(SimpleNamespace(send=send), SimpleNamespace(shape=(8, 8, 3)), [0], {"push": lambda address: Silent()})
    here.add(Camera(name="gate", url="push:"), 0, 0, 0, None)
    waiting, count = here.readings["gate"].waiting, 2 * worker.UNDRAWN
    began = threading.Thread(target=lambda: [step(index) for index in range(count) for step in (
        lambda index: waiting.picture(index, index / 8, {"frame": index}, np.zeros((8, 8, 3), np.uint8), 0.0),
        lambda index: here.read(("decided", "gate", 0, index, index / 8, [])))], daemon=True)
    began.start()
    began.join(10)
    stuck, early = began.is_alive(), len(sent)
    emptied.set()
    here.remove("gate")
    here.drawing.shutdown()
    frames = [message[3]["frame"] for message in sent if message[0] == "picture"]
    assert not stuck and early == 0
    assert frames == sorted(frames) and worker.UNDRAWN - 1 <= len(frames) < count


class Silent:
    """A source that sends nothing."""

    live = True

    def connect(self, left: threading.Event):
        left.wait()
        yield from ()
