"""What an answer says, read strictly: a letter, a number, yes or no, else None. Never a guess: no letter out of a word, none out of two.

The rules that benchmarks publish are in their own files; where those are wrong, this is what stands beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from streamingvlm.evaluation.harness.protocol import LETTERS, Item, Mark, Turn, marked

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
LABEL = r"(?i:(?:the|my|final|best|correct|right|answer|option|choice|is|would be)[\s:*]+)*"
EDGE = r"[\s\"'*]*"


def bare(response: str) -> str:
    """Without a model's thoughts and without space around."""
    return re.sub(r"<think>.*?</think>", "", response, flags=re.DOTALL).strip()


def letter(response: str, options: Sequence[str] | int) -> str | None:
    """The one option that is named: by its letter alone, before what it stands for ("B. red"), or behind a label ("Best answer: C"), or by its full
    text. `options`: their texts, or how many there are. None where none is named, where it is not among them, or where two are."""
    texts = ("",) * options if isinstance(options, int) else tuple(options)
    said, allowed = bare(response), LETTERS[: len(texts)]
    plain = _plain(said)
    if len(plain) == 1 and plain.isalpha():
        return plain.upper() if plain.upper() in allowed else None
    if named := [LETTERS[i] for i, text in enumerate(texts) if plain and _plain(text) == plain]:
        return named[0] if len(named) == 1 else None
    found = re.fullmatch(rf"{EDGE}{LABEL}{EDGE}[(\[]?([A-Z])(?![\w'])(.*)", said, re.DOTALL)
    if found is None or found[1] not in allowed:
        return None
    chosen, rest = found.groups()
    others = {other for other in re.findall(r"\b([A-Z])[.):\]]", rest) if other in allowed} - {chosen}
    if rest.strip() and _plain(rest) == _plain(texts[LETTERS.index(chosen)]):
        return chosen
    return chosen if re.match(rf"{EDGE}(?:[.):\],]|$)", rest) and not others else None


def by_letter(own: Callable[[str, Item], float | None]) -> Callable[[Sequence[Turn]], list[Mark]]:
    """The `mark` of a benchmark whose questions have options and are asked once. `own`: what an answer is worth by its rule; None leaves it out."""
    def mark(turns: Sequence[Turn]) -> list[Mark]:
        (turn,) = turns
        return [marked(turn, own(turn.response, turn.item), letter(turn.response, turn.item.options))]
    return mark


def number(response: str) -> int | None:
    """The only number in it, in digits or in words up to twelve."""
    found = re.findall(r"\d+(?:\.\d+)?|" + "|".join(rf"\b{word}\b" for word in NUMBERS), bare(response).lower())
    if len(found) != 1 or "." in found[0]:
        return None
    return NUMBERS.index(found[0]) if found[0] in NUMBERS else int(found[0])


def yes_no(response: str) -> str | None:
    """"Yes" or "No", where the answer begins with it and has not the other one too."""
    words = re.findall(r"[a-z']+", bare(response).lower())
    first = {"yes": "Yes", "y": "Yes", "no": "No", "n": "No"}.get(words[0]) if words else None
    other = {"Yes": "no", "No": "yes"}.get(first or "")
    return None if other in words else first


def same_words(response: str, words: str) -> bool:
    """Whether it says these words and no others, whatever stands between them."""
    return _plain(bare(response)) == _plain(words)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
