"""The city: one seed, one world; labels are what a slow reading of the paths says; evaluation never looks like training."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.errors import UserError
from streamingvlm.worlds.city import streets
from streamingvlm.worlds.city.people import BAG, PERSON, STAND, WALK
from streamingvlm.worlds.city.scene import PALETTES
from streamingvlm.worlds.city.truth import together
from streamingvlm.worlds.city.world import ACTIONS, ANOMALIES, City, CityKnobs, Wardrobe, cross, held_out

LIE = 2


@pytest.fixture(scope="module")
def city() -> City:
    return City(seed=5, cameras=8, frames=384)


def test_a_longer_city_begins_like_a_shorter_one_and_pictures_come_in_any_order(city):
    short = City(seed=5, cameras=8, frames=200)
    assert (short.truth.action == city.truth.action[:, :200]).all() and (short.truth.anomalies == city.truth.anomalies[:, :200]).all()
    frames = city.render(3, slice(100, 180, 20))
    assert frames.shape == (4, 96, 96, 3) and frames.dtype == np.uint8
    assert all((short.draw(3, frame) == picture).all() for frame, picture in zip(range(100, 180, 20), frames, strict=True))
    assert (City(seed=6, cameras=8, frames=200).truth.action != short.truth.action).any()


def test_the_same_city_at_another_rate_and_size(city):
    fast = City(seed=5, cameras=8, frames=384 * 3, fps=24.0, height_px=192)
    assert (fast.truth.action[:, ::3] == city.truth.action).mean() > 0.99  # edges: a pixel more or less is half in the picture or not
    assert (fast.truth.meets[:, ::3] == city.truth.meets).all() and np.abs(fast.truth.clocks[:, ::3] - city.truth.clocks).max() <= 1.01 / 32
    small = city.draw(2, 50)[::8, ::8].astype(int)
    assert np.abs(fast.draw(2, 150)[::16, ::16].astype(int) - small).mean() < 12  # the grain is another


@given(seed=st.integers(0, 10_000), cameras=st.integers(2, 32), frames=st.integers(1, 120), evaluation=st.booleans())
@settings(max_examples=12, deadline=None)
def test_labels_agree_with_each_other(seed, cameras, frames, evaluation):
    truth = City(seed, cameras, frames, evaluation).truth
    assert truth.action.shape == (cameras, frames) and truth.clocks.shape == (cameras, frames, 2)
    assert (truth.box >= 0).all() and (truth.box <= 96).all() and (truth.box[:, 2:] > truth.box[:, :2]).all()
    person = truth.box_class == PERSON
    assert ((truth.box_look >= 0).all(1) == person).all() and ((truth.box_pose >= 0) == person).all()
    assert (truth.anomalies[..., 0] == (truth.action == ACTIONS.index("fall"))).all()
    assert (truth.anomalies[..., 2:4] == (truth.clocks >= 1)).all()
    assert not truth.meets[truth.action == ACTIONS.index("empty")].any()
    surge, clone = truth.anomalies[..., 5], truth.anomalies[..., 4]
    assert not surge.any(0)[truth.meets.sum(0) < 3].any() and set(np.unique(clone.sum(0))) <= {0, *range(2, cameras + 1)}
    assert (cross(truth.seen(), truth.meets) == truth.anomalies[..., 4:]).all()
    starts = [truth.boxes(c, f) for c in range(cameras) for f in range(frames)]
    assert sum(part.stop - part.start for part in starts) == len(truth.box)
    assert all((truth.box_at[part] == (c, f)).all() for part, (c, f) in zip(starts, itertools.product(range(cameras), range(frames)), strict=True))


def test_labels_are_what_a_slow_reading_of_the_paths_says():
    city = City(seed=11, cameras=3, frames=260)
    truth, waits = city.truth, {}
    for camera, frame in itertools.product(range(3), range(260)):
        here = []
        for visit in city.visits:
            if visit.camera == camera and visit.at_s[0] <= frame / 8 <= visit.at_s[-1]:
                leg = max(k for k in range(len(visit.pose)) if visit.at_s[k] <= frame / 8)
                here.append((visit, float(np.interp(frame / 8, visit.at_s, visit.x)), int(visit.pose[leg])))
        stands = [x for visit, x, pose in here if visit.kind == PERSON and pose == STAND]
        clocks = [0.0, 0.0]
        for visit, x, pose in here:
            counts = pose == STAND if visit.kind == PERSON else visit.kind == BAG and not any(abs(x - other) <= 14 for other in stands)
            waits[camera, visit.track] = waits.get((camera, visit.track), 0) + 1 if counts else 0
            if visit.kind in (PERSON, BAG) and 6 < x < 90:
                column, limit = (0, 64) if visit.kind == PERSON else (1, 32)
                clocks[column] = max(clocks[column], waits[camera, visit.track] / limit)
        assert truth.clocks[camera, frame].tolist() == pytest.approx(clocks), (camera, frame)
        near = any(b - a <= 24 for a, b in zip(sorted(stands), sorted(stands)[2:], strict=False))
        assert truth.meets[camera, frame] == near
        inside = [pose for visit, x, pose in here if visit.kind == PERSON and 1 < x < 95]
        expected = "fall" if LIE in inside else "meet" if near else "walk" if WALK in inside else "idle" if inside else "empty"
        assert ACTIONS[truth.action[camera, frame]].replace("run", "walk") == expected or not all(8 < x < 88 for _, x, _ in here)


def test_evaluation_has_looks_palettes_and_streets_that_training_never_has():
    worlds = {evaluation: [City(seed, 8, 200, evaluation) for seed in range(3)] for evaluation in (False, True)}
    worn = {evaluation: {tuple(look) for city in cities for look in city.truth.box_look[city.truth.box_class == PERSON]}
            for evaluation, cities in worlds.items()}
    assert not any(held_out(*look) for look in worn[False]) and any(held_out(*look) for look in worn[True])
    assert sum(held_out(a, b) for a in range(8) for b in range(6)) == 12
    assert not set(itertools.chain(*PALETTES[False])) & set(itertools.chain(*PALETTES[True]))
    assert not set(streets.LAYOUTS[False]) & set(streets.LAYOUTS[True])


@pytest.mark.parametrize("layout", [name for names in streets.LAYOUTS.values() for name in names])
@pytest.mark.parametrize("cameras", [2, 3, 8, 32])
def test_streets_lead_both_ways_and_only_evaluation_has_junctions(layout, cameras):
    ways = streets.ways(layout, cameras, np.random.default_rng(3))
    assert set(ways) == set(itertools.product(range(cameras), (0, 1)))
    assert all(end in ways[other] for end, others in ways.items() for other in others)
    turned = any(end[1] == other[1] for end, others in ways.items() for other in others)
    assert turned == (layout in streets.LAYOUTS[True])
    assert (max(map(len, ways.values())) >= 2) == (cameras >= {"tree": 3, "grid": 8}.get(layout, 99))
    with pytest.raises(UserError, match="ring, line"):
        streets.ways("maze", 3, np.random.default_rng(0))


@pytest.mark.parametrize("evaluation", [False, True])
def test_people_walk_on_along_the_streets_and_are_gone_for_more_than_a_tick(evaluation):
    city = City(seed=2, cameras=8, frames=600, evaluation=evaluation)
    truth, hops = city.truth, 0
    for track in np.unique(truth.box_track[truth.box_class == PERSON]):
        at = truth.box_at[truth.box_track == track]
        at = at[np.argsort(at[:, 1])]
        for (before, left), (after, came) in itertools.pairwise(at.tolist()):
            if before != after:
                hops += 1
                assert came - left > 16
                assert after in {camera for side in (0, 1) for camera, _ in city.streets[before, side]}
    assert hops > 10


def test_one_look_is_worn_once_unless_there_are_clones():
    quiet = City(seed=4, cameras=32, frames=400, knobs=CityKnobs(clone_gap_s=1e9, crowd_clone=0.0))
    assert quiet.truth.seen().sum(0).max() == 1 and not quiet.truth.anomalies[..., ANOMALIES.index("clone")].any()


@pytest.mark.parametrize(("script", "kind", "happens"), [
    ("pause", "loiter", False), ("loiter", "loiter", True), ("bag_back", "bag", False), ("bag_left", "bag", True), ("pass", "fall", False)])
def test_decoys_stay_below_the_limit_and_the_real_thing_does_not(script, kind, happens):
    truths = [City(seed, 8, 400, knobs=CityKnobs(scripts={script: 1.0})).truth for seed in (1, 2)]
    share = np.mean([truth.anomalies[..., ANOMALIES.index(kind)].mean() for truth in truths])
    assert (share > 0.1) if happens else share == 0


def test_every_kind_is_there_often_enough_to_learn_and_seldom_enough_to_miss():
    anomalies = np.concatenate([City(seed, 8, 384).truth.anomalies.reshape(-1, 6) for seed in range(100, 108)])
    for kind, share in zip(ANOMALIES, anomalies.mean(0), strict=True):
        assert 0.01 < share < 0.15, kind


def test_streams_of_different_cities_put_together_get_their_own_truth(city):
    other = City(seed=12, cameras=8, frames=300).truth
    assert (together([(city.truth, camera) for camera in range(8)]) == city.truth.anomalies).all()
    mixed = together([(city.truth, 2), (other, 2), (other, 3)])
    seen = [city.truth.seen()[2, :300], other.seen()[2], other.seen()[3]]
    assert mixed.shape == (3, 300, 6) and (mixed[1, :, :4] == other.anomalies[2, :, :4]).all()
    assert (mixed[0, :, 4] == (seen[0] & (seen[1] | seen[2])).any(-1)).all()
    assert together([(other, 2), (other, 2)])[..., 4].mean() > 0.5  # everybody twice
    assert (mixed[..., 5] == (city.truth.meets[2, :300] & other.meets[2] & other.meets[3])).all()


@pytest.mark.parametrize("dressed", [False, True])
def test_pixels_show_what_labels_say(city, dressed):
    wardrobe = Wardrobe.mixed(seed=1) if dressed else Wardrobe.plain()
    truth, shown, looks = city.truth, 0, wardrobe.labels(city.truth.box_look)
    plain = Wardrobe.plain().colour.astype(int)
    for k in np.flatnonzero((truth.box_class == PERSON) & (truth.box_visible == 1) & (truth.box_pose != LIE))[::60]:
        (camera, frame), (x0, y0, x1, y1) = truth.box_at[k], truth.box[k]
        if x0 > 0 and x1 < 96:
            picture, middle = city.draw(camera, frame, wardrobe).astype(int), int((x0 + x1) / 2)
            shirt = picture[int(y0 + 0.4 * (y1 - y0)), middle]
            limit = 14 + city.scenes[camera].grain
            if looks[k][0] >= 0:
                assert np.abs(shirt - plain[looks[k][0], 0, 0]).max() <= limit
                shown += 1
    assert shown > 20
    assert len(np.unique(city.draw(0, 0))) > 30


def test_a_mixed_wardrobe_shows_every_colour_and_no_held_out_pair():
    seen = set()
    for seed in range(12):
        wardrobe = Wardrobe.mixed(seed)
        pairs = [tuple(wardrobe.label[a, b]) for a in range(8) for b in range(6) if not held_out(a, b)]
        assert not any(held_out(*pair) for pair in pairs if min(pair) >= 0)
        assert 3 < sum(min(pair) < 0 for pair in pairs) < 30 and all(max(pair) >= 0 for pair in pairs)
        seen |= {pair[0] for pair in pairs}
        odd = wardrobe.colour[wardrobe.label < 0].astype(int)
        assert np.abs(odd[:, None] - Wardrobe.plain().colour.reshape(-1, 3)).sum(-1).min() >= 70
    assert seen == set(range(-1, 8))
    assert (Wardrobe.plain().labels(np.array([[3, 2], [-1, -1]])) == [[3, 2], [-1, -1]]).all()


@pytest.mark.parametrize(("cameras", "frames"), [(1, 10), (33, 10), (4, 0)])
def test_a_city_of_no_size_is_refused(cameras, frames):
    with pytest.raises(UserError, match="2 to 32 cameras"):
        City(0, cameras, frames)
