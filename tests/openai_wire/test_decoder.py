"""An upstream's chunks become deltas, whatever its habits; what cannot be an answer is an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import Finished, ReasoningDelta, TextDelta, ToolCallDelta, UsageDelta, has_content
from server.errors import (
    ContentFiltered,
    RateLimited,
    ServerError,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamError,
    UpstreamInvalid,
)
from server.openai_wire import ChunkDecoder, completion_as_chunks, decode_completion
from tests.openai_wire.wire_chunks import OPENING, USAGE, chunk, decoded, relayed, text_of

DONE = b"[DONE]"
STOP = chunk({}, "stop")


def test_text_comes_in_order_and_ends_with_a_reason() -> None:
    deltas = decoded(OPENING, chunk({"content": "Hel"}), chunk({"content": "lo"}), STOP, DONE)
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == "Hello"
    assert isinstance(deltas[-1], Finished)
    assert deltas[-1].reason == "stop"


def test_a_plain_chunk_keeps_its_bytes() -> None:
    odd = b'{"id":"c1", "object":"chat.completion.chunk","created":5,"model":"theirs",'
    odd += b'"x":12345678901234567890123,'
    odd += b'"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null, "y":1.0}]}'
    decoder = ChunkDecoder()
    decoder.chunk(OPENING)
    (delta,) = decoder.chunk(odd)
    assert delta.original is not None
    assert delta.original.data == odd


def test_finish_reasons_without_done_are_an_end() -> None:
    assert decoded(OPENING, chunk({"content": "x"}), STOP)


def test_done_without_a_reason_is_stop_and_tool_calls_after_calls() -> None:
    assert decoded(OPENING, chunk({"content": "x"}), DONE)[-1] == Finished("stop")
    call = chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]})
    assert decoded(OPENING, call, DONE)[-1] == Finished("tool_calls")


@pytest.mark.parametrize("pieces", [('{"city": "Par',), ('{"city"', ': "Paris"')])
def test_done_within_a_calls_arguments_is_a_cut_but_with_a_reason_it_is_the_upstreams_word(
    pieces: tuple[str, ...],
) -> None:
    head = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    rest = [chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces]
    said = (OPENING, chunk({"tool_calls": [head]}), *rest)
    with pytest.raises(UpstreamCut):
        decoded(*said, DONE)
    assert decoded(*said, chunk({}, "length"), DONE)[-1].reason == "length"  # type: ignore[union-attr]
    end = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}" if len(pieces) > 1 else '"}'}}]})
    assert decoded(*said, end, DONE)[-1] == Finished("tool_calls")


def test_where_a_vendor_stops_at_calls_the_reason_is_tool_calls() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for data in (
        (chunk({"role": "assistant", "tool_calls": [call]}, "stop"),),
        (chunk({"role": "assistant", "tool_calls": [call]}), STOP),
    ):
        decoder = ChunkDecoder(stops_at_calls=True)
        told = [delta for one in data for delta in decoder.chunk(one)]
        (finished,) = [delta for delta in told if isinstance(delta, Finished)]
        assert finished.reason == "tool_calls"
        bearing = [delta.original.data for delta in told if delta.original and delta.original.data][-1]
        assert b'"tool_calls"' in bearing.rpartition(b"finish_reason")[2]
        assert decoded(*data)[-1].reason == "stop"  # type: ignore[union-attr]
    decoder = ChunkDecoder(stops_at_calls=True)
    said = [*decoder.chunk(chunk({"role": "assistant", "content": "x"})), *decoder.chunk(STOP)]
    assert [delta.reason for delta in said if isinstance(delta, Finished)] == ["stop"]


@pytest.mark.parametrize("data", [(OPENING,), (OPENING, chunk({"content": "x"}))])
def test_neither_done_nor_a_reason_is_a_cut(data: tuple[bytes, ...]) -> None:
    with pytest.raises(UpstreamCut):
        decoded(*data)


def test_nothing_at_all_is_empty_and_only_garbage_is_invalid() -> None:
    with pytest.raises(UpstreamEmpty):
        decoded(DONE)
    with pytest.raises(UpstreamInvalid):
        decoded(b"{", b"nonsense", DONE)


def test_a_garbage_line_among_good_ones_is_skipped_and_counted() -> None:
    decoder = ChunkDecoder()
    for one in (OPENING, b"<html>", chunk({"content": "x"}), STOP):
        decoder.chunk(one)
    assert decoder.skipped == 1
    assert decoder.eof() == []


NOTHING = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
@pytest.mark.parametrize("usage", [(), (chunk(choices=[], usage=NOTHING),)], ids=["untold", "told"])
def test_an_end_without_content_of_which_no_tokens_are_told_is_empty_before_any_delta(
    reason: str, usage: tuple[bytes, ...]
) -> None:
    decoder = ChunkDecoder()
    for one in (OPENING, chunk({}, reason), *usage, DONE):
        assert not has_content(decoder.chunk(one)), "another channel can still be asked"
    with pytest.raises(UpstreamEmpty):
        decoder.eof()


@pytest.mark.parametrize("reason", ["stop", "tool_calls"])
def test_one_of_which_tokens_are_told_is_an_answer(reason: str) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    deltas = decoded(OPENING, chunk({}, reason), chunk(choices=[], usage=usage), DONE)
    assert [delta.reason for delta in deltas if isinstance(delta, Finished)] == [reason]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_empty_answer_with_a_reason_is_an_answer(reason: str) -> None:
    assert decoded(OPENING, chunk({}, reason), DONE)[-1] == decoded(OPENING, chunk({}, reason), DONE)[-1]


def test_a_role_in_every_chunk_is_told_once() -> None:
    role = {"role": "assistant"}
    chunks = relayed(
        chunk({**role, "content": "a"}), chunk({**role, "content": "b"}), chunk({**role}, "stop"), DONE
    )
    assert text_of(chunks) == "ab"


def test_a_missing_role_is_put_into_the_first_chunk() -> None:
    chunks = relayed(chunk({"content": "a"}), STOP, DONE)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


def test_an_empty_reason_is_none_and_a_second_reason_is_dropped() -> None:
    chunks = relayed(OPENING, chunk({"content": "a"}, ""), STOP, STOP, DONE)
    assert [one["choices"][0]["finish_reason"] for one in chunks] == [None, None, "stop"]


def test_mixed_text_and_reasoning_are_split_and_unknown_fields_stay() -> None:
    mixed = chunk({"content": "b", "reasoning_content": "a"}, service_tier="x")
    chunks = relayed(OPENING, mixed, STOP, DONE)
    assert text_of(chunks) == "b"
    assert text_of(chunks, field="reasoning_content") == "a"
    assert chunks[1]["service_tier"] == "x"


def test_reasoning_keeps_the_name_it_came_under() -> None:
    deltas = decoded(OPENING, chunk({"reasoning": "hm"}), chunk({"content": "x"}), STOP)
    assert [delta.field for delta in deltas if isinstance(delta, ReasoningDelta)] == ["reasoning"]


def test_tool_calls_without_an_index_get_one_and_say_their_id_once() -> None:
    first = {"id": "a", "function": {"name": "f", "arguments": ""}}
    chunks = relayed(
        OPENING,
        chunk({"tool_calls": [first]}),
        chunk({"tool_calls": [{"function": {"arguments": '{"x"'}}]}),
        chunk({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ":1}"}}]}),
        chunk({}, "tool_calls"),
        DONE,
    )
    pieces = [one["choices"][0]["delta"]["tool_calls"][0] for one in chunks[1:4]]
    assert [piece["index"] for piece in pieces] == [0, 0, 0]
    assert pieces[0]["type"] == "function"
    assert ["id" in piece for piece in pieces] == [True, False, False]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"x":1}'


def test_parallel_tool_calls_stay_apart() -> None:
    def call(index: int, **more: Any) -> bytes:
        return chunk({"tool_calls": [{"index": index, **more}]})

    deltas = decoded(
        OPENING,
        call(0, id="a", type="function", function={"name": "f", "arguments": ""}),
        call(1, id="b", type="function", function={"name": "g", "arguments": ""}),
        call(0, function={"arguments": "1"}),
        call(1, function={"arguments": "2"}),
        chunk({}, "tool_calls"),
    )
    calls = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert [(call.position, call.id, call.arguments) for call in calls] == [
        (0, "a", ""),
        (1, "b", ""),
        (0, None, "1"),
        (1, None, "2"),
    ]


def test_a_whole_message_in_the_last_chunk_does_not_double_the_text() -> None:
    last = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ab"}}
    chunks = relayed(OPENING, chunk({"content": "ab"}), chunk(choices=[last]), DONE)
    assert text_of(chunks) == "ab"


@pytest.mark.parametrize("place", ["every", "last", "own", "choice"])
def test_usage_is_found_wherever_it_stands_and_told_only_if_asked_for(place: str) -> None:
    stream = [OPENING, chunk({"content": "x"}), chunk({}, "stop")]
    if place == "every":
        stream[1] = chunk({"content": "x"}, usage=USAGE)
    if place in ("every", "last"):
        stream[2] = chunk({}, "stop", usage=USAGE)
    if place == "own":
        stream.append(chunk(choices=[], usage=USAGE, system_fingerprint="fp"))
    if place == "choice":
        stream[-1] = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}])
    usages = [delta for delta in decoded(*stream, DONE) if isinstance(delta, UsageDelta)]
    assert [one.usage.total_tokens for one in usages] == [5]
    relayed(*stream, DONE)
    assert relayed(*stream, DONE, include_usage=True)[-1]["usage"] == USAGE


def test_the_empty_choices_of_a_filter_chunk_reach_nobody_who_did_not_ask() -> None:
    chunks = relayed(
        chunk(choices=[], prompt_filter_results=[]), OPENING, chunk({"content": "x"}), STOP, DONE
    )
    assert text_of(chunks) == "x"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (
            b'{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}',
            RateLimited,
        ),
        (b'{"error":"boom"}', UpstreamError),
        (b'{"code":50001,"msg":"boom"}', UpstreamError),
        (b'{"error":{"message":"no","code":"content_filter"}}', ContentFiltered),
    ],
)
def test_an_error_inside_a_200_is_that_error(data: bytes, kind: type[ServerError]) -> None:
    with pytest.raises(kind):
        ChunkDecoder().chunk(data)
    with pytest.raises(kind):
        decode_completion(data)


def test_a_completion_where_a_stream_was_asked_for_becomes_one() -> None:
    message = {"role": "assistant", "content": "hi", "reasoning_content": "hm", "annotations": [1]}
    whole = {"id": "c", "object": "chat.completion", "created": 5, "model": "theirs", "usage": USAGE}
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    chunks = relayed(*completion_as_chunks(json.dumps(whole).encode()), DONE)
    assert text_of(chunks) == "hi"
    assert text_of(chunks, field="reasoning_content") == "hm"


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"[]", b"3", b'{"choices":3}', b'{"choices":[{}]}', b"{}"]
)
def test_what_is_no_completion_is_refused(data: bytes) -> None:
    with pytest.raises(ServerError):
        decode_completion(data)


@given(st.lists(st.text(min_size=1), min_size=1), st.booleans(), st.booleans())
def test_any_text_in_any_pieces_arrives_as_it_was(pieces: list[str], roles: bool, usage: bool) -> None:
    role = {"role": "assistant"} if roles else {}
    chunks = relayed(
        *(chunk({**role, "content": piece}, **({"usage": None} if usage else {})) for piece in pieces),
        STOP,
        DONE,
    )
    assert text_of(chunks) == "".join(pieces)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "delta",
                        "message",
                        "content",
                        "error",
                        "usage",
                        "index",
                        "finish_reason",
                        "tool_calls",
                    ]
                ),
                inner,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_but_our_errors_comes_out_whatever_comes_in(data: bytes) -> None:
    for take in (ChunkDecoder().chunk, decode_completion):
        try:
            take(data)
        except ServerError:
            continue


def test_thousands_of_choices_or_calls_are_no_answer() -> None:
    choices = [{"index": 0, "delta": {"content": "a"}}] * 1025
    with pytest.raises(UpstreamInvalid, match="too many choices"):
        ChunkDecoder().chunk(json.dumps({"choices": choices}).encode())
    function = {"name": "f", "arguments": "{}"}
    calls = [{"index": n, "id": f"c{n}", "type": "function", "function": function} for n in range(1025)]
    with pytest.raises(UpstreamInvalid, match="too many tool calls"):
        ChunkDecoder().chunk(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}).encode())
    *good, last = [
        json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).encode() for call in calls
    ]
    decoder = ChunkDecoder()
    for data in good:
        assert decoder.chunk(data)
    with pytest.raises(UpstreamInvalid, match="too many tool calls"):
        decoder.chunk(last)
