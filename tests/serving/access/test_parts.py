"""Tokens, the audit log, the allow list and the limits, each by itself; and what `streamingvlm token` says."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.errors import UserError
from streamingvlm.cli.main import main
from streamingvlm.serving.access import needs
from streamingvlm.serving.access.audit import Audit, Entry
from streamingvlm.serving.access.limits import Limit
from streamingvlm.serving.access.sources import Allowed, Refused
from streamingvlm.serving.access.tables import opened
from streamingvlm.serving.access.tokens import Tokens, matches

RULES = ("rtsp://10.1.0.0/16", "rtsp://gate.example:8554/live/", "https://*.example.org", "file:/srv/clips", "rtsp://[fd00::/8]")
IN = ("push:", "webrtc:", "pattern:64x64@8", "rtsp://10.1.2.3/stream", "rtsp://user:secret@10.1.2.3:554/a", "rtsp://gate.example:8554/live/1",
      "https://a.example.org/x.m3u8", "file:/srv/clips/a.mp4?loop=1", "rtsp://[fd00::1]/a")
OUT = ("", "a.mp4", "/srv/clips/a.mp4", "file:a.mp4", "file:/srv/clips/../../etc/passwd", "file:/srv/clipsandmore/a.mp4", "FILE:/etc/passwd", "file:///etc/passwd",
       "rtsp://10.2.0.1/a", "rtsp://10.1.2.3.evil.example/a", "rtsp://10.1.2.3@evil.example/a", "rtsp://evil.example/10.1.2.3", "rtsp://169.254.169.254/",
       "http://169.254.169.254/latest/a.m3u8", "http://127.0.0.1/a.m3u8", "http://localhost/a.m3u8", "http://0x7f000001/a.m3u8", "http://2130706433/a.m3u8",
       "https://example.org/a.m3u8", "https://example.org.evil.example/a.m3u8", "https://a.example.org:8443/a.m3u8", "http://a.example.org/a.m3u8",
       "https://evil.example\\@a.example.org/a.m3u8", "https://evil.example/#@a.example.org/a.m3u8", "https://a.example.org\n.evil.example/a.m3u8",
       "rtsp://gate.example:8554/live/../admin", "rtsp://gate.example:8554/live/%2e%2e/admin", "rtsp://gate.example/live/1", "rtsps://10.1.2.3/a", "gopher://10.1.2.3/",
       "concat:/etc/passwd", "pipe:0", "subfile:,,:/etc/passwd", "pattern:64x64@8 ", "rtsp://10.1.2.3:x/a", "rtsp://[::ffff:10.1.2.3]/a", "rtsp://10.1.2.3%00.evil/a")


def test_a_camera_comes_from_the_list_or_not_at_all():
    allowed = Allowed(RULES)
    for address in IN:
        allowed.check(address)
    for address in OUT:
        with pytest.raises(Refused):
            allowed.check(address)
    with pytest.raises(Refused) as refused:
        Allowed(()).check("rtsp://user:hunter2@10.1.2.3/a")
    assert "hunter2" not in str(refused.value)
    for wrong in ("10.1.2.3", "rtsp://", "rtsp:///a", "gopher://a", "rtsp://user:hunter2@a/"):
        with pytest.raises(UserError) as said:
            Allowed([wrong])
        assert "hunter2" not in str(said.value)


def test_a_link_out_of_the_folder_is_no_way_out(tmp_path):
    inside = tmp_path / "clips"
    inside.mkdir()
    (inside / "link.mp4").symlink_to("/etc/passwd")
    allowed = Allowed([f"file:{inside}"])
    allowed.check(f"file:{inside}/a.mp4")
    with pytest.raises(Refused):
        allowed.check(f"file:{inside}/link.mp4")


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path):
    tokens, now = Tokens(str(tmp_path / "a.sqlite")), time.time()
    made = tokens.add("hans", "read", ["gate", "yard"], now + 60, now)
    [row] = tokens.rows().values()
    assert matches(row, made) and not matches(row, made[:-1] + "!") and not matches(row, made[:-1] + ("a" if made[-1] != "a" else "b"))
    assert row.cameras == {"gate", "yard"} and row.alive(now) and not row.alive(now + 60)
    assert made.split("_", 2)[2] not in str(row) and (tmp_path / "a.sqlite").stat().st_mode & 0o077 == 0
    for wrong in (("hans", "read", None, None), ("x", "king", None, None), ("x", "read", ["a,b"], None), ("x", "read", None, now - 1),
                  ("", "read", None, None)):
        with pytest.raises(UserError):
            tokens.add(*wrong, now)
    tokens.revoke("hans", now)
    assert not tokens.rows()[row.id].alive(now)
    with pytest.raises(UserError, match="revoked"):
        tokens.revoke("hans", now)
    assert tokens.add("hans", "administer", None, None, now) != made


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("ab")), max_size=60), st.floats(0.1, 10), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_nobody_is_served_more_often_than_agreed(asked, per_s, burst):
    limit, now, served = Limit(per_s, burst), 0.0, {"a": [], "b": []}
    for pause, who in asked:
        now += pause
        wait = limit.take(who, now)
        if not wait:
            served[who].append(now)
        else:
            assert wait <= 1 / per_s + 1e-6
    for times in served.values():
        for i, begin in enumerate(times):
            for count, end in enumerate(times[i:], 1):
                assert count <= burst + (end - begin) * per_s + 1e-6


def test_the_audit_log_folds_what_is_looked_at_and_no_change(tmp_path):
    clock = [1000.0]
    audit = Audit(opened(str(tmp_path / "a.sqlite")), lambda: clock[0])
    look = Entry("hans", "read", "192.0.2.7", "GET /api/cameras", "", "200")
    change = Entry("hans", "operate", "192.0.2.7", "DELETE /api/cameras/x", "x", "open")
    for _ in range(5):
        audit.note(look)
        clock[0] += 1
    for _ in range(2):
        audit.change(change)(replace(change, status="204"))
    audit.flush(everything=False)
    assert len(audit.rows(end=1000.0)) == 0
    rows = audit.rows()
    assert [(row["count"], row["status"], row["at"], row["until"]) for row in rows] == [
        (1, "204", 1005.0, 1005.0), (1, "204", 1005.0, 1005.0), (5, "200", 1000.0, 1004.0)]
    clock[0] += 100
    audit.tidy(50)
    assert audit.rows() == []


def test_what_is_not_on_the_list_is_no_way_in():
    for method, path in (("GET", "/api/cameras/"), ("PUT", "/api/cameras"), ("GET", "/api/cameras/a/b/picture.jpg"), ("GET", "/static/a/b"),
                         ("gRPC", "/streamingvlm.v1.Analytics/"), ("WS", "/api/cameras"), ("GET", "/ws")):
        assert needs.of(method, path) is None, (method, path)
    assert needs.of("DELETE", "/api/cameras/gate 2").camera == "gate 2" and needs.of("POST", "/whip/a").role == "operate"


def test_the_command_makes_lists_and_revokes(tmp_path, capsys):
    file = ["--file", str(tmp_path / "a.sqlite")]
    assert main(["token", "add", "hans", "--cameras", "gate", "--until", "2999-01-01", *file]) == 0
    made = capsys.readouterr().out.strip()
    assert matches(next(iter(Tokens(file[1]).rows().values())), made)
    assert main(["token", "list", *file]) == 0
    shown = capsys.readouterr().out
    assert "hans" in shown and "gate" in shown and "until 2999-01-01" in shown and made.split("_", 2)[2] not in shown
    assert main(["token", "revoke", "hans", *file]) == 0 and main(["token", "list", *file]) == 0 and "revoked" in capsys.readouterr().out
    for wrong in (["add"], ["add", "x", "--role", "king"], ["add", "x", "--until", "soon"], ["revoke", "nobody"], ["list", "x"]):
        assert main(["token", *wrong, *file]) == 2
    assert main(["serve", "--demo", "--host", "0.0.0.0", "--no-open"]) == 2 and "no access is set up" in capsys.readouterr().err
