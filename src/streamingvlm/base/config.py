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
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.base.patches import CELL_PX
from streamingvlm.base.paths import repository_root


@dataclass(frozen=True)
class Data:
    seed: int
    clips: list[str]
    loop_clip: str
    loop_s: int
    train_matches: int
    train_s: int
    clean_matches: int
    eval_matches: int
    eval_s: int
    long_s: int


@dataclass(frozen=True)
class Video:
    fps: float = 2.0
    chunk_s: float = 1.0
    max_pixels: int = 7056
    min_pixels: int = 0  # smaller pictures are enlarged


@dataclass(frozen=True)
class Retention:
    text_sink: int = 8
    text_window: int = 32
    vision_rounds: int = 4
    text_rounds: int = 0  # `upstream` alone counts the rounds of text apart; 0: as many as of vision
    pin_query: bool = True
    restart_rounds: int = 24
    refresh: str = "none"


@dataclass(frozen=True)
class Model:
    seed: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_intermediate: int


@dataclass(frozen=True)
class Pretrain:
    seed: int
    document_s: int
    documents: int
    shortest_s: int
    longest_s: int
    clips: int
    asked: int
    reading_steps: int
    moment_steps: int
    clip_steps: int
    language_lr: float
    matches: int
    match_s: int
    vision_steps: int
    vision_batch: int
    vision_lr: float
    both_steps: int
    both_lr: float


@dataclass(frozen=True)
class Sft:
    seed: int
    base: str
    window_s: int
    stride_s: int
    starts: str
    steps: int
    lr: float
    anneal_steps: int
    anneal_lr: float
    batch: int
    accumulate: int
    packed: bool
    tune: str
    lora_rank: int
    tune_vision: bool
    dtype: str
    checkpoint_every: int


@dataclass(frozen=True)
class Compress:
    variants: list[str]


@dataclass(frozen=True)
class Stream:
    policies: list[str] = field(default_factory=lambda: ["streaming"])
    ablations: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    max_new_tokens: int = 20
    timed_s: int = 600
    query: str = "Commentate on this match"
    repetition_penalty: float = 1.0  # on every id in the context, pads and specials included; 1 changes nothing
    temperature: float = 0.0  # 0: always the likeliest word
    top_k: int = 50  # how many words are drawn from where the temperature is above 0; 0: all
    seed: int = 0


@dataclass(frozen=True)
class City:
    worlds: int
    frames: int
    variants: list[str]
    compress: list[str]
    compressed_worlds: int


@dataclass(frozen=True)
class Live:
    budget_ms: float
    virtual_s: int
    streams: list[int]
    worlds: int
    slower: list[float]
    trial_s: int


@dataclass(frozen=True)
class Evaluate:
    tolerance_s: float


@dataclass(frozen=True)
class Run:
    device: str = "auto"
    threads: int = 1
    decode: str = "auto"
    head: str = "whole"


# The least value that makes sense, by section.key
AT_LEAST = {"data.loop_s": 1, "data.train_matches": 1, "data.train_s": 1, "data.eval_matches": 1, "data.eval_s": 1, "data.long_s": 1,
            "video.max_pixels": CELL_PX**2, "cache.text_sink": 0, "cache.text_window": 0, "cache.vision_rounds": 1, "cache.text_rounds": 0,
            "cache.restart_rounds": 1, "data.clean_matches": 0, "sft.window_s": 1, "sft.stride_s": 1, "sft.steps": 0, "sft.anneal_steps": 0,
            "sft.accumulate": 1, "sft.lora_rank": 1, "sft.batch": 1, "sft.checkpoint_every": 1, "stream.top_k": 0, "stream.temperature": 0,
            "stream.timed_s": 1, "stream.max_new_tokens": 1, "video.min_pixels": 0, "city.worlds": 1, "city.frames": 32, "city.compressed_worlds": 1,
            "live.virtual_s": 10, "live.worlds": 1, "live.trial_s": 1, "evaluate.tolerance_s": 0, "run.threads": 1,
            **{f"{name}.seed": 0 for name in ("data", "model", "pretrain", "sft", "stream")},
            **{f"model.{key}": 1 for key in ("hidden", "layers", "heads", "kv_heads", "intermediate", "vision_hidden", "vision_depth",
                                             "vision_heads", "vision_intermediate")}}
ABOVE_ZERO = {"live.budget_ms", "video.fps", "video.chunk_s", "sft.lr", "sft.anneal_lr", "stream.repetition_penalty"}
# No number may be larger than any of these; what is absurd would else end in the middle of a run, in somebody else's words
AT_MOST = {"run.threads": 4096, "video.fps": 100_000, "video.chunk_s": 3600, "video.max_pixels": 1 << 26, "stream.max_new_tokens": 100_000,
           "stream.repetition_penalty": 1000, "sft.lr": 1000, "sft.anneal_lr": 1000}
LARGEST, FRAMES_AT_MOST = 2**31 - 1, 3600  # frames of one chunk: they are in memory together

ONE_OF = {"cache.refresh": ("none", "closing", "previous_text", "said", "rounds", "all_text"), "run.device": ("auto", "cpu", "cuda"),
          "run.decode": ("auto", "eager", "graph", "compile"), "run.head": ("whole", "quick"),
          "sft.starts": ("grid", "random"), "sft.tune": ("full", "lora"), "sft.dtype": ("float32", "bfloat16")}

VARIANT = re.compile(r"float32|(int8|pruned\d\d|mlp\d\d|sparse24)(_(int8|pruned\d\d|mlp\d\d|sparse24))*")
VARIANTS = "name float32, int8, pruned25, mlp25, sparse24, or several with _ between"

SECTIONS = {"data": Data, "video": Video, "cache": Retention, "model": Model, "pretrain": Pretrain, "sft": Sft, "compress": Compress,
            "stream": Stream, "city": City, "live": Live, "evaluate": Evaluate, "run": Run}


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
