"""Replicas behind the decider's messages: streams keep their homes, move without a trace, and outlive the replica they were on."""

from __future__ import annotations

import asyncio
import multiprocessing

import numpy as np
import pytest
import torch

from streamingvlm.base.records import Frame, Stamp
from streamingvlm.models.multicamera.memory import MemoryKnobs
from streamingvlm.models.multicamera.network import Knobs, Network
from streamingvlm.serving.live.analyst import Analyst
from streamingvlm.serving.replicas import fleet as fleets
from streamingvlm.serving.replicas.replica import Replica
from streamingvlm.serving.slots import Slots
from streamingvlm.worlds.alarms import Rule
from streamingvlm.worlds.city.world import ANOMALIES, City

RULES = dict.fromkeys(ANOMALIES, Rule(0.5, 0.5))


@pytest.fixture(scope="module", params=["answer", "others"])
def network(request):
    torch.set_num_threads(1)
    torch.manual_seed(3)
    return Network(Knobs(memory=MemoryKnobs(holds=request.param)))


@pytest.fixture(scope="module")
def pictures():
    """[F, B, H, W, C] of two cameras."""
    city = City(41, cameras=2, frames=22)
    return np.stack([city.render(camera) for camera in range(2)], 1)


def frames(pictures, k):
    return [Frame(Stamp("ab"[b], k, 0, k / 8, 1000 + k / 8, "sender", 1000 + k / 8, 8.0), pictures[k, b]) for b in range(2)]


def replica(network):
    made = Replica.__new__(Replica)
    made.analyst, made.commentator, made.decided = Analyst(network, RULES), None, 0
    return made


def without_ms(rows):
    return [{key: value for key, value in row.items() if key != "ms"} for row in rows]


@pytest.mark.parametrize("at", [9, 17])  # with a look that was brought and not yet told, and without
def test_handed_over_streams_go_on_bit_exactly(network, pictures, at):
    alone, first, second = (replica(network) for _ in range(3))
    for k in range(len(pictures)):
        if k == at:
            for stream in "ab":
                second.take(stream, first.hand_over(stream))
            assert not first.analyst.streams
            first = second
        assert without_ms(first.decide(frames(pictures, k))[0]) == without_ms(alone.decide(frames(pictures, k))[0])


class Simple:
    """A replica whose state of a stream is how many of its frames it has decided."""

    def __init__(self):
        self.counts, self.dead, self.stopped = {}, asyncio.Event(), False

    async def call(self, method, *arguments):
        await asyncio.sleep(0)
        if self.dead.is_set():  # nobody is there to say so
            await asyncio.Event().wait()
        return getattr(self, method)(*arguments)

    async def gone(self):
        await self.dead.wait()

    async def stop(self):
        self.stopped = True

    def curve(self):
        return {1: 1.0, 16: 2.0}

    def decide(self, frames):
        for frame in frames:
            self.counts[frame.stamp.stream] = self.counts.get(frame.stamp.stream, 0) + 1
        return [{"stream": f.stamp.stream, "count": self.counts[f.stamp.stream]} for f in frames], 1.0

    def hand_over(self, stream):
        return self.counts.pop(stream)

    def take(self, stream, told):
        self.counts[stream] = told

    def forget(self, stream):
        self.counts.pop(stream, None)


class Bench:
    """A fleet of simple replicas, and its messages."""

    def __init__(self):
        self.made, self.messages = [], asyncio.Queue()
        self.pools = [Slots.make(multiprocessing.get_context("spawn"), 16, (2, 2, 3))]
        self.fleet = fleets.Fleet(self.make, self.pools, self.messages.put_nowait, fleets.Knobs(minimum=1, maximum=4))

    async def make(self, name):
        self.made.append(Simple())
        return self.made[-1]

    async def run(self, number, streams):
        self.fleet.send(("run", number, [(Stamp(s, number, 0, 0.0, 0.0, "sender", 0.0, 8.0), 0, k) for k, s in enumerate(streams)]))
        kind, batch, answers, _ = await asyncio.wait_for(self.messages.get(), 10)
        assert (kind, batch, [answer["stream"] for answer in answers]) == ("done", number, list(streams))
        return [answer["count"] for answer in answers]


