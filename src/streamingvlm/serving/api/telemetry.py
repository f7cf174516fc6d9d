"""What Prometheus may scrape of one service. A registry of its own, so that two services in one process do not mix. Units are Prometheus' own.

    text, kind = Telemetry(service).text()

Counts come from the service at the moment of a scrape; only latencies are noted one by one, from the records that are published and of
frames that were lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from streamingvlm.media.sources.protocol import STATES
from streamingvlm.serving.results import TYPES, Record
from streamingvlm.serving.service import Service

LATENCY_S = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)  # with the usual budget, 0.12, among them
CLOCKS = {"release": "From a frame's release by its jitter buffer to its decision, or to a newer one's where it was lost.",
          "capture": "From a frame's capture, by the camera's clock or else the receiver's, to the same."}
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Telemetry:
    def __init__(self, service: Service):
        self.service, self.registry = service, CollectorRegistry()
        self.latency = {clock: Histogram(f"streamingvlm_{clock}_to_decision_seconds", told, ["stream"], registry=self.registry, buckets=LATENCY_S)
                        for clock, told in CLOCKS.items()}
        self.records = Counter("streamingvlm_records", "Records published.", ["type"], registry=self.registry)
        self.alarms = Counter("streamingvlm_alarms", "Alarms that went on.", ["stream", "kind"], registry=self.registry)
        self.of_type = {type_: self.records.labels(type_) for type_ in TYPES}
        self.of_stream: dict[tuple[str, str], Histogram] = {}
        self.raised: set[tuple[str, str]] = set()
        self.registry.register(self)
        service.results.listen(self.note, self.observe)

    def note(self, record: Record, picture: object) -> None:
        self.of_type[record["type"]].inc()
        if record["type"] == "alarm" and record["state"] == "on":
            self.raised.add((record["stream"], record["kind"]))
            self.alarms.labels(record["stream"], record["kind"]).inc()
        elif record["type"] == "decision":
            self.observe(record["stream"], record["ms"])

    def observe(self, stream: str, ms: Mapping[str, float]) -> None:
        for clock, family in self.latency.items():
            if clock in ms:
                if (clock, stream) not in self.of_stream:
                    self.of_stream[clock, stream] = family.labels(stream)
                self.of_stream[clock, stream].observe(ms[clock] / 1000)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """(metrics, their content type) as the scraper likes them best."""
        self._forget()
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def _forget(self) -> None:
        """Series of cameras that were taken away end with them."""
        here = {camera["id"] for camera in self.service.cameras()}
        for clock, stream in [key for key in self.of_stream if key[1] not in here]:
            self.latency[clock].remove(stream)
            del self.of_stream[clock, stream]
        for stream, kind in [key for key in self.raised if key[0] not in here]:
            self.alarms.remove(stream, kind)
            self.raised.discard((stream, kind))

    def collect(self) -> Iterator[Metric]:
        cameras, stats, results = self.service.cameras(), self.service.stats(), self.service.results
        yield from _frames(cameras)
        state = GaugeMetricFamily("streamingvlm_camera_state", "1 for the state that a camera is in.", labels=["stream", "state"])
        for camera in cameras:
            for name in STATES:
                state.add_metric([camera["id"], name], camera["state"] == name)
        yield state
        late = CounterMetricFamily("streamingvlm_results_late", "Results behind a newer one, not published.", labels=["stream"])
        for stream, count in list(results.late.items()):
            late.add_metric([stream], count)
        yield late
        depths = results.depths()
        yield GaugeMetricFamily("streamingvlm_results_readers", "Who reads results as they come.", len(depths))
        yield GaugeMetricFamily("streamingvlm_results_waiting", "Records that wait for the slowest reader.", max(depths, default=0))
        yield _batches(stats["batch"])
        yield from _processes(stats)
        if stats.get("replicas"):
            yield from _replicas(stats["replicas"])
        if self.service.store:
            yield from _store(self.service.store.status())


def _frames(cameras: list[dict]) -> Iterator[Metric]:
    came = CounterMetricFamily("streamingvlm_frames_in", "Frames that came.", labels=["stream"])
    decided = CounterMetricFamily("streamingvlm_frames_decided", "Frames with a decision.", labels=["stream"])
    dropped = CounterMetricFamily("streamingvlm_frames_dropped", "Frames let go, by cause.", labels=["stream", "cause"])
    flying = GaugeMetricFamily("streamingvlm_frames_in_flight", "Frames on their way to a decision.", labels=["stream"])
    for camera in cameras:
        frames = camera["frames"]
        came.add_metric([camera["id"]], frames["in"])
        decided.add_metric([camera["id"]], frames["decided"])
        flying.add_metric([camera["id"]], frames["in_flight"])
        for cause, count in frames["dropped"].items():
            dropped.add_metric([camera["id"], cause], count)
    yield from (came, decided, dropped, flying)


def _batches(batch: dict) -> Metric:
    sizes = {int(size): count for size, count in batch.get("sizes", {}).items()}
    buckets = [(str(float(edge)), sum(count for size, count in sizes.items() if size <= edge)) for edge in BATCHES]
    buckets.append(("+Inf", sum(sizes.values())))
    return HistogramMetricFamily("streamingvlm_batch_size", "Frames in one forward.", buckets, sum(size * count for size, count in sizes.items()))


def _processes(stats: dict) -> Iterator[Metric]:
    alive = GaugeMetricFamily("streamingvlm_process_up", "1 while a process of the service lives.", labels=["process"])
    restarts = CounterMetricFamily("streamingvlm_process_restarts", "Times it was started again.", labels=["process"])
    for name, process in stats["processes"].items():
        alive.add_metric([name], process["alive"])
        restarts.add_metric([name], process.get("restarts", 0))
    yield from (alive, restarts)
    yield GaugeMetricFamily("streamingvlm_uptime_seconds", "Since the service started.", stats["uptime_s"])


def _replicas(counts: dict) -> Iterator[Metric]:
    yield GaugeMetricFamily("streamingvlm_replicas", "Replicas of the model that run.", counts["running"])
    yield GaugeMetricFamily("streamingvlm_replicas_wanted", "Replicas that the streams need.", counts["wanted"])
    yield CounterMetricFamily("streamingvlm_replica_deaths", "Replicas that ended unasked.", counts["deaths"])
    yield CounterMetricFamily("streamingvlm_streams_moved", "Hand-overs of a stream from one replica to another.", counts["moved"])
    yield CounterMetricFamily("streamingvlm_streams_lost", "Streams that began anew because their replica died.", counts["lost"])


def _store(status: dict) -> Iterator[Metric]:
    yield CounterMetricFamily("streamingvlm_store_written", "Records stored.", status["written"])
    yield CounterMetricFamily("streamingvlm_store_lost", "Records that could not be stored.", status["lost"])
    yield GaugeMetricFamily("streamingvlm_store_waiting", "Records that wait to be stored.", status["waiting"])
