"""The scheduler: every frame accounted for after every event, in order per stream, the urgent first, nobody starved, files never dropped from."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.serving.schedule import events
from streamingvlm.serving.schedule.events import (
    CAUSES,
    BatchDone,
    BatchLost,
    Drop,
    FrameArrived,
    Run,
    Settings,
    StreamAdded,
    StreamRemoved,
    Timer,
    Wake,
)
from streamingvlm.serving.schedule.latency_curve import LatencyCurve
from streamingvlm.serving.schedule.scheduler import Limits, Scheduler

CURVE = {1: 10.0, 8: 29.0}
FORBIDDEN = {"torch", "asyncio", "ray", "threading", "time", "multiprocessing", "random"}


def scheduler(curve=CURVE, largest=16, **limits) -> Scheduler:
    return Scheduler(LatencyCurve(curve, largest), Limits(**{"utilisation": None, **limits}))


def frame(stream: str, number: int, at: float) -> FrameArrived:
    return FrameArrived(stream, number, at, at, at)


class Machine:
    """A server in virtual time that takes `run_ms(frames)`; keeps what was decided and dropped."""

    def __init__(self, scheduler: Scheduler, run_ms=lambda n: 7.3 + 2.7 * n):
        self.scheduler, self.run_ms = scheduler, run_ms
        self.now, self.done, self.wake = 0.0, None, None
        self.decided, self.dropped, self.other, self.sizes = defaultdict(list), defaultdict(list), [], []

    def tell(self, event, now: float) -> None:
        """Everything that is due before `now`, then the event."""
        while True:
            due = min([at for at in (self.done and self.done[0], self.wake) if at is not None and at <= now], default=None)
            if due is None:
                break
            if self.done and self.done[0] == due:
                (_, run, ms), self.done = self.done, None
                for one in run.frames:
                    self.decided[one.stream].append((one.frame_id, due - one.released_at))
                self._act(self.scheduler.handle(BatchDone(run.batch_id, ms), due), due)
            else:
                self.wake = None
                self._act(self.scheduler.handle(Timer(), due), due)
        if event is not None:
            self._act(self.scheduler.handle(event, now), now)

    def _act(self, actions, now: float) -> None:
        for action in actions:
            if isinstance(action, Run):
                assert self.done is None
                ms = self.run_ms(len(action.frames))
                self.done = (now + ms / 1e3, action, ms)
                self.sizes.append(len(action.frames))
            elif isinstance(action, Wake):
                assert action.at >= now
                self.wake = action.at
            elif isinstance(action, Drop):
                self.dropped[action.frame.stream].append((action.frame.frame_id, action.cause))
            else:
                self.other.append(action)


def cameras(machine: Machine, fps: dict[str, float], seconds: float, phase=lambda k: 0.013 * k) -> None:
    due = sorted((phase(k) + n / rate, name, n) for k, (name, rate) in enumerate(fps.items()) for n in range(int(seconds * rate)))
    for at, name, n in due:
        machine.tell(frame(name, n, at), at)
    machine.tell(None, seconds + 60)


def test_it_imports_no_clock_no_loop_and_no_model():
    code = ("import sys, streamingvlm.serving.schedule.scheduler as s; print([m for m in ('torch', 'asyncio', 'ray', 'numpy') if m in sys.modules]);"
            "print([n for n in sys.modules if n.startswith('streamingvlm.')]); from streamingvlm.serving.live import service;"
            "from streamingvlm.serving.api import app; print('torch' in sys.modules)")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0] == "[]"
    assert told[2] == "False", "the service's own process neither: 4 s until its page is up, and 260 MB"
    for module in ast.literal_eval(told[1]):
        tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & FORBIDDEN, module


# Any schedule at all

NAMES = st.sampled_from(["a", "b", "c", "file"])
STEP = st.one_of(
    st.tuples(st.just("frames"), NAMES, st.integers(1, 12)),
    st.tuples(st.just("add"), NAMES, st.sampled_from(events.MODES)),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("lost"), NAMES, st.integers(0, 5), st.sampled_from(CAUSES)),
    st.tuples(st.just("done"), st.floats(0, 300)),
    st.tuples(st.just("crash")),
    st.tuples(st.just("curve"), st.floats(1, 300)),
    st.tuples(st.just("unknown"), st.integers(-1, 999)),
    st.tuples(st.just("alarm"), NAMES, st.floats(-1, 5)),
    st.tuples(st.just("timer")))
CLOCK = st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.1, 1.5, -0.5])


class Ledger:
    """Keeps its own books beside the scheduler's and compares them after every step."""

    def __init__(self, core: Scheduler):
        self.core, self.now, self.number = core, 0.0, 0
        self.sent = self.decided = self.dropped = 0
        self.run: Run | None = None
        self.answered: list[int] = []

    def tell(self, event) -> None:
        for action in self.core.handle(event, self.now):
            if isinstance(action, Run):
                assert self.run is None and len({one.stream for one in action.frames}) == len(action.frames) <= self.core.curve.largest
                self.run = action
            elif isinstance(action, Drop):
                assert action.cause in CAUSES and (action.frame.stream != "file" or action.cause == "admission")
                self.dropped += 1
                self.answered.append(action.frame.frame_id)
            elif isinstance(action, events.Closed):
                assert action.counts.balanced and action.counts.in_flight == 0

    def frames(self, stream, count) -> None:
        for _ in range(count):
            self.number += 1
            self.sent += 1
            self.tell(FrameArrived(stream, self.number, 0.0, 0.0, self.now))

    def add(self, stream, mode) -> None:
        self.tell(StreamAdded(stream, Settings(mode=mode, live=stream != "file", queue=4)))

    def remove(self, stream) -> None:
        self.tell(StreamRemoved(stream))

    def lost(self, stream, count, cause) -> None:
        self.sent += count
        self.dropped += count
        self.tell(events.FrameLost(stream, count, cause))

    def done(self, ms) -> None:
        run, self.run = self.run, None
        if run:
            self.decided += len(run.frames)
            self.answered += [one.frame_id for one in run.frames]
            self.tell(BatchDone(run.batch_id, ms))

    def crash(self) -> None:
        run, self.run = self.run, None
        if run:
            self.tell(BatchLost(run.batch_id))

    def curve(self, ms) -> None:
        self.tell(events.CurveChanged(((1, ms), (4, 2 * ms))))

    def unknown(self, number) -> None:
        if self.run is None or self.run.batch_id != number:
            self.tell(BatchDone(number, 5.0))

    def alarm(self, stream, severity) -> None:
        self.tell(events.Alarm(stream, severity))

    def timer(self) -> None:
        self.tell(Timer())

    def check(self) -> None:
        for name in self.core._streams:
            counts = self.core.counts(name)
            assert counts.balanced and min(counts.waiting, counts.running) >= 0
            assert counts.waiting <= 5 or name == "file", "a queue of 4 and one that came back from a lost batch"
        total = self.core.totals()
        assert total.balanced
        assert (total.frames_in, total.decided, sum(total.dropped.values())) == (self.sent, self.decided, self.dropped)
        assert self.run or not total.waiting or self.core._wake is not None, "frames wait, nothing runs, nobody will look again"
        assert len(set(self.answered)) == len(self.answered), "a frame was answered twice"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(STEP, CLOCK), max_size=80), st.integers(1, 5))
