"""Gemini's answers as deltas: whole, split anywhere, cut, broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import Delta, Finished, Opening, TextDelta, ToolCallDelta, UsageDelta
from server.errors import (
    ContentFiltered,
    Overloaded,
    ServerError,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamInvalid,
)
from server.gemini_wire import GeminiReader
from tests.gemini_wire.generated import (
    calls_of,
    event,
    finish_of,
    originals_of,
    read,
    said,
    text_of,
    thought_of,
)

USAGE = {
    "promptTokenCount": 15,
    "toolUsePromptTokenCount": 2,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 6,
    "thoughtsTokenCount": 40,
    "totalTokenCount": 63,
}
CALL = {"functionCall": {"name": "f", "args": {"a": "é"}, "id": "c1"}, "thoughtSignature": "Ej=="}
SECOND = {"functionCall": {"name": "g"}}
EVENTS = [
    said({"text": "hm ", "thought": True}, usageMetadata={"promptTokenCount": 15, "totalTokenCount": 15}),
    said({"text": "🙂", "thought": True}),
    said({"text": "Hé\u2028llo "}, usageMetadata={"promptTokenCount": 15, "candidatesTokenCount": 1}),
    said({"text": "日"}, {"text": "本"}, CALL, SECOND),
    said({"text": "", "thoughtSignature": "T=="}, finish="STOP", usageMetadata=USAGE),
]
WHOLE = b"".join(map(event, EVENTS))
PLAIN = said(
    {"text": "hm 🙂", "thought": True},
    {"text": "Hé\u2028llo 日本"},
    CALL,
    SECOND,
    {"text": "", "thoughtSignature": "T=="},
    finish="STOP",
    usageMetadata=USAGE,
)
HELLO = event(said({"text": "Hello"}))
END = event(said(finish="STOP", usageMetadata={"promptTokenCount": 1, "candidatesTokenCount": 2}))


def check_whole(deltas: list[Delta]) -> None:
    assert deltas[0] == Opening()
    assert thought_of(deltas) == "hm 🙂"
    assert text_of(deltas) == "Hé\u2028llo 日本"
    assert calls_of(deltas) == [("c1", "f", '{"a":"é"}'), ("call_a1_0_1", "g", "{}")]
    assert finish_of(deltas) == ["tool_calls"]
    call = originals_of(deltas, ToolCallDelta)[0]["delta"]["tool_calls"][0]
    assert call["extra_content"] == {"google": {"thought_signature": "Ej=="}}
    assert originals_of(deltas)[-1]["delta"] == {"extra_content": {"google": {"thought_signature": "T=="}}}
    last = deltas[-1]
    assert isinstance(last, UsageDelta)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (17, 46, 63)
    raw = json.loads(last.usage.raw or b"")
    assert raw["prompt_tokens_details"] == {"cached_tokens": 4}
    assert raw["completion_tokens_details"] == {"reasoning_tokens": 40}
    assert raw["native_usage"] == USAGE


def test_a_stream_says_what_the_plain_answer_and_the_array_say() -> None:
    check_whole(read(WHOLE))
    check_whole(read(json.dumps(PLAIN, indent=1, ensure_ascii=False).encode()))
    check_whole(read(json.dumps(EVENTS, indent=1, ensure_ascii=False).encode()))


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12).map(sorted))
def test_a_stream_means_the_same_however_it_is_split(cuts: list[int]) -> None:
    edges = [0, *cuts, len(WHOLE)]
    check_whole(read(*(WHOLE[begin:end] for begin, end in pairwise(edges))))


@pytest.mark.parametrize("run", [1, 2, 5])
def test_event_by_event_and_in_runs_of_them_a_stream_means_the_same(run: int) -> None:
    events = [event(one) for one in EVENTS]
    check_whole(read(*(b"".join(events[at : at + run]) for at in range(0, len(events), run))))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\r\n", b"\n"),
        lambda data: data.replace(b"\r\n", b"\r"),
        lambda data: data.replace(b"data: ", b": beat\r\ndata: "),
        lambda data: data.replace(b"data: ", b"data:"),
        lambda data: data.replace(b"data: ", b"event: x\r\ndata: "),
    ],
)
def test_other_ways_to_write_events_mean_the_same(change: Callable[[bytes], bytes]) -> None:
    check_whole(read(*(change(event(one)) for one in EVENTS)))


def test_cut_before_the_last_event_is_whole_a_stream_is_none() -> None:
    # The blank line behind the last event, and its line end, may be missing.
    for at in range(len(WHOLE) - 4):
        with pytest.raises((UpstreamCut, UpstreamEmpty)):
            read(WHOLE[:at])
    check_whole(read(WHOLE[:-4]))


def test_the_finish_is_told_at_the_end_alone_for_more_may_follow_a_reason() -> None:
    reader = GeminiReader("a")
    before = [*reader.feed(HELLO), *reader.feed(END), *reader.feed(event(said({"text": " you"})))]
    assert (finish_of(before), text_of(before), reader.done) == ([], "Hello you", False)
    assert [type(delta) for delta in reader.eof()] == [Finished, UsageDelta]
    assert reader.done


def test_a_prompt_that_is_blocked_is_refused_though_the_status_is_200() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 3},
    }
    for data in (event(blocked), json.dumps(blocked).encode()):
        with pytest.raises(ContentFiltered) as raised:
            read(data)
        assert (raised.value.status, raised.value.code) == (400, "content_filter")


def test_feedback_without_a_reason_is_nothing_to_act_on() -> None:
    assert text_of(read(event(said({"text": "a"}, promptFeedback={})), END)) == "a"


def test_silence_is_no_answer_but_a_limit_or_a_count_of_tokens_makes_it_one() -> None:
    with pytest.raises(UpstreamEmpty):
        read(event(said(finish="STOP")))
    with pytest.raises(UpstreamEmpty):
        read(event(said(finish="STOP", usageMetadata={"thoughtsTokenCount": 9})))
    assert finish_of(read(event(said(finish="MAX_TOKENS")))) == ["length"]
    assert finish_of(read(event(said(finish="STOP", usageMetadata={"candidatesTokenCount": 1})))) == ["stop"]
    assert finish_of(read(event({"candidates": [{"finishReason": "SAFETY"}]}))) == ["content_filter"]


@pytest.mark.parametrize("data", [b"", b"\r\n", b"  ", b"{}", b"[]", b'{"usageMetadata": {}}'])
def test_nothing_at_all_is_no_answer(data: bytes) -> None:
    with pytest.raises(UpstreamEmpty):
        read(data)


def test_a_stream_of_nothing_but_usage_is_cut() -> None:
    with pytest.raises(UpstreamCut):
        read(event({"usageMetadata": {"promptTokenCount": 1}}))


@pytest.mark.parametrize("odd", [7, None, [1], {"promptTokenCount": "many", "candidatesTokenCount": -1}])
def test_odd_figures_are_none(odd: Any) -> None:
    deltas = read(event(said({"text": "a"}, finish="STOP", usageMetadata=odd)))
    assert finish_of(deltas) == ["stop"]
    counted = [delta.usage.total_tokens for delta in deltas if type(delta) is UsageDelta]
    assert counted == ([0] if isinstance(odd, dict) else [])


def test_every_candidate_needs_its_own_finish() -> None:
    two = event(
        {
            "candidates": [
                *said({"text": "a"}, finish="STOP")["candidates"],
                *said({"text": "b"}, index=1)["candidates"],
            ]
        }
    )
    with pytest.raises(UpstreamCut):
        read(two)
    deltas = read(two, event(said(finish="MAX_TOKENS", index=1)))
    assert [(delta.index, delta.reason) for delta in deltas if type(delta) is Finished] == [
        (0, "stop"),
        (1, "length"),
    ]
    assert (text_of(deltas, 0), text_of(deltas, 1)) == ("a", "b")


def test_an_error_within_the_stream_is_the_end_and_what_was_said_is_said_first() -> None:
    overloaded = event({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}})
    with pytest.raises(Overloaded):
        GeminiReader("a").feed(overloaded)
    reader = GeminiReader("a")
    deltas = reader.feed(HELLO + overloaded + HELLO)
    assert [delta.text for delta in deltas if type(delta) is TextDelta] == ["Hello"]
    assert reader.done
    with pytest.raises(Overloaded):
        reader.eof()


def test_comments_are_quiet_and_all_else_is_not() -> None:
    reader = GeminiReader("a")
    heard = []
    for data in (HELLO, b": beat\r\n\r\n", b"data: {", b"}\n\n", END):
        reader.feed(data)
        heard.append(not reader.quiet)
    assert heard == [True, False, False, True, True]


@pytest.mark.parametrize(
    "data",
    [
        b"data: {nonsense\n\n",
        b'data: {"candidates": 7}\n\n',
        b'data: {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}\n\n',
        b"<html>",
        b"{",
        b"[{]",
    ],
)
def test_what_cannot_be_read_is_no_answer(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        read(data)


def test_nulls_and_an_end_that_is_not_theirs_do_no_harm() -> None:
    part = {"text": "a", "thought": None, "functionCall": None, "thoughtSignature": None}
    odd = {"candidates": [{"index": None, "content": {"parts": [part]}, "finishReason": None}], "error": None}
    deltas = read(event(odd), END, b"data: [DONE]\n\n")
    assert (text_of(deltas), finish_of(deltas)) == ("a", ["stop"])
    with pytest.raises(UpstreamEmpty):
        read(b"data: [DONE]\n\n")


def test_an_error_in_place_of_an_answer_is_told() -> None:
    error: dict[str, Any] = {"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}
    for body in (error, [error]):
        with pytest.raises(Overloaded):
            read(json.dumps(body).encode())


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_but_our_errors(data: bytes) -> None:
    with pytest.raises(ServerError):
        read(HELLO, data)


GARBAGE = b"data: {not json\r\n\r\ndata: \xff\r\n\r\n"


def test_a_line_that_is_no_json_is_passed_over_and_counted() -> None:
    reader = GeminiReader("a1")
    deltas = [*reader.feed(HELLO), *reader.feed(GARBAGE), *reader.feed(END), *reader.eof()]
    assert (text_of(deltas), finish_of(deltas)) == ("Hello", ["stop"])
    assert reader.skipped == 2
    with pytest.raises(UpstreamInvalid):
        read(GARBAGE)
