"""The service: cameras come and go, their frames are decided within a budget, what comes of it is published. Runs in one asyncio loop.

    service = Service(settings.service, model, commentator); await service.start(); service.begin(settings.cameras)
    await service.add({"name": "gate", "url": "rtsp://..."}); service.cameras()
    await service.stop()

It joins four parts that know nothing of each other: `readers` (processes that read cameras), `decider` (the scheduler and the model's process),
`speech` (the commentator) and `results`. Knows neither HTTP nor gRPC: they sit on top of it (`serving.api`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Comment, Stamp
from streamingvlm.media.arrivals import Recorder, Row
from streamingvlm.media.sources import kinds
from streamingvlm.media.sources.protocol import Change, Picture
from streamingvlm.serving import cameras as config
from streamingvlm.serving import slots
from streamingvlm.serving.governance import card
from streamingvlm.serving.intake.own import KINDS
from streamingvlm.serving.intake.pushed import unpacked
from streamingvlm.serving.live.camera import Latency, Watched, numbers
from streamingvlm.serving.live.decider import Decider, Engine, Told
from streamingvlm.serving.live.readers import Heard, Readers
from streamingvlm.serving.live.speech import Speech
from streamingvlm.serving.policies import Policies, Policy
from streamingvlm.serving.privacy.redactor import Redacted
from streamingvlm.serving.results import Results
from streamingvlm.serving.schedule import events
from streamingvlm.serving.service import Busy, Conflict, NotFound
from streamingvlm.serving.store import Store

log = logging.getLogger(__name__)
READY_S, CLUSTER_S = 60.0, 300.0  # for the model to be loaded, here or on an engine
STILL_S = 0.5  # that an alarm waits for its picture, at most


class Service:
    """`model`, `commentator`: folders of packaged models; no commentator, no commentary. `more`: makers of further sources, by scheme.
    `recorder`: an open trace that all of the run goes to; whoever opened it closes it, behind `stop`. `engine`: see `decider`. `usual`: what cameras
    that are added share, as those of the file do (`Settings.camera`)."""

    def __init__(self, settings: config.Service, model: Path, commentator: Path | None = None, store: Store | None = None,
                 more: Mapping[str, Callable] | None = None, recorder: Recorder | None = None, engine: Engine | None = None,
                 usual: Mapping[str, object] | None = None):
        self.settings, self.store = settings, store
        self.results, self.watched = Results(behind=store.newest if store else 0), {}
        self.policies = Policies(settings, usual or {})
        self.release, self.capture = Latency(), Latency()
        self.more = dict(more or {}) | KINDS
        heard = Heard(self._frame, self._lost, self._changed, self._picture, self._held)
        self.readers = Readers(self.settings.io_workers, slots.shape(model), heard, more)
        self.recorder, self.engine = recorder, engine
        self.decider = Decider(model, self.readers.pools, Told(self._decided, self._dropped, self._refused, self._covered), self._record,
                               settings.batch, settings.precision, settings.learned, engine)
        self.speech = Speech(commentator, self._said, log.warning) if commentator and self.settings.commentary else None
        self.tasks: set[asyncio.Task] = set()
        self.begun = time.monotonic()
        if store:
            self.results.listen(store.write)

    async def start(self) -> None:
        """Load the models. UserError where that cannot be done."""
        loop = asyncio.get_running_loop()
        self.readers.start(loop)
        if self.speech:
            self.speech.start(loop)
        await self.decider.start(CLUSTER_S if self.engine else READY_S)

    def begin(self, cameras: Iterable[config.Camera]) -> None:
        """Watch the cameras that were there from the start: whoever set them up knows that the machine may be too small. Call `check` first."""
        self.decider.admit(None)
        for camera in cameras:
            self._add(camera)
            self._taken(camera)
        self.decider.admit(self.settings.utilisation)

    def check(self, cameras: Iterable[config.Camera]) -> None:
        """UserError for an address that names no source."""
        for camera in cameras:
            try:
                kinds.source(camera.url, more=self.more)
            except UserError as error:
                raise UserError(f"Camera {camera.name!r}: {error}") from None

    async def stop(self) -> None:
        await asyncio.gather(self.readers.stop(), self.decider.stop(), *([self.speech.stop()] if self.speech else []))

    # What the API asks

    def cameras(self) -> list[dict]:
        return [watched.row(self._counts(name)) for name, watched in self.watched.items()]

    async def add(self, camera: dict) -> dict:
        """One camera more, as in `cameras.yaml`; what it does not say is as for the file's cameras, or stricter (`serving.policies`). UserError for
        what is wrong with it, Conflict where its name is taken, or there is no room or no time for it."""
        told = config.parse_camera(self.policies.completed(camera))
        if told.name.casefold() in {name.casefold() for name in self.watched}:
            raise Conflict(f"There is a camera {told.name!r} already: choose another name, or remove that one.")
        if len(self.watched) >= self.settings.max_cameras:
            raise Conflict(f"There are {len(self.watched)} cameras, as many as `service.max_cameras` allows: remove one first.")
        kinds.source(told.url, more=self.more)
        self._add(told, self.settings.access.sources if self.settings.access else None)
        watched = self.watched[told.name]
        if watched.state == "failed":
            del self.watched[told.name]
            self.results.forget(told.name)
            raise Conflict(watched.reason)
        self._taken(told)
        return watched.row(self._counts(told.name))

    async def remove(self, name: str) -> None:
        if name not in self.watched:
            raise NotFound(f"There is no camera {name!r}.")
        if name in self.readers.cameras:
            self.readers.remove(name)
        self.decider.remove(name)
        if self.speech:
            self.speech.forget(name)
        del self.watched[name]
        self.results.forget(name)

    def picture(self, name: str) -> tuple[dict, Redacted] | None:
        return self.watched[name].preview if name in self.watched else None

    def want_pictures(self, names: Collection[str], seconds: float) -> None:
        """For so long a preview of each frame, not one a second."""
        until = time.monotonic() + seconds  # one clock for all processes of a machine, and nobody sets it
        wanted = {name: until for name in names if name in self.watched and self.watched[name].wanted_until < until - seconds / 2}
        for name in wanted:
            self.watched[name].wanted_until = until
        self.readers.want(wanted)

    async def ask(self, name: str, question: str, options: tuple[str, ...] = ()) -> dict:
        if name not in self.watched:
            raise NotFound(f"There is no camera {name!r}.")
        if self.speech is None or self.speech.stopped or not self.watched[name].camera.comment:
            raise Conflict(f"Nobody comments on {name!r}, so nobody can be asked about it.")
        if not self.speech.up:
            raise Busy("The commentator is not ready yet: ask again in a moment.")
        return await self.speech.questions.ask(name, question, options)

    async def offer(self, name: str, sdp: str) -> tuple[str, str]:
        resource, answer = await self.readers.ask(name, "offer", sdp)
        return f"{name}~{resource}", answer

    async def hang_up(self, resource: str) -> None:
        name, _, session = resource.rpartition("~")
        await self.readers.ask(name, "hang_up", session)

    async def push(self, name: str, pts_s: float, captured_at: float | None, picture: bytes, width: int | None, height: int | None) -> None:
        image = await asyncio.to_thread(unpacked, picture, width, height)  # a large picture must not hold up the scheduler
        await self.readers.ask(name, "push", Picture(pts_s, image, time.time(), captured_at))

    def policy(self, name: str) -> str:
        return str(Policy.of(self.settings, self.watched[name].camera)) if name in self.watched else ""

    def card(self) -> str:
        return card(self.settings, [watched.camera for watched in list(self.watched.values())], self.store.counted() if self.store else None)

    def stats(self, streams: Collection[str] | None = None) -> dict:
        shared = {"title": self.settings.title, "budget_ms": self.settings.budget_ms, "uptime_s": round(time.monotonic() - self.begun, 1)}
        processes = {"analytics": {"alive": self.decider.worker.alive, "restarts": self.decider.restarts}}
        if streams is not None:
            mine, counts = {name: watched for name, watched in self.watched.items() if name in streams}, events.Counts()
            for name in mine:
                counts.add(self._counts(name))
            release, capture = (Latency.together(getattr(watched, clock) for watched in mine.values()) for clock in ("release", "capture"))
            told = numbers(counts, release, capture, sum(self.results.late.get(name, 0) for name in mine), {})
            return shared | told | {"processes": processes, "commentary": {} if self.speech else None, "replicas": None}
        readers = zip(self.readers.workers, self.readers.restarts, strict=True)
        processes |= {worker.name: {"alive": worker.alive, "restarts": restarts} for worker, restarts in readers}
        if self.speech:
            processes["commentary"] = {"alive": self.speech.worker.alive, "restarts": self.speech.restarts}
        told = numbers(self.decider.scheduler.totals(), self.release, self.capture, sum(self.results.late.values()), self.decider.batches)
        commentary = {"skipped": self.speech.skipped} if self.speech else None
        return shared | told | {"processes": processes, "commentary": commentary, "replicas": self.decider.worker.counts()}

    # What the parts report

    def _counts(self, name: str) -> events.Counts:
        try:
            return self.decider.scheduler.counts(name)
        except KeyError:  # it was not admitted
            return events.Counts()

    def _taken(self, camera: config.Camera) -> None:
        """It is watched, so its policy holds, also for what is stored under its name and for whoever gets the name after it."""
        policy = self.policies.taken(camera)
        if self.store:
            self.store.keeps[camera.name] = policy.keep

    def _add(self, camera: config.Camera, sources: tuple[str, ...] | None = None) -> None:
        """`sources`: the rules of where it may lead, of one that comes over the network."""
        self.watched[camera.name] = Watched(camera, time.time())
        live = kinds.source(camera.url, more=self.more).live
        budget_ms = camera.budget_ms or self.settings.budget_ms
        self.decider.add(camera.name, events.Settings(budget_ms, camera.priority, camera.mode, live, fps=camera.fps))
        if self.watched[camera.name].state != "failed":
            self.readers.add(camera, sources)

    def _record(self, row: Row) -> None:
        """A disk that is full ends the recording, not the service."""
        if self.recorder is not None:
            try:
                self.recorder.add(row)
            except UserError as error:
                log.warning("%s The recording ends, and nothing is kept of it.", error)
                self.recorder = None

    def _refused(self, stream: str, reason: str) -> None:
        self._changed(stream, Change("failed", reason, 0, time.time()))

    def _frame(self, stamp: Stamp, pool: int, slot: int, released_at: float) -> None:
        if self.speech and self.watched[stamp.stream].camera.comment:
            self.speech.frame(stamp, self.readers.pools[pool].view(slot))
        self.decider.frame(stamp, pool, slot, released_at)

    def _lost(self, stream: str, cause: str, count: int, released: tuple[float, Stamp] | None = None) -> None:
        self.watched[stream].dropped_before[cause] += count
        self.decider.lost(stream, cause, count, released)

    def _dropped(self, stamp: Stamp, cause: str) -> None:
        self.readers.decided(stamp, None)
        if stamp.stream in self.watched:
            self.watched[stamp.stream].dropped_before[cause] += 1

    def _covered(self, stream: str, late_ms: dict[str, float]) -> None:
        if watched := self.watched.get(stream):
            for whose in (self, watched):
                whose.release.add(late_ms["release"])
                whose.capture.add(late_ms["capture"])
            self.results.lost(stream, late_ms)

    def _changed(self, stream: str, change: Change) -> None:
        for record in self.watched[stream].changed(change):
            self._publish(self.watched[stream], record)

    def _picture(self, stream: str, header: dict, picture: Redacted) -> None:
        watched = self.watched[stream]
        watched.preview, watched.width, watched.height = (header, picture), header["width"], header["height"]

    def _held(self, pool: int) -> set[int]:
        return self.decider.held(pool)

    def _decided(self, stamp: Stamp, answer: dict, ms: dict[str, float]) -> None:
        maybe, spotted = answer.pop("people", None), answer.pop("spotted", None)
        self.readers.decided(stamp, [box["box"] for box in answer["boxes"] if box["label"] == "person"] if maybe is None else maybe)
        watched = self.watched.get(stamp.stream)
        if watched is None or stamp.epoch < self.readers.first.get(stamp.stream, 0):  # of a camera that had this name before
            return
        if self.speech and spotted is not None:
            self.speech.spotted(stamp, spotted)
        self.release.add(ms["release"])
        self.capture.add(ms["capture"])
        for record in watched.decided(stamp, answer, ms):
            self._publish(watched, record)

    def _publish(self, watched: Watched, record: dict) -> None:
        """Alarms of a camera in their order: one that begins waits a moment for the picture of its frame, and those behind it wait for it."""
        if record["type"] != "alarm" or not (watched.alarms_waiting or record["state"] == "on"):
            self.results.publish(record)
            return
        watched.alarms_waiting.append(record)
        if len(watched.alarms_waiting) == 1:
            task = asyncio.ensure_future(self._illustrate(watched))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _illustrate(self, watched: Watched) -> None:
        name, waiting = watched.camera.name, watched.alarms_waiting
        while waiting:
            picture = await self._still(watched, waiting[0]["frame"]) if waiting[0]["state"] == "on" else None
            record = waiting.popleft()
            if self.watched.get(name) is watched:
                self.results.publish(record, picture)

    async def _still(self, watched: Watched, frame: int) -> Redacted | None:
        """The picture of a frame, or the newest preview where it is not to be had."""
        try:
            picture = await asyncio.wait_for(self.readers.ask(watched.camera.name, "still", frame), STILL_S)
        except (UserError, NotFound, TimeoutError):
            picture = None
        return picture or (watched.preview[1] if watched.preview else None)

    def _said(self, comment: Comment) -> None:
        if comment.stream in self.watched:
            watched = self.watched[comment.stream]
            watched.comment, watched.sentences = comment.text, watched.sentences + 1
            told = {key: getattr(comment, key) for key in ("start_s", "end_s", "text", "tokens", "kv_tokens", "ms")}
            self.results.publish({"type": "comment", "stream": comment.stream, "chunk": watched.sentences, "epoch": watched.epoch} | told)
