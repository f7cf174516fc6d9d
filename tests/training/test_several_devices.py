"""SFT on two processes is SFT on one that accumulates twice as much: the same windows, the same gradient, the same weights."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import preloaded
import torch
from helpers import SMALL
from safetensors.torch import load_file

from streamingvlm.base import config
from streamingvlm.base.paths import repository_root
from streamingvlm.data import stream_rows
from streamingvlm.training import sft
from streamingvlm.worlds.match import dataset

ROOT = repository_root(Path(__file__).parent)


def test_two_processes_train_what_one_does_that_accumulates_two_batches(tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(ROOT / "data")
    small = SMALL.replace("tune: full", "tune: lora").replace("steps: 4,", "steps: 2,").replace("train_s: 24,", "train_s: 16,")
    (tmp_path / "params.yaml").write_text(small)
    (tmp_path / "twice.yaml").write_text(small.replace("accumulate: 1", "accumulate: 2"))
    folder = tmp_path / "artifacts" / "subset"
    stream_rows.write(list(dataset.match_rows(config.load(tmp_path / "params.yaml").data, folder / "videos", tmp_path, ("train", "clean"))),
                 folder / "train.parquet")
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [preloaded.python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "streamingvlm.training.sft", "both"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.chdir(tmp_path)
    sft.main(["one", "--params", "twice.yaml"])  # here: torch is imported already
    monkeypatch.chdir(ROOT)
    both, one = (load_file(tmp_path / folder / "model.safetensors") for folder in ("both", "one"))
    before = load_file(ROOT / "data" / "tiny-base" / "model.safetensors")
    moved = [name for name in one if not torch.equal(one[name], before[name])]
    assert moved
    for name in one:
        torch.testing.assert_close(both[name], one[name], rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