def test_every_frame_is_accounted_for_whatever_happens(steps, largest):
    ledger = Ledger(scheduler(largest=largest))
    for (kind, *rest), passed in steps:
        ledger.now += passed
        getattr(ledger, kind)(*rest)
        ledger.check()


def test_decisions_of_a_stream_come_in_order():
    machine = Machine(scheduler())
    for k in range(6):
        machine.tell(StreamAdded(f"s{k}", Settings(mode=events.MODES[k % 3])), 0.0)
    cameras(machine, {f"s{k}": 5.0 + 4 * k for k in range(6)}, 20)
    for name in machine.decided:
        ids = [number for number, _ in machine.decided[name]]
        assert ids == sorted(ids) and len(ids) > 50
    assert machine.scheduler.totals().in_flight == 0


def test_a_machine_that_keeps_up_drops_nothing_and_stays_within_the_budget():
    machine = Machine(scheduler())
    for k in range(8):
        machine.tell(StreamAdded(f"s{k}", Settings()), 0.0)
    cameras(machine, {f"s{k}": 8.0 for k in range(8)}, 20)
    assert not any(machine.dropped.values())
    assert max(late for told in machine.decided.values() for _, late in told) < 0.060
    assert machine.scheduler.totals().late == 0


@pytest.mark.parametrize("mode", events.MODES)
def test_overload_drops_by_the_mode_and_shares_the_machine(mode):
    machine = Machine(scheduler(), run_ms=lambda n: 20.0 + 20.0 * n)
    for k in range(12):  # 96 frames a second for a machine that does 33 within the budget
        machine.tell(StreamAdded(f"s{k}", Settings(mode=mode)), 0.0)
    cameras(machine, {f"s{k}": 8.0 for k in range(12)}, 30)
    causes = Counter(cause for told in machine.dropped.values() for _, cause in told)
    assert set(causes) == {"auto": {"superseded", "late_for_batch"}, "freshest": {"superseded"}, "every_frame": {"stale"}}[mode] or (
        mode == "every_frame" and set(causes) <= {"stale", "buffer_full"}) or (mode == "auto" and set(causes) == {"superseded"})
    done = [len(machine.decided[f"s{k}"]) for k in range(12)]
    assert min(done) > 0.8 * max(done)
    if mode != "every_frame":
        worst = max(late for told in machine.decided.values() for _, late in told)
        assert worst < 0.5, "the newest frame of each is at most an interval and two batches old"


