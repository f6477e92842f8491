from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.check import BadAnswer, Expected, check_stream, check_watcher, check_whole
from tests.bench.answers import (
    DONE,
    HEAD,
    NONCE,
    UPGRADED,
    event,
    right_stream,
    right_telling,
    streamed,
    told,
    usage,
    whole,
)

EXPECTED = Expected(NONCE, words=3)
TEXT = f"[{NONCE}] w0 w1 w2"


def stream_fault(events: list[bytes], expected: Expected = EXPECTED) -> str:
    with pytest.raises(BadAnswer) as caught:
        check_stream([(5000, streamed(events))], expected)
    return str(caught.value)


@given(st.lists(st.integers(1, 1200)))
def test_a_right_stream_is_good_however_its_reads_are_cut(cuts: list[int]) -> None:
    data = streamed(right_stream())
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reads = [(number, data[a:b]) for number, (a, b) in enumerate(pairwise(places))]
    seen = check_stream(reads, EXPECTED)
    assert seen.sent_us == [1000, 1001, 1002]
    assert seen.arrived_us == sorted(seen.arrived_us)


def test_each_word_has_the_time_of_the_read_that_brought_it() -> None:
    events = right_stream()
    cut = len(HEAD) + data_length(events[:2])
    data = streamed(events)
    seen = check_stream([(5, data[:cut]), (9, data[cut:])], EXPECTED)
    assert seen.arrived_us == [5, 9, 9]


def data_length(events: list[bytes]) -> int:
    return sum(len(b"%x\r\n\r\n" % len(data)) + len(data) for data in events)


def test_line_ends_comments_and_joined_words_are_the_gateway_s_choice() -> None:
    events = [
        b": hello\n\n",
        event(f"[{NONCE}] w0@{1:016d} w"),
        event(f"1@{2:016d} w2@{3:016d} "),
        *right_stream()[4:],
    ]
    seen = check_stream([(5, streamed([data.replace(b"\n", b"\r\n") for data in events]))], EXPECTED)
    assert seen.sent_us == [1, 2, 3]


@given(st.integers(0, 6), st.sampled_from(["drop", "twice"]))
def test_a_stream_with_an_event_lost_or_doubled_is_bad(place: int, change: str) -> None:
    events = right_stream()
    events[place : place + 1] = [] if change == "drop" else [events[place]] * 2
    assert stream_fault(events)


@given(st.permutations(range(7)))
def test_a_stream_in_another_order_is_bad_but_for_the_usage(order: list[int]) -> None:
    events = [right_stream()[place] for place in order]
    if [place for place in order if place != 5] == [0, 1, 2, 3, 4, 6] and order[-1] == 6:
        check_stream([(5, streamed(events))], EXPECTED)
    else:
        assert stream_fault(events)


def test_the_answer_to_another_request_is_bad() -> None:
    events = [event("[100000000008] "), *right_stream()[1:]]
    assert "another request" in stream_fault(events)


def test_another_finish_reason_is_bad() -> None:
    assert "length" in stream_fault([*right_stream()[:4], event(finish="length"), *right_stream()[5:]])


def test_a_usage_that_is_not_the_answer_s_is_bad() -> None:
    events = [*right_stream()[:5], usage(7), DONE]
    assert "7 tokens" in stream_fault(events)
    check_stream([(5, streamed(events))], Expected(NONCE, words=3, exact_usage=False))


def test_a_usage_that_was_not_asked_for_is_bad() -> None:
    assert "not asked for" in stream_fault(right_stream(), Expected(NONCE, words=3, usage=False))


def test_an_error_event_is_told() -> None:
    assert "boom" in stream_fault([*right_stream()[:3], b'data: {"error": {"message": "boom"}}\n\n'])


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b'data: {"choices": 3}\n\n', b"event: x\ndata: {}\n\n", b"w0\n\n"]
)
def test_what_is_no_chunk_is_bad(data: bytes) -> None:
    assert stream_fault([data, *right_stream()])


@given(st.integers(0, len(streamed(right_stream())) - 1))
def test_a_stream_that_is_cut_off_is_bad_wherever(length: int) -> None:
    with pytest.raises(BadAnswer):
        check_stream([(5, streamed(right_stream())[:length])], EXPECTED)


def test_a_refusal_is_told_with_its_status() -> None:
    refusal = b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nbusy"
    with pytest.raises(BadAnswer, match=r"429.*busy"):
        check_stream([(5, refusal)], EXPECTED)
    with pytest.raises(BadAnswer, match=r"429.*busy"):
        check_whole([(5, refusal)], EXPECTED)


def test_a_right_whole_answer_is_good() -> None:
    assert check_whole([(5, whole(TEXT))], EXPECTED).arrived_us == []


@pytest.mark.parametrize(
    "answer",
    [
        whole(f"[{NONCE}] w0 w1"),
        whole(f"[{NONCE}] w0 w2 w1"),
        whole("[100000000008] w0 w1 w2"),
        whole(TEXT, finish="length"),
        whole(TEXT, finish=None),
        whole(TEXT, tokens=4),
        whole(TEXT, tokens=None),
        whole(TEXT)[:-1],
        whole(TEXT) + b"x",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot json!",
        b"gibberish",
        b"",
    ],
)
def test_a_wrong_whole_answer_is_bad(answer: bytes) -> None:
    with pytest.raises(BadAnswer):
        check_whole([(5, answer)], EXPECTED)


def test_a_watcher_that_heard_everything_is_good() -> None:
    seen, events = check_watcher([(4, UPGRADED), (5, b"".join(right_telling()))], EXPECTED)
    assert seen.sent_us == [1000, 1001, 1002]
    assert events == 6


@pytest.mark.parametrize("place", [2, 3, 4, 5, 7])
def test_a_watcher_that_missed_something_is_bad(place: int) -> None:
    telling = right_telling()
    del telling[place]
    with pytest.raises(BadAnswer):
        check_watcher([(4, UPGRADED + b"".join(telling))], EXPECTED)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "0 ends"),
        (b"HTTP/1.1 401 No\r\n\r\n", "401"),
        (UPGRADED + b"\x81\x03abc", "malformed"),
        (UPGRADED + b"\x00\x00", "frame"),
        (UPGRADED + b"".join([*right_telling(), told("run.failed")]), "2 ends"),
    ],
)
def test_what_is_no_telling_is_bad(data: bytes, fault: str) -> None:
    with pytest.raises(BadAnswer, match=fault):
        check_watcher([(4, data)], EXPECTED)
