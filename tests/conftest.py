"""Tiny random models and made-up chunks. One thread: two beside other load can be twenty times slower.

The controller of several workers imports nothing heavy, and its workers are forked from an interpreter that did: see `preloaded`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import sys
from typing import TYPE_CHECKING

import preloaded
import pytest
from helpers import TINY

if TYPE_CHECKING:
    from streamingvlm.models.qwen25.vlm import VLM


def pytest_addoption(parser):
    parser.addoption("--examples", type=int, default=0, help="requests of each operation and message that fuzzing makes, new ones each time")


def pytest_configure(config):
    """Whoever runs tests here, and the worker processes that they start, are forked from an interpreter that is warm.

    All leave bytecode beside the sources, whatever the environment says: without it, workers rewrite the same hundred files of tests, and some
    hundred processes each compile what they import of src/."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if not hasattr(config, "workerinput"):
        running = contextlib.ExitStack()
        running.enter_context(preloaded.servers())
        config.add_cleanup(running.close)
        forked = f"popen//python={shlex.quote(preloaded.python())}"
        config.option.tx = [forked if spec == "popen" else spec for spec in getattr(config.option, "tx", [])]
    else:
        sys.executable = sys.orig_argv[0]  # a plain Python is still one that imports all by itself
    multiprocessing.set_executable(preloaded.python())


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """The longest files first: begun last, one would run alone while the other workers have nothing left."""
    items.sort(key=lambda item: (item.path.name != "test_pipeline.py", item.path.name != "test_run_notebook.py"))


@pytest.fixture(scope="session")
def words():
    from streamingvlm.models.qwen25 import tokenizer
    from streamingvlm.worlds.match import game

    return tokenizer.build(game.WORDS)


@pytest.fixture(scope="session")
def vlm(words) -> VLM:
    """A random model that talks. As it is built, what it reads last is what it would say next: the end of a turn, always."""
    import torch

    from streamingvlm.models.qwen25 import loading

    built = loading.build(TINY, words)
    with torch.no_grad():
        built.hf.lm_head.weight.normal_(std=0.125, generator=torch.Generator().manual_seed(3))
    return built
