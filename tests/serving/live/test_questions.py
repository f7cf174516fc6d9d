"""A camera is asked: by whom, how many at once, and what is said when the commentator is gone. The process in between is this one."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from helpers import CACHE, STREAM, VIDEO, chunk

from streamingvlm.base.errors import UserError
from streamingvlm.serving.live import commentary, questions
from streamingvlm.serving.live.speech import Speech
from streamingvlm.serving.service import Busy
from streamingvlm.streaming.commentator import Commentator, Settings

TOLD = Settings(dataclasses.replace(VIDEO, max_pixels=56 * 56), CACHE, dataclasses.replace(STREAM, max_new_tokens=4))


def test_the_commentator_answers_for_the_stream_that_is_named(vlm):
    asked, quiet = Commentator(vlm, TOLD), Commentator(vlm, TOLD)
    for each in (asked, quiet):
        each.say({"gate": chunk(0), "yard": chunk(1)})
    line, reason = commentary.answer(asked, "gate", "who is there?", ("lions", "bears"))
    assert line["text"] in ("lions", "bears") and line["stream"] == "gate" and not reason
    for stream, question in (("roof", "who?"), ("gate", " ")):
        line, reason = commentary.answer(asked, stream, question, ())
        assert line is None and reason.endswith((".", "`")), "the commentary goes on"
    asked.tell("yard", "only cars")
    assert asked.say({"gate": chunk(2)})["gate"].text == quiet.say({"gate": chunk(2)})["gate"].text
    with pytest.raises(UserError, match="no stream roof to tell"):
        asked.tell("roof", "only cars")


class Process:
    """In place of the worker: keeps questions until told to answer."""

    def __init__(self):
        self.sent = []

    def send(self, message: tuple) -> None:
        self.sent.append(message)

    def again(self) -> float:
        return 0.5

    async def got(self, count: int) -> None:
        while len(self.sent) < count:
            await asyncio.sleep(0.01)


def speech() -> tuple[Speech, Process]:
    made = Speech("nowhere", lambda comment: None, lambda reason: None)
    made.worker = Process()
    return made, made.worker


def test_each_gets_their_own_answer_whatever_the_order():
    async def run():
        made, process = speech()
        one, other = (asyncio.create_task(made.questions.ask("gate", text, ())) for text in ("a?", "b?"))
        await process.got(2)
        assert [message[:2] + message[3:] for message in process.sent] == [("ask", 0, "a?", ()), ("ask", 1, "b?", ())]
        made._message(("answered", 1, {"text": "B"}, ""))
        made._message(("answered", 0, None, "There is no stream gate to ask."))
        made._message(("answered", 7, {"text": "nobody waits"}, ""))
        assert (await other)["text"] == "B"
        with pytest.raises(UserError, match="no stream gate"):
            await one
        assert not made.questions.waiting

    asyncio.run(run())


def test_too_many_are_refused_and_nobody_waits_for_ever(monkeypatch):
    async def run():
        made, process = speech()
        waiting = [asyncio.create_task(made.questions.ask("gate", "a?", ())) for _ in range(questions.AT_ONCE)]
        await process.got(questions.AT_ONCE)
        with pytest.raises(Busy, match="wait for the commentator"):
            await made.questions.ask("gate", "b?", ())
        waiting.pop().cancel()  # whoever asked has gone: their place is free
        await asyncio.sleep(0.05)
        monkeypatch.setattr(questions, "ANSWER_S", 0.01)
        with pytest.raises(Busy, match="in time"):
            await made.questions.ask("gate", "c?", ())
        made._gone(1)
        for task in waiting:
            with pytest.raises(UserError, match="stopped before"):
                await task
        made.stopped = True

    asyncio.run(run())
