"""The description of the API, taken at its word: requests are made from it, good ones and bad ones, and each answer is what it says. A few of each
operation in the suite, always the same; `make fuzz` makes as many as it is told, new ones each time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from serving_fake import JPEG, FakeService, alarm, comment, decision

from streamingvlm.serving import cameras
from streamingvlm.serving.access.audit import Entry
from streamingvlm.serving.api.app import application
from streamingvlm.serving.privacy.redactor import stored
from streamingvlm.serving.results import Results
from streamingvlm.serving.store import Store

HERE = {"Host": "localhost"}
BEYOND = (b"is in the future", b"Say what is to be deleted")  # sentences about what a schema cannot express
FIRST = 1000  # the number before the first record
KNOWN = {"name": ("door", "yard", str(FIRST + 3)), "resource": ("s1",)}  # the third record is an alarm with a picture


class Checking(FakeService):
    """Takes cameras as the real one does, and always has the same two."""

    async def add(self, camera: dict) -> dict:
        told = cameras.parse_camera(camera)
        return self._camera(told.name)

    async def remove(self, name: str) -> None:
        self._known(name)


@schemathesis.serializer("application/sdp")
def sdp(context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    service = Checking(Store(str(tmp_path_factory.mktemp("fuzz") / "records.sqlite")))
    service.results = Results(first=FIRST)
    service.results.listen(service.store.write)
    for frame in range(3):
        service.results.publish(decision("door", frame))
        service.results.publish(comment("yard", frame))
        service.results.publish(alarm("door", frame), stored(JPEG))
        service.results.publish({"type": "state", "stream": "yard", "state": "stalled", "reason": "No picture for 3 s.", "epoch": 2})
    entries = [{"at": 1.0, "who": "eve", "role": "read", "address": "::1", "what": "GET /", "cameras": "", "status": "200"}]
    app = application(service)
    assert set(entries[0]) - {"at"} == {*Entry.__dataclass_fields__} - {"at"}
    app.state.gate = SimpleNamespace(audit=SimpleNamespace(rows=lambda *asked: entries))
    yield schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=HERE)
    service.store.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_an_answer_is_what_the_description_says_and_never_a_fault(served, mode, pytestconfig):
    many = pytestconfig.getoption("examples")
    told = settings(max_examples=many or 3, derandomize=not many, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck))
    tried = 0
    for operation in (found.ok() for found in served.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
            continue  # no text is a wrong name
        told(given(operation.as_strategy(generation_mode=mode), st.booleans(), st.data())(holds))()
        tried += 1
    assert tried >= (17 if mode is GenerationMode.POSITIVE else 8), tried


def holds(case, known: bool, data) -> None:
    if known:  # else a camera that there is would hardly be met
        case.path_parameters = {key: data.draw(st.sampled_from(KNOWN[key])) for key in case.path_parameters}
    answer = case.call(headers=HERE)
    assert b"Traceback" not in answer.content and b"site-packages" not in answer.content
    if answer.status_code != 422 or not any(said in answer.content for said in BEYOND):
        case.validate_response(answer)
