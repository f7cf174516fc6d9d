"""Tiny random models and made-up chunks. One thread: two beside other load can be twenty times slower."""

from __future__ import annotations

import contextlib
import multiprocessing

import preloaded
import pytest
import torch
from helpers import TINY

from streamingvlm.models.qwen25 import loading, tokenizer
from streamingvlm.models.qwen25.vlm import VLM
from streamingvlm.worlds.match import game

torch.set_num_threads(1)


def pytest_configure(config):
    """Worker processes, of the tests and of what they start, are forked from an interpreter that is warm."""
    if not hasattr(config, "workerinput"):
        running = contextlib.ExitStack()
        running.enter_context(preloaded.servers())
        config.add_cleanup(running.close)
    multiprocessing.set_executable(preloaded.python())


def pytest_collection_modifyitems(items):
    """The longest file first: begun last, it would run alone while the other worker has nothing left."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")


@pytest.fixture(scope="session")
def words():
    return tokenizer.build(game.WORDS)


@pytest.fixture(scope="session")
def vlm(words) -> VLM:
    """A random model that talks. As it is built, what it reads last is what it would say next: the end of a turn, always."""
    built = loading.build(TINY, words)
    with torch.no_grad():
        built.hf.lm_head.weight.normal_(std=0.125, generator=torch.Generator().manual_seed(3))
    return built
