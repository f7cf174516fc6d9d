from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchRequest(_message.Message):
    __slots__ = ("since", "streams", "types")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    since: int
    streams: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, since: _Optional[int] = ..., streams: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ...) -> None: ...

class FrameIn(_message.Message):
    __slots__ = ("stream", "pts_s", "captured_at", "jpeg", "rgb")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PTS_S_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_AT_FIELD_NUMBER: _ClassVar[int]
    JPEG_FIELD_NUMBER: _ClassVar[int]
    RGB_FIELD_NUMBER: _ClassVar[int]
    stream: str
    pts_s: float
    captured_at: float
    jpeg: bytes
    rgb: Rgb
    def __init__(self, stream: _Optional[str] = ..., pts_s: _Optional[float] = ..., captured_at: _Optional[float] = ..., jpeg: _Optional[bytes] = ..., rgb: _Optional[_Union[Rgb, _Mapping]] = ...) -> None: ...

class Rgb(_message.Message):
    __slots__ = ("width", "height", "pixels")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    pixels: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., pixels: _Optional[bytes] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("seq", "stream", "at", "decision", "comment", "alarm", "state", "missed")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    seq: int
    stream: str
    at: float
    decision: Decision
    comment: Comment
    alarm: Alarm
    state: State
    missed: Missed
    def __init__(self, seq: _Optional[int] = ..., stream: _Optional[str] = ..., at: _Optional[float] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., comment: _Optional[_Union[Comment, _Mapping]] = ..., alarm: _Optional[_Union[Alarm, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., missed: _Optional[_Union[Missed, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("frame", "epoch", "pts_s", "captured_at", "captured_by", "boxes", "action", "anomalies", "alarms", "event_score", "future", "ms", "dropped_before")
    class AnomaliesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class MsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class DroppedBeforeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    FRAME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PTS_S_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_AT_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_BY_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ANOMALIES_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    EVENT_SCORE_FIELD_NUMBER: _ClassVar[int]
    FUTURE_FIELD_NUMBER: _ClassVar[int]
    MS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    frame: int
    epoch: int
    pts_s: float
    captured_at: float
    captured_by: str
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    action: str
    anomalies: _containers.ScalarMap[str, float]
    alarms: _containers.RepeatedScalarFieldContainer[str]
    event_score: float
    future: float
    ms: _containers.ScalarMap[str, float]
    dropped_before: _containers.ScalarMap[str, int]
    def __init__(self, frame: _Optional[int] = ..., epoch: _Optional[int] = ..., pts_s: _Optional[float] = ..., captured_at: _Optional[float] = ..., captured_by: _Optional[str] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., action: _Optional[str] = ..., anomalies: _Optional[_Mapping[str, float]] = ..., alarms: _Optional[_Iterable[str]] = ..., event_score: _Optional[float] = ..., future: _Optional[float] = ..., ms: _Optional[_Mapping[str, float]] = ..., dropped_before: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x0", "y0", "x1", "y1", "label", "score")
    X0_FIELD_NUMBER: _ClassVar[int]
    Y0_FIELD_NUMBER: _ClassVar[int]
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    x0: float
    y0: float
    x1: float
    y1: float
    label: str
    score: float
    def __init__(self, x0: _Optional[float] = ..., y0: _Optional[float] = ..., x1: _Optional[float] = ..., y1: _Optional[float] = ..., label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Comment(_message.Message):
    __slots__ = ("chunk", "start_s", "end_s", "text", "tokens", "kv_tokens", "ms")
    class MsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MS_FIELD_NUMBER: _ClassVar[int]
    chunk: int
    start_s: float
    end_s: float
    text: str
    tokens: int
    kv_tokens: int
    ms: _containers.ScalarMap[str, float]
    def __init__(self, chunk: _Optional[int] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., text: _Optional[str] = ..., tokens: _Optional[int] = ..., kv_tokens: _Optional[int] = ..., ms: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("kind", "on", "frame", "pts_s", "score", "picture")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    PTS_S_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    on: bool
    frame: int
    pts_s: float
    score: float
    picture: str
    def __init__(self, kind: _Optional[str] = ..., on: _Optional[bool] = ..., frame: _Optional[int] = ..., pts_s: _Optional[float] = ..., score: _Optional[float] = ..., picture: _Optional[str] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("state", "reason", "epoch")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    state: str
    reason: str
    epoch: int
    def __init__(self, state: _Optional[str] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Missed(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class CamerasRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CameraList(_message.Message):
    __slots__ = ("cameras",)
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    cameras: _containers.RepeatedCompositeFieldContainer[Camera]
    def __init__(self, cameras: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ...) -> None: ...

class Camera(_message.Message):
    __slots__ = ("id", "url", "kind", "state", "reason", "fps", "width", "height", "delay_s", "priority", "mode", "frames", "latency_ms", "action", "alarms", "comment")
    class LatencyMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DELAY_S_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    url: str
    kind: str
    state: str
    reason: str
    fps: float
    width: int
    height: int
    delay_s: float
    priority: int
    mode: str
    frames: Frames
    latency_ms: _containers.ScalarMap[str, float]
    action: str
    alarms: _containers.RepeatedScalarFieldContainer[str]
    comment: str
    def __init__(self, id: _Optional[str] = ..., url: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., fps: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., delay_s: _Optional[float] = ..., priority: _Optional[int] = ..., mode: _Optional[str] = ..., frames: _Optional[_Union[Frames, _Mapping]] = ..., latency_ms: _Optional[_Mapping[str, float]] = ..., action: _Optional[str] = ..., alarms: _Optional[_Iterable[str]] = ..., comment: _Optional[str] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("decided", "in_flight", "dropped")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    IN_FIELD_NUMBER: _ClassVar[int]
    DECIDED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    decided: int
    in_flight: int
    dropped: _containers.ScalarMap[str, int]
    def __init__(self, decided: _Optional[int] = ..., in_flight: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., **kwargs) -> None: ...