def test_a_flood_from_one_stream_starves_nobody():
    machine = Machine(scheduler(), run_ms=lambda n: 10.0 + 10.0 * n)
    machine.tell(StreamAdded("flood", Settings(mode="every_frame", priority=1.0, queue=64)), 0.0)
    for name in ("x", "y"):
        machine.tell(StreamAdded(name, Settings(mode="every_frame")), 0.0)
    cameras(machine, {"flood": 500.0, "x": 8.0, "y": 8.0}, 10)
    assert len(machine.decided["x"]) == len(machine.decided["y"]) == 80
    assert max(late for name in "xy" for _, late in machine.decided[name]) < 0.2


def test_many_streams_of_high_priority_do_not_starve_a_low_one():
    machine = Machine(scheduler(largest=2), run_ms=lambda n: 50.0 * n)
    for k in range(8):
        machine.tell(StreamAdded(f"s{k}", Settings(priority=float(k > 0))), 0.0)
    cameras(machine, {f"s{k}": 8.0 for k in range(8)}, 30)
    assert len(machine.decided["s0"]) > 30, "a turn every starve_ms and what it takes to get it"
    assert min(len(machine.decided[f"s{k}"]) for k in range(1, 8)) > len(machine.decided["s0"])


def test_what_the_model_said_goes_first_for_a_while():
    core = scheduler(largest=1, alarm_s=5.0)
    for name in "abc":
        core.handle(StreamAdded(name, Settings(mode="every_frame")), 0.0)
    [run] = core.handle(frame("a", 0, 0.0), 0.0)
    for name in "bc":
        core.handle(frame(name, 0, 0.0), 0.0)
    core.handle(events.Alarm("c", 2.0), 0.0)
    core.handle(events.Alarm("c", 1.0), 0.0)
    [run] = core.handle(BatchDone(run.batch_id, 10.0), 0.01)
    assert run.frames[0].stream == "c"
    [run] = core.handle(BatchDone(run.batch_id, 10.0), 0.02)
    assert run.frames[0].stream == "b"
    for name in "bc":
        core.handle(frame(name, 1, 6.0), 6.0)
    [run, *_] = core.handle(BatchDone(run.batch_id, 10.0), 6.1)
    assert run.frames[0].stream == "b", "the alarm is over and b's frame came first"


