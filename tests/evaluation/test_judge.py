"""The protocol: segments, both orders, ties, win rates; the exact and the similarity judge; the LLM judge against a server of our own."""

from __future__ import annotations

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.base.errors import UserError
from streamingvlm.data.stream_rows import words_by_chunk
from streamingvlm.evaluation import judge
from streamingvlm.evaluation.harness import chat
from streamingvlm.evaluation.harness.chat import ChatJudge
from streamingvlm.evaluation.judge import Segment, by_score, segments, similarity_score, win_rate
from streamingvlm.worlds.match.game import Match
from streamingvlm.worlds.match.scoring import exact_score


def row_of(*words: tuple[float, float, str], end_s: float = 300.0, start_s: float = 0.0) -> dict:
    return {"id": "s", "start_s": start_s, "end_s": end_s, "words": [{"start_s": s, "end_s": e, "text": t} for s, e, t in words]}


def counting(n: int, name: str = "") -> list[str]:
    return [f"{name}{k}" for k in range(n)]


FULL = row_of(*((k, k + 0.5, f"w{k}") for k in range(300)))


def segment(a: str = "", b: str = "", reference: str = "ref") -> Segment:
    return Segment("s", 0.0, 100.0, (reference,), (a,), (b,))


# Segments


def test_a_word_that_ends_at_exactly_100_s_belongs_to_the_first_segment():
    row = row_of((0.0, 1.0, "start"), (99.0, 100.0, "on"), (99.5, 100.01, "after"), (250.0, 251.0, "late"))
    found, skipped = segments(row, counting(300, "a"), counting(300, "b"))
    assert [" ".join(filter(None, s.reference)) for s in found] == ["start on", "after", "late"] and skipped == 0
    assert [(s.start_s, s.end_s) for s in found] == [(0, 100), (100, 200), (200, 300)]
    assert (found[0].a[0], found[0].a[-1], found[1].a[0], found[1].b[-1]) == ("a0", "a99", "a100", "b199")
    assert all(len(s.reference) == len(s.a) == len(s.b) == 100 for s in found)


def test_times_are_the_videos_and_a_shorter_segment_ends_the_stream():
    row = row_of((1000.2, 1000.9, "first"), (1130.0, 1131.0, "last"), start_s=1000.0, end_s=1140.0)
    found, _ = segments(row, counting(140), counting(140))
    assert [(s.start_s, s.end_s, len(s.a)) for s in found] == [(1000, 1100, 100), (1100, 1140, 40)]
    assert found[1].reference[30] == "last" and found[1].a[0] == "100"


@pytest.mark.parametrize(("a", "b", "kept", "skipped"), [
    (300, 300, 3, 0), (300, 299, 2, 1), (200, 300, 2, 1), (199, 300, 1, 2), (0, 300, 0, 3), (350, 300, 3, 0)])
def test_what_one_of_the_two_did_not_reach_is_left_out_and_counted(a, b, kept, skipped):
    for pair in ((a, b), (b, a)):
        found, missed = segments(FULL, *map(counting, pair))
        assert (len(found), missed) == (kept, skipped)


def test_segments_without_enough_human_words_are_none():
    row = row_of(*((k, k + 0.5, "two words") for k in range(50)), (150.0, 151.0, "one"))
    assert [s.start_s for s in segments(row, counting(300), counting(300))[0]] == [0, 100]
    assert [s.start_s for s in segments(row, counting(300), counting(300), min_words=100)[0]] == [0]
    assert segments(row, counting(300), counting(300), min_words=101) == ([], 0)
    assert segments(row, [], [], min_words=2) == ([], 1), "not reached, but only where there was something to judge"


def test_chunks_of_other_lengths():
    found, _ = segments(FULL, counting(600), counting(600), 50.0, 0.5)
    assert len(found) == 6 and len(found[0].a) == 100 and found[1].start_s == 50.0
    for length in (0.0, 0.25, 100.3):
        with pytest.raises(UserError, match="not a whole number of chunks"):
            segments(FULL, counting(300), counting(300), length)


# Both orders, ties, the rate and its interval


def test_a_judge_who_always_says_a_gives_ties_only():
    result = win_rate([(FULL, counting(300), counting(300))], lambda segment: "A")
    assert [j.winner for j in result.judged] == ["tie"] * 3 and result.win_rate == 0.5
    assert result.judged[0].first == "A" and result.judged[0].second == "B", "both from A's and B's point of view"


