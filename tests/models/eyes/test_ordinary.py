"""What is usual: foretold as by hand, told apart from what is not, carried on, written and read back; and as the service tells it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Frame, Stamp
from streamingvlm.models.eyes import ordinary
from streamingvlm.serving.live import spotter
from streamingvlm.training import ordinary as training


def walk(length: int, seed: int, period: int = 4) -> torch.Tensor:
    """[T, 256]: the same few pictures in turn, and noise."""
    rng = torch.Generator().manual_seed(seed)
    places = torch.randn(period, 256, generator=torch.Generator().manual_seed(7))
    return torch.stack([places[k % period] for k in range(length)]) + 0.05 * torch.randn(length, 256, generator=rng)


@pytest.fixture(scope="module")
def learned():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "WINDOW", 6)
        return training.learned({"gate": walk(160, 1), "yard": walk(130, 2)}, steps=60)


def told(model, embeddings, camera="gate"):
    state, out = model.start(), []
    for embedding in embeddings:
        found, state = model(camera, embedding, state)
        out.append(found)
    return out


def test_what_comes_in_turn_is_foretold_and_what_does_not_is_told(learned):
    model, report = learned
    assert report["gate"]["pictures"] == 160 and report["gate"]["foretold"] < 0.5 * report["gate"]["unchanged"]
    film = walk(60, 3)
    film[40] = torch.randn(256, generator=torch.Generator().manual_seed(11))
    found = told(model, film)
    assert "surprise" not in found[0] and all(-1e-6 <= value <= 2 for one in found for value in one.values())
    alarms = {kind: [k for k, one in enumerate(found) if k > 8 and kind in model.unusual("gate", one)] for kind in ("surprise", "distance")}
    assert alarms["distance"] == [40]
    assert 40 in alarms["surprise"] and set(alarms["surprise"]) <= {40, 41, 42}, "what was foretold after something strange may be wrong too"
    assert model.scores("gate", {"surprise": 2.1, "distance": -1}) == {"surprise": 1, "distance": 0}


def test_the_last_part_alone_says_how_surprising_ordinary_seconds_are(learned):
    model, _ = learned
    embeddings = walk(160, 1)
    late = int(160 * training.STOPPED)
    found = told(model, embeddings)
    assert np.allclose(model.usual["gate"]["surprise"], np.sort([one["surprise"] for one in found[late:]]), atol=1e-5)
    early = int(160 * training.LEARNED)
    assert np.allclose(model.usual["gate"]["distance"], np.sort([one["distance"] for one in found[early:]]), atol=1e-5)
    assert max(one["distance"] for one in found[:early]) < 1e-5, "these it learned from"


def test_nothing_better_was_found_then_nothing_changes_is_foretold():
    _, report = training.learned({"gate": torch.randn(130, 256, generator=torch.Generator().manual_seed(0))}, steps=0)
    assert report["gate"]["foretold"] == pytest.approx(report["gate"]["unchanged"])


def test_too_few_pictures_are_refused_and_named():
    with pytest.raises(UserError, match=r"yard \(20\)"):
        training.learned({"gate": walk(130, 1), "yard": walk(20, 1)})
    with pytest.raises(UserError, match="all cameras"):
        training.learned({})


def test_written_and_read_back_it_tells_the_same(learned, tmp_path):
    model, report = learned
    ordinary.save(model, tmp_path / "learned", {"cameras": report})
    again, film = ordinary.load(tmp_path / "learned"), walk(20, 4)
    assert told(again, film) == told(model, film)
    assert [again.scores("yard", {"surprise": x}) for x in (0.1, 0.4, 0.9)] == [model.scores("yard", {"surprise": x}) for x in (0.1, 0.4, 0.9)]
    (tmp_path / "learned" / ordinary.FILES[0]).write_bytes(b"")
    with pytest.raises(UserError, match="streamingvlm learn"):
        ordinary.load(tmp_path / "learned")
    with pytest.raises(UserError, match="make real-eyes"):
        ordinary.eyes(tmp_path)


class Nothing:
    """A detector that finds nothing."""

    def __init__(self, folder):
        pass

    def __call__(self, pictures):
        nothing = spotter.Things(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        return [nothing for _ in pictures]


def test_the_service_is_told_once_a_second_of_the_cameras_it_knows(learned, tmp_path, monkeypatch):
    """Batched with others or alone, at eight frames a second or one: a camera's scores are those of a picture a second since it connected."""
    ordinary.save(learned[0], tmp_path / "learned", {})
    film = walk(6, 5)
    monkeypatch.setattr(spotter, "Coco", Nothing)
    monkeypatch.setattr(ordinary, "eyes", lambda weights: None)
    monkeypatch.setattr(ordinary, "embeddings", lambda vit, pictures: film[[int(pixels[0, 0, 0]) for pixels in pictures]])
    eyes = spotter.Spotter(tmp_path / "coco", tmp_path / "learned")

    def decide(k, epoch=0, streams=("gate", "stranger")):
        frames = [Frame(Stamp(name, k, epoch, k / 8, k / 8, "receiver", k / 8), np.full((2, 2, 3), k // 8, np.uint8)) for name in streams]
        return eyes.decide(frames)

    rows = [decide(k) for k in range(48)]
    expected = told(learned[0], film)
    for k, (gate, stranger) in enumerate(rows):
        found = expected[k // 8]
        scores = {spotter.KINDS[kind]: pytest.approx(score, abs=1e-4) for kind, score in learned[0].scores("gate", found).items()}
        assert gate["anomalies"] == scores and gate["event_score"] == max(gate["anomalies"].values())
        assert stranger["event_score"] == 0 and stranger["anomalies"] == {}
        assert gate["future"] == pytest.approx(1 - found["surprise"] if "surprise" in found else 0, abs=1e-4)
    first = rows[0][0]["anomalies"]
    assert "surprising" not in decide(48 - 8, epoch=1)[0]["anomalies"], "a new connection begins anew"
    eyes.forget("gate")
    assert "surprising" not in decide(47, epoch=1, streams=("gate",))[0]["anomalies"] and set(first) == {"unusual"}