def test_a_file_is_never_dropped_from_but_held_back():
    machine = Machine(scheduler(), run_ms=lambda n: 300.0)
    core = machine.scheduler
    machine.tell(StreamAdded("film", Settings(live=False, queue=3)), 0.0)
    for k in range(4):
        machine.tell(StreamAdded(f"s{k}", Settings(mode="freshest")), 0.0)
    sent, most = 0, 0
    for step in range(3000):
        now = step / 100
        for k in range(4):
            if step % 12 == k:
                machine.tell(frame(f"s{k}", step, now), now)
        while core.wants("film"):
            machine.tell(frame("film", sent, now), now)
            sent += 1
        most = max(most, core.counts("film").waiting)
    machine.tell(None, 1000.0)
    assert sent > 60 and most == 3 and not machine.dropped["film"]
    assert [number for number, _ in machine.decided["film"]] == list(range(sent))


def test_it_waits_no_longer_than_it_saves_and_never_past_a_deadline():
    machine = Machine(scheduler({1: 20.0, 2: 21.0, 8: 27.0}, longest_wait_ms=50.0), run_ms=lambda n: 19.0 + n)
    core = machine.scheduler
    for name in "ab":
        core.handle(StreamAdded(name, Settings(mode="every_frame")), 0.0)
    cameras(machine, {"a": 8.0, "b": 8.0}, 5, phase=lambda k: 0.005 * k)
    assert machine.sizes == [1, 1] + [2] * 39, "a's frame waits for b's as soon as it knows that there will be one"

    core = scheduler({1: 20.0, 2: 21.0, 8: 27.0}, longest_wait_ms=50.0)
    for name in "ab":
        core.handle(StreamAdded(name, Settings(mode="every_frame")), 0.0)
    for n in range(4):
        [run] = core.handle(frame("b", n, n / 8), n / 8)
        core.handle(BatchDone(run.batch_id, 20.0), n / 8 + 0.02)
    now = 0.5 - 0.005
    [wake] = core.handle(frame("a", 0, now), now)
    assert now + 0.005 < wake.at <= now + 0.015
    [run] = core.handle(Timer(), wake.at)  # b never came
    assert [one.stream for one in run.frames] == ["a"]
    core.handle(BatchDone(run.batch_id, 20.0), now + 0.1)
    now += 0.1
    core.handle(StreamAdded("tight", Settings(mode="every_frame", budget_ms=22.0)), now)
    [run] = core.handle(frame("tight", 0, now), now)
    assert [one.stream for one in run.frames] == ["tight"], "its budget leaves no time to wait"


def test_a_full_machine_admits_no_more_and_says_why():
    core = scheduler(utilisation=0.9)
    told = [core.handle(StreamAdded(f"s{k}", Settings()), 0.0)[0] for k in range(60)]
    refused = [one for one in told if isinstance(one, events.Refused)]
    assert 20 < 60 - len(refused) < 45 and "remove a stream" in refused[0].reason
    assert isinstance(core.handle(StreamAdded("s0", Settings()), 0.0)[0], events.Refused), "two of one name"
    [drop] = core.handle(frame(refused[0].stream, 0, 0.0), 0.0)
    assert drop.cause == "admission" and core.totals().dropped["admission"] == 1
    core.handle(StreamRemoved("s0"), 0.0)
    assert core.handle(StreamAdded("again", Settings()), 0.0) == [events.Admitted("again")]


