"""Asking about frames: together or alone it is the same, the answer is transformers' own, and what cannot be read is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import TINY

from streamingvlm.evaluation import frame_vlm
from streamingvlm.evaluation.frame_vlm import Asker, FrameAnswer, answers, assess
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.training.frame_vlm import train
from streamingvlm.training.frame_vlm.grammar import LONGEST, Said, Thing, say
from streamingvlm.training.frame_vlm.prompt import GRID, Prompt, patches
from streamingvlm.worlds.city.world import ANOMALIES, City


@pytest.fixture(scope="module")
def random_vlm() -> VLM:
    built = train.build(TINY)
    with torch.no_grad():
        built.hf.lm_head.weight.normal_(std=0.125, generator=torch.Generator().manual_seed(3))
    return built


@pytest.fixture(scope="module")
def city() -> City:
    return City(610, 2, 6)


@pytest.fixture(scope="module")
def pictures(city) -> np.ndarray:
    return city.render(0)


@pytest.mark.parametrize("decode", ["eager", "graph"])
def test_together_is_as_alone(random_vlm, pictures, decode):
    vlm = VLM(random_vlm.hf, random_vlm.tokenizer, decode)
    alone = [answers(vlm, picture[None])[0] for picture in pictures[:5]]
    together = answers(vlm, pictures[:5], together=2)
    assert [own.words for own in alone] == [own.words for own in together] and len({own.words for own in alone}) > 1


def test_it_says_what_transformers_says(random_vlm, pictures):
    prompt, hf = Prompt(random_vlm.tokenizer), random_vlm.hf
    ids = torch.tensor([prompt.ids])
    out = hf.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=patches(pictures[:1]), image_grid_thw=torch.tensor([GRID]),
                      mm_token_type_ids=(ids == hf.config.image_token_id).int(), max_new_tokens=12, do_sample=False, eos_token_id=prompt.end)
    theirs = "".join(random_vlm.tokenizer.decode(out[0, len(prompt.ids) :]).split()).rstrip("\ufffd")  # half a letter
    assert len(theirs) > 3 and "".join(answers(random_vlm, pictures[:1])[0].words).startswith(theirs)


def test_what_cannot_be_read_is_counted(random_vlm, city):
    got = answers(random_vlm, city.render(1))
    assert all(own.parsed or own == FrameAnswer(own.words, False) for own in got)
    out = assess(random_vlm, [city])
    assert out["unparsable"] == pytest.approx(np.mean([not own.parsed for camera in (0, 1) for own in answers(random_vlm, city.render(camera))]))


def test_an_answer_in_pixels(random_vlm):
    """Ids and how sure each was -> action, kinds, boxes with scores; a kind that was not said has the chance it had."""
    asker = Asker(random_vlm, 1)
    ids = asker.prompt.answer(say(Said(2, ("bag",), (Thing(1, (3, 20, 10, 30)),))))
    chances = [torch.zeros(len(random_vlm.tokenizer)) for _ in ids]
    for id, chance in zip(ids, chances, strict=True):
        chance[id] = 0.5
    chances[2][asker.kinds[ANOMALIES.index("surge")]] = 0.4
    answer = asker._answer(ids, chances)
    assert (answer.parsed, answer.action) == (True, 2) and answer.boxes == ((6, 40, 20, 60, 1, 0.25),)
    assert answer.anomalies == {**dict.fromkeys(ANOMALIES, 0), "bag": 1}
    assert answer.sure == pytest.approx({**dict.fromkeys(ANOMALIES, 0), "bag": 0.5, "surge": 0.4})
    assert not asker._answer(ids[:-1], chances[:-1]).parsed


def test_a_perfect_answer_has_full_marks(random_vlm, city, monkeypatch):
    truth = city.truth

    def told(vlm, frames, together):
        camera = next(told_of)
        return [FrameAnswer((), True, int(truth.action[camera, frame]),
                            dict(zip(ANOMALIES, truth.anomalies[camera, frame].astype(int).tolist(), strict=True)),
                            tuple((*box, int(label), 0.9) for box, label in zip(truth.box[truth.boxes(camera, frame)].tolist(),
                                                                              truth.box_class[truth.boxes(camera, frame)], strict=True)))
                for frame in range(len(frames))]

    told_of = iter((0, 1))
    monkeypatch.setattr(frame_vlm, "answers", told)
    out = assess(random_vlm, [city])
    assert out["map50"] == out["action"] == 1 and out["unparsable"] == 0 and out["frames"] == 12


def test_milliseconds_are_of_one_frame(random_vlm, pictures):
    assert set(frame_vlm.milliseconds(random_vlm, pictures, 2, times=1)) == {"wall_ms", "cpu_ms"} and LONGEST < 64
