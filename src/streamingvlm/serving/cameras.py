"""`cameras.yaml`: which cameras there are and how the service treats them, checked before anything starts. Knows no source and no model.

    settings = load(Path("cameras.yaml")); camera = parse_camera({"name": "gate", "url": "rtsp://..."})

A file needs two lines a camera; the rest has defaults, which `Camera` and `Service` list:

    service: {port: 8090, budget_ms: 120}
    cameras:
      - {name: gate, url: "rtsp://user:password@192.0.2.7/stream"}
      - {name: yard, url: "https://example.org/yard.m3u8", delay_s: 2, priority: 2}
    camera: {privacy: {hide: everything}}      # what cameras share that do not say it themselves, also those that are added while it runs
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from streamingvlm.base.errors import UserError
from streamingvlm.media.sources.protocol import redacted
from streamingvlm.serving.privacy.redactor import HIDE

NAME = r"^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?$"
EXAMPLE = "- {name: gate, url: 'rtsp://…'}"
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)  # `true` is no number: `records_s: true` would be a second

Whole = Annotated[int, BeforeValidator(lambda told: int(told) if isinstance(told, float) and told.is_integer() else told)]  # 5.0 is whole in JSON


class Privacy(BaseModel):
    """What of a camera's pictures is hidden before anything is stored or sent, and for how long somebody who is not found again stays hidden."""

    model_config = STRICT
    hide: Literal[tuple(HIDE)] = "people"
    hold_s: float = Field(1.0, ge=0, le=60)


class Keeping(BaseModel):
    """How many seconds a camera's records stay, those of alarms, and their pictures; what is not said is as `service.keep_s`."""

    model_config = STRICT
    records_s: float | None = Field(None, ge=0)
    events_s: float | None = Field(None, ge=0)
    pictures_s: float | None = Field(None, ge=0)


class Camera(BaseModel):
    """One camera. `delay_s`: how long frames wait in the jitter buffer, from their capture. `fps`: at which they are analysed. `mode`:
    see `schedule.events`. `budget_ms`: from release to decision; by default the service's. `comment`: whether it is spoken about. `inference_px`: a
    picture whose shorter side is longer is brought to it; the model's is taken from that, and it is what people see. `transport`: of RTSP."""

    model_config = STRICT
    name: str = Field(pattern=NAME)
    url: str = Field(min_length=1, max_length=2000)
    delay_s: float = Field(0.2, ge=0, le=2)
    priority: Whole = Field(1, ge=0, le=9)
    mode: Literal["auto", "every_frame", "freshest"] = "auto"
    fps: float = Field(8.0, gt=0, le=60)
    budget_ms: float | None = Field(None, gt=0, le=60_000)
    comment: bool = True
    privacy: Privacy = Privacy()
    keep: Keeping = Keeping()
    inference_px: Whole = Field(720, ge=96, le=4320)
    transport: Literal["tcp", "udp"] = "tcp"


class Access(BaseModel):
    """Who may come in; without it, whoever is on this machine. `tokens`: a file or a database's address (`streamingvlm token add`). `certificate`,
    `key`: files for TLS, or `proxy`: the address of the one that does TLS in front of this service. `per_s`, `burst`: requests of one token;
    `failures_per_minute`: wrong tokens from one address. `sources`: where cameras that are added while it runs may be (`access.sources`)."""

    model_config = STRICT
    tokens: str = Field("access.sqlite", min_length=1)
    certificate: str = ""
    key: str = ""
    proxy: str = ""
    per_s: float = Field(30.0, gt=0, le=10_000)
    burst: int = Field(120, ge=1, le=100_000)
    failures_per_minute: int = Field(20, ge=1, le=10_000)
    sources: tuple[str, ...] = Field((), strict=False)


class Service(BaseModel):
    """What all cameras share. `port` 0: any that is free; `grpc_port` none: no gRPC. `store`: a database URL or a file; empty: nothing is kept.
    `keep_s`: how long. `model`, `commentator`: folders; empty: those of this clone. `io_workers`: processes that read cameras. `utilisation`: share
    of the machine's time up to which cameras are taken in while it runs; those of the file are always. `batch`: streams in one forward, at most.
    `precision`: of the model's linear layers. `learned`: a folder that `streamingvlm learn` wrote, for `--eyes`."""

    model_config = STRICT
    title: str = Field("StreamingVLM", max_length=100)
    host: str = "127.0.0.1"
    port: int = Field(8090, ge=0, le=65535)
    grpc_port: int | None = Field(None, ge=0, le=65535)
    budget_ms: float = Field(120.0, gt=0, le=60_000)
    io_workers: int = Field(2, ge=1, le=16)
    max_cameras: int = Field(32, ge=1, le=256)
    utilisation: float | None = Field(1.0, gt=0, le=100)
    store: str = ""
    keep_s: float = Field(7 * 86_400, gt=0)
    model: str = ""
    commentator: str = ""
    commentary: bool = True
    batch: int = Field(16, ge=1, le=16)
    precision: Literal["float32", "int8", "int8w"] = "float32"
    learned: str = ""
    access: Access | None = None


