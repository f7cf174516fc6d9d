"""Streams look at each other: whoever is there, in any order; a stranger, an absent stream and an empty slot change nothing."""

from __future__ import annotations

import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.heads import LOOK, SCENE
from streamingvlm.models.multicamera.hrm import HRM, KINDS, SEEN, Told
from streamingvlm.models.multicamera.nets import seeded
from streamingvlm.models.multicamera.slots import FEATURES, SLOTS

LOOKS = ((0, 1), (2, 3), (4, 5), (0, 3), (7, 1))


def told(streams: int = 5, seed: int = 0) -> Told:
    """Two people in every stream, all of different looks; the other slots hold numbers but nobody."""
    rng = torch.Generator().manual_seed(seed)
    people = torch.rand(streams, SLOTS, FEATURES, generator=rng)
    people[..., SEEN] = 0
    people[:, :2, SEEN] = 1
    for stream in range(streams):
        for slot in range(2):
            dress(people, stream, slot, (stream + 4 * slot) % 8, stream % 6)
    return Told(people, torch.rand(streams, SCENE, generator=rng), torch.ones(streams, dtype=torch.bool))


def dress(people: torch.Tensor, stream: int, slot: int, shirt: int, trousers: int) -> None:
    people[stream, slot, LOOK] = 0
    people[stream, slot, LOOK.start + shirt] = people[stream, slot, LOOK.start + 8 + trousers] = 1


def build(kind: str) -> HRM:
    return seeded(1, lambda: HRM(32, kind)).eval()


def close(a, b) -> None:
    for name in ("context", "same", "logits"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_permuting_streams_permutes_what_they_are_told(kind):
    hrm, all_of_them, order = build(kind), told(), torch.tensor([3, 0, 4, 1, 2])
    out = hrm(all_of_them)
    mixed = hrm(all_of_them.map(lambda x: x[order]))
    torch.testing.assert_close(mixed.context, out.context[order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixed.weights, out.weights[order][:, :, order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_an_absent_stream_is_no_stream(kind):
    hrm, few = build(kind), told(4)
    more = Told(*(torch.cat((a, 7 * b[:3])) for a, b in ((few.people, few.people), (few.scene, few.scene))),
                torch.tensor([True] * 4 + [False] * 3))
    out, padded = hrm(few), hrm(more)
    for name in ("context", "same", "logits"):
        torch.testing.assert_close(getattr(padded, name)[:4], getattr(out, name), rtol=1e-5, atol=1e-5)
    assert not padded.context[4:].any() and not padded.same[4:].any()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_empty_slots_say_nothing(kind):
    hrm, one = build(kind), told()
    other = Told(one.people.clone(), one.scene, one.present)
    other.people[:, 2:, : SEEN] += 3
    close(hrm(one), hrm(other))


@torch.inference_mode()
def test_groups_side_by_side_do_not_meet():
    hrm, one, two = build("similarity"), told(seed=1), told(seed=2)
    both = hrm(Told(*(torch.stack((getattr(one, name), getattr(two, name))) for name in ("people", "scene", "present"))))
    for k, each in enumerate((hrm(one), hrm(two))):
        torch.testing.assert_close(both.context[k], each.context, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_the_same_look_is_found_before_anything_is_learned():
    hrm, some = build("similarity"), told()
    assert hrm(some).same.max() < 0.2, "nobody is seen twice"
    dress(some.people, 4, 1, 0, 0)  # what stream 0's first person wears
    out = hrm(some)
    assert out.same[0, 0] > 0.8 and out.same[4, 1] > 0.8
    assert out.same.sum() < 3, "and nobody else"
    assert out.weights[0, 0].flatten().argmax() == 4 * SLOTS + 1, "each looks at the other"


@torch.inference_mode()
def test_nobody_looks_at_their_own_stream():
    hrm, some = build("similarity"), told()
    dress(some.people, 2, 1, 2, 2)  # stream 2's own first person again
    assert hrm(some).same[2].max() < 0.2


@pytest.mark.parametrize("kind", ["similarity", "plain", "token", "mean"])
@torch.inference_mode()
def test_keys_of_another_moment_change_what_is_found(kind):
    hrm, now = build(kind), told()
    assert not torch.allclose(hrm(now).context, hrm(now, told(seed=5).map(lambda x: x.flip(0) if x.dim() > 1 else x)).context)


def test_kinds_that_there_are_not():
    with pytest.raises(UserError, match="HRM"):
        HRM(8, "sum")
