"""A profile fills in what cameras.yaml leaves out, and what it sets reaches the service."""

from __future__ import annotations

import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.serving import profiles
from streamingvlm.serving.cameras import parse
from streamingvlm.serving.live.service import Service


@pytest.mark.parametrize("name", ["edge", "workstation", "cloud"])
def test_every_profile_is_whole_and_reaches_the_service(name):
    settings = parse(profiles.under({"cameras": [{"name": "gate", "url": "push:"}]}, profiles.named(name)))
    service = Service(settings.service, repository_root() / "data" / "city-base")
    assert service.decider.largest == settings.service.batch and service.decider.worker.arguments[2] == settings.service.precision
    assert len(service.readers.pools) == settings.service.io_workers and settings.cameras[0].fps == profiles.named(name)["camera"]["fps"]


def test_the_file_has_the_last_word(tmp_path):
    told = {"service": {"budget_ms": 99}, "cameras": [{"name": "gate", "url": "push:", "fps": 2}, {"name": "yard", "url": "push:"}]}
    settings = parse(profiles.under(told, profiles.named("edge")))
    assert settings.service.budget_ms == 99 and settings.service.batch == 4 and [camera.fps for camera in settings.cameras] == [2, 4]
    strict = {"camera": {"privacy": {"hide": "everything"}}, "service": {"access": {"burst": 7}}}
    told = {"service": {"access": {"per_s": 9}}, "cameras": [{"name": "gate", "url": "push:", "privacy": {"hold_s": 2}}]}
    settings = parse(profiles.under(told, strict))
    assert settings.cameras[0].privacy.hide == "everything" and settings.cameras[0].privacy.hold_s == 2, "one key of a section says nothing of others"
    assert (settings.service.access.burst, settings.service.access.per_s) == (7, 9)
    (tmp_path / "mine.yaml").write_text("camera: {fps: 1}\n")
    assert profiles.named(str(tmp_path / "mine.yaml")) == {"camera": {"fps": 1}}
    (tmp_path / "wrong.yaml").write_text("cameras: []\n")
    for wrong in ("egde", str(tmp_path / "none.yaml"), str(tmp_path / "wrong.yaml")):
        with pytest.raises(UserError):
            profiles.named(wrong)
    for strange in ("text", {"service": 3}, {"cameras": 3}):
        assert profiles.under(strange, {}) == strange
