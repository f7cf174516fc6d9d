"""What holds for a camera that is added: however names and addresses are changed about, nothing is shown or kept that was not, without a word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.serving import cameras
from streamingvlm.serving.policies import Policies, Policy, place
from streamingvlm.serving.privacy.redactor import HIDE
from streamingvlm.serving.service import Conflict

SERVICE = cameras.Service(keep_s=1000)
A, B = "rtsp://u:p@10.0.0.7/main", "https://b.example/b.m3u8"


def watched(told: dict, usual: dict | None = None) -> Policies:
    policies = Policies(SERVICE, usual or {})
    policies.taken(cameras.parse_camera({"name": "gate", "url": A} | told))
    return policies


def added(policies: Policies, name: str, url: str) -> tuple[str, float]:
    camera = cameras.parse_camera(policies.completed({"name": name, "url": url}))
    policies.taken(camera)
    return camera.privacy.hide, camera.keep.records_s


@pytest.mark.parametrize("other", [A, "rtsp://10.0.0.7:8554/sub?x=1", "rtsp://v@10.0.0.7./main", "http://[::ffff:10.0.0.7]/a.m3u8"])
def test_another_name_or_another_address_shows_no_more(other):
    strict = {"privacy": {"hide": "everything"}}
    assert added(watched(strict), "yard", other) == ("everything", 1000), "its place, whatever stands behind it"
    policies = watched(strict)
    assert added(policies, "Gate", B) == ("everything", 1000) and added(policies, "yard", B) == ("everything", 1000), "its name, and then that place"
    lax = watched({"privacy": {"hide": "nothing"}})
    assert added(lax, "gate", A) == ("nothing", 1000), "as it was"
    assert added(lax, "yard", other)[0] == "people" and added(lax, "gate", B)[0] == "people", "what somebody said of one is not said of another"


def test_records_neither_stay_longer_nor_go_sooner_than_was_said():
    long, short = watched({"keep": {"records_s": 5000}}), watched({"keep": {"records_s": 60}})
    assert added(long, "gate", A)[1] == 5000 and added(long, "yard", A)[1] == 1000 and added(short, "gate", B)[1] == 60
    for policies, name, url in ((long, "gate", B), (watched({"keep": {"records_s": 60}}), "yard", A)):
        with pytest.raises(Conflict, match="`keep`"):
            policies.completed({"name": name, "url": url})
        assert policies.completed({"name": name, "url": url, "keep": {"records_s": 7}})["keep"]["records_s"] == 7


POLICY = st.fixed_dictionaries({"privacy": st.fixed_dictionaries({"hide": st.sampled_from(list(HIDE)), "hold_s": st.integers(0, 9)}),
                                "keep": st.fixed_dictionaries({"records_s": st.sampled_from([10, 1000, 3000])})})
STEP = st.tuples(st.sampled_from(["gate", "yard", "roof"]), st.sampled_from([A, A + "2", B, "push:"]), st.none() | POLICY)


@settings(max_examples=60)
@given(POLICY, st.lists(STEP, max_size=12))
def test_whatever_comes_and_goes_nothing_is_relaxed_without_a_word(usual, steps):
    policies = Policies(SERVICE, usual)
    of_name, of_place, pairs = {}, {}, {}
    for name, url, said in steps:
        try:
            camera = cameras.parse_camera(policies.completed({"name": name, "url": url} | (said or {})))
        except Conflict:
            assert said is None
            continue
        policy = Policy.of(SERVICE, camera)
        if said is None and pairs.get(name) != url:
            for held in (policies.least, of_name.get(name), of_place.get(place(url) or None)):
                assert held is None or held.strictest(policy) == policy
        if said is None:
            assert policy.keep == of_name.get(name, policies.least).keep, "what lies there is not deleted either"
        policies.taken(camera)
        of_name[name], of_place[place(url)], pairs[name] = policy, policy, url


def test_there_is_an_end_to_what_is_remembered(monkeypatch):
    monkeypatch.setattr("streamingvlm.serving.policies.MOST", 2)
    policies = watched({"privacy": {"hide": "everything"}})
    with pytest.raises(Conflict, match="start the service again"):
        policies.completed({"name": "yard", "url": B})