def test_a_stream_added_again_under_its_name_is_a_new_one():
    core = scheduler()
    core.handle(StreamAdded("a", Settings()), 0.0)
    [run] = core.handle(frame("a", 0, 0.0), 0.0)
    core.handle(frame("a", 1, 0.01), 0.01)
    [drop] = core.handle(StreamRemoved("a"), 0.02)
    assert drop == Drop(frame("a", 1, 0.01), "admission")
    core.handle(StreamAdded("a", Settings()), 0.03)
    assert core.handle(frame("a", 2, 0.04), 0.04) == [] and core.counts("a").frames_in == 1 and core.totals().frames_in == 3
    closed, run = core.handle(BatchDone(run.batch_id, 10.0), 0.05)
    assert closed.counts.decided == 1 and closed.counts.frames_in == 2 and run.frames == (frame("a", 2, 0.04),)
    core.handle(StreamRemoved("a"), 0.06)
    [closed] = core.handle(BatchLost(run.batch_id), 0.07)[-1:]
    assert closed.counts.dropped["admission"] == 1 and core.totals().balanced


def test_a_clock_that_goes_back_or_a_time_that_is_none_stops_nothing():
    core = scheduler()
    core.handle(StreamAdded("a", Settings(mode="every_frame")), 100.0)
    [run] = core.handle(frame("a", 0, 100.0), 100.0)
    core.handle(frame("a", 1, 3.0), 3.0)
    core.handle(FrameArrived("a", 2, 0.0, 0.0, float("nan")), float("nan"))
    for n in (3, 4):
        core.handle(FrameArrived("a", n, 0.0, 0.0, 1e9), 4.0)
    ids = []
    for _ in range(5):
        actions = core.handle(BatchDone(run.batch_id, 1.0), 5.0)
        runs = [one for one in actions if isinstance(one, Run)]
        ids += [one.frames[0].frame_id for one in runs] + [one.frame.frame_id for one in actions if isinstance(one, Drop)]
        run = runs[0] if runs else run
    assert sorted(ids) == [1, 2, 3, 4] and core.counts("a").in_flight == 0


def test_a_stream_that_fell_silent_holds_nobody_up():
    machine = Machine(scheduler(longest_wait_ms=20.0))
    for name in ("dead", "a"):
        machine.tell(StreamAdded(name, Settings()), 0.0)
    cameras(machine, {"dead": 8.0, "a": 8.0}, 3, phase=lambda k: 0.004 * (1 - k))
    late = []
    for n in range(40):
        at = 100 + n / 8
        machine.tell(frame("a", 100 + n, at), at)
    machine.tell(None, 200.0)
    late = [one for number, one in machine.decided["a"] if number >= 100]
    assert max(late) <= 0.0101 + 0.020


def test_the_curve_learns_a_slower_machine_forgives_one_freeze_and_recovers():
    curve = LatencyCurve(CURVE, 16)
    before = curve.ms(8)
    curve.learn(8, 6000.0)
    assert curve.ms(8) < 1.5 * before
    for _ in range(60):
        curve.learn(8, 90.0)
    assert 85 < curve.ms(8) < 120 and curve.ms(16) > 100, "other sizes follow"
    for _ in range(60):
        curve.learn(4, 18.0)
    assert curve.ms(8) < 1.6 * before, "and recover without being tried"
    for nothing in (0.0, -1.0, float("nan"), float("inf")):
        curve.learn(8, nothing)
    assert curve.ms(1) > 0 and curve.largest_within(0.001) == 0


def eight_wait(core: Scheduler, budget_ms: float) -> Run:
    """Nine streams: one frame runs, which is returned, and one of each of the others waits."""
    for k in range(9):
        core.handle(StreamAdded(f"s{k}", Settings(budget_ms=budget_ms)), 0.0)
    [run] = core.handle(frame("s8", 0, 0.0), 0.0)
    for k in range(8):
        core.handle(frame(f"s{k}", 0, 0.0), 0.0)
    return run


def test_a_curve_with_a_step_is_run_in_batches_that_fit_it():
    core = scheduler({4: 20.0, 5: 200.0, 8: 210.0}, largest=8)
    run = eight_wait(core, 1000.0)
    [run] = core.handle(BatchDone(run.batch_id, 20.0), 0.02)
    assert len(run.frames) == 4


