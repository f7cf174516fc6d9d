"""What a token's bearer may do to a service, asked without a door."""

from __future__ import annotations

import asyncio

import pytest
from serving_fake import FakeService

from streamingvlm.serving import cameras
from streamingvlm.serving.access import needs
from streamingvlm.serving.access.audit import Entry
from streamingvlm.serving.access.gate import Denied, Gate, Grant
from streamingvlm.serving.access.scoped import Scoped

OPERATOR, BOSS = Grant("1", "operator", "operate", None), Grant("2", "boss", "administer", None)


@pytest.fixture
def gate(tmp_path):
    return Gate(cameras.Access(tokens=str(tmp_path / "access.sqlite")))


@pytest.mark.parametrize("policy", [{"privacy": {"hide": "nothing"}}, {"keep": {"records_s": 0}}, {"privacy": None}])
def test_only_who_administers_says_what_is_hidden_and_kept(gate, policy):
    service, camera = FakeService(), {"name": "roof", "url": "push:"} | policy
    with pytest.raises(Denied, match="administer"):
        asyncio.run(Scoped(service, gate, OPERATOR, set()).add(camera))
    assert "roof" not in service.watched
    asyncio.run(Scoped(service, gate, BOSS, set()).add(camera))
    assert "roof" in service.watched


def test_the_totals_of_one_camera_are_its_own(gate):
    of_door = Grant("4", "guard", "read", frozenset({"door"}))
    assert Scoped(FakeService(), gate, of_door, set()).stats()["of"] == ["door"]
    assert Scoped(FakeService(), gate, OPERATOR, set()).stats()["frames"]["in"] == 20


def test_a_live_session_ends_with_its_token_however_many_came_and_went(gate):
    service, other = FakeService(), Grant("3", "other", "operate", None)
    gate.valid = lambda grant: grant.id != OPERATOR.id
    mine, theirs = Scoped(service, gate, OPERATOR, set()), Scoped(service, gate, other, set())

    async def run():
        await mine.offer("door", "mine")
        for _ in range(5000):
            resource, _ = await theirs.offer("yard", "theirs")
            await theirs.hang_up(resource)
        assert len(gate._over) == 1
        await theirs.offer("yard", "theirs")
        await gate.refresh()
        await asyncio.gather(*gate._ending)
        assert set(service.sessions) == {"yard~s1"}

    asyncio.run(run())


def test_one_that_cannot_be_ended_holds_up_no_other_and_is_tried_again(gate, caplog):
    ended, tries, never = [], [], asyncio.Event()

    async def fails(_):
        tries.append(None)
        if len(tries) == 1:
            raise RuntimeError("the reader was just starting")
        ended.append("fails")

    async def run():
        gate.valid = lambda grant: False
        gate.with_end(OPERATOR, "hangs", "1", lambda _: never.wait())
        gate.with_end(OPERATOR, "fails", "1", fails)
        for _ in range(2):
            await asyncio.wait_for(gate.refresh(), 10)
            await asyncio.sleep(0)
        never.set()
        await asyncio.gather(*gate._ending)
        assert ended == ["fails"] and not gate._over and "just starting" in caplog.text

    asyncio.run(run())


def test_a_token_that_is_over_stays_so_where_the_clock_is_set_back(gate):
    now = [1000.0]
    gate.clock = gate.audit.clock = lambda: now[0]
    text = gate.tokens.add("guard", "read", None, until=2000.0, now=0.0)
    asked = needs.of("GET", "/api/cameras")

    async def may() -> bool:
        try:
            return bool(await gate.admit(text, asked, "192.0.2.7"))
        except Denied:
            return False

    async def run():
        await gate.refresh()
        assert await may()
        now[0] += 3600
        assert not await may()
        now[0] -= 3600
        assert not await may()
        gate.audit.note(Entry("guard", "read", "", "GET /", "", "200"))
        now[0] -= 3600
        gate.audit.flush(everything=False)
        assert not gate.audit._folded, "and what was seen does not wait until it has caught up"

    asyncio.run(run())


def test_a_fault_while_tokens_are_read_ends_no_watch_over_them(gate, monkeypatch, caplog):
    monkeypatch.setattr("streamingvlm.serving.access.gate.REFRESH_S", 0.001)
    faults = iter([ZeroDivisionError(), None])
    read = gate.tokens.rows

    def rows():
        if (fault := next(faults, None)) is not None:
            raise fault
        return read()

    async def run():
        gate.tokens.rows = rows
        async with gate.running(), asyncio.timeout(20):
            turn = gate._turn
            while gate._turn is turn:
                await asyncio.sleep(0.005)

    asyncio.run(run())
    assert "goes on in a second" in caplog.text
