"""Results: in order, bounded, resumable; a reader that does not read costs nothing but a number."""

from __future__ import annotations

import asyncio
import threading
import time
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fake import alarm, comment, decision

from streamingvlm.serving.privacy.redactor import jpeg_of, stored
from streamingvlm.serving.results import Results

STREAMS = ("door", "yard", "gate")
# (stream, comment or decision, step to its number: none or back is late)
SOME = st.lists(st.tuples(st.sampled_from(STREAMS), st.booleans(), st.sampled_from((1, 1, 1, 2, 0, -1))), min_size=20, max_size=120)


def fill(results: Results, said) -> list[dict]:
    """Publish; what was, as a list without any bound."""
    published, at = [], {}
    for stream, talk, step in said:
        number = max(at.get((stream, talk), -1) + step, 0)
        record = comment(stream, number) if talk else decision(stream, number)
        seq = results.publish(record)
        if seq:
            at[stream, talk] = number
            published.append(record | {"seq": seq})
    return published


@settings(max_examples=60, deadline=None)
@given(said=SOME, kept=st.integers(1, 12), at=st.integers(0, 130), streams=st.sets(st.sampled_from(STREAMS)), decisions=st.booleans())
def test_resuming_gives_all_that_came_after_or_counts_it(said, kept, at, streams, decisions):
    results = Results(kept=kept, first=0)
    published = fill(results, said)
    types = ["decision"] if decisions else None
    records, missed = results.since(at, streams, types)
    due = [record["seq"] for record in published
           if record["seq"] > at and record["stream"] in streams and record["type"] in (types or ("decision", "comment"))]
    got = [record["seq"] for record in records]
    assert got == sorted(got) and set(got) <= set(due) and len(got) + missed == len(due)
    assert sum(results.late.values()) == len(said) - len(published)


def test_a_stream_is_in_order_and_what_is_late_is_counted():
    results = Results()
    assert [bool(results.publish(decision("door", frame))) for frame in (0, 2, 1, 2, 3)] == [True, True, False, False, True]
    assert results.publish(comment("door", 0)) and results.publish(decision("yard", 0)), "comments and other streams have an order of their own"
    assert results.late == {"door": 2}
    assert [record["frame"] for record in results.since(0, ["door"], ["decision"])[0]] == [0, 2, 3]
    results.forget("door")
    assert results.publish(decision("door", 0)), "a camera of the same name begins anew"


def test_numbers_rise_over_restarts_and_the_next_run_is_read_whole():
    first = Results(kept=2)
    seq = first.publish(decision("door", 0))
    again = Results(kept=2, first=first.oldest + 1_000_000)
    for frame in range(5):
        again.publish(decision("door", frame))
    records, missed = again.since(seq)
    assert [record["frame"] for record in records] == [3, 4] and missed == 3 and again.newest < 2**53


@settings(max_examples=60, deadline=None)
@given(said=SOME, kept=st.integers(1, 12), at=st.integers(0, 130), limit=st.integers(1, 9))
def test_pages_together_are_what_one_answer_would_be(said, kept, at, limit):
    results = Results(kept=kept, first=0)
    fill(results, said)
    got, lost, seq = [], 0, at
    while True:
        records, missed = results.since(seq, limit=limit)
        got, lost = got + records, lost + missed
        if len(records) < limit:
            break
        seq = records[-1]["seq"]
    assert (got, lost) == results.since(at)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kept=st.integers(1, 8), queued=st.integers(1, 5), since=st.one_of(st.none(), st.integers(0, 20)))
def test_whenever_it_reads_a_reader_gets_each_record_once_or_counted(data, kept, queued, since):
    async def run():
        results = Results(kept=kept, queued=queued, first=0)
        before = fill(results, [("door", False, 1)] * 20)
        reader = results.subscribe(["door"], since=since)
        due = len([record for record in before if record["seq"] > (20 if since is None else since)])
        frames, missed, frame = [], 0, 20
        for publish, read in [*data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12)), (0, 1000)]:
            for _ in range(publish):
                results.publish(decision("door", frame))
                results.publish(decision("yard", frame))
                frame, due = frame + 1, due + 1
            assert len(reader.waiting) <= queued
            for _ in range(read):
                if len(frames) + missed == due:
                    break
                reading = asyncio.ensure_future(anext(reader))
                await asyncio.sleep(0)
                assert reading.done(), "what is due is at hand"
                record = reading.result()
                missed += record["count"] if record["type"] == "missed" else 0
                frames += [record["frame"]] if record["type"] == "decision" else []
        assert len(frames) + missed == due and frames == sorted(set(frames))

    asyncio.run(run())


