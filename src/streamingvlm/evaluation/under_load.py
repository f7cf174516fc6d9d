"""Quality under load: what is true at a moment against the newest decision at that moment. A decision that is late, or of a frame long past, is
wrong where the world has gone on, so load shows as lost quality. Knows decisions and truth; no model, no scheduler, no pixels.

    log = Log(streams); log.add(stream, at, action, alarms)
    log.score(action, anomalies, due)["event_recall"]

Li, Wang and Ramanan, "Towards Streaming Perception" (2020), score detection that way. Letters for shapes: B streams, F frames.
"""

from __future__ import annotations

import numpy as np

from streamingvlm.worlds import alarms
from streamingvlm.worlds.city.knobs import ANOMALIES, FPS


class Log:
    """Decisions as they were made, each stream's in order. Times in seconds, on the clock of `due`."""

    def __init__(self, streams: int):
        self._rows: list[list[tuple[float, int, list[bool]]]] = [[] for _ in range(streams)]

    def add(self, stream: int, at: float, action: int, wrong: list[bool]) -> None:
        """`action`: its index. `wrong`: of each kind of ANOMALIES, whether it is an alarm."""
        self._rows[stream].append((at, action, wrong))

    def held(self, due: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """due [B, F], s -> of the newest decision at each of these moments: action [B, F], -1 before the first, and alarms [B, F, 6] bool."""
        action, wrong = np.full(due.shape, -1), np.zeros((*due.shape, len(ANOMALIES)), bool)
        for stream, rows in enumerate(self._rows):
            if rows:
                at, actions, kinds = (np.array(part) for part in zip(*rows, strict=True))
                newest = np.searchsorted(at, due[stream], side="right") - 1  # [F]
                known = newest >= 0
                action[stream, known], wrong[stream, known] = actions[newest[known]], kinds[newest[known]]
        return action, wrong

    def score(self, action: np.ndarray, anomalies: np.ndarray, due: np.ndarray, fps: float = FPS) -> dict[str, float | None]:
        """True action [B, F] and anomalies [B, F, 6] of the frames that were due at `due` [B, F] -> "action" (share right), "f1" (of any anomaly, by
        frame), "event_recall" (share of the `events` that an alarm of their kind found in time), "delay_s" (median, to that alarm)."""
        said, wrong = self.held(due)
        found = [alarms.by_event(wrong[..., k], anomalies[..., k], fps) for k in range(len(ANOMALIES))]
        events = sum(one["events"] for one in found)
        hits = sum(round(one["recall"] * one["events"]) for one in found)
        delays = [one["delay_s"] for one in found if one["delay_s"] is not None]
        return {"action": float((said == action).mean()), "f1": alarms.f1(wrong.any(-1), anomalies.any(-1))["f1"], "events": events,
                "event_recall": hits / events if events else None, "delay_s": float(np.median(delays)) if delays else None}
