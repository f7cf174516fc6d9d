"""What tests of the commands share: a model on disk, and a short film beside an empty working folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from video_files import make


@pytest.fixture(scope="module")
def model(vlm, tmp_path_factory) -> str:
    """A folder with the tiny random model."""
    folder = tmp_path_factory.mktemp("model")
    vlm.save(folder)
    return str(folder)


@pytest.fixture
def film(tmp_path, monkeypatch) -> Path:
    """90 frames; the working folder is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return make(tmp_path / "film.mp4", 90, size=(112, 56))