def coin(salt: int, consistent: bool) -> judge.Judge:
    """Prefers by chance: a text of the two (the same in either order), or a position."""
    def verdict(segment: Segment) -> judge.Verdict:
        if consistent:
            worth = [random.Random(f"{salt}{segment.start_s}{texts}").random() for texts in (segment.a, segment.b)]
            return "tie" if abs(worth[0] - worth[1]) < 0.2 else "A" if worth[0] > worth[1] else "B"
        return random.Random(f"{salt}{segment}").choice(["A", "B", "tie", "unclear"])
    return verdict


@given(salt=st.integers(0, 10**6), consistent=st.booleans())
@settings(max_examples=30, deadline=None)
def test_swapping_a_and_b_mirrors_the_result(salt, consistent):
    verdict, a, b = coin(salt, consistent), counting(300, "a"), counting(300, "b")
    there, back = win_rate([(FULL, a, b)] * 4, verdict, 25.0), win_rate([(FULL, b, a)] * 4, verdict, 25.0)
    assert (there.count("A"), there.count("B"), there.count("tie")) == (back.count("B"), back.count("A"), back.count("tie"))
    assert (there.flip_rate, len(there.clear)) == (back.flip_rate, len(back.clear))
    if not there.clear:
        assert there.win_rate is back.win_rate is there.interval is None
        return
    assert there.win_rate == pytest.approx(1 - back.win_rate)
    assert (there.won_first, there.won_second) == pytest.approx((1 - back.won_second, 1 - back.won_first)), "who is shown first is now the other"
    assert there.interval == pytest.approx([1 - bound for bound in reversed(back.interval)])
    if consistent:
        assert all(j.first == j.second for j in there.judged) and there.count("A") + there.count("B") > 0


@pytest.mark.parametrize(("first", "second", "winner"), [
    ("A", "B", "A"), ("B", "A", "B"), ("A", "A", "tie"), ("B", "B", "tie"), ("A", "tie", "tie"), ("tie", "tie", "tie"), ("unclear", "B", "tie"),
    ("unclear", "unclear", "tie")])
def test_only_two_verdicts_that_agree_decide(first, second, winner):
    answers = iter([first, second])
    assert judge.both_orders(lambda segment: next(answers), segment()).winner == winner


def test_the_numbers_for_metrics():
    pairs = [(FULL, counting(300, "x"), counting(250, "y"))]
    numbers = win_rate(pairs, lambda s: "A" if s.a[0].startswith("x") else "B").numbers()
    assert numbers | {"low": 0, "high": 0} == {"win_rate": 1.0, "low": 0, "high": 0, "wins": 2, "losses": 0, "ties": 0, "flip_rate": 0.0,
                                               "won_first": 1.0, "won_second": 1.0, "segments": 2, "skipped": 1, "unclear": 0}
    assert 0.3 < numbers["low"] < 0.4 and numbers["high"] == pytest.approx(1.0), "two wins say little"
    assert win_rate([], coin(0, True)).numbers()["win_rate"] is None
    assert win_rate(pairs, lambda s: "unclear").numbers()["unclear"] == 2
    with pytest.raises(ValueError, match="A judge answers"):
        win_rate(pairs, lambda s: "a")


def verdicts(*pairs: tuple[str, str]) -> judge.Result:
    """Of each segment the winner when A was shown first, and when B was."""
    return judge.Result(tuple(judge.Judged("s", 0, 1, first, second) for first, second in pairs))


def test_a_judge_that_prefers_what_it_sees_first_is_told_by_its_flips():
    first = win_rate([(FULL, counting(300), counting(300))], lambda segment: "A")
    assert first.win_rate == 0.5 and first.flip_rate == 1.0 and (first.won_first, first.won_second) == (1.0, 0.0)
    fair = verdicts(("A", "A"), ("B", "B"))
    assert fair.win_rate == 0.5 and fair.flip_rate == 0.0 and (fair.won_first, fair.won_second) == (0.5, 0.5)
    assert verdicts(("A", "tie")).flip_rate == 0.0, "a tie is no other winner"


