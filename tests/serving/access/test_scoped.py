"""What a token's bearer may do to a service, asked without a door."""

from __future__ import annotations

import asyncio

import pytest
from serving_fake import FakeService

from streamingvlm.serving import cameras
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
        asyncio.run(Scoped(service, gate, OPERATOR).add(camera))
    assert "roof" not in service.watched
    asyncio.run(Scoped(service, gate, BOSS).add(camera))
    assert "roof" in service.watched
