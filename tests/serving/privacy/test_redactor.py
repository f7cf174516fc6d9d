"""No path stores or sends a pixel that no redactor saw; what is hidden is hidden wherever its box is, over gaps and where nobody looked."""

from __future__ import annotations

import ast
import asyncio
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from serving_fake import FakeService, alarm, running

from streamingvlm import serving
from streamingvlm.serving.api.sockets import packed
from streamingvlm.serving.privacy import held as helds
from streamingvlm.serving.privacy.held import Held
from streamingvlm.serving.privacy.redactor import HIDE, Redacted, Redactor, clipped, head, jpeg_of, stored
from streamingvlm.serving.privacy.waiting import PATIENCE_S, Waiting
from streamingvlm.serving.results import Record, Results
from streamingvlm.serving.store import Store

ROOM = Path(serving.__file__).parent
EDGE = st.floats(-0.5, 1.5) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e300])
BOXES = st.lists(st.tuples(EDGE, EDGE, EDGE, EDGE), max_size=5)
INSIDE = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.02, 0.5), st.floats(0.02, 0.5)).map(
    lambda part: (part[0], part[1], min(part[0] + part[2], 1.0), min(part[1] + part[3], 1.0)))


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(BOXES, st.integers(2, 90), st.integers(2, 90))
@settings(max_examples=50, deadline=None)
def test_what_is_in_a_box_leaves_no_trace_but_its_cells_means(boxes, height, width):
    redactor, mine, other = Redactor("people"), noise(height, width, 1), noise(height, width, 2)
    for box in boxes:
        if (place := clipped(box, height, width)) is None:
            continue
        left, top, right, bottom = place
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        inside = (slice(top, bottom), slice(left, right))
        shuffled = mine.copy()
        shuffled[inside] = other[inside]  # somebody else
        kinds = len(np.unique(redactor.hidden(shuffled, boxes)[inside].reshape(-1, 3), axis=0))
        assert kinds <= 25 * max(len(boxes), 1), "no more colours than cells"
    assert np.array_equal(redactor.hidden(mine, []), mine)
    assert not boxes or np.array_equal(mine, noise(height, width, 1)), "the picture handed in is as it was"


