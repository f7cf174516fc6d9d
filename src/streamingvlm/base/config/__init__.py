"""params.yaml -> frozen dataclasses, one per section.

An unknown section, an unknown key or a value of the wrong type is a `UserError` that names it. A stage is given only the sections it
declares in dvc.yaml; asking for another one is an error too, so a stage cannot depend on a value that DVC does not watch.

    cfg = load()              # all of params.yaml at the repository root
    cfg = from_dict(params)   # what DVC handed to the stage
    cfg.sft.lr
"""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path

from streamingvlm.base.config.sections import (
    ABOVE_ZERO,
    AT_LEAST,
    AT_MOST,
    FRAMES_AT_MOST,
    LARGEST,
    ONE_OF,
    SECTIONS,
    VARIANT,
    VARIANTS,
    City,
    Compress,
    Data,
    Evaluate,
    Live,
    Model,
    Pretrain,
    Retention,
    Run,
    Sft,
    Stream,
    Video,
)
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root

__all__ = ["SECTIONS", "VARIANT", "VARIANTS", "City", "Compress", "Config", "Data", "Evaluate", "Live", "Model", "Pretrain", "Retention", "Run",
           "Sft", "Stream", "Video", "from_dict", "load"]


class Config:
    """Sections as attributes. Sections that were not given raise a `UserError` when they are asked for."""

    def __init__(self, sections: dict[str, object]):
        self.__dict__.update(sections)

    def __reduce__(self):  # a worker gets the same params
        return Config, (vars(self),)

    def having(self, section: str, **changes) -> Config:
        """The same params but for `changes` in one section."""
        return Config({**vars(self), section: dataclasses.replace(getattr(self, section), **changes)})

    def __getattr__(self, name: str):
        raise UserError(f"The section `{name}` was asked for but not given: declare it under this stage's `params` in dvc.yaml.")


def load(path: Path | None = None) -> Config:
    """Read a params file (YAML 1.2, as DVC reads it) into a `Config`."""
    from ruamel.yaml import YAML  # YAML 1.1 readers turn `1e-3` into a string
    from ruamel.yaml.error import YAMLError

    path = path or repository_root() / "params.yaml"
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no {path}: create it or name another file.") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read as text: name another file.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML{f', see line {mark.line + 1}' if mark else ''}: mend it or name another file.") from None
    return from_dict(values, path.name)


def from_dict(values: dict, source: str = "params.yaml") -> Config:
    """Check and freeze. `values`: section -> key -> value, only the sections at hand."""
    if not isinstance(values, dict):
        raise UserError(f"{source} must hold sections such as `video:`; see the one in the repository.")
    cfg = Config({name: _section(name, body, source) for name, body in values.items()})
    _agree(vars(cfg), source)
    return cfg


def _agree(given: dict, source: str) -> None:
    """What two keys must have in common."""
    video, sft, model, compress = (given.get(name) for name in ("video", "sft", "model", "compress"))
    if compress and (wrong := [name for name in compress.variants if not VARIANT.fullmatch(name)]):
        raise UserError(f"{source}: `compress.variants` has no `{wrong[0]}`: {VARIANTS}.")
    if model and (model.hidden % model.heads or model.heads % model.kv_heads or model.vision_hidden % model.vision_heads):
        raise UserError(f"{source}: `model.hidden` must divide by `heads`, `heads` by `kv_heads`, and `vision_hidden` by `vision_heads`.")
    frames = video.fps * video.chunk_s if video else 1
    if abs(frames - round(frames)) > 1e-6 or frames < 1:
        raise UserError(f"{source}: `video.fps` x `video.chunk_s` must be a whole number of frames, not {frames:g}.")
    if frames > FRAMES_AT_MOST:
        raise UserError(f"{source}: `video.fps` x `video.chunk_s` must be at most {FRAMES_AT_MOST} frames, not {frames:g}.")
    if sft and sft.stride_s > sft.window_s:
        raise UserError(f"{source}: `sft.stride_s` must be at most `sft.window_s`, or seconds between two windows are never learned.")
    for key in ("window_s", "stride_s") if video and sft else ():
        if abs(getattr(sft, key) / video.chunk_s % 1) > 1e-6:
            raise UserError(f"{source}: `sft.{key}` must be a whole number of chunks of {video.chunk_s:g} s, not {getattr(sft, key)} s.")


def _section(name: str, body: dict, source: str):
    cls = SECTIONS.get(name)
    if cls is None:
        raise UserError(f"{source}: unknown section `{name}`; it has {', '.join(SECTIONS)}.")
    if not isinstance(body, dict):
        raise UserError(f"{source}: `{name}` must hold keys, not {body!r}.")
    types = typing.get_type_hints(cls)
    for key in body:
        if key not in types:
            raise UserError(f"{source}: unknown key `{name}.{key}`; `{name}` has {', '.join(types)}.")
    missing = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING and f.name not in body]
    if missing:
        raise UserError(f"{source}: `{name}.{missing[0]}` is missing.")
    for key, given in body.items():
        where = f"{source}: `{name}.{key}`"
        value = _typed(where, given, types[key])
        body = {**body, key: value}
        _bounded(where, value, AT_MOST.get(f"{name}.{key}", LARGEST))
        least = AT_LEAST.get(f"{name}.{key}")
        if least is not None and value < least:
            raise UserError(f"{where} must be at least {least}, not {value}.")
        choices = ONE_OF.get(f"{name}.{key}", (value,))
        if value not in choices:
            raise UserError(f"{where} must be one of {', '.join(map(str, choices))}, not {value!r}.")
        if f"{name}.{key}" in ABOVE_ZERO and value <= 0:
            raise UserError(f"{where} must be above 0, not {value}.")
    return cls(**body)


def _bounded(where: str, value, most: float) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= most:  # NaN is no answer to any comparison
        finite = isinstance(value, int) or math.isfinite(value)
        raise UserError(f"{where} must be {f'at most {most} either way' if finite else 'a finite number'}, not {value}.")


def _typed(where: str, value, kind):
    if typing.get_origin(kind) is list:
        inner = typing.get_args(kind)[0]
        if isinstance(value, list):
            return [_typed(where, item, inner) for item in value]
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    elif type(value) is kind:
        return value
    wanted = getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else str(kind)
    raise UserError(f"{where} must be {wanted}, not {value!r}.")