def test_a_slow_reader_is_told_what_it_missed_and_slows_nobody():
    async def run():
        results = Results(kept=16, queued=8)
        slow, quick = results.subscribe(), results.subscribe(["door"])
        read = []
        for frame in range(200):
            results.publish(decision("door", frame))
            read.append(await anext(quick))
        assert [record["frame"] for record in read] == list(range(200))
        told = await anext(slow)
        assert told == {"type": "missed", "count": 200 - 16} and [(await anext(slow))["frame"] for _ in range(16)] == list(range(184, 200))
        assert results.depths() == [0, 0]

    asyncio.run(run())


def test_who_resumes_gets_all_that_is_kept_however_short_the_queue():
    async def run():
        results = Results(kept=256, queued=2)
        fill(results, [(stream, False, 1) for _ in range(250) for stream in STREAMS])
        reader = results.subscribe(since=0)
        got = [await anext(reader) for _ in range(750)]
        assert [record["seq"] for record in got] == [results.oldest + 1 + i for i in range(750)]

    asyncio.run(run())


def test_memory_is_flat_however_much_is_published():
    async def run():
        results = Results(kept=16, queued=64)
        readers = [results.subscribe() for _ in range(4)]

        def publish(frames):
            for frame in frames:
                results.publish(decision("door", frame))
                if frame % 50 == 0:
                    results.publish(alarm("door", frame), stored(b"x" * 1000))

        publish(range(10_000))  # past every bound
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        publish(range(10_000, 20_000))
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 400_000, grown  # the numbers of 2 x 4096 records that were let go, and what is kept anew
        assert all(len(reader.waiting) + len(reader.page) <= 64 for reader in readers)

    asyncio.run(run())


def test_following_from_a_number_has_no_gap_and_nothing_twice_while_another_thread_publishes():
    async def run():
        results = Results(kept=5000, queued=5000)
        fill(results, [("door", False, 1)] * 100)
        start = results.since(0)[0][49]["seq"]

        def publish():
            for frame in range(100, 1500):
                results.publish(decision("door", frame))
                if frame % 100 == 0:
                    time.sleep(0.001)

        thread = threading.Thread(target=publish)
        thread.start()
        async with asyncio.timeout(20), results.subscribe(since=start) as records:
            got = [(await anext(records))["frame"] for _ in range(1450)]
        thread.join()
        assert got == list(range(50, 1500))

    asyncio.run(run())


def test_who_left_is_not_published_to():
    async def run():
        results = Results()
        async with results.subscribe() as reader:
            assert len(results.depths()) == 1
        assert results.depths() == [] and not reader.waiting
        dropped = results.subscribe()
        del dropped
        assert results.depths() == []

    asyncio.run(run())


def test_newest_alarm_pictures_are_at_hand_under_the_name_in_the_record():
    results, heard = Results(), []
    results.listen(lambda record, picture: heard.append((record["picture"], picture)))
    names = [results.since(results.publish(alarm("door", frame), stored(b"%d" % frame)) - 1)[0][0]["picture"] for frame in range(200)]
    assert jpeg_of(results.picture(names[-1])) == b"199" and results.picture(names[0]) is None
    assert [(name, jpeg_of(picture)) for name, picture in heard] == [(name, b"%d" % frame) for frame, name in enumerate(names)]
    results.forget("door")
    assert results.picture(names[-1]) is None, "a camera that was taken away leaves no picture"


def test_what_is_erased_is_gone_and_the_rest_stays():
    results = Results()
    for frame in range(6):
        results.publish(decision("door", frame))
        results.publish(alarm("yard", frame), stored(b"x"))
    middle = results.since(0)[0][6]["at"]
    assert results.erase(["yard"]) == 6 and [one["frame"] for one in results.since(0)[0]] == list(range(6))
    assert not results._pictures and results.erase(start=middle + 60) == 0 and results.erase(end=middle + 60) == 6 and results.since(0)[0] == []


def test_a_picture_is_erased_also_where_its_alarm_is_kept_no_more_and_nobody_who_reads_slowly_is_sent_what_was_erased():
    async def run():
        results = Results(kept=1)
        async with results.subscribe() as late:
            for picture in (stored(b"x"), None):
                results.publish(alarm("door", 1), picture)
            results.publish(alarm("yard", 1), stored(b"y"))
            old, yard = (record["picture"] for record in (late.waiting[0], late.waiting[2]))
            assert results.erase(["door"]) == 1 and results.picture(old) is None and jpeg_of(results.picture(yard)) == b"y"
            assert (await late.__anext__())["stream"] == "yard" and not late.waiting

    asyncio.run(run())
