"""One camera as the service knows it: its state, how late its decisions are, what was last seen and said. Bookkeeping; knows no process.

Times in seconds since 1970, latencies in milliseconds. `row` is what the page, the API and Prometheus are told.
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np
from hdrh.histogram import HdrHistogram

from streamingvlm.base.records import Stamp
from streamingvlm.media.sources.protocol import Change, redacted
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.privacy.redactor import Redacted
from streamingvlm.serving.schedule.events import Counts

LONGEST_US = 3_600_000_000
QUANTILES = (50, 95, 99)


class Latency:
    """A distribution of latencies, to three digits, in constant memory. Read in numpy: hdrh's own loops take 2 ms for three percentiles and 40 for
    all that was recorded, and this is asked of each camera, in the loop that the scheduler runs in, whenever a page looks."""

    def __init__(self):
        self.histogram = HdrHistogram(1, LONGEST_US, 3)
        self.counts = np.ctypeslib.as_array(self.histogram.counts)  # the memory itself

    @classmethod
    def together(cls, several: Iterable[Latency]) -> Latency:
        made = cls()
        for one in several:
            made.histogram.add(one.histogram)
        return made

    def add(self, ms: float) -> None:
        self.histogram.record_value(int(min(max(ms * 1e3, 1), LONGEST_US)))

    def percentiles(self) -> dict[str, float]:
        """{} before the first one."""
        if not self.histogram.get_total_count():
            return {}
        targets = [self.histogram.get_target_count_at_percentile(q) for q in QUANTILES]
        found = _longest_us(len(self.counts), self.histogram.sub_bucket_half_count)[np.searchsorted(np.cumsum(self.counts), targets)]
        return {f"p{q}": round(us / 1e3, 2) for q, us in zip(QUANTILES, found.tolist(), strict=True)}

    def buckets(self, width: float = 1.25) -> list[list[float]]:
        """[[ms up to which, how many], ...]: steps of `width` from 1 ms to the longest."""
        edges, longest = [1.0], self.histogram.get_max_value() / 1e3
        while edges[-1] < longest:
            edges.append(edges[-1] * width)
        at = np.flatnonzero(self.counts)
        ms = _longest_us(len(self.counts), self.histogram.sub_bucket_half_count)[at] / 1e3
        counts = np.bincount(np.searchsorted(edges, ms).clip(max=len(edges) - 1), self.counts[at], len(edges))
        return [[round(edge, 2), int(count)] for edge, count in zip(edges, counts, strict=True)]


def numbers(counts: Counts, release: Latency, capture: Latency, late: int, batches: Mapping[int, int]) -> dict:
    """How late and how much, in one JSON object. `late`: results that were not published; `batches`: how many forwards of which size."""
    runs = sum(batches.values())
    return {"latency_ms": {"release": release.percentiles(), "capture": capture.percentiles()}, "buckets": release.buckets(),
            "frames": {"in": counts.frames_in, "decided": counts.decided, "in_flight": counts.in_flight, "dropped": dict(counts.dropped)},
            "late": late, "batch": {"count": runs, "mean": round(sum(size * n for size, n in batches.items()) / max(runs, 1), 2),
                      "sizes": {str(size): n for size, n in sorted(batches.items())}}}


@functools.cache
def _longest_us(places: int, half: int) -> np.ndarray:
    """The longest latency that each place of an HdrHistogram's counts stands for: `half` places for each doubling, the first two of a microsecond."""
    place = np.arange(places)
    power = np.maximum(place // half - 1, 0)
    return ((np.where(place < half, place, place % half + half) + 1) << power) - 1


class Watched:
    """`now`: since when, in seconds since 1970."""

    def __init__(self, camera: Camera, now: float):
        self.camera = camera
        self.state, self.reason, self.since, self.epoch = "connecting", "", now, 0
        self.fps, self.width, self.height = 0.0, 0, 0
        self.release, self.capture = Latency(), Latency()
        self.dropped_before: Counter[str] = Counter()
        self.action, self.alarms, self.comment, self.sentences = "", [], "", 0
        self.alarms_waiting: deque[dict] = deque()  # records that are not published yet
        self.preview: tuple[dict, Redacted] | None = None
        self.frame, self.pts_s = 0, 0.0  # of the newest decision
        self.wanted_until = 0.0

    @property
    def kind(self) -> str:
        head = self.camera.url.partition(":")[0].lower()
        return "hls" if head in {"http", "https"} else head if ":" in self.camera.url else "file"

    def changed(self, change: Change) -> list[dict]:
        """Take over a new state -> its record, and one for each alarm that ends with a connection."""
        self.state, self.reason, self.since, self.epoch = change.state, change.reason, change.at, change.epoch
        state = {"type": "state", "stream": self.camera.name, "state": change.state, "reason": change.reason, "epoch": change.epoch}
        if change.state not in {"waiting", "refused", "ended", "failed"}:
            return [state]
        over = [{"type": "alarm", "stream": self.camera.name, "kind": kind, "state": "off", "frame": self.frame, "pts_s": self.pts_s, "score": 0.0,
                 "picture": None} for kind in self.alarms]
        self.action, self.alarms, self.fps = "", [], 0.0
        return [state, *over]

    def decided(self, stamp: Stamp, answer: dict, timed: dict[str, float]) -> list[dict]:
        """Take over an answer -> its record, and one for each alarm that begins or ends. `timed`: ms `wait`, `release` and `capture`."""
        self.release.add(timed["release"])
        self.capture.add(timed["capture"])
        self.fps = stamp.fps or self.fps
        decision = {"type": "decision", "frame": stamp.index} | {key: value for key, value in asdict(stamp).items() if key not in {"index", "fps"}}
        decision |= answer | {"ms": answer["ms"] | {key: round(ms, 2) for key, ms in timed.items()}, "dropped_before": dict(self.dropped_before)}
        self.dropped_before.clear()
        edges = [(kind, "on") for kind in answer["alarms"] if kind not in self.alarms]
        edges += [(kind, "off") for kind in self.alarms if kind not in answer["alarms"]]
        self.action, self.alarms, self.frame, self.pts_s = answer["action"], answer["alarms"], stamp.index, stamp.pts_s
        return [decision, *({"type": "alarm", "stream": stamp.stream, "kind": kind, "state": state, "frame": stamp.index, "pts_s": stamp.pts_s,
                             "score": answer["anomalies"][kind], "picture": None} for kind, state in edges)]

    def row(self, counts: Counts) -> dict:
        """The camera in one JSON object."""
        told = self.camera.model_dump(include={"delay_s", "priority", "mode"})
        frames = {"in": counts.frames_in, "decided": counts.decided, "in_flight": counts.in_flight,
                  "dropped": {cause: count for cause, count in counts.dropped.items() if count}}
        latency = self.release.percentiles() | {f"capture_{q}": ms for q, ms in self.capture.percentiles().items()}
        return {"id": self.camera.name, "url": redacted(self.camera.url), "kind": self.kind, "state": self.state, "reason": self.reason,
                "since": self.since, "fps": round(self.fps, 2), "width": self.width, "height": self.height, **told, "frames": frames,
                "latency_ms": latency, "action": self.action, "alarms": list(self.alarms), "comment": self.comment}
