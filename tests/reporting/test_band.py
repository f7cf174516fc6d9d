"""The picture the report opens with: all three parts or a sentence, the same bytes twice, and the same in words."""

import numpy as np
import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation import claims
from streamingvlm.reporting import band

SQUARES = [band.Square(f"P{k}", "three short words", kind) for k, kind in enumerate(claims.KINDS)]
TOKENS = {"streaming": ([0, 1, 2], [50, 200, 204]), "full": ([0, 1, 2], [50, 2000, 40925])}
FRAME = np.zeros((8, 12, 3), np.uint8)
LOOKS = [band.Look(FRAME, 65.0, "goal left 1 - 0", "goal left 1 - 0", True), band.Look(FRAME, 70.0, "", "goal right 1 - 1", False)]


def test_the_same_bytes_twice(tmp_path):
    first = band.band(SQUARES, TOKENS, LOOKS, tmp_path / "a").read_bytes()
    assert first == band.band(SQUARES, TOKENS, LOOKS, tmp_path / "b").read_bytes() and first.startswith(b"\x89PNG")


def test_every_verdict_has_a_colour_and_a_sign_of_its_own():
    assert set(band.LOOKS) == set(claims.KINDS)
    decided = [band.LOOKS[kind] for kind in claims.KINDS[:3]]
    assert len({ground for ground, _, _ in decided}) == len({sign for *_, sign in decided}) == 3


@pytest.mark.parametrize(("squares", "tokens", "looks"), [([], TOKENS, LOOKS), (SQUARES, {}, LOOKS), (SQUARES, {"full": ([], [])}, LOOKS),
                                                          (SQUARES, TOKENS, [])])
def test_a_part_with_nothing_to_show_is_one_sentence_and_no_file(squares, tokens, looks, tmp_path):
    with pytest.raises(UserError, match="Figure `band`"):
        band.band(squares, tokens, looks, tmp_path)
    assert not list(tmp_path.iterdir())


def test_in_words():
    said = band.alt(SQUARES, TOKENS, LOOKS)
    assert "P0 three short words: reproduced" in said and "streaming 204, full 40,925" in said
    assert "“goal left 1 - 0” (right)" in said and "“nothing” (wrong, true: “goal right 1 - 1”)" in said
