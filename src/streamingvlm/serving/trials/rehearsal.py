"""What the model would say of a city if the machine were slower: the scheduler in virtual time, and the analyst on the frames that it lets through.

    row = rehearse(network, rules, city, RunTimes(measured), slower=3.0)      # city: training.city.features.Recorded
    row["event_recall"], row["skipped"], row["p99_ms"]

Vision has looked already; the memory, the looks across streams and the alarms are as in the live service, on the frames that are decided alone, and
an alarm raises its stream's priority as it does there. Knows no process and no pixels. Letters: B streams, F frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamingvlm.base.errors import UserError
from streamingvlm.base.records import Frame, Stamp
from streamingvlm.evaluation import city as table
from streamingvlm.models.multicamera import network as networks
from streamingvlm.models.multicamera.heads import Detections, Sight
from streamingvlm.serving.live.analyst import Analyst
from streamingvlm.serving.live.decider import LARGEST, SEVERITY
from streamingvlm.serving.schedule import virtual
from streamingvlm.serving.schedule.events import Alarm, FrameArrived, Mode, Settings
from streamingvlm.serving.trials.under_load import Decided
from streamingvlm.training.city.features import Recorded
from streamingvlm.training.city.validation import chosen
from streamingvlm.worlds import alarms
from streamingvlm.worlds.city.knobs import ANOMALIES, FPS


class Seen:
    """A network that has looked already: a picture is its place, [stream, frame]."""

    def __init__(self, network: networks.Network, sight: Sight):
        self.memory, self.sight = network.memory, sight

    def eval(self) -> Seen:
        return self

    def see(self, places: Tensor) -> tuple[Sight, Detections]:
        """places [B, 2] -> what is known of them; boxes are not."""
        stream, frame = places.unbind(-1)
        none = torch.zeros(len(places), 0)
        return self.sight.map(lambda x: x[frame, stream].float()), Detections(torch.zeros(len(places), 0, 4), none, none.long())


def rehearse(network: networks.Network, rules: Mapping[str, alarms.Rule], city: Recorded, run_ms: virtual.RunTimes, slower: float = 1.0,
             mode: Mode = "auto", urgent: bool = True, budget_ms: float = 120.0) -> dict:
    """One city, all its cameras live, on a machine so many times slower. `urgent`: whether alarms raise priorities. -> `score`, and `skipped`: the
    share of frames that were never decided, `skipped_alarmed`: of those that truly show an anomaly, `p99_ms` and `over`: the share of frames that
    were not answered within the budget, an answer to a newer one counting."""
    frames, streams = city.action.shape
    analyst, told = Analyst(Seen(network, city.sight), rules), [[] for _ in range(streams)]
    scheduler = virtual.scheduler(run_ms, LARGEST, slower)
    made = virtual.Cameras(streams, frames / FPS, fps=FPS, settings=Settings(budget_ms, mode=mode))
    due, missed = np.zeros((streams, frames)), np.zeros((streams, frames), bool)

    def decide(batch: tuple[FrameArrived, ...], now: float) -> None:
        answers = analyst.decide([_frame(frame) for frame in batch], now)
        for frame, answer in zip(batch, answers, strict=True):
            told[_camera(frame)].append((now, frame.frame_id, answer))
            if urgent and answer["alarms"]:
                scheduler.handle(Alarm(frame.stream, SEVERITY), now)

    def drop(frame: FrameArrived, cause: str) -> None:
        missed[_camera(frame), frame.frame_id] = True

    arrivals = _noting(virtual.cameras(made), due)
    outcome = virtual.drive(scheduler, arrivals, lambda size, now: slower * run_ms(size, now), on_drop=drop, on_batch=decide)
    covered, wrong = outcome.covered, city.anomalies.transpose(0, 1).numpy()  # [B, F, 6]
    shown = missed[wrong.any(-1)]
    return score([Decided.of(rows) for rows in told], due, city.action.T.numpy(), wrong) | {
        "skipped": float(missed.mean()), "skipped_alarmed": float(shown.mean()) if len(shown) else None,
        "p99_ms": covered.percentile(99), "over": outcome.over / max(len(covered), 1)}


def score(decided: Sequence[Decided], due: np.ndarray, action: np.ndarray, anomalies: np.ndarray) -> dict[str, float | None]:
    """What was true when each frame was due, `due` [B, F] s, action [B, F], anomalies [B, F, 6], against the newest decision then -> "action" (share
    right), "f1" (any anomaly, by frame), "event_recall" (share of the `events` that an alarm of their kind found in time), "delay_s" (median)."""
    right, wrong = np.zeros(due.shape, bool), np.zeros(anomalies.shape, bool)
    for b, stream in enumerate(decided):
        newest = stream.held(due[b])  # [F]
        right[b], wrong[b] = action[b] == stream.actions(newest), stream.alarms(newest)
    found = [alarms.by_event(wrong[..., k], anomalies[..., k], FPS) for k in range(len(ANOMALIES))]
    events, delays = sum(one["events"] for one in found), [one["delay_s"] for one in found if one["delay_s"] is not None]
    return {"action": float(right.mean()), "f1": alarms.f1(wrong.any(-1), anomalies.any(-1))["f1"], "events": events,
            "event_recall": sum(one["recall"] * one["events"] for one in found) / events if events else None,
            "delay_s": float(np.median(delays)) if delays else None}


def _noting(told: Iterator[virtual.Told], due: np.ndarray) -> Iterator[virtual.Told]:
    """Hand through, and note when each frame was due."""
    for at, event in told:
        if isinstance(event, FrameArrived):
            due[_camera(event), event.frame_id] = event.released_at
        yield at, event


def _camera(frame: FrameArrived) -> int:
    return int(frame.stream.rpartition("-")[2])


def _frame(frame: FrameArrived) -> Frame:
    place = np.array([_camera(frame), frame.frame_id])
    return Frame(Stamp(frame.stream, frame.frame_id, 0, frame.pts_s, frame.captured_at, "sender", frame.captured_at), place)


def crowd(streams: int, run_ms: virtual.RunTimes, seconds: float, budget_ms: float = 120.0, mode: Mode = "auto") -> virtual.Outcome:
    """So many made-up cameras behind the scheduler, on a machine whose batches take as long as they did when `run_ms` was measured; no model."""
    made = virtual.Cameras(streams, seconds, settings=Settings(budget_ms, mode=mode))
    return virtual.drive(virtual.scheduler(run_ms, LARGEST), virtual.cameras(made), run_ms)


def run_times(file: Path, model: str = "model", seed: int = 0) -> virtual.RunTimes:
    """What a machine's batches took, from a file that `bench/live_capacity.py --record` wrote: of the `model`, or of the `baseline_vlm`."""
    try:
        told = json.loads(file.read_text())["cpu_ms"][model]
        return virtual.RunTimes({int(size): ms for size, ms in told.items()}, seed)
    except (OSError, ValueError, KeyError):
        raise UserError(f"{file} holds no run times of {model}: `python -m bench.live_capacity --record {file.parent}` measures them.") from None


def job(base: Path, features: Path, seed: int, times: Path, slower: float, mode: Mode, urgent: bool) -> dict:
    """`rehearse` on a city whose features lie in a folder: for `base.workers`."""
    return rehearse(networks.load(base), chosen(base)[1], table.recorded(features, seed), run_times(times), slower, mode, urgent)