def test_a_judge_that_fails_is_counted_apart_and_pulls_no_rate():
    result = verdicts(("A", "A"), ("A", "A"), ("unclear", "unclear"), ("unclear", "B"))
    assert result.win_rate == 1.0 and result.numbers()["unclear"] == 2 and result.count("tie") == 0
    assert result.released == 5 / 8, "in the released code a failure is a vote for whoever is shown second"


def test_wilsons_interval_as_published():
    """Eight of ten: 0.4902 to 0.9433 (Wilson without continuity correction)."""
    result = judge.Result(tuple(judge.Judged("s", 0, 1, v, v) for v in "AAAAAAAABB"))
    assert result.interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    split = judge.Result(tuple(judge.Judged("s", 0, 1, "A", "B") for _ in range(10)))
    assert split.win_rate == 0.5, "one vote each is half a win, as votes are counted in the released code"


def test_many_workers_judge_alike_and_an_error_ends_them():
    pairs = [(FULL, counting(300, "a"), counting(300, "b"))] * 10
    assert win_rate(pairs, coin(3, True), 20.0, workers=8) == win_rate(pairs, coin(3, True), 20.0)
    asked = []

    def failing(segment: Segment) -> judge.Verdict:
        asked.append(segment)
        time.sleep(0.01)
        raise UserError("Stop.")
    with pytest.raises(UserError, match="Stop"):
        win_rate(pairs, failing, 2.0, workers=2)
    assert len(asked) < 20, "the other 1,480 are not asked"


# Judges by score


def test_the_exact_judge_knows_who_saw_the_match():
    match = Match(7, 230)
    row = match.row("m", "m.mp4")
    truth = words_by_chunk(row)
    silent = [""] * 230
    other = words_by_chunk(Match(8, 230).row("o", "o.mp4"))
    exact = by_score(exact_score())
    assert win_rate([(row, truth, silent)], exact).win_rate == 1.0 and win_rate([(row, other, truth)], exact).win_rate == 0.0
    assert win_rate([(row, truth, truth)], exact).count("tie") == 3
    swapped = dict(zip(match.teams, match.teams[::-1], strict=True))
    wrong_name = [" ".join(swapped.get(word, word) for word in text.split()) for text in truth]
    assert win_rate([(row, truth, wrong_name)], exact).win_rate == 1.0
    assert win_rate([(row, wrong_name, other)], exact).win_rate == 1.0, "the right events without the name"


def test_where_nothing_happened_silence_is_right():
    quiet, noisy = ("",) * 100, ("hit left lions",) * 100
    verdict = by_score(exact_score())(Segment("s", 0, 100, quiet, quiet, noisy))
    assert verdict == "A"


def test_any_score_decides_and_small_differences_do_not():
    length = by_score(lambda said, reference: float(len(said[0])), margin=2.0)
    assert length(segment("aaaa", "a")) == "A" and length(segment("a", "aaaa")) == "B" and length(segment("aaa", "a")) == "tie"
    seen = []
    by_score(lambda said, reference: seen.append((said, reference)) or 0.0)(segment("one", "two"))
    assert seen == [(("one",), ("ref",)), (("two",), ("ref",))]
    with pytest.raises(ValueError, match="must be a number"):
        by_score(lambda said, reference: float("nan"))(segment())


HUMAN = ["", "Smith brings it up the floor", "", "passes to Jones in the corner", "for three", "", "and it's good!", "what a shot", "",
         "time out called"]


def test_the_likeness_of_a_text_to_itself_is_whole_and_order_matters():
    score, reference = similarity_score(), HUMAN * 10
    assert score(reference, reference) == pytest.approx(1.0)
    close = [text.replace("brings", "takes").replace("what", "some") for text in reference]
    unlike = ["a cat sleeps on the sofa"] * 100
    assert 0.8 < score(close, reference) < 1 and 0 == score([""] * 100, reference) < score(unlike, reference) < 0.4
    told = [*HUMAN, *[""] * 90]
    assert score(told, told) > score(told[::-1], told) == 0, "at the wrong time it is not the same"
    assert score([""] * 100, [""] * 100) == 1.0 and score(HUMAN, [""] * 10) == 0
    assert score([text.upper() + "?" for text in HUMAN], HUMAN) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [1, 4, 10, 13, 40, 100])
def test_every_chunk_counts_towards_the_likeness(n):
    score, reference = similarity_score(), [f"word{k} said" for k in range(n)]
    for k in range(n):
        assert score([*reference[:k], "", *reference[k + 1 :]], reference) < 1.0


