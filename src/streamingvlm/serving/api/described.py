"""What the doors of HTTP answer, as the OpenAPI description shows it. It describes only: nothing is checked or written by it while the service runs;
that an answer is what its description says is what the fuzzing of the API looks at (`make fuzz`).

    @router.get("/api/cameras", response_model=None, responses=answers(list[CameraRow]))
"""

from __future__ import annotations

from typing import Literal

from fastapi.responses import Response
from pydantic import BaseModel

Milliseconds = dict[str, float | None]


class Sentence(BaseModel):
    """Whatever was wrong, in one sentence."""

    error: str


class CameraRow(BaseModel):
    id: str
    url: str
    kind: str
    state: str
    reason: str
    since: float
    fps: float
    width: int
    height: int
    delay_s: float
    priority: int
    mode: str
    frames: dict[str, int | dict[str, int]]
    latency_ms: Milliseconds
    action: str
    alarms: list[str]
    comment: str


class Published(BaseModel):
    """What every record has."""

    seq: int
    at: float
    stream: str


class Box(BaseModel):
    box: tuple[float, float, float, float]
    label: str
    score: float | None


class Decision(Published):
    type: Literal["decision"]
    frame: int
    epoch: int
    pts_s: float
    captured_at: float | None
    captured_by: str
    boxes: list[Box]
    action: str
    anomalies: dict[str, float | None]
    alarms: list[str]
    event_score: float | None
    future: float | None
    ms: Milliseconds
    dropped_before: dict[str, int]


class Comment(Published):
    type: Literal["comment"]
    chunk: int
    start_s: float
    end_s: float
    text: str
    tokens: int
    kv_tokens: int
    ms: Milliseconds


class Alarm(Published):
    type: Literal["alarm"]
    kind: str
    state: Literal["on", "off"]
    frame: int
    pts_s: float
    score: float | None
    picture: str | None


class State(Published):
    type: Literal["state"]
    state: str
    reason: str
    epoch: int


Record = Decision | Comment | Alarm | State


class Results(BaseModel):
    records: list[Record]
    missed: int
    newest: int


class History(BaseModel):
    records: list[Record]


class Erased(BaseModel):
    deleted: int


class Health(BaseModel):
    status: Literal["ok"]
    cameras: dict[str, str]
    store: dict | None


class Process(BaseModel):
    alive: bool
    restarts: int


class Stats(BaseModel):
    latency_ms: dict[Literal["release", "capture"], Milliseconds]
    buckets: list[tuple[float, int]]
    frames: dict[str, int | dict[str, int]]
    late: int
    batch: dict
    uptime_s: float
    processes: dict[str, Process]
    replicas: dict[Literal["running", "wanted", "deaths", "moved", "lost"], int] | None = None


class Answer(BaseModel):
    stream: str
    question: str
    text: str
    ms: Milliseconds


class Jpeg(Response):
    media_type = "image/jpeg"


class Sdp(Response):
    media_type = "application/sdp"


WRONG = {status: {"description": "What was wrong, in one sentence.", "content": {"application/json": {"schema": Sentence.model_json_schema()}}}
         for status in ("4XX", "5XX")}  # of each route, whatever else it answers
OFFER = {"type": "string", "pattern": "^v=0[^\x00]*m=video"}
SDP_BODY = {"requestBody": {"required": True, "content": {"application/sdp": {"schema": OFFER}}}}
METRICS = {200: {"content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")}}}


def answers(kind: object, status: int = 200) -> dict:
    """What a route says of its answer."""
    return {status: {"model": kind, "description": "As it is just now."}}
