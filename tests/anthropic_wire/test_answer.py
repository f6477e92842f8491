"""Anthropic's answers as deltas: whole, split anywhere, cut, broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.anthropic_wire import MessagesReader
from server.anthropic_wire.answer import usage_of
from server.deltas import Finished, Opening, TextDelta, ToolCallDelta, UsageDelta
from server.errors import Overloaded, ServerError, UpstreamCut, UpstreamEmpty, UpstreamInvalid
from tests.anthropic_wire.messages import (
    BEGIN,
    END,
    USAGE,
    calls_of,
    ending,
    event,
    extras_of,
    finish_of,
    piece,
    start,
    stop,
    streamed,
    text_of,
    thought_of,
)

PING = event("ping")
HELLO = start(0, type="text", text="") + piece(0, type="text_delta", text="Hé\u2028llo")
WHOLE = (
    BEGIN
    + start(0, type="thinking", thinking="", signature="")
    + PING
    + piece(0, type="thinking_delta", thinking="hm ")
    + piece(0, type="thinking_delta", thinking="🙂")
    + piece(0, type="signature_delta", signature="Eq==")
    + stop(0)
    + start(1, type="text", text="")
    + piece(1, type="text_delta", text="Hé\u2028llo ")
    + piece(1, type="text_delta", text="日本")
    + stop(1)
    + start(2, type="tool_use", id="t1", name="f", input={})
    + piece(2, type="input_json_delta", partial_json="")
    + piece(2, type="input_json_delta", partial_json='{"a": "é')
    + piece(2, type="input_json_delta", partial_json='"}')
    + stop(2)
    + start(3, type="tool_use", id="t2", name="g", input={})
    + stop(3)
    + ending("tool_use")
)
PLAIN: dict[str, Any] = {
    "type": "message",
    "content": [
        {"type": "thinking", "thinking": "hm 🙂", "signature": "Eq=="},
        {"type": "text", "text": "Hé\u2028llo 日本"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "é"}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
    ],
    "stop_reason": "tool_use",
    "usage": {**USAGE, "output_tokens": 30},
}


def check_whole(deltas: list[Any], arguments: str) -> None:
    assert deltas[0] == Opening()
    assert thought_of(deltas) == "hm 🙂"
    assert text_of(deltas) == "Hé\u2028llo 日本"
    assert calls_of(deltas) == [("t1", "f", arguments), ("t2", "g", "{}")]
    assert finish_of(deltas) == ["tool_calls"]
    kept = {"index": 0, "type": "thinking", "thinking": "hm 🙂", "signature": "Eq=="}
    assert extras_of(deltas) == [{"thinking_blocks": [kept]}]
    usage = deltas[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (20, 30, 50)
    raw = json.loads(usage.raw)
    assert raw["prompt_tokens_details"] == {"cached_tokens": 5, "cache_write_tokens": 3}
    assert raw["native_usage"] == {**USAGE, "output_tokens": 30}


def test_a_stream_says_what_the_plain_message_says() -> None:
    check_whole(streamed(WHOLE), '{"a": "é"}')
    check_whole(streamed(json.dumps(PLAIN, indent=1, ensure_ascii=False).encode()), '{"a":"é"}')


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12).map(sorted))
def test_a_stream_means_the_same_however_it_is_split(cuts: list[int]) -> None:
    edges = [0, *cuts, len(WHOLE)]
    pieces = [WHOLE[begin:end] for begin, end in pairwise(edges)]
    check_whole(streamed(*pieces), '{"a": "é"}')


def test_event_by_event_and_in_runs_of_them_a_stream_means_the_same() -> None:
    events = [event + b"\n\n" for event in WHOLE.split(b"\n\n")[:-1]]
    for run in (1, 2, 5):
        check_whole(
            streamed(*(b"".join(events[at : at + run]) for at in range(0, len(events), run))), '{"a": "é"}'
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"event: ", b": beat\nevent: "),
        lambda data: data.replace(b"\n\n", b"\n\n: beat\n\n"),
        lambda data: data.replace(b"data: ", b"data:"),
        lambda data: b"".join(line + b"\n" for line in data.split(b"\n") if not line.startswith(b"event: ")),
    ],
)
def test_other_ways_to_write_events_mean_the_same(change: Callable[[bytes], bytes]) -> None:
    events = [change(event + b"\n\n") for event in WHOLE.split(b"\n\n")[:-1]]
    check_whole(streamed(*events), '{"a": "é"}')


def test_cut_at_whatever_byte_a_stream_is_not_whole() -> None:
    # The blank line behind the last event, and its line end, may be missing.
    for at in range(len(WHOLE) - 2):
        with pytest.raises((UpstreamCut, UpstreamEmpty)):
            streamed(WHOLE[:at])
    assert finish_of(streamed(WHOLE[:-2])) == ["tool_calls"]


def test_a_finish_is_only_told_with_the_last_event() -> None:
    reader = MessagesReader()
    before = [*reader.feed(BEGIN + HELLO), *reader.feed(ending().removesuffix(END))]
    assert (finish_of(before), reader.done) == ([], False)
    after = list(reader.feed(END))
    assert [type(delta) for delta in after] == [Finished, UsageDelta]
    assert reader.done


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("brand_new", "stop"),
    ],
)
def test_each_stop_reason_has_our_word(theirs: str, ours: str) -> None:
    finished = next(delta for delta in streamed(BEGIN, HELLO, ending(theirs)) if type(delta) is Finished)
    assert finished.reason == ours
    if theirs in ("pause_turn", "brand_new", "stop_sequence", "model_context_window_exceeded"):
        assert finished.original is not None
        assert json.loads(finished.original.data)["choices"][0]["native_finish_reason"] == theirs


def test_the_sequence_that_ended_an_answer_goes_along() -> None:
    delta = {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    last = event("message_delta", delta=delta, usage={"output_tokens": 3}) + END
    plain = {
        "type": "message",
        "content": [{"type": "text", "text": "a"}],
        "usage": {"output_tokens": 3},
    } | delta
    for deltas in (streamed(BEGIN, HELLO, last), streamed(json.dumps(plain).encode())):
        finished = next(delta for delta in deltas if type(delta) is Finished)
        assert finished.original is not None
        assert json.loads(finished.original.data)["choices"][0]["stop_sequence"] == "END"


def test_a_refusal_before_any_word_is_an_answer_and_silence_is_none() -> None:
    assert finish_of(streamed(BEGIN, ending("refusal", 0))) == ["content_filter"]
    with pytest.raises(UpstreamEmpty):
        streamed(BEGIN, ending("end_turn", 0))
    with pytest.raises(UpstreamCut):
        streamed(BEGIN, HELLO, ending(None))


def test_pings_and_comments_are_quiet_and_all_else_is_not() -> None:
    reader = MessagesReader()
    heard = []
    for data in (BEGIN, PING, b": hello\n\n", HELLO, PING + PING, stop(0)):
        reader.feed(data)
        heard.append(not reader.quiet)
    assert heard == [True, False, False, True, False, True]


def test_what_nobody_knows_is_passed_over_and_counted() -> None:
    reader = MessagesReader()
    for data in (
        BEGIN,
        event("weather_report", delta="cloudy"),
        event("another", index=1),
        HELLO,
        piece(0, type="smell_delta", smell="roses"),
        event(
            "content_block_start", index=1, content_block={"type": "server_tool_use", "id": "s", "input": {}}
        ),
        piece(1, type="input_json_delta", partial_json="{}"),
        stop(1),
        ending(),
    ):
        reader.feed(data)
    assert reader.skipped == 3
    assert (reader.done, list(reader.eof())) == (True, [])


def test_blocks_that_are_not_ours_to_read_are_handed_on_whole() -> None:
    redacted = {"type": "redacted_thinking", "data": "xyz"}
    deltas = streamed(BEGIN, start(0, **redacted), stop(0), HELLO, ending())
    assert extras_of(deltas) == [{"thinking_blocks": [{"index": 0, **redacted}]}]


def test_sources_on_the_web_are_annotations() -> None:
    cited = {"type": "web_search_result_location", "url": "https://example.com", "title": "Example"}
    deltas = streamed(BEGIN, HELLO, piece(0, type="citations_delta", citation=cited), ending())
    source = {"url": "https://example.com", "title": "Example", "start_index": 0, "end_index": 6}
    told = {
        "annotations": [{"index": 0, "type": "url_citation", "url_citation": source}],
        "native_citations": [{"index": 0, **cited}],
    }
    assert extras_of(deltas) == [told]


def test_events_and_pieces_that_nobody_knows_are_told_as_they_came() -> None:
    odd = event("content_block_sniff", index=0, smell="tea")
    deltas = streamed(BEGIN, HELLO, odd, piece(0, type="smell_delta", smell="tea"), stop(0), ending())
    assert extras_of(deltas) == [
        {"native_events": [{"index": 0, "type": "content_block_sniff", "smell": "tea"}]},
        {
            "native_events": [
                {"type": "content_block_delta", "index": 0, "delta": {"type": "smell_delta", "smell": "tea"}}
            ]
        },
    ]


def test_what_the_service_says_beside_the_end_goes_along() -> None:
    end = event(
        "message_delta",
        delta={
            "stop_reason": "refusal",
            "stop_sequence": None,
            "stop_details": {"type": "refusal", "category": "bio"},
            "container": {"id": "c1"},
        },
        usage={"output_tokens": 3},
        context_management={"applied_edits": []},
    )
    deltas = streamed(BEGIN, HELLO, stop(0), end, END)
    (finished,) = [delta for delta in deltas if isinstance(delta, Finished)]
    assert finished.original is not None
    assert json.loads(finished.original.data)["choices"][0] == {
        "index": 0,
        "delta": {},
        "finish_reason": "content_filter",
        "native_finish_reason": "refusal",
        "stop_details": {"type": "refusal", "category": "bio"},
        "container": {"id": "c1"},
        "context_management": {"applied_edits": []},
    }


def test_arguments_that_come_with_the_start_are_given_at_the_stop() -> None:
    deltas = streamed(
        BEGIN, start(0, type="tool_use", id="t", name="f", input={"a": [1, 2]}), ending("tool_use")
    )
    assert calls_of(deltas) == [("t", "f", '{"a":[1,2]}')]


def test_big_integers_in_arguments_survive() -> None:
    body = json.dumps(
        {**PLAIN, "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"n": 10**30}}]}
    )
    assert calls_of(streamed(body.encode())) == [("t", "f", '{"n":1' + "0" * 30 + "}")]


def test_interleaved_calls_keep_their_places() -> None:
    deltas = streamed(
        BEGIN,
        start(0, type="tool_use", id="a", name="f", input={}),
        start(1, type="tool_use", id="b", name="g", input={}),
        piece(1, type="input_json_delta", partial_json='{"b":1}'),
        piece(0, type="input_json_delta", partial_json='{"a":1}'),
        ending("tool_use"),
    )
    assert calls_of(deltas) == [("a", "f", '{"a":1}'), ("b", "g", '{"b":1}')]
    assert [delta.position for delta in deltas if type(delta) is ToolCallDelta] == [0, 1, 1, 0]


def test_an_error_within_the_stream_is_the_end_and_what_was_said_is_said_first() -> None:
    overloaded = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    with pytest.raises(Overloaded):
        MessagesReader().feed(overloaded)
    reader = MessagesReader()
    deltas = reader.feed(BEGIN + HELLO + overloaded + piece(0, type="text_delta", text="more"))
    assert [delta.text for delta in deltas if type(delta) is TextDelta] == ["Hé\u2028llo"]
    assert reader.done
    with pytest.raises(Overloaded):
        reader.eof()


@pytest.mark.parametrize(
    "data",
    [
        b"data: {nonsense\n\n",
        b'data: {"type": "content_block_delta", "delta": 7}\n\n',
        b'data: {"type": "content_block_start", "content_block": {"no": "type"}}\n\n',
        piece(4, type="input_json_delta", partial_json="{"),
        b"<html>",
        b'{"type": "message", "content": [{}]}',
        b'{"type": "list"}',
        b"{",
    ],
)
def test_what_cannot_be_read_is_no_answer(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        streamed(data)


def test_an_error_in_place_of_a_message_is_told() -> None:
    with pytest.raises(Overloaded):
        streamed(b'{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}')


def test_nothing_at_all_is_no_answer() -> None:
    for data in (b"", b"\n\n", b"  "):
        with pytest.raises(UpstreamEmpty):
            streamed(data)


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_but_our_errors(data: bytes) -> None:
    with pytest.raises(ServerError):
        streamed(BEGIN, data)


GARBAGE = b"event: content_block_delta\ndata: {not json\n\ndata: \xff\n\n"


def test_an_event_that_is_no_json_is_passed_over_and_counted() -> None:
    reader = MessagesReader()
    pieces = (BEGIN, HELLO, GARBAGE, ending(), END)
    deltas = [one for data in pieces for one in reader.feed(data)]
    assert text_of(deltas) == "Hé\u2028llo"
    assert reader.eof() is not None
    assert reader.skipped == 2
    with pytest.raises(UpstreamInvalid, match="nothing that can be read"):
        streamed(GARBAGE)


def test_what_was_thought_is_counted_by_the_name_that_chats_have_for_it() -> None:
    usage = usage_of({"input_tokens": 1, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 7}})
    assert json.loads(usage.raw or b"")["completion_tokens_details"] == {"reasoning_tokens": 7}


def test_fields_of_a_message_that_nobody_knows_are_told_with_its_end() -> None:
    reader = MessagesReader()
    deltas = [*reader.feed(json.dumps(PLAIN | {"diagnostics": {"a": 1}}).encode()), *reader.eof()]
    (end,) = [delta for delta in deltas if isinstance(delta, Finished)]
    assert end.original is not None
    assert json.loads(end.original.data)["choices"][0]["diagnostics"] == {"a": 1}
