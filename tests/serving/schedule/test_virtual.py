"""Virtual time: open loop, memory flat, a frozen server seen; what was recorded live is replayed to the same decisions and drops."""

from __future__ import annotations

import gc
import os
import random

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from streamingvlm.base.errors import UserError
from streamingvlm.media import arrivals
from streamingvlm.media.arrivals import Arrival, Lost, Ran, Recorder
from streamingvlm.serving.schedule import virtual
from streamingvlm.serving.schedule.events import BatchDone, Drop, FrameArrived, FrameLost, Run, Settings, StreamAdded, Timer, Wake
from streamingvlm.serving.schedule.latencies import Latencies
from streamingvlm.serving.schedule.replay import Recorded, replay
from streamingvlm.serving.schedule.scheduler import Scheduler
from streamingvlm.serving.schedule.virtual import Cameras, RunTimes, cameras, drive, from_trace, frozen

RNG = np.random.default_rng(0)
MEASURED = {1: RNG.gamma(50, 10 / 50, 200), 8: RNG.gamma(50, 29 / 50, 200)}


def scheduler(largest: int = 32) -> Scheduler:
    return virtual.scheduler(RunTimes(MEASURED), largest)


def go(streams: int, seconds: float, run_ms=None, **made):
    return drive(scheduler(), cameras(Cameras(streams, seconds, **made)), run_ms or RunTimes(MEASURED))


def test_eight_cameras_within_the_budget_and_every_frame_counted():
    outcome = go(8, 120)
    assert outcome.counts.frames_in == outcome.counts.decided == outcome.goodput == len(outcome.decided) == 8 * 960
    assert 10 < outcome.covered.percentile(50) < outcome.covered.percentile(99) < 120 and outcome.over == 0
    assert outcome.batches > 960 and 0.2 < outcome.busy_s / outcome.seconds < 0.95


@pytest.mark.parametrize("mode", ["auto", "every_frame", "freshest"])
def test_a_server_frozen_for_six_seconds_shows_in_p99(mode):
    stopped = go(3, 300, frozen(RunTimes(MEASURED), 100.0, 6.0), settings=Settings(mode=mode))
    assert stopped.covered.percentile(99) > 2000, "two of a hundred frames were due while it stood still"
    assert stopped.covered.percentile(100) > 5900 and stopped.counts.balanced and stopped.counts.in_flight == 0
    assert stopped.covered.percentile(97) < 120 and stopped.counts.decided > 0.97 * 7200, "and it went on behind it"


def test_nothing_is_kept_of_a_frame_that_was_answered():
    core, alive = scheduler(), []

    def counted(told):
        for number, one in enumerate(told):
            if number % 2000 == 1999:
                gc.collect()
                alive.append(len(gc.get_objects()) + len(core._expected))
            yield one

    outcome = drive(core, counted(cameras(Cameras(10, 120))), frozen(lambda size, now: 30 + 5.0 * size, 10.0, 1.0))
    assert outcome.counts.frames_in == 9600 and outcome.counts.dropped["superseded"] > 100
    assert max(alive[1:]) < alive[0] + 300


def test_run_times_are_drawn_between_the_measured_sizes_and_never_backwards():
    times = RunTimes(MEASURED, seed=1)
    medians = [float(np.median([times(size, 0.0) for _ in range(400)])) for size in (1, 2, 4, 8, 16)]
    assert medians == sorted(medians) and medians[0] == pytest.approx(10, abs=0.5) and medians[-1] == pytest.approx(29 + 8 * 19 / 7, abs=2)
    with pytest.raises(ValueError):
        RunTimes({1: []})


class Noisy:
    """A live driver, as far as the scheduler can tell: its timers are late, its loop is busy, its batches take what they take. Keeps a log."""

    def __init__(self, core, recorder: Recorder | None, seed: int):
        self.core, self.recorder, self.rng, self.log = core, recorder, random.Random(seed), []

    def go(self, told) -> list:
        pending = sorted(((at + self.rng.expovariate(500), event) for at, event in told), key=lambda one: one[0])
        done = wake = None
        while pending or done or wake is not None:
            due = [(pending[0][0], 0)] if pending else []
            due += [(done[0], 1)] if done else []
            due += [(wake, 2)] if wake is not None else []
            now, which = min(due)
            if which == 0:
                event = pending.pop(0)[1]
            elif which == 1:
                event, done = BatchDone(done[1].batch_id, done[2]), None
                if self.recorder:
                    self.recorder.add(Ran(len(self.ran.frames), event.run_ms, now))
            else:
                event, wake = Timer(), None
            for action in self.core.handle(event, now):
                self.log.append(action)
                if isinstance(action, Run):
                    self.ran, ms = action, self.rng.gammavariate(20, 6.0 * len(action.frames) / 20) + 8
                    done = (now + ms / 1e3 + self.rng.expovariate(1000), action, ms)
                elif isinstance(action, Wake):
                    wake = action.at + self.rng.expovariate(300)
        return self.log