def test_replicas_that_come_make_larger_batches_of_slow_frames():
    core = scheduler({1: 90.0, 8: 720.0}, largest=8)  # a frame takes more than half the budget: it runs alone
    run = eight_wait(core, 120.0)
    [run] = core.handle(BatchDone(run.batch_id, 90.0), 0.01)
    assert len(run.frames) == 1
    assert core.handle(events.CurveChanged(((1, 90.0), (4, 90.0), (5, 180.0), (8, 180.0))), 0.01) == []
    [run] = core.handle(BatchDone(run.batch_id, 90.0), 0.02)
    assert len(run.frames) == 4


def test_patient_streams_make_no_batch_that_an_impatient_one_cannot_wait_for():
    machine = Machine(scheduler({1: 10.0, 32: 320.0}, largest=32), run_ms=lambda n: 10.0 * n)
    for k in range(30):
        machine.tell(StreamAdded(f"s{k}", Settings(budget_ms=3000.0, stale_ms=9000.0)), 0.0)
    machine.tell(StreamAdded("urgent", Settings(budget_ms=100.0, priority=1.0)), 0.0)
    cameras(machine, {"urgent": 5.0, **{f"s{k}": 3.0 for k in range(30)}}, 20)
    assert max(machine.sizes) <= 5 and len(machine.decided["urgent"]) == 100
    assert max(late for _, late in machine.decided["urgent"]) <= 0.1


def test_a_budget_that_nothing_can_keep_still_gets_decisions():
    machine = Machine(scheduler({1: 300.0, 8: 400.0}), run_ms=lambda n: 290.0 + 10 * n)
    for k in range(6):
        machine.tell(StreamAdded(f"s{k}", Settings(budget_ms=50.0)), 0.0)
    cameras(machine, {f"s{k}": 8.0 for k in range(6)}, 20)
    assert min(len(machine.decided[f"s{k}"]) for k in range(6)) > 40 and max(machine.sizes) == 6


def test_frames_that_all_come_at_one_instant_are_decided_in_their_order():
    core, order = scheduler(), []
    for name in "abc":
        core.handle(StreamAdded(name, Settings(mode="every_frame", queue=50)), 1.0)
    actions = [action for n in range(20) for name in "abc" for action in core.handle(frame(name, n, 1.0), 1.0)]
    while runs := [action for action in actions if isinstance(action, Run)]:
        order += runs[0].frames
        actions = core.handle(BatchDone(runs[0].batch_id, 0.0), 1.0)
    assert len(order) == 60 and all([one.frame_id for one in order if one.stream == name] == list(range(20)) for name in "abc")
    assert all(action.at > 1.0 for action in actions if isinstance(action, Wake))


def test_an_alarm_that_never_ends_leaves_the_others_their_turns():
    machine = Machine(scheduler(largest=1), run_ms=lambda n: 60.0)
    for k in range(4):
        machine.tell(StreamAdded(f"s{k}", Settings()), 0.0)
    for n in range(8 * 20):
        for k in range(4):
            machine.tell(frame(f"s{k}", n, n / 8 + k / 50), n / 8 + k / 50)
        machine.tell(events.Alarm("s0", 9.0), n / 8 + 0.09)
    machine.tell(None, 100.0)
    done = {name: len(told) for name, told in machine.decided.items()}
    assert done["s0"] > 1.5 * max(done[f"s{k}"] for k in (1, 2, 3)) and min(done.values()) > 20


def test_what_the_scheduler_holds_does_not_grow_with_streams_that_came_and_went():
    core, now = scheduler(), 0.0
    for k in range(500):
        now += 0.05
        core.handle(StreamAdded(f"s{k}", Settings()), now)
        for action in core.handle(frame(f"s{k}", 0, now), now):
            if isinstance(action, Run):
                core.handle(BatchDone(action.batch_id, 10.0), now + 0.01)
        core.handle(StreamRemoved(f"s{k}"), now + 0.02)
    assert core.totals().frames_in == core.totals().decided == 500
    assert not core._streams and not core._ready and not core._budgets and core._batch is None and len(core._expected) < 5
