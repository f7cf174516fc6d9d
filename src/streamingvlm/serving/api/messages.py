"""Records and cameras as messages of `streamingvlm.proto`, and frames out of them. Knows no connection."""

from __future__ import annotations

import math

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api.proto import streamingvlm_pb2 as proto

PLAIN = {  # copied as they are, None left out
    "decision": ("frame", "epoch", "pts_s", "captured_at", "captured_by", "action", "anomalies", "alarms", "event_score", "future", "ms",
                 "dropped_before"),
    "comment": ("chunk", "start_s", "end_s", "text", "tokens", "kv_tokens", "ms"),
    "alarm": ("kind", "frame", "pts_s", "score", "picture"),
    "state": ("state", "reason", "epoch"),
    "missed": ("count",),
}
CAMERA = ("id", "url", "kind", "state", "reason", "fps", "width", "height", "delay_s", "priority", "mode", "frames", "latency_ms", "action",
          "alarms", "comment")
KINDS = {"decision": proto.Decision, "comment": proto.Comment, "alarm": proto.Alarm, "state": proto.State, "missed": proto.Missed}


def of_record(record: dict) -> proto.Record:
    type_ = record["type"]
    told = _present(record, PLAIN[type_])
    if type_ == "decision":
        told["boxes"] = [proto.Box(x0=x0, y0=y0, x1=x1, y1=y1, label=label, score=score)
                         for (x0, y0, x1, y1), label, score in ((box["box"], box["label"], box["score"]) for box in record["boxes"])]
    if type_ == "alarm":
        told["on"] = record["state"] == "on"
    return proto.Record(**_present(record, ("seq", "stream", "at")), **{type_: KINDS[type_](**told)})


def of_camera(camera: dict) -> proto.Camera:
    return proto.Camera(**_present(camera, CAMERA))


def _present(row: dict, names: tuple[str, ...]) -> dict:
    return {name: row[name] for name in names if row.get(name) is not None}


def frame(message: proto.FrameIn) -> tuple[str, float, float | None, bytes, int | None, int | None]:
    """The arguments of `Service.push`. UserError where it is no frame."""
    captured_at = message.captured_at if message.HasField("captured_at") else None
    if not message.stream:
        raise UserError("A frame names its camera: set `stream`.")
    if not math.isfinite(message.pts_s) or not math.isfinite(captured_at or 0.0):
        raise UserError("A frame's `pts_s` and `captured_at` are finite numbers of seconds.")
    if message.WhichOneof("picture") == "jpeg" and message.jpeg:
        return message.stream, message.pts_s, captured_at, message.jpeg, None, None
    rgb = message.rgb
    if message.WhichOneof("picture") != "rgb" or not rgb.pixels:
        raise UserError("A frame has a picture: set `jpeg` or `rgb`.")
    if len(rgb.pixels) != rgb.width * rgb.height * 3:
        raise UserError(f"{rgb.width} x {rgb.height} pixels of RGB are {rgb.width * rgb.height * 3} bytes, not {len(rgb.pixels)}.")
    return message.stream, message.pts_s, captured_at, rgb.pixels, rgb.width, rgb.height