def trace_of(streams: int = 20, seconds: int = 20, seed: int = 5) -> list:
    """Arrivals over a bad network, a lost frame now and then, one camera that reconnects."""
    rng, rows = random.Random(seed), []
    for k in range(streams):
        for n in range(8 * seconds):
            captured, epoch = 1000 + k * 0.017 + n / 8, int(k == 3 and n > 80)
            row = Arrival(f"s{k}", epoch, n, n / 8 - 10 * epoch, captured, captured + 0.02 + rng.expovariate(20))
            rows.append(Lost(row.stream, 1, "decode_error", row.arrived_at) if rng.random() < 0.02 else row)
    return sorted(rows, key=lambda row: row.arrived_at if isinstance(row, Arrival) else row.at)


def test_what_was_done_live_is_done_again_by_a_replay(tmp_path):
    path = tmp_path / "live.jsonl.gz"
    with Recorder(path) as recorder:
        live = Noisy(Recorded(scheduler(8), recorder), recorder, seed=9).go(list(from_trace(trace_of(), Settings(), 0.1)))
    again = [action for *_, actions in replay(arrivals.read(path), scheduler(8)) for action in actions]
    assert again == live
    assert sum(isinstance(action, Drop) for action in live) > 100 < sum(isinstance(action, Run) for action in live)
    assert len({action.cause for action in live if isinstance(action, Drop)}) > 1
    assert sum(isinstance(row, Ran) for row in arrivals.read(path)) == sum(isinstance(action, Run) for action in live)


def test_arrivals_and_run_times_alone_decide_the_same_twice_in_virtual_time(tmp_path):
    path, rows, logs = tmp_path / "arrivals.jsonl.gz", trace_of(), []
    with Recorder(path) as recorder:
        for row in rows:
            recorder.add(row)
    assert list(arrivals.read(path)) == rows
    for source in (rows, arrivals.read(path)):
        log = []
        outcome = drive(scheduler(8), from_trace(source, Settings(), 0.2), RunTimes(MEASURED, seed=3),
                      lambda frames, at, log=log: log.append((frames, at)), lambda frame, cause, log=log: log.append((frame, cause)))
        logs.append(log)
        assert outcome.counts.frames_in == len(rows) and outcome.counts.balanced
        assert outcome.counts.dropped["decode_error"] == sum(isinstance(row, Lost) for row in rows)
    assert logs[0] == logs[1]


def test_a_trace_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "trace.jsonl.gz"
    with pytest.raises(RuntimeError), Recorder(path) as recorder:
        recorder.add(Lost("a", 1, "stale", 0.0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with Recorder(path) as recorder:
        for k in range(1000):
            recorder.add(Arrival("a", 0, k, k / 3, 1e9 + k / 7, k / 11))
    whole = path.read_bytes()
    assert len(list(arrivals.read(path))) == 1000 and len(whole) < 30_000
    for damaged in (whole[:-100], b"", b"nothing of the kind", whole[:500] + b"\0\0\0" + whole[503:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="record it again"):
            list(arrivals.read(path))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here: run `python -m pytest tests/serving/schedule` on Linux")
def test_a_full_disk_ends_a_recording_in_one_sentence_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(b"the one before")
    (tmp_path / f".{path.name}.{os.getpid()}.part").symlink_to("/dev/full")
    with Recorder(path) as recorder, pytest.raises(UserError, match="No space left on device"):
        for k in range(100_000):
            recorder.add(Arrival("a", 0, k, k / 3, 1e9 + k / 7, k / 11))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"the one before"


def test_a_trace_in_real_time_keeps_its_distances():
    now, slept = [50.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    rows = [Arrival("a", 0, 0, 0.0, 0.0, 7.0), Lost("a", 1, "stale", 7.5), Arrival("a", 0, 1, 1.0, 1.0, 9.0)]
    again = list(arrivals.in_real_time(rows, lambda: now[0], sleep, speed=2.0))
    assert [again[0].arrived_at, again[1].at, again[2].arrived_at] == [50.0, 50.25, 51.0] and slept == [0.25, 0.75]


def test_frames_lost_on_the_way_in_are_counted_with_their_causes():
    rows = [Arrival("a", 0, n, n / 8, 0.0, 10 + n / 8) for n in range(8)] + [Arrival("a", 0, 99, 0.0, 0.0, 12.0), Lost("a", 3, "subsampled", 12.1)]
    told = list(from_trace(rows, Settings(), 0.0))
    assert told[0] == (10.0, StreamAdded("a", Settings())) and [type(event) for _, event in told].count(FrameArrived) == 8
    assert [event for _, event in told if isinstance(event, FrameLost)] == [FrameLost("a", 1, "stale"), FrameLost("a", 3, "subsampled")]


def test_latencies_merge_and_survive_a_file():
    a, b, values = Latencies(), Latencies(), np.random.default_rng(1).gamma(3, 20, 50_000)
    for value in values[:20_000]:
        a.record(value)
    for value in values[20_000:]:
        b.record(value)
    a.merge(b)
    assert len(a) == 50_000
    for q in (50, 95, 99, 100):
        assert a.percentile(q) == pytest.approx(np.percentile(values, q), rel=0.003)
    assert HdrHistogram.decode(a.encode()).get_total_count() == 50_000
    a.record(float("inf"))
    a.record(-1.0)
    assert a.percentile(100) == pytest.approx(3_600_000, rel=0.001) and Latencies().percentile(99) == 0
