"""Seconds of many cameras become chunks for the commentator: whole ones, newest first when it is busy, and what is left out is counted."""

from __future__ import annotations

import asyncio

import numpy as np

from streamingvlm.base.records import Comment, Stamp
from streamingvlm.serving.live.speech import Speech


class Silent:
    """In place of the worker: keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)
        return True

    def again(self):
        return 0.5


def speech(said):
    made = Speech("nowhere", said.append, said.append)
    made.worker = Silent()
    made._message(("ready", 1.0, 2))
    return made


def show(made, stream, k, fps=8, epoch=0):
    made.frame(Stamp(stream, k, epoch, 5 + k / fps, 0.0, "sender", 0.0, fps), np.full((4, 4, 3), k % 256, np.uint8))


def chunks(made):
    return [message[2] for message in made.worker.sent if message[0] == "say"]


def test_a_chunk_holds_the_frames_of_its_second():
    async def run():
        made = speech([])
        for k in range(17):
            show(made, "a", k)
        await asyncio.sleep(0.05)
        made._message(("said", 0, []))
        await asyncio.sleep(0.05)
        first, second = (sent["a"] for sent in chunks(made))
        assert (first.index, first.start_s, first.end_s, second.index) == (0, 0.0, 1.0, 1)
        assert first.frames[:, 0, 0, 0].tolist() == [0, 4] and second.frames[:, 0, 0, 0].tolist() == [8, 12] and made.skipped == 0

    asyncio.run(run())


def spot(made, stream, k, epoch=0, people=1):
    made.spotted(Stamp(stream, k, epoch, 5 + k / 8, 0.0, "sender", 0.0, 8.0),
                 {"falls": [(0.1, 0.9, 0, 2)], "cars": [], "people": people, "walk": people, "action": 2, "fall": 1.0, "pavement": 0.0})


def test_what_is_decided_in_time_goes_with_its_second_as_a_note():
    async def run():
        made = speech([])
        spot(made, "a", 0)  # of a camera that nobody listens to
        for k in range(17):
            show(made, "a", k)
            if k < 4:
                spot(made, "a", k)
            if k == 9:
                spot(made, "a", 7, people=9)  # too late: its second is on its way
                spot(made, "a", 9, epoch=1)
            if k == 16:
                made._message(("said", 0, []))
        await asyncio.sleep(0.05)
        first, second = (sent["a"] for sent in chunks(made))
        assert (first.note, second.note) == ("8 red blue falls left and 1 person walks", "")

    asyncio.run(run())


def test_a_busy_commentator_gets_the_newest_and_the_rest_is_counted():
    async def run():
        said = []
        made = speech(said)
        for k in range(8 * 5 + 1):
            show(made, "a", k)
        await asyncio.sleep(0.05)
        assert [sent["a"].index for sent in chunks(made)] == [0] and made.skipped == 3
        made._message(("said", 0, [Comment("a", "streaming", 0, 0.0, 1.0, "hello", 1, 5, 0, {}, 0.0)]))
        await asyncio.sleep(0.05)
        assert [sent["a"].index for sent in chunks(made)] == [0, 4] and [comment.text for comment in said] == ["hello"]

    asyncio.run(run())


def test_a_commentator_that_is_killed_again_and_again_speaks_again_and_what_was_lost_is_counted():
    async def run():
        made = speech([])
        for k in range(12):
            show(made, "a", k)
        await asyncio.sleep(0.05)
        assert len(chunks(made)) == 1 and not made.skipped  # one is with it, half of another here
        for _ in range(2):
            made._gone(-9)
        assert made.skipped == 1 and made.restarts == 2
        for k in range(12, 28):
            show(made, "a", k)
        await asyncio.sleep(0.05)
        assert len(chunks(made)) == 1 and made.skipped == 2, "nobody is there to be handed a chunk: of two that are complete the newer waits"
        made._message(("ready", 1.0, 2))
        assert made.skipped == 4  # that one, and the frames of a second that was half over
        for k in range(28, 45):
            show(made, "a", k)
        await asyncio.sleep(0.05)
        assert [sent["a"].index for sent in chunks(made)] == [0, 0]

    asyncio.run(run())


def test_too_few_frames_are_no_chunk_and_a_new_connection_begins_a_new_stream():
    async def run():
        made = speech([])
        for k in range(3):
            show(made, "a", k, fps=1)  # one frame a second where two are wanted
        assert not chunks(made) and made.skipped == 2
        show(made, "a", 0, epoch=1)
        assert ("forget", "a") in made.worker.sent
        await asyncio.sleep(0)

    asyncio.run(run())
