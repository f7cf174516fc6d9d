"""What a cameras.yaml may say, and the one sentence for what it may not."""

from __future__ import annotations

import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.serving import cameras

URL = "rtsp://operator:hunter2@192.0.2.7/1"


def test_two_lines_a_camera_are_enough(tmp_path):
    path = tmp_path / "cameras.yaml"
    path.write_text(f"cameras:\n  - {{name: gate, url: '{URL}'}}\n  - {{name: yard 2, url: 'pattern:64x64@8', delay_s: 1.5, mode: freshest}}\n")
    gate, yard = cameras.load(path).cameras
    assert (gate.url, gate.mode, yard.delay_s, yard.mode) == (URL, "auto", 1.5, "freshest")


def test_what_is_an_integer_in_json_is_one_here_and_a_truth_is_none():
    assert cameras.parse_camera({"name": "a", "url": "push:", "priority": 5.0}).priority == 5
    for wrong in (True, 5.5, "5"):
        with pytest.raises(UserError, match="`priority`"):
            cameras.parse_camera({"name": "a", "url": "push:", "priority": wrong})


def test_anchors_empty_files_and_empty_keys_are_fine(tmp_path):
    path = tmp_path / "cameras.yaml"
    anchored = "cameras:\n - &d {name: a, url: 'pattern:64x64', delay_s: 1}\n - {<<: *d, name: b}\n"
    for content, names in (("", []), ("cameras:\nservice:\n", []), (anchored, ["a", "b"])):
        path.write_text(content)
        assert [camera.name for camera in cameras.load(path).cameras] == names
    with pytest.raises(UserError, match="another file"):
        cameras.load(tmp_path)


@pytest.mark.parametrize(("told", "said"), [
    ([], "must hold a list `cameras:`"),
    ({"kameras": []}, "unknown key `kameras`"),
    ({"camera": {"url": "rtsp://u:hunter2@a"}}, "neither a name nor an address"),
    ({"camera": {"hide": "people"}}, "unknown key `hide`"),
    ({"cameras": [{"name": "a", "url": URL}, {"name": "a", "url": URL}]}, "two cameras are called 'a'"),
    ({"cameras": [{"name": "a", "url": URL, "dealy_s": 1}]}, "unknown key `cameras.0.dealy_s`"),
    ({"cameras": [{"name": "a", "url": URL, "privacy": {"hid": 1}}]}, "unknown key `cameras.0.privacy.hid`; there are hide, hold_s"),
    ({"service": {"access": {"token": "a"}}}, "unknown key `service.access.token`; there are tokens, certificate"),
    ({"cameras": [{"name": "a"}]}, "`cameras.0.url` is missing"),
    ({"cameras": [{"name": "../a", "url": URL}]}, "a letter or a digit"),
    ({"cameras": [{"name": "a", "url": URL, "delay_s": 3}]}, "less than or equal to 2"),
    ({"cameras": [{"name": "a", "url": URL, "fps": "fast"}]}, "valid number"),
    ({"service": {"max_cameras": 1}, "cameras": [{"name": name, "url": URL} for name in "ab"]}, "more than `service.max_cameras`"),
    ({"service": {"port": 70_000}}, "65535"),
    ({"cameras": [{"name": "a", "url": URL, "keep": {"records_s": True}}]}, "valid number, not 'True'"),
    ({"cameras": [{"name": "Gate", "url": URL}, {"name": "gate", "url": URL}]}, "'gate', small letters or not"),
    ({"cameras": [{"name": "Größe", "url": URL}]}, "a to z"),
    ({"cameras": [{"name": "gate ", "url": URL}]}, "spaces between"),
    ({"cameras": URL}, "`cameras` must hold a list"),
    ({"cameras": [URL]}, "`cameras.0` must hold a camera"),
    ({"service": [1]}, "`service` must hold keys"),
    ({"cameras": [{"name": "a", "url": URL, "transport": "http"}]}, "'tcp' or 'udp'"),
    ({"cameras": [{"name": str(k), "url": URL} for k in range(200)]}, "200 cameras are more than"),
])
def test_what_is_wrong_is_one_sentence_without_an_address(told, said):
    with pytest.raises(UserError) as error:
        cameras.parse(told)
    text = str(error.value)
    assert said in text and text.startswith("cameras.yaml") and text.endswith(".") and "\n" not in text and "hunter2" not in text


@pytest.mark.parametrize(("content", "said"), [(None, "--demo"), (b"cameras: [", "line"), (b"\xff\xfe\xfa", "text"),
                                               (b"cameras: []\n---\ncameras: []", "line")])
def test_a_file_that_is_none(tmp_path, content, said):
    path = tmp_path / "cameras.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        cameras.load(path)
