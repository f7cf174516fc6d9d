"""What an offline VLM learns from: whole commentaries to read, and short clips, all frames first, described and asked about. Never a stream.

A document is plain text: who plays, and all that is said of a match, in one piece. A clip is one video and turns about it, as VLMs are instructed:

    IS system\\nYou are a helpful assistant.IE\\n  IS user\\nVS pad*N*seconds VE {title} {question}IE\\nIS assistant\\n {answer}IE
    \\nIS user\\n {question}IE\\nIS assistant\\n {answer}IE ...

The title says what a clip cannot show: the teams, and how it stands when the clip begins. No clock, no second video, no ` ...`, no previous text:
what is typical of a stream, SFT has to teach. Knows layouts; no loss, no model, and nothing of what a question is about.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamingvlm.base.patches import PATCH_PX
from streamingvlm.context import dialogue
from streamingvlm.context.dialogue import Dialogue, Span
from streamingvlm.data.labelled import LabelledVideo
from streamingvlm.training.windowing import slices


def document(talk: Dialogue, video: LabelledVideo, seconds: int) -> list[Span]:
    """All that is said in the first `seconds` chunks of a video, behind what was said before it: text to read, every token learned."""
    text = " ".join(part for part in (video.previous, *video.words[:seconds]) if part)
    return [Span(dialogue.SAID, dialogue.HEADER, talk.encode(f" {text}"))]


def clip(talk: Dialogue, video: LabelledVideo, start: int, stop: int, title: str, asked: Sequence[tuple[str, str]]) -> list[Span]:
    """Chunks [start, stop) of a video as one vision block, then (question, answer) after (question, answer)."""
    rows, columns = (side // PATCH_PX for side in video.chunks[start].frames.shape[1:3])
    grid = (sum(slices(chunk) for chunk in video.chunks[start:stop]), rows, columns)
    spans = talk.header(())[:1]  # the system prompt alone
    for n, (question, answer) in enumerate(asked):
        turn = talk.question(start, 0.0, 0.0, grid, f" {title} {question}" if n == 0 else f" {question}", first=n == 0)
        without = {dialogue.TIME} if n == 0 else {dialogue.TIME, dialogue.VISION}
        spans += [span for span in turn if span.role not in without]
        spans += talk.answer(start, talk.encode(f" {answer}" if answer else ""))
    return spans