def test_the_similarity_judge_prefers_the_closer_one_and_ties_on_equals():
    verdict = by_score(similarity_score(), margin=0.01)
    human = tuple(HUMAN)
    assert verdict(Segment("s", 0, 10, human, human, ("a cat",) * 10)) == "A" and verdict(Segment("s", 0, 10, human, ("a cat",) * 10, human)) == "B"
    assert verdict(Segment("s", 0, 10, human, human, human)) == "tie"


# The LLM judge


@pytest.mark.parametrize(("answer", "verdict"), [
    ("A", "A"), ("B", "B"), (" b.\n", "B"), ("**A**", "A"), ("Answer: B", "B"), ("The better commentary is A.", "A"), ("__B__", "B"), ("(A)", "A"),
    ("<think>B is livelier, but A is right.\nSo A.</think>\n\nA", "A"), ("Commentary B", "B"), ("", "unclear"), ("tie", "unclear"),
    ("A or B", "unclear"), ("AB", "unclear"), ("Both are equal. A tie.", "unclear"), ("C", "unclear"), ("I cannot judge.", "unclear"),
    ("Neither A", "unclear"), ("<think>A", "unclear")])
def test_answers_are_read_strictly(answer, verdict):
    assert chat.read_verdict(answer) == verdict


@pytest.fixture
def server(monkeypatch):
    """A server that speaks the protocol. `answers`: what it replies next, (status, body[, headers]); when there is none, the text with "good"."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = SimpleNamespace(answers=[], asked=[], delay_s=0.0)

    def usual(body: dict) -> dict:
        text = body["messages"][-1]["content"]
        a, b = text.partition("Commentary A:\n")[2].split("\n\nCommentary B:\n")
        return said("A" if "good" in a else "B" if "good" in b else "Neither.")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(SimpleNamespace(path=self.path, body=body, headers=self.headers))
            status, reply, headers = (*state.answers.pop(0), {})[:3] if state.answers else (200, usual(body), {})
            time.sleep(state.delay_s)
            payload = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads, http.handle_error = True, lambda *args: None  # who timed out has hung up
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield state
    http.shutdown()
    http.server_close()


def said(text: str | None) -> dict:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


KEY = "sk-very-secret"


def asks(server, **options) -> ChatJudge:
    return ChatJudge(server.url, "a-model", KEY, **{"retries": 2, "backoff_s": 0.001, "timeout_s": 5.0, **options})


PAIRS = [(FULL, ["good"] * 300, ["bad"] * 300), (FULL, ["worse"] * 300, ["good"] * 300), (FULL, ["bad"] * 300, ["bad"] * 300)]


def test_the_llm_is_asked_in_both_orders_by_the_protocol(server):
    result = win_rate(PAIRS, asks(server), workers=4)
    assert [j.winner for j in result.judged] == ["A"] * 3 + ["B"] * 3 + ["tie"] * 3
    assert result.numbers()["unclear"] == 3 and result.win_rate == 0.5 and len(server.asked) == 18
    asked = server.asked[0]
    assert asked.path == "/v1/chat/completions" and asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.body["model"] == "a-model" and asked.body["temperature"] == 0.0
    assert [m["role"] for m in asked.body["messages"]] == ["system", "user"]
    assert sum("Human commentary:\nw0 w1 w2 " in other.body["messages"][1]["content"] for other in server.asked) == 6
    server.asked.clear()
    ChatJudge(server.url + "/", "m", temperature=None)(segment("good", "bad"))
    assert "temperature" not in server.asked[0].body and server.asked[0].headers["Authorization"] is None
    assert server.asked[0].path == "/v1/chat/completions"


def test_overload_is_waited_out(server):
    server.answers = [(429, {}, {"Retry-After": "0"}), (503, b"busy")]
    assert asks(server)(segment("good", "bad")) == "A" and len(server.asked) == 3
    server.answers = [(500, {"error": {"message": f"no\nroom for {KEY}"}})] * 3
    with pytest.raises(UserError, match=r"could not be reached in 3 attempts \(it answered 500, no room for \*\*\*\)"):
        asks(server)(segment("good", "bad"))


def test_each_wait_is_twice_the_last_unless_the_server_says_how_long(server, monkeypatch):
    waits = []
    monkeypatch.setattr(chat.time, "sleep", waits.append)
    server.answers = [(429, {}), (502, b""), (429, {}, {"Retry-After": "7"}), (429, {}, {"Retry-After": "86400"}), (503, {}, {"Retry-After": "soon"})]
    assert asks(server, retries=9, backoff_s=1.0)(segment("good", "bad")) == "A"
    assert [wait for wait in waits if wait] == [1.0, 2.0, 7.0, 60.0, 16.0]
    waits.clear()
    server.answers = [(500, {})] * 3
    with pytest.raises(UserError):
        asks(server, backoff_s=1.0)(segment("good", "bad"))
    assert [wait for wait in waits if wait] == [1.0, 2.0], "there is nothing to wait for after the last attempt"


@pytest.mark.parametrize(("answer", "complaint"), [
    ((401, {"error": {"message": f"Incorrect key {KEY}"}}), r"refuses the key \(401\): set OPENAI_API_KEY"),
    ((400, {"error": {"message": "temperature is not supported"}}), r"refuses the request \(400, temperature is not supported\): check"),
    ((404, b""), r"refuses the request \(404, no reason given\)"), ((307, b"", {"Location": "/x"}), "refuses the request"),
    ((200, b"<html>"), "does not speak the chat completions protocol"), ((200, {"choices": []}), "does not speak"), ((200, b"[]"), "does not speak")])
def test_a_refusal_is_said_at_once(server, answer, complaint):
    server.answers = [answer]
    with pytest.raises(UserError, match=complaint) as error:
        asks(server)(segment("good", "bad"))
    assert len(server.asked) == 1 and KEY not in str(error.value)


def test_an_answer_without_text_is_unclear(server):
    server.answers = [(200, said(None)), (200, said("It depends."))]
    assert [asks(server)(segment("good", "bad")) for _ in range(2)] == ["unclear", "unclear"]


def test_who_cannot_be_reached_is_named(server):
    for url in ("http://127.0.0.1:9/v1", server.url.replace("http", "https")):
        with pytest.raises(UserError, match=r"could not be reached in 2 attempts \(\w+Error"):
            ChatJudge(url, "m", retries=1, backoff_s=0.001)(segment("a", "b"))
    server.delay_s = 0.3
    with pytest.raises(UserError, match="could not be reached in 1 attempts"):
        asks(server, retries=0, timeout_s=0.05)(segment("a", "b"))
    for url in ("", "localhost:8000/v1", "ftp://x"):
        with pytest.raises(UserError, match="check the base URL"):
            ChatJudge(url, "m", "", backoff_s=0.001)(segment("a", "b"))
    with pytest.raises(UserError, match="and the key"):
        ChatJudge(server.url, "m", "ключ")(segment("a", "b"))


def test_an_evaluation_that_was_killed_goes_on_where_it_was(server, tmp_path):
    server.answers = [(200, said("A"))] * 7 + [(401, {})]
    with pytest.raises(UserError):
        win_rate(PAIRS[:2], asks(server, cache=tmp_path / "kept"))
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 7 and not any(KEY in path.read_text() for path in kept)
    kept[3].write_text("{torn")
    server.asked.clear()
    first = win_rate(PAIRS[:2], asks(server, cache=tmp_path / "kept"))
    assert len(server.asked) == 12 - 7 + 1 and len(first.judged) == 6
    assert win_rate(PAIRS[:2], asks(server, cache=tmp_path / "kept"), workers=4) == first and len(server.asked) == 6, "nothing is asked twice"
    ChatJudge(server.url, "another", cache=tmp_path / "kept")(segments(*PAIRS[0])[0][0])
    assert len(server.asked) == 7, "another model is another question"


def test_very_long_commentary_is_cut(server):
    asks(server)(segment("good " * 5000, "bad"))
    assert len(server.asked[0].body["messages"][1]["content"]) < chat.MAX_CHARS + 200


def test_the_environment_is_read_only_here():
    made = chat.from_environment("m", environ={"OPENAI_API_KEY": f" {KEY}\n"})
    assert (made.base_url, made.key, made.model) == ("https://api.openai.com/v1", KEY, "m") and KEY not in repr(made)
    assert chat.from_environment("m", environ={"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}).key == ""
    with pytest.raises(UserError, match="set OPENAI_API_KEY, or OPENAI_BASE_URL"):
        chat.from_environment("m", environ={})
