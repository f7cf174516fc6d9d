"""Questions that are with the commentator's process, and who waits for their answers. Knows no camera and no model.

A question is a message behind those that are under way: it is answered between two seconds of commentary, and the commentary goes on as if nobody
had asked (`streaming.ask`). A process that dies takes its questions along: whoever asked is told.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from streamingvlm.base.errors import UserError
from streamingvlm.serving.service import Busy

AT_ONCE = 8  # questions that may wait: each costs about a second of commentary
ANSWER_S = 20.0


class Questions:
    """`hand(message)` gives a message to the process."""

    def __init__(self, hand: Callable[[tuple], None]):
        self.hand, self.numbers = hand, itertools.count()
        self.waiting: dict[int, asyncio.Future[dict]] = {}

    async def ask(self, stream: str, question: str, options: tuple[str, ...]) -> dict:
        """The answer, as a line. Busy where too many wait, UserError where it can't be answered."""
        if len(self.waiting) >= AT_ONCE:
            raise Busy(f"{AT_ONCE} questions wait for the commentator already: ask again in a moment.")
        number = next(self.numbers)
        self.waiting[number] = future = asyncio.get_running_loop().create_future()
        self.hand(("ask", number, stream, question, options))
        try:
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise Busy("The commentator did not come to answering in time: ask again in a moment.") from None
        finally:
            self.waiting.pop(number, None)

    def answered(self, number: int, answer: dict | None, reason: str) -> None:
        """What came back: an answer's line, or why there is none."""
        future = self.waiting.get(number)
        if future and not future.done():
            future.set_result(answer) if answer is not None else future.set_exception(UserError(reason))

    def lost(self) -> None:
        """The process has gone."""
        for number in list(self.waiting):
            self.answered(number, None, "The commentator stopped before it could answer: ask again in a moment.")
