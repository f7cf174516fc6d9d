"""What Prometheus scrapes: it reads, counts are the service's own, two services do not mix, and what is gone is gone here too."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving_fake import PICTURE, FakeService, alarm, comment, decision, running

from streamingvlm.serving.api.telemetry import Telemetry
from streamingvlm.serving.store import Store


def scraped(telemetry: Telemetry) -> dict[tuple[str, frozenset], float]:
    families = text_string_to_metric_families(telemetry.text()[0].decode())
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def value(samples: dict, name: str, **labels: str) -> float | None:
    return samples.get((f"streamingvlm_{name}", frozenset(labels.items())))


def spoken(store: Store | None = None) -> tuple[FakeService, Telemetry]:
    service = FakeService(store)
    telemetry = Telemetry(service)
    for frame, release_ms in enumerate((15.0, 110.0, 119.0, 121.0)):
        record = decision("door", frame)
        service.results.publish(record | {"ms": record["ms"] | {"release": release_ms, "capture": release_ms + 1000}})
    service.results.publish(decision("door", 2))
    service.results.publish(comment("door", 1))
    service.results.publish(alarm("door", 4), PICTURE)
    service.results.publish(alarm("door", 5, "off"))
    return service, telemetry


def test_counts_and_latencies_are_those_of_the_service():
    service, telemetry = spoken()
    samples = scraped(telemetry)
    for camera in service.cameras():
        name, frames = camera["id"], camera["frames"]
        assert value(samples, "frames_in_total", stream=name) == frames["in"]
        parts = [value(samples, "frames_decided_total", stream=name), value(samples, "frames_in_flight", stream=name),
                 *(value(samples, "frames_dropped_total", stream=name, cause=cause) for cause in frames["dropped"])]
        assert sum(parts) == frames["in"], "conservation can be seen from outside"
        states = [value(samples, "camera_state", stream=name, state=state) for state in ("live", "stalled", "failed")]
        assert states == [1, 0, 0]
    assert value(samples, "release_to_decision_seconds_bucket", stream="door", le="0.12") == 3
    assert value(samples, "release_to_decision_seconds_count", stream="door") == 4
    assert value(samples, "release_to_decision_seconds_sum", stream="door") == pytest.approx(0.365)
    assert value(samples, "capture_to_decision_seconds_bucket", stream="door", le="1.0") == 0
    assert value(samples, "results_late_total", stream="door") == 1 and value(samples, "alarms_total", stream="door", kind="fall") == 1
    assert value(samples, "records_total", type="decision") == 4 and value(samples, "records_total", type="alarm") == 2
    assert value(samples, "batch_size_bucket", le="1.0") == 0 and value(samples, "batch_size_bucket", le="2.0") == 7
    assert value(samples, "batch_size_sum") == 14 and value(samples, "process_up", process="analytics") == 1


def test_replicas_are_counted_where_there_are_some():
    service, telemetry = spoken()
    assert not [name for name, _ in scraped(telemetry) if "replica" in name]
    told = service.stats() | {"replicas": {"running": 3, "wanted": 2, "deaths": 1, "moved": 7, "lost": 4}}
    service.stats = lambda: told
    samples = scraped(telemetry)
    names = ("replicas", "replicas_wanted", "replica_deaths_total", "streams_moved_total", "streams_lost_total")
    assert [value(samples, name) for name in names] == [3, 2, 1, 7, 4]


def test_a_frame_that_was_lost_counts_until_a_newer_one_is_decided():
    service, telemetry = spoken()
    service.results.lost("door", {"release": 4500.0, "capture": 5500.0})
    samples = scraped(telemetry)
    assert value(samples, "release_to_decision_seconds_count", stream="door") == 5
    assert value(samples, "release_to_decision_seconds_bucket", stream="door", le="2.0") == 4
    assert value(samples, "capture_to_decision_seconds_sum", stream="door") == pytest.approx(0.365 + 4 + 5.5)


def test_two_services_do_not_mix_and_a_camera_that_went_leaves_no_series():
    service, telemetry = spoken()
    other = Telemetry(FakeService())
    assert value(scraped(other), "release_to_decision_seconds_count", stream="door") is None
    asyncio.run(service.remove("door"))
    assert not [key for key in scraped(telemetry) if ("stream", "door") in key[1]]
    service.watched["door"] = service._camera("door")
    service.results.publish(decision("door", 0))
    assert value(scraped(telemetry), "release_to_decision_seconds_count", stream="door") == 1, "and begins anew"


def test_the_store_and_slow_readers_show(tmp_path):
    store = Store(str(tmp_path / "records.sqlite"))

    async def run():
        service, telemetry = spoken(store)
        service.results.listen(store.write)
        async with service.results.subscribe(), running(service) as (client, _):
            for frame in range(10, 15):
                service.results.publish(decision("yard", frame))
            await asyncio.to_thread(store.flush)
            samples = scraped(telemetry)
            assert value(samples, "results_readers") == 1 and value(samples, "results_waiting") == 5
            assert value(samples, "store_written_total") == 5 and value(samples, "store_lost_total") == 0
            answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
            assert answer.headers["content-type"].startswith("application/openmetrics-text") and answer.text.endswith("# EOF\n")
            assert (await client.get("/metrics")).headers["content-type"].startswith("text/plain")
            assert (await client.get("/healthz")).json()["store"]["written"] == 5

    asyncio.run(run())
    store.close()


def test_prometheus_own_tool_finds_nothing_to_say():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: `apt-get install -y --no-install-recommends prometheus`, then run this file again")
    said = subprocess.run([promtool, "check", "metrics"], check=False, input=spoken()[1].text()[0], capture_output=True, timeout=30)
    assert said.returncode == 0 and not said.stderr, said.stderr.decode()
