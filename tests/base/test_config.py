"""params.yaml: what is wrong is named in one sentence; what is right arrives with its type."""

from __future__ import annotations

import dataclasses
import re

import pytest

from streamingvlm.base import config
from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root

ROOT = repository_root()


def test_the_repository_s_own_params_are_complete():
    cfg = config.load(ROOT / "params.yaml")
    assert set(vars(cfg)) == set(config.SECTIONS)
    assert isinstance(cfg.sft.lr, float) and isinstance(cfg.stream.policies, list)


@pytest.mark.parametrize(("values", "sentence"), [
    ({"vidoe": {}}, "unknown section `vidoe`"), ({"video": {"fpz": 2}}, "unknown key `video.fpz`"),
    ({"video": {"fps": "two"}}, "`video.fps` must be float, not 'two'"), ({"video": {"fps": True}}, "`video.fps` must be float, not True"),
    ({"cache": {"text_sink": 8.5}}, "`cache.text_sink` must be int, not 8.5"), ({"stream": {"policies": "full"}}, "must be list[str]"),
    ({"stream": {"policies": [1]}}, "`stream.policies` must be str, not 1"),
    ({"compress": {"variants": ["int4"]}}, "`compress.variants` has no `int4`"),
    ({"compress": {"variants": ["float32", "mlp25int8"]}}, "has no `mlp25int8`"), ({"compress": {}}, "`compress.variants` is missing"),
    ({"video": None}, "`video` must hold keys"), ([], "must hold sections"),
    ({"cache": {"vision_rounds": 0}}, "`cache.vision_rounds` must be at least 1"), ({"cache": {"text_sink": -1}}, "must be at least 0"),
    ({"video": {"fps": 0}}, "`video.fps` must be above 0"), ({"video": {"fps": 2.5}}, "must be a whole number of frames, not 2.5"),
    ({"cache": {"refresh": "all"}}, "`cache.refresh` must be one of none, closing, previous_text, said, rounds, all_text"),
    ({"cache": {"text_window": -4}}, "`cache.text_window` must be at least 0"),
 ({"sft": dict.fromkeys(("seed", "window_s"), 1)}, "is missing"),
])
def test_what_is_wrong_is_named(values, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        config.from_dict(values)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"stride_s": 25}, "`sft.stride_s` must be at most `sft.window_s`"),
    ({"window_s": 25}, "`sft.window_s` must be a whole number of chunks of 2 s")])
def test_windows_that_do_not_fit_are_named(change, sentence):
    cfg = config.load(ROOT / "params.yaml")
    values = {"sft": dataclasses.asdict(cfg.sft) | change, "video": {"fps": 2.0, "chunk_s": 2.0}}
    with pytest.raises(UserError, match=re.escape(sentence)):
        config.from_dict(values)


def test_a_section_that_was_not_given_cannot_be_read():
    with pytest.raises(UserError, match="`sft` was asked for but not given"):
        _ = config.from_dict({"video": {}}).sft


def test_yaml_is_read_as_dvc_reads_it(tmp_path):
    (tmp_path / "p.yaml").write_text("video: {fps: 1e-1, chunk_s: 10}\n")
    assert config.load(tmp_path / "p.yaml").video == config.Video(0.1, 10.0)
    (tmp_path / "p.yaml").write_text("video: {fps: [}\n")
    with pytest.raises(UserError, match="not valid YAML"):
        config.load(tmp_path / "p.yaml")


def test_one_section_changes_and_the_rest_stays():
    cfg = config.load(ROOT / "params.yaml")
    other = cfg.having("sft", stride_s=24)
    assert other.sft.stride_s == 24 != cfg.sft.stride_s and other.video is cfg.video and other.sft.lr == cfg.sft.lr
