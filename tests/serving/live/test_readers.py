"""What the processes that read cameras report of one that had a name before is not the new one's. No process is started."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from streamingvlm.media.sources.protocol import Change
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.live.readers import Heard, Readers


@pytest.mark.parametrize("kind", ["changed", "picture", "lost"])
def test_what_was_still_on_its_way_from_a_camera_that_was_removed_is_not_said_of_the_next_one_of_its_name(kind):
    heard = []
    readers = Readers(1, (8, 8, 3), Heard(*(lambda *what, name=name: heard.append((name, *what)) for name in
                                            ("frame", "lost", "changed", "picture", "held"))))
    added = []
    readers.workers = [SimpleNamespace(send=added.append)]
    for _ in range(2):
        readers.add(Camera(name="gate", url="push:"), None)
        readers.newest["gate"] = (readers.first["gate"], 0)  # a frame was heard of
        readers.remove("gate")
    readers.add(Camera(name="gate", url="push:"), None)
    epochs = [message[2] for message in added if message[0] == "add"]
    assert epochs == sorted(set(epochs))
    for epoch in epochs:
        readers._message(0, {"changed": ("changed", "gate", Change("live", "", epoch, 0.0)), "picture": ("picture", "gate", epoch, {}, epoch),
                             "lost": ("lost", "gate", "late", epoch, epoch, None)}[kind])
    assert len(heard) == 1 and heard[0][0] == kind
    told = heard[0][2].epoch if kind == "changed" else heard[0][3]
    assert told == epochs[-1]