class Settings(BaseModel):
    model_config = STRICT
    service: Service = Service()
    camera: dict[str, Any] = {}
    cameras: tuple[Camera, ...] = Field((), strict=False)


SECTIONS = {"service": Service, "cameras": Camera, "access": Access, "privacy": Privacy, "keep": Keeping}


def load(path: Path) -> Settings:
    """Read and check a file. UserError, in one sentence, for anything that is wrong with it."""
    told = read_yaml(path)
    return parse({} if told is None else told, path.name)


def read_yaml(path: Path) -> object:
    """What a file says, unchecked. UserError where it can't be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no {path}: write one (`streamingvlm serve --help` shows how), or try `streamingvlm serve --demo`.") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read as text: name another file.") from None
    except RecursionError:
        raise UserError(f"{path} nests lists or keys too deeply: see `streamingvlm serve --help` for how it looks.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML{f', see line {mark.line + 1}' if mark else ''}: mend it.") from None


def parse(told: object, source: str = "cameras.yaml") -> Settings:
    """Check what a file said. UserError also for two cameras of one name, and for more than `service.max_cameras`."""
    if isinstance(told, dict):  # a key with nothing behind it is as good as none
        told = {key: value for key, value in told.items() if value is not None or key not in Settings.model_fields}
        told = _each_with_what_they_share(told, source)
    settings = _checked(Settings, told, source)
    names = [camera.name for camera in settings.cameras]
    seen: set[str] = set()
    for name in names:  # Gate and gate are one name to most people, and to some databases and disks
        if name.casefold() in seen:
            raise UserError(f"{source}: two cameras are called {name!r}, small letters or not; give each a name of its own.")
        seen.add(name.casefold())
    if len(names) > settings.service.max_cameras:
        raise UserError(f"{source}: {len(names)} cameras are more than `service.max_cameras` allows, {settings.service.max_cameras}.")
    return settings


def _each_with_what_they_share(told: dict, source: str) -> dict:
    usual, cameras = told.get("camera", {}), told.get("cameras", [])
    if not isinstance(usual, dict) or {"name", "url"} & usual.keys():
        raise UserError(f"{source}: `camera` must hold what cameras share, {{fps: 4}}, and neither a name nor an address.")
    _checked(Camera, usual | {"name": "usual", "url": "push:"}, f"{source}: `camera`")
    if not isinstance(cameras, list):
        return told
    return told | {"cameras": [merged(usual, camera) if isinstance(camera, dict) else camera for camera in cameras]}


def merged(usual: dict, told: dict) -> dict:
    """What is told, and where it says nothing what is usual; of a section (`privacy`, `keep`) key by key."""
    both = {key: merged(usual[key], value) for key, value in told.items() if isinstance(value, dict) and isinstance(usual.get(key), dict)}
    return usual | told | both


def parse_camera(told: object, source: str = "camera") -> Camera:
    """Check one camera, as the API is told of it."""
    return _checked(Camera, told, source)


def _checked(kind: type[BaseModel], told: object, source: str):
    if not isinstance(told, dict):
        raise UserError(f"{source} must hold {'keys' if kind is Camera else 'a list `cameras:`'}, not {redacted(str(told))[:40]!r}.")
    try:
        return kind.model_validate(told)
    except ValidationError as error:
        raise UserError(f"{source}: {_sentence(error, told)}") from None


def _sentence(error: ValidationError, told: dict) -> str:
    """The first thing that is wrong. Never shows an address: there may be a password in it."""
    first = error.errors(include_url=False)[0]
    where = "`" + ".".join(str(part) for part in first["loc"]) + "`"
    if first["type"] == "extra_forbidden":
        sections = [part for part in first["loc"][:-1] if isinstance(part, str)]
        kind = SECTIONS[sections[-1]] if sections else Camera if "url" in told else Settings
        return f"unknown key {where}; there are {', '.join(kind.model_fields)}."
    if first["type"] == "missing":
        return f"{where} is missing."
    if first["loc"][-1] == "name":
        return f"{where} must be letters (a to z), digits, dots, - and _, with spaces between, at most 64, beginning with a letter or a digit."
    if first["type"] in {"tuple_type", "model_type", "model_attributes_type"}:
        wanted = {"cameras": f"a list, {EXAMPLE} a camera", "service": "keys, {port: 8090}"}.get(str(first["loc"][-1]), f"a camera, {EXAMPLE}")
        return f"{where} must hold {wanted}, not {redacted(str(first['input']))[:60]!r}."
    shown = "" if first["loc"][-1] == "url" else f", not {redacted(str(first['input']))[:60]!r}"
    return f"{where}: {first['msg'][:1].lower() + first['msg'][1:]}{shown}."
