"""The process that speaks: a second of some streams in, a sentence of each out. Knows no camera; it is never waited for by those who decide.

Messages in: ("say", number, {stream: Chunk}), ("ask", number, stream, question, options), ("forget", stream), STOP. Out: ("ready", seconds a chunk,
frames a chunk), ("said", number, [Comment]), ("answered", number, an answer's line or None, why there is none), ("failed", reason).
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path

from transformers.utils import logging

from streamingvlm.base.errors import UserError
from streamingvlm.serving.processes import READY, STOP
from streamingvlm.streaming.commentator import Commentator

LESS_URGENT = 5  # nice: a sentence a second may wait for a decision


def work(connection: Connection, folder: Path) -> None:
    """Run until told to stop. UserError where the folder holds no commentator."""
    if hasattr(os, "nice"):
        os.nice(LESS_URGENT)
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # a service's terminal is not for that
    commentator = Commentator.load(folder)
    video = commentator.settings.video
    connection.send((READY, video.chunk_s, round(video.fps * video.chunk_s)))
    while (message := connection.recv()) != STOP:
        if message[0] == "forget":
            commentator.leave(message[1])
            continue
        if message[0] == "ask":
            connection.send(("answered", message[1], *answer(commentator, *message[2:])))
            continue
        _, number, chunks = message
        connection.send(("said", number, list(commentator.say(chunks).values())))


def answer(commentator: Commentator, stream: str, question: str, options: tuple[str, ...]) -> tuple[dict | None, str]:
    """-> the answer's line, or None and why there is none: a question that can't be answered must not end the commentary."""
    try:
        return commentator.ask(stream, question, options).line(), ""
    except UserError as error:
        return None, str(error)
