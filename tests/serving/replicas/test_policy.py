"""How many replicas: within the limits, back to the least, and calm in an hour of noise."""

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.serving.replicas.policy import Knobs, Load, Memory, step

LOADS = st.builds(Load, st.integers(0, 64), st.integers(0, 500), st.floats(0, 5000))


def told(knobs, loads, running=1, memory=None):
    """The replicas wanted, second by second."""
    memory, wanted = memory or Memory(), []
    for second, load in enumerate(loads):
        running, memory = step(knobs, load, running, memory, float(second))
        wanted.append(running)
    return wanted


@given(st.lists(LOADS, max_size=80), st.integers(1, 9))
def test_whatever_comes_the_limits_hold_and_it_ends_at_the_least(loads, running):
    knobs = Knobs(minimum=2, maximum=7, hold_s=10)
    wanted = told(knobs, [*loads, *[Load()] * 24], running)
    assert all(2 <= n <= 7 for n in wanted)
    assert wanted[-1] == 2


@given(st.lists(LOADS, min_size=1, max_size=80))
def test_a_replica_that_came_stays_for_the_hold(loads):
    wanted = told(Knobs(hold_s=15), loads)
    ups = [k for k in range(1, len(wanted)) if wanted[k] > wanted[k - 1]]
    assert all(min(wanted[k : k + 15]) >= wanted[k] for k in ups)


@given(st.integers(0, 64), st.integers(0, 64))
def test_more_streams_never_need_fewer(a, b):
    few, many = (step(Knobs(), Load(n), 1, Memory(), 0.0)[0] for n in sorted((a, b)))
    assert few <= many


def test_what_was_too_few_is_remembered():
    late = [Load(6, 0, 400.0)] * 8 + [Load(6, 0, 20.0)] * 300  # three replicas make it punctual; that is no reason to take one away
    wanted = told(Knobs(streams=4), late)
    assert wanted[0] == 2 and wanted[-1] == 2  # within its time to settle, a new replica is not judged
    wanted = told(Knobs(streams=4, settle_s=2), late)
    assert set(wanted[10:]) == {3}
    slow = [replace(load, ready=1) for load in late[:8]] + late[8:]  # the second is not there yet: nothing is known of what two can do
    assert told(Knobs(streams=4, settle_s=2), slow)[-1] == 2


def hour(seed, carries=4.0):
    """An hour of streams that come and go around a slow wave; lateness and queue of a queueing system with noise -> wanted, needed, a second each."""
    chance, knobs = random.Random(seed), Knobs(streams=carries, maximum=12)
    running, memory, wanted, needed = 1, Memory(), [], []
    for second in range(3600):
        level = 12 + 9 * math.sin(2 * math.pi * second / 1800)
        streams = max(0, round(level) + (chance.random() < 0.1) - (chance.random() < 0.1))
        used = streams / (running * carries)
        late = chance.lognormvariate(math.log(50), 0.25) * (1 if used <= 1 else 1 + 6 * (used - 1))
        running, memory = step(knobs, Load(streams, round(streams * max(0.3, 8 * (used - 1))), late), running, memory, float(second))
        wanted.append(running)
        needed.append(min(max(math.ceil(max(level, 0) / carries - 1e-9), 1), 12))
    return wanted, needed


@pytest.mark.parametrize("seed", range(6))
def test_an_hour_of_noise(seed):
    wanted, needed = hour(seed)
    near = sum(abs(a - b) <= 1 for a, b in zip(wanted, needed, strict=True)) / len(wanted)
    assert near >= 0.95
    turns = [b - a for a, b in itertools.pairwise(wanted) if a != b]
    reversals = sum(a * b < 0 for a, b in itertools.pairwise(turns))
    assert reversals <= 5, turns  # the wave turns four times in the hour, once more for its beginning
