"""The match as a task: what `training` and `evaluation` are given of it."""

from __future__ import annotations

from collections.abc import Sequence

from streamingvlm.base import config
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.worlds.match import clips, game, practice, questions, scoring
from streamingvlm.worlds.task import Question


class MatchTask:
    """See `worlds.task.Task`."""

    labels, metrics = game.EVENTS, scoring.METRICS
    words = tuple(dict.fromkeys((*game.WORDS, *questions.WORDS)))

    def blind_video(self, seed: int, seconds: int, video: config.Video, lively: bool = False) -> LabelledVideo:
        return practice.blind_video(game.Match(seed, seconds, lively=lively), video, self.labels)

    def drawn_video(self, seed: int, seconds: int, video: config.Video) -> LabelledVideo:
        return practice.drawn_video(game.Match(seed, seconds), video, self.labels)

    def told(self, video: LabelledVideo, start: int, stop: int) -> tuple[str, list[tuple[str, str]]]:
        return clips.told(video, start, stop)

    def score(self, texts: Sequence[str], row: dict, tolerance_s: float = 1.0) -> dict[str, float | None]:
        said = [game.parse(text) for text in texts]
        return scoring.score_all(said, scoring.truth_of(row)[: len(said)], tolerance_s)

    def questions(self, row: dict, at_s: float, since_s: float = 0.0) -> list[Question]:
        return questions.row_questions(row, at_s, since_s)


MATCH = MatchTask()