@given(INSIDE, st.integers(16, 200), st.integers(16, 200))
@example((0.5, 0.5, 1.0, 1.0), 25, 25)  # what a whole number of cells leaves over is one pixel
@settings(max_examples=200, deadline=None)
def test_a_persons_pixels_are_all_covered(box, height, width):
    stripes = (np.indices((height, width)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    changed = (Redactor("people").hidden(stripes, [box]) != stripes).any(2)
    left, top, right, bottom = clipped(box, height, width)
    assert changed[top:bottom, left:right].all() and right >= box[2] * width and left <= box[0] * width and bottom >= box[3] * height


def test_where_nobody_looked_everything_is_hidden():
    picture = noise(60, 90, 0)
    for hide in HIDE:
        out = Redactor(hide).hidden(picture, None)
        if hide == "nothing":
            assert out is picture
        else:
            assert len(np.unique(out.reshape(-1, 3), axis=0)) <= 48 and not (out == picture).all(2).mean() > 0.01
    assert len(np.unique(Redactor("everything").hidden(picture, []).reshape(-1, 3), axis=0)) <= 48


def test_a_face_is_hidden_near_and_all_of_a_person_far_away():
    assert head((0.4, 0.1, 0.6, 0.9), 100, 100) == (0.4, 0.1, 0.6, 0.9)
    x0, y0, x1, y1 = head((0.4, 0.1, 0.6, 0.9), 400, 400)
    assert x0 < 0.4 and x1 > 0.6 and y0 < 0.1 and y1 == pytest.approx(0.42)
    assert head((0.1, 0.4, 0.9, 0.8), 400, 400) == (0.1, 0.4, 0.9, 0.8), "who lies has a head at either end"


@given(st.lists(st.booleans(), min_size=3, max_size=40), st.floats(-0.3, 0.3), st.floats(0.05, 0.9), st.floats(0.0, 1.5))
@settings(max_examples=50, deadline=None)
def test_somebody_who_walks_stays_covered_over_gaps_no_longer_than_the_hold(found, speed, start, more_s):
    held, size, fps, last_seen, sights = Held(1.0), (0.06, 0.2), 8, None, 0
    for k, seen in enumerate(found):
        x = start + speed * k / fps
        box = (x, 0.4, x + size[0], 0.4 + size[1])
        if not 0 <= x <= 1 - size[0]:
            break
        held.see(k / fps, [box] if seen else [])
        sights, last_seen = (sights + 1, k / fps) if seen else (sights, last_seen)
        boxes = held.at(k / fps)
        if last_seen is not None and k / fps - last_seen <= 1.0 and (sights >= 2 or abs(speed) <= helds.FAST):
            assert any(b[0] <= box[0] + 1e-9 and b[1] <= box[1] and b[2] >= box[2] - 1e-9 and b[3] >= box[3] for b in boxes), (k, box, boxes)
    assert Held().at(0.0) is None
    held.see(100.0, [])
    assert held.at(100.0 + more_s) == (None if more_s > 1.0 else []) and held.at(99.0) is None
    patient = Held(60.0)
    patient.see(0.0, [(0.4, 0.4, 0.5, 0.6)])
    assert patient.at(1.0) and patient.at(1.1) is None, "held for a minute, but nobody looked for new ones"


@given(st.lists(st.tuples(st.sampled_from(["picture", "decided", "dropped", "late", "gone"]), st.lists(INSIDE, max_size=2)), max_size=40),
       st.sampled_from(["people", "faces", "everything"]))
@settings(max_examples=40, deadline=None)
def test_whatever_comes_in_whatever_order_no_picture_gets_out_as_it_is(happens, hide):
    """Each picture that gets out without a detection of its own, or, where it was dropped, one in the second before it and one in that after it, is
    hidden altogether."""
    out, index, now, times, looked = [], 0, 0.0, {}, {}
    waiting = Waiting(hide, 1.0, lambda header, picture: out.append((header, picture)))
    stripes = ((np.indices((32, 32)).sum(0) % 2 == 0) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    for what, boxes in happens:
        now += PATIENCE_S + 1 if what == "late" else 0.125
        if what in {"picture", "late"}:
            index += 1
            times[index] = now
            waiting.picture(index, now, {"index": index, "at": now}, stripes, now)
        elif what == "gone":
            waiting.forget()
        elif index:
            looked[index] = looked.get(index, False) or what == "decided"
            waiting.decided(index, times[index], boxes if what == "decided" else None)
    assert len({header["index"] for header, _ in out}) == len(out)
    assert [header["index"] for header, _ in out] == sorted(header["index"] for header, _ in out)
    for header, picture in out:
        pixels = np.asarray(Image.open(io.BytesIO(jpeg_of(picture))).convert("L")).astype(int)
        mine = header["index"]
        near = [other for other, seen in looked.items() if seen and abs(times[mine] - times[other]) <= 1]
        between = mine in looked and any(other < mine for other in near) and any(other > mine for other in near)
        if hide == "everything" or not (looked.get(mine) or between):
            assert pixels.std() < 8, "nobody looked: no stripe is left"


def test_a_still_of_an_alarm_hides_whom_it_shows_and_everything_of_a_frame_that_nobody_knows():
    waiting = Waiting("people", 1.0, lambda header, picture: None)
    picture = np.where(np.indices((80, 80)).sum(0)[..., None] % 2, np.uint8(255), np.uint8(0)).repeat(3, 2)
    waiting.decided(7, 1.0, [(0.0, 0.0, 0.3, 0.3)])
    waiting.decided(8, 1.125, [(0.9, 0.0, 1.0, 0.1)])
    known, unknown = (np.asarray(Image.open(io.BytesIO(jpeg_of(waiting.still(index, picture)))).convert("L")).astype(int) for index in (7, 3))
    assert known[:24, :24].std() < 10 and known[:8, 72:].std() < 10 < known[50:, :].std(), "who came a frame later as well"
    assert unknown.std() < 10
    waiting.forget()
    assert np.asarray(Image.open(io.BytesIO(jpeg_of(waiting.still(8, picture))))).std() < 10


def shown(pictures) -> dict[int, np.ndarray]:
    return {header["index"]: np.asarray(Image.open(io.BytesIO(jpeg_of(picture))).convert("L")).astype(int) for header, picture in pictures}


def test_where_the_last_look_is_long_ago_or_the_only_one_nobody_who_came_since_is_shown():
    """However long people are held: a detector that died knows nothing of newcomers, and a frame that it left out is between two looks or hidden."""
    out = []
    waiting = Waiting("people", 60.0, lambda header, picture: out.append((header, picture)))
    stripes = ((np.indices((64, 64)).sum(0) % 2 == 0) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    for index, at_s in ((1, 1.0), (2, 1.125), (3, 20.0), (4, 25.0)):
        waiting.picture(index, at_s, {"index": index}, stripes, at_s)
        waiting.decided(index, at_s, [(0.0, 0.0, 0.2, 0.2)] if index == 1 else None)
    waiting.picture(5, 40.0, {"index": 5}, stripes, 40.0)
    assert set(shown(out)) == {1, 2, 3, 4}
    assert shown(out)[1][40:, 40:].std() > 50 and all(shown(out)[index].std() < 10 for index in (2, 3, 4))


def test_heads_are_cut_before_they_are_held_so_that_none_leaves_its_box():
    """`faces`: the head of who is not found again is hidden where it may be by now, however large the held box grew."""
    out, size = [], 400
    waiting = Waiting("faces", 1.0, lambda header, picture: out.append((header, picture)))
    stripes = ((np.indices((size, size)).sum(0) % 2 == 0) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    person = (0.4, 0.3, 0.5, 0.9)
    waiting.picture(0, 0.0, {"index": 0}, stripes, 0.0)
    for index in range(1, 7):
        waiting.picture(index, index / 8, {"index": index}, stripes, 0.0)
        waiting.decided(index, index / 8, [person] if index == 1 else [])
    for index, pixels in shown(out).items():
        if index >= 1:
            x0, y0, x1, y1 = (int(edge * size) for edge in (person[0], person[1], person[2], person[1] + 0.4 * (person[3] - person[1])))
            assert pixels[y0:y1, x0:x1].std() < 30, index
            assert pixels[int(0.75 * size) : int(0.85 * size), int(0.42 * size) : int(0.48 * size)].std() > 50, "legs are no faces"


def test_how_large_people_stand_in_the_pictures_is_not_known_of_a_new_connection():
    """`faces`: who is tall in large pictures has a head; in small ones they are hidden whole, also by what is decided before the first of them."""
    waiting, person = Waiting("faces", 1.0, lambda header, picture: None), (0.4, 0.1, 0.6, 0.9)
    waiting.picture(0, 0.0, {"index": 0}, noise(400, 400, 0), 0.0)
    waiting.forget()
    waiting.decided(1, 0.0, [person])
    assert all(edge <= mine for edge, mine in zip(waiting.held.people[0].box[:2], person[:2], strict=True)) and waiting.held.people[0].box[3] >= 0.9


def test_pictures_are_drawn_where_they_are_told_to_be_and_in_order():
    jobs, out = [], []
    waiting = Waiting("people", 1.0, lambda header, picture: out.append(header["index"]), jobs.append)
    for index in range(4):
        waiting.picture(index, index / 8, {"index": index}, noise(16, 16, 0), 0.0)
        waiting.decided(index, index / 8, [])
    assert not out and len(jobs) == 3, "whoever tells of decisions draws nothing"
    for job in jobs:
        job()
    assert out == [0, 1, 2]


def test_only_a_redactor_makes_what_may_be_stored_or_sent(tmp_path):
    with pytest.raises(TypeError):
        Redacted(b"jpeg", object())
    picture = Redactor("people")(noise(8, 8, 0), [])
    assert jpeg_of(pickle.loads(pickle.dumps(picture))) == jpeg_of(picture) and "bytes" in repr(picture)
    store, results = Store(str(tmp_path / "r.sqlite")), Results()
    record = Record({"seq": 1, "at": 1.0} | alarm("door", 1))
    for wrong in (b"\xff\xd8 raw", bytearray(b"x"), noise(8, 8, 0), "x", memoryview(b"x")):
        for write in (jpeg_of, lambda raw: results.publish(alarm("door", 1), raw), lambda raw: store.write(record, raw), lambda raw: packed({}, raw)):
            with pytest.raises(TypeError):
                write(wrong)
    assert results.since(0)[0] == [] and store.status()["waiting"] == 0
    store.close()

    async def run():
        service = FakeService()
        service.picture = lambda name: ({"stream": name, "frame": 1, "pts_s": 0.0}, b"\xff\xd8 raw")
        async with running(service) as (client, _):
            try:
                answer = await client.get("/api/cameras/door/picture.jpg")
            except Exception:  # the server gives up on it
                return
            assert answer.status_code == 500 and b"raw" not in answer.content

    asyncio.run(run())


def test_nothing_else_in_the_room_makes_pictures_or_calls_what_was_not_redacted_so():
    """Over the source of the whole room: who encodes, who reads back, who holds the key, who writes bytes of pictures."""
    found: dict[str, set[str]] = {}
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else \
                node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else \
                node.id if isinstance(node, ast.Name) and node.id == "_KEY" else ""
            found.setdefault(name, set()).add(path.relative_to(ROOM).as_posix())
    assert found["as_jpeg"] == {"privacy/redactor.py"} and found["_KEY"] == {"privacy/redactor.py"} and found["Redacted"] >= {"privacy/redactor.py"}
    assert {path for path in found["stored"] if path != "privacy/redactor.py"} == {"store.py"}
    assert found.get("save", set()) <= {"privacy/redactor.py", "live/service.py", "live/analyst.py", "replicas/replica.py"}, \
        "nobody else saves a picture; the last three save what a stream remembers"
    assert found["write_bytes"] == {"governance.py", "replicas/replica.py"}, "the latter what a stream remembers, on its way to another"
    assert not {"imwrite", "imsave", "tofile", "to_image", "write_h264", "mux"} & found.keys()
    assert found["jpeg_of"] == {"api/routes.py", "api/sockets.py", "store.py", "results.py", "governance.py"}
    for path in found["jpeg_of"]:
        assert "._jpeg" not in (ROOM / path).read_text(encoding="utf-8")
    assert stored.__module__.endswith("redactor")
