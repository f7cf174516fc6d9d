"""What is written beside a short clip of a match, as beside any clip of an offline data set: a title, a description, questions and answers.

Nothing in it is tied to a second: whoever learns from it knows the game and has never commentated. Knows labelled videos; no model and no token.
"""

from __future__ import annotations

from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.worlds.match import game, questions

DESCRIBE, NOTHING = "what happened?", "none"


def told(video: LabelledVideo, start: int, stop: int) -> tuple[str, list[tuple[str, str]]]:
    """(title, [(question, answer)]) of the seconds [start, stop) of a match: the description first, then all that can be asked.

    The title says what the clip cannot show: the teams, and how it stood when it begins."""
    _, _, left, _, right = video.previous.split()
    seconds = questions.carried(map(game.parse, video.words[:stop]))
    before = seconds[start - 1][1] if start else (0, 0)
    description = " ".join(words for words in video.words[start:stop] if words) or NOTHING
    asked = questions.of_seconds((left, right), seconds[start:])
    return f"{video.previous} {before[0]} - {before[1]}", [(DESCRIBE, description), *((one.text, one.answer) for one in asked)]