def played(scene, monkeypatch):
    async def whole():
        monkeypatch.setattr(fleets, "EVERY_S", 3600.0)  # the scene scales
        bench = Bench()
        bench.fleet.start(asyncio.get_running_loop())
        assert (await asyncio.wait_for(bench.messages.get(), 10)) == ("ready", {1: 1.0, 16: 2.0})
        await scene(bench)
        await bench.fleet.stop()
        assert all(far.stopped for far in bench.made)

    asyncio.run(whole())


def test_streams_move_and_nobody_loses_count(monkeypatch):
    async def scene(bench):
        for number, wanted in enumerate((1, 3, 2, 4, 1, 2)):
            await bench.fleet.scale(wanted)
            assert await bench.run(number, "abcdefg") == [number + 1] * 7
            homes = [len(bench.fleet._at(name)) for name in bench.fleet.replicas]
            assert len(homes) == wanted and max(homes) - min(homes) <= (number > 0)
        assert bench.fleet.lost == 0 and bench.fleet.moved > 0

    played(scene, monkeypatch)


def test_a_killed_replica_loses_its_streams_memory_and_no_frame(monkeypatch):
    async def scene(bench):
        await bench.run(0, "abcd")
        await bench.fleet.scale(2)
        bench.made[0].dead.set()
        counts = await bench.run(1, "abcd")
        assert sorted(counts) == [1, 1, 2, 2]  # two begin anew, two go on
        assert bench.fleet.counts() == {"running": 1, "wanted": 1, "deaths": 1, "moved": 2, "lost": 2}
        bench.made[1].dead.set()  # the last one: the batch waits for another
        bench.fleet.send(("run", 2, [(Stamp("a", 2, 0, 0.0, 0.0, "sender", 0.0, 8.0), 0, 0)]))
        await asyncio.sleep(0.05)
        assert bench.messages.empty()
        await bench.fleet.scale(1)
        assert (await asyncio.wait_for(bench.messages.get(), 10))[0] == "done"

    played(scene, monkeypatch)


def test_who_dies_over_a_move_takes_nothing_along(monkeypatch):
    async def scene(bench):
        await bench.run(0, "abcd")
        await bench.fleet.scale(3)
        bench.made[1].take = bench.made[2].take = lambda stream, told: 1 / 0
        await bench.fleet.scale(4)  # a stream each
        await bench.fleet._drain("replica-0")  # one of the others, and the next, fall over what they are handed
        assert sorted(await bench.run(1, "abcd")) == [1, 1, 2, 2] and "replica-0" not in bench.fleet.replicas

    played(scene, monkeypatch)


def test_the_scheduler_hears_what_so_many_replicas_take(monkeypatch):
    assert fleets.shared({1: 10.0, 4: 16.0}, 2) == {1: 10.0, 2: 10.0, 3: 12.0, 4: 12.0, 5: 14.0, 6: 14.0, 7: 16.0, 8: 16.0}

    async def scene(bench):
        await bench.fleet.scale(2)
        bench.fleet._tell_curve()
        kind, curve = bench.messages.get_nowait()
        assert kind == "curve" and curve[2] == 1.0 and curve[32] == 2.0
        bench.fleet._tell_curve()
        assert bench.messages.empty(), "once is enough"

    played(scene, monkeypatch)


def test_what_is_late_or_forgotten_is_in_the_load(monkeypatch):
    async def scene(bench):
        await bench.run(0, "abcdefghi")
        bench.fleet.watch(30, [50.0] * 90 + [900.0] * 10)
        load = bench.fleet.load(fleets.time.monotonic())
        assert (load.streams, load.queued) == (9, 30) and load.late_p95_ms > 800
        assert bench.fleet.observe(load, 0.0) == 3
        bench.fleet.send(("forget", "a"))
        await bench.run(1, "b")
        assert "a" not in bench.fleet.homes

    played(scene, monkeypatch)
