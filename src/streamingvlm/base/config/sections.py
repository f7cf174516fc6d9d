"""The sections of params.yaml as frozen dataclasses, and what their values must be. Knows no file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from streamingvlm.base.patches import CELL_PX


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
    goals_a_game: int = 5
    reveal_s: float = 0.4
    noise: int = 8


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
    questions: float
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
    weights: str = "auto"


# The least value that makes sense, by section.key
AT_LEAST = {"data.loop_s": 1, "data.train_matches": 1, "data.train_s": 1, "data.eval_matches": 1, "data.eval_s": 1, "data.long_s": 1,
            "data.goals_a_game": 1, "data.reveal_s": 0.1, "data.noise": 2,
            "video.max_pixels": CELL_PX**2, "cache.text_sink": 0, "cache.text_window": 0, "cache.vision_rounds": 1, "cache.text_rounds": 0,
            "cache.restart_rounds": 1, "data.clean_matches": 0, "sft.window_s": 1, "sft.stride_s": 1, "sft.steps": 0, "sft.anneal_steps": 0,
            "sft.questions": 0, "sft.accumulate": 1, "sft.lora_rank": 1, "sft.batch": 1, "sft.checkpoint_every": 1,
            "stream.top_k": 0, "stream.temperature": 0, "stream.timed_s": 1, "stream.max_new_tokens": 1, "video.min_pixels": 0, "city.worlds": 1,
            "city.frames": 32, "city.compressed_worlds": 1, "live.virtual_s": 10, "live.worlds": 1, "live.trial_s": 1, "evaluate.tolerance_s": 0,
            "run.threads": 1,
            **{f"{name}.seed": 0 for name in ("data", "model", "pretrain", "sft", "stream")},
            **{f"model.{key}": 1 for key in ("hidden", "layers", "heads", "kv_heads", "intermediate", "vision_hidden", "vision_depth",
                                             "vision_heads", "vision_intermediate")}}
ABOVE_ZERO = {"live.budget_ms", "video.fps", "video.chunk_s", "sft.lr", "sft.anneal_lr", "stream.repetition_penalty"}
# No number may be larger than any of these; what is absurd would else end in the middle of a run, in somebody else's words
AT_MOST = {"run.threads": 4096, "video.fps": 100_000, "video.chunk_s": 3600, "video.max_pixels": 1 << 26, "stream.max_new_tokens": 100_000,
           "stream.repetition_penalty": 1000, "sft.questions": 1, "sft.lr": 1000, "sft.anneal_lr": 1000,
           "data.goals_a_game": 5, "data.reveal_s": 0.9, "data.noise": 255}
LARGEST, FRAMES_AT_MOST = 2**31 - 1, 3600  # frames of one chunk: they are in memory together

ONE_OF = {"cache.refresh": ("none", "closing", "previous_text", "said", "rounds", "all_text"), "run.device": ("auto", "cpu", "cuda"),
          "run.decode": ("auto", "eager", "graph", "compile"), "run.weights": ("auto", "whole", "quick", "half"),
          "sft.starts": ("grid", "random"), "sft.tune": ("full", "lora"), "sft.dtype": ("float32", "bfloat16")}

VARIANT = re.compile(r"float32|(int8|pruned\d\d|mlp\d\d|sparse24)(_(int8|pruned\d\d|mlp\d\d|sparse24))*")
VARIANTS = "name float32, int8, pruned25, mlp25, sparse24, or several with _ between"

SECTIONS = {"data": Data, "video": Video, "cache": Retention, "model": Model, "pretrain": Pretrain, "sft": Sft, "compress": Compress,
            "stream": Stream, "city": City, "live": Live, "evaluate": Evaluate, "run": Run}
