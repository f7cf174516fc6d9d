"""People keep their slots: past each other, past a frame in which they were missed, until they are gone."""

from __future__ import annotations

import torch

from streamingvlm.models.multicamera import slots
from streamingvlm.models.multicamera.heads import LOOK, PERSON


def person(x: float, look: int = 0, score: float = 0.9, y: float = 0.5) -> torch.Tensor:
    out = torch.zeros(PERSON)
    out[:5] = torch.tensor([score, x - 0.04, y - 0.1, x + 0.04, y + 0.1])
    out[5] = 1
    out[LOOK.start + look] = out[LOOK.start + 8] = 1
    return out


def frame(*people: torch.Tensor) -> torch.Tensor:
    return torch.stack([*people, *[torch.zeros(PERSON)] * (slots.SLOTS - len(people))])[None]


def run(frames) -> tuple[slots.Tracks, list[torch.Tensor]]:
    tracks, born = slots.start(1), []
    for found in frames:
        tracks, new = slots.follow(tracks, found)
        born.append(new[0])
    return tracks, born


def test_two_who_pass_each_other_keep_their_looks_apart():
    frames = [frame(*sorted((person(0.3 + 0.02 * k, 1), person(0.7 - 0.02 * k, 2)), key=lambda p: (k * 7) % 2 * p[1])) for k in range(20)]
    tracks, born = run(frames)
    assert sum(int(new.sum()) for new in born) == 2, "nobody is new but the two"
    slot = {int(tracks.person[0, s, LOOK].argmax()): s for s in range(2)}
    assert slot.keys() == {1, 2}
    assert tracks.person[0, slot[1], 1] > tracks.person[0, slot[2], 1], "the one who went right is on the right"
    torch.testing.assert_close(tracks.velocity[0, slot[1]], torch.tensor([0.02, 0.0]), atol=1e-4, rtol=0)


def test_a_frame_missed_is_not_a_new_person_but_many_are():
    seen, gone = frame(person(0.4)), frame()
    tracks, born = run([seen] * 5 + [gone] * 3 + [seen])
    assert sum(int(new.sum()) for new in born) == 1 and tracks.age[0, 0] == 9
    assert slots.features(tracks)[0, 0, -1] == 1
    tracks, _ = run([seen] * 5 + [gone] * (slots.MISSES + 1))
    assert not any(part.any() for part in (tracks.age, tracks.person, tracks.stood, tracks.velocity)), "the slot is as new"


def test_a_look_is_a_vote_of_some_frames():
    tracks, _ = run([frame(person(0.5, 3))] * 7 + [frame(person(0.5, 5))])
    assert tracks.person[0, 0, LOOK][:8].argmax() == 3
    torch.testing.assert_close(tracks.person[0, 0, LOOK][5], torch.tensor(1 / 8))


def test_standing_is_remembered():
    tracks, _ = run([frame(person(0.5))] * 16)
    torch.testing.assert_close(tracks.stood[0, 0, 0], torch.tensor(1 - (15 / 16) ** 16))


def test_whom_there_is_no_slot_for_waits():
    crowd = frame(*(person(0.1 + 0.13 * k) for k in range(slots.SLOTS)))
    tracks, _ = run([crowd, torch.cat((person(0.95)[None], crowd[0, 1:]))[None]])
    assert (tracks.age[0] == torch.tensor([2.0] * slots.SLOTS)).all()


def test_faint_people_are_nobody():
    tracks, _ = run([frame(person(0.5, score=0.2))] * 3)
    assert not tracks.age.any()
