"""The whole: however frames are batched, chunked, interrupted or missing, each camera's decisions are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.backbone import build
from streamingvlm.models.multicamera.heads import CLASSES, GRID, PERSON, SLOTS, Dense, Head, Sight, detections
from streamingvlm.models.multicamera.memory import HOLDS, VARIANTS, Memory, MemoryKnobs, State
from streamingvlm.models.multicamera.nets import seeded
from streamingvlm.models.multicamera.network import Knobs, Network, load

FRAMES, STREAMS = 20, 4


@pytest.fixture(scope="module")
def sight() -> Sight:
    """What a random vision would see: people who come, walk and go."""
    rng = torch.Generator().manual_seed(0)
    people = torch.rand(FRAMES, STREAMS, SLOTS, PERSON, generator=rng)
    people[..., 1:5] = people[:1, ..., 1:5] * 0.5 + torch.arange(FRAMES)[:, None, None, None] * 0.01
    people[..., 3:5] += 0.1
    return Sight(torch.randn(FRAMES, STREAMS, 256, generator=rng), torch.randn(FRAMES, STREAMS, 8, generator=rng),
                 torch.rand(FRAMES, STREAMS, 7, GRID, generator=rng), people)


def memory(knobs: MemoryKnobs) -> Memory:
    return seeded(0, lambda: Memory(knobs)).eval()


def close(a, b, chosen=slice(None)) -> None:
    for name in ("action", "anomalies", "event", "clocks", "places", "change", "future"):
        torch.testing.assert_close(getattr(a, name)[:, chosen], getattr(b, name), rtol=1e-4, atol=1e-4)


def part(sight: Sight, frames: slice, streams=slice(None)) -> Sight:
    return sight.map(lambda x: x[frames, streams])


def steady(sight: Sight, variant: str) -> Sight:
    """With random weights and a raw carry the last bits grow from frame to frame, as in any recurrence that is not tame: few frames then."""
    return part(sight, slice(0, 6)) if variant == "raw" else sight


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_chunked_is_whole_and_restored_is_uninterrupted(sight, variant):
    kept, sight = memory(replace(VARIANTS[variant], period=3)), steady(sight, variant)
    whole, last = kept(sight, kept.start(STREAMS))
    state, pieces = kept.start(STREAMS), []
    for start, stop in ((0, 1), (1, 4), (4, FRAMES)):
        decisions, state = kept(part(sight, slice(start, stop)), state)
        state = State.restore({name: tensor.clone() for name, tensor in state.tensors().items()})
        pieces.append(decisions.anomalies)
    torch.testing.assert_close(torch.cat(pieces), whole.anomalies, rtol=1e-4, atol=1e-4)
    for name, tensor in last.tensors().items():
        torch.testing.assert_close(state.tensors()[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["no_hrm", "gru", "transformer", "raw", "frame"])
@torch.inference_mode()
def test_batched_is_each_alone(sight, variant):
    """Without a look across, nothing of the others gets in."""
    kept, sight = memory(replace(VARIANTS[variant], hrm="none")), steady(sight, variant)
    whole, _ = kept(sight, kept.start(STREAMS))
    for stream in range(STREAMS):
        alone, _ = kept(part(sight, slice(None), slice(stream, stream + 1)), kept.start(1))
        close(whole, alone, slice(stream, stream + 1))


@pytest.mark.parametrize("variant", ["model", "held_hrm", "plain_hrm", "mean_hrm"])
@torch.inference_mode()
def test_permuted_streams_decide_the_same(sight, variant):
    kept, order = memory(VARIANTS[variant]), torch.tensor([2, 0, 3, 1])
    whole, state = kept(sight, kept.start(STREAMS))
    mixed, other = kept(part(sight, slice(None), order), kept.start(STREAMS))
    close(whole, mixed, order)
    for name, tensor in other.held.items():
        torch.testing.assert_close(tensor, state.rows(order).held[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("holds", HOLDS)
@torch.inference_mode()
def test_a_camera_that_comes_late_or_leaves_changes_nothing_before_and_stands_still_itself(sight, holds):
    kept = memory(MemoryKnobs(period=4, holds=holds))
    present = torch.ones(FRAMES, STREAMS, dtype=torch.bool)
    present[:, 3] = False
    padded, state = kept(sight, kept.start(STREAMS), present)
    without, _ = kept(part(sight, slice(None), slice(0, 3)), kept.start(3))
    close(padded, without, slice(0, 3))
    first = kept.start(STREAMS).tensors()
    assert all(torch.equal(tensor[3], first[name][3]) for name, tensor in state.tensors().items() if name != "frame"), "as if never there"
    present[8:, 3] = True  # it comes at a moment when streams look at each other
    late, _ = kept(sight, kept.start(STREAMS), present)
    torch.testing.assert_close(late.anomalies[:8, :3], padded.anomalies[:8, :3])
    assert not torch.allclose(late.anomalies[8:, :3], padded.anomalies[8:, :3])


@torch.inference_mode()
def test_what_was_learned_across_is_held_until_the_next_time(sight):
    kept = memory(MemoryKnobs(period=5, holds="answer"))
    decisions, _ = kept(sight, kept.start(STREAMS))
    assert decisions.fresh == [0, 5, 10, 15]
    for k in range(FRAMES):
        torch.testing.assert_close(decisions.verdict[k], decisions.verdict[k // 5 * 5])


@torch.inference_mode()
def test_what_others_showed_is_held_and_ones_own_people_are_sought_in_it_in_every_frame(sight):
    kept = memory(MemoryKnobs(period=5, holds="others"))
    decisions, _ = kept(sight, kept.start(STREAMS))
    assert decisions.fresh == list(range(FRAMES)) and not torch.allclose(decisions.verdict[11], decisions.verdict[10])
    later = sight.map(lambda x: torch.cat((x[:13], torch.cat((x[:7, :1], x[13:, 1:]), 1))))  # camera 0 sees something else after the look of frame 10
    other, _ = kept(later, kept.start(STREAMS))
    torch.testing.assert_close(other.verdict[:15, 1:], decisions.verdict[:15, 1:], rtol=1e-4, atol=1e-4), "nobody knows of it yet"
    for frame, camera in ((13, 0), (15, 1)):  # but itself; and the next look tells them
        assert not torch.allclose(other.verdict[frame, camera], decisions.verdict[frame, camera])


@torch.inference_mode()
def test_looking_in_every_frame_both_ways_of_holding_are_one(sight):
    ways = [memory(MemoryKnobs(period=1, holds=holds)) for holds in ("answer", "others")]
    one, other = (kept(sight, kept.start(STREAMS))[0] for kept in ways)
    torch.testing.assert_close(one.anomalies, other.anomalies, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["model", "held_hrm", "transformer"])
@torch.inference_mode()
def test_what_is_carried_does_not_grow(sight, variant):
    kept = memory(replace(VARIANTS[variant], period=3))
    state = kept.start(STREAMS)
    first = {name: (tensor.shape, tensor.dtype) for name, tensor in state.tensors().items()}
    for _ in range(4):
        _, state = kept(sight, state)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in state.tensors().items()} == first and state.frame == 4 * FRAMES


@torch.inference_mode()
def test_pictures_in_decisions_out_and_the_file_is_the_network(tmp_path):
    network = Network(Knobs(seed=3))
    frames = torch.randint(0, 256, (3, 2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    decisions, things, _ = network(frames, network.memory.start(2))
    assert decisions.anomalies.shape == (3, 2, 6) and things.box.shape == (3, 2, 16, 4)
    alone, _, _ = network(frames[:, 1:], network.memory.start(1), None)
    torch.testing.assert_close(alone.action[0], decisions.action[0, 1:], rtol=1e-3, atol=1.0), "same pictures"
    network.save(tmp_path)
    again, _, _ = load(tmp_path)(frames, network.memory.start(2))
    assert torch.equal(again.anomalies, decisions.anomalies)
    (tmp_path / "model.safetensors").write_bytes(b"half of it")
    with pytest.raises(UserError, match="no whole multi-camera model"):
        load(tmp_path)


def test_a_thing_is_found_where_it_is():
    empty = {name: torch.zeros(1, channels, GRID, GRID) for name, channels in (
        ("heat", CLASSES), ("box", 4), ("pose", 3), ("alarms", 2), ("shirts", 8), ("trousers", 6))}
    empty["heat"] -= 5
    empty["heat"][0, 1, 6, 10:12] = torch.tensor([4.0, 2.0])  # a car, and a neighbour that is no second one
    empty["box"][0, :, 6, 10] = torch.tensor([0.25, -0.5, 0.0, 0.0])
    found = detections(Dense(**empty, action=torch.zeros(1, 6), where=torch.zeros(1, 12, 5)))
    assert found.label[0, 0] == 1 and found.score[0, 0] > 0.9 and found.score[0, 1] < 0.1
    x, y = (10.5 + 0.25) / GRID, (6.5 - 0.5) / GRID
    torch.testing.assert_close(found.box[0, 0], torch.tensor([x - 1 / 16, y - 1 / 16, x + 1 / 16, y + 1 / 16]))


@torch.inference_mode()
def test_any_backbone_fits_the_head():
    backbone = build("vit-s14")
    seen = backbone(torch.zeros(1, 96, 96, 3, dtype=torch.uint8))
    assert seen.tokens.shape == (1, 256, 384) and seen.embedding.shape == (1, 256)
    assert Head(backbone)(seen).heat.shape == (1, CLASSES, GRID, GRID)


@pytest.mark.parametrize(("name", "weights"), [("resnet", None), ("vit-s14", "/nowhere/at-all.safetensors")])
def test_backbones_that_there_are_not(name, weights):
    with pytest.raises(UserError):
        build(name, weights)
