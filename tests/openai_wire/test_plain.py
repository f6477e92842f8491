"""An upstream's plain answer: as deltas, and as the chunks of a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import Finished, Opening, ReasoningDelta, TextDelta, ToolCallDelta, UsageDelta
from server.errors import ServerError, UpstreamCut, UpstreamEmpty, UpstreamError, UpstreamInvalid
from server.openai_wire import completion_as_chunks, decode_completion

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def completion(*choices: dict[str, Any], **fields: Any) -> bytes:
    whole = {"id": "c", "object": "chat.completion", "created": 5, "model": "m", "usage": USAGE}
    return json.dumps(whole | {"choices": list(choices)} | fields).encode()


def choice(content: str | None = "hello", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content} | fields.pop("message", {})
    return {"index": 0, "message": message, "finish_reason": "stop"} | fields


def kinds(data: bytes) -> list[type]:
    return [type(delta) for delta in decode_completion(data)]


def test_the_plain_case_is_text_finish_and_usage_and_the_first_bears_the_bytes() -> None:
    data = completion(choice())
    first, finish, usage = decode_completion(data)
    assert isinstance(first, TextDelta)
    assert first.original is not None
    assert (first.text, first.original.form, first.original.data) == ("hello", "openai.completion", data)
    assert isinstance(finish, Finished)
    assert finish.original is not None
    assert (finish.reason, finish.original.data) == ("stop", b"")
    assert isinstance(usage, UsageDelta)
    assert usage.usage.total_tokens == 3


def test_the_rarer_case_says_the_same_in_the_same_order() -> None:
    """With two choices it takes the other road through the code."""
    told = decode_completion(completion(choice("a"), choice("b", index=1)))
    text = [(delta.index, delta.text) for delta in told if isinstance(delta, TextDelta)]
    assert text == [(0, "a"), (1, "b")]
    assert [type(delta) for delta in told].count(Finished) == 2
    bearing = [delta for delta in told if (original := getattr(delta, "original", None)) and original.data]
    assert bearing == [told[0]]


def test_thought_comes_before_text_and_calls_behind_it() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"reasoning_content": "hm", "tool_calls": [call]}
    told = kinds(completion(choice("a", message=message, finish_reason="tool_calls")))
    assert told.index(Opening) < told.index(ReasoningDelta) < told.index(TextDelta)
    assert told.index(TextDelta) < told.index(ToolCallDelta) < told.index(Finished)


def test_what_the_upstream_left_out_is_filled_in_and_what_it_sent_is_kept() -> None:
    bare = {"message": {"content": "a", "extra": 1}, "odd": 123456789012345678901234567890}
    (first, *_) = decode_completion(completion(bare, x={"y": 1}))
    original = getattr(first, "original", None)
    assert original is not None
    told = json.loads(original.data)
    assert told["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a", "extra": 1},
            "odd": 123456789012345678901234567890,
            "finish_reason": "stop",
        }
    ]
    assert told["x"] == {"y": 1}


def test_calls_without_a_reason_finish_as_calls_and_get_an_id() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    told = decode_completion(completion(choice(None, message={"tool_calls": [call]}, finish_reason=None)))
    (piece,) = [delta for delta in told if isinstance(delta, ToolCallDelta)]
    assert piece.id
    assert [delta.reason for delta in told if isinstance(delta, Finished)] == ["tool_calls"]


def test_a_call_that_is_not_whole_and_has_no_reason_is_a_cut() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": '}}
    with pytest.raises(UpstreamCut):
        decode_completion(completion(choice(None, message={"tool_calls": [call]}, finish_reason=None)))
    told = decode_completion(completion(choice(None, message={"tool_calls": [call]}, finish_reason="length")))
    assert [delta.reason for delta in told if isinstance(delta, Finished)] == ["length"]


def test_where_a_vendor_stops_at_calls_the_reason_is_tool_calls() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    data = completion(choice(None, message={"tool_calls": [call]}))
    (first, *rest) = decode_completion(data, stops_at_calls=True)
    assert [delta.reason for delta in rest if isinstance(delta, Finished)] == ["tool_calls"]
    assert first.original is not None
    assert json.loads(first.original.data)["choices"][0]["finish_reason"] == "tool_calls"
    (told,) = [delta for delta in decode_completion(data) if isinstance(delta, Finished)]
    assert told.reason == "stop"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", UpstreamInvalid),
        (b"<html>", UpstreamInvalid),
        (b"{", UpstreamInvalid),
        (completion(choice())[:-20], UpstreamInvalid),
        (b"[" * 1000 + b"]" * 1000, UpstreamInvalid),
        (b'{"a":' * 1000 + b"1" + b"}" * 1000, UpstreamInvalid),
        (b"{}", UpstreamInvalid),
        (completion(), UpstreamEmpty),
        (completion(choice("", finish_reason=None)), UpstreamEmpty),
        (completion(choice(""), usage=None), UpstreamEmpty),
        (completion(choice(""), usage={"prompt_tokens": 3, "completion_tokens": 0}), UpstreamEmpty),
        (completion(choice(None, finish_reason="tool_calls"), usage=None), UpstreamEmpty),
        (completion(choice("", finish_reason="error")), UpstreamError),
        (completion({"index": 0, "finish_reason": "stop"}), UpstreamInvalid),
        (b'{"error": {"message": "no", "type": "server_error"}}', ServerError),
        (b'{"code": 500, "msg": "no"}', ServerError),
    ],
)
def test_what_is_no_answer_is_an_error_in_both_forms(data: bytes, kind: type[ServerError]) -> None:
    with pytest.raises(kind):
        decode_completion(data)


@pytest.mark.parametrize(
    "data",
    [
        completion(choice(""), usage={"prompt_tokens": 3, "completion_tokens": 1}),
        completion(choice("", finish_reason="length"), usage=None),
    ],
    ids=["it cost tokens", "it ran out"],
)
def test_an_empty_text_may_be_an_answer(data: bytes) -> None:
    assert any(isinstance(delta, Finished) for delta in decode_completion(data))


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"error": {"message": "no"}}', b'{"choices": 5}'])
def test_nor_is_it_a_stream(data: bytes) -> None:
    with pytest.raises(ServerError):
        completion_as_chunks(data)


def test_as_chunks_each_choice_is_one_and_usage_is_told_once() -> None:
    first, second = map(json.loads, completion_as_chunks(completion(choice("a"), choice("b", index=1), x=1)))
    assert [one["choices"][0]["index"] for one in (first, second)] == [0, 1]
    assert [one["choices"][0]["delta"]["content"] for one in (first, second)] == ["a", "b"]
    assert {one["object"] for one in (first, second)} == {"chat.completion.chunk"}
    assert (first["x"], second["x"]) == (1, 1)
    assert first["usage"] == USAGE
    assert "usage" not in second
    assert "message" not in first["choices"][0]


def test_as_chunks_tool_calls_have_an_index() -> None:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in "ab"]
    (chunk,) = completion_as_chunks(completion(choice(None, message={"tool_calls": calls})))
    told = json.loads(chunk)["choices"][0]["delta"]["tool_calls"]
    assert [(one["index"], one["id"]) for one in told] == [(0, "a"), (1, "b")]


def test_pretty_json_becomes_lines() -> None:
    pretty = json.dumps(json.loads(completion(choice("a\nb"))), indent=2).encode()
    (chunk,) = completion_as_chunks(pretty)
    assert b"\n" not in chunk
    assert json.loads(chunk)["choices"][0]["delta"]["content"] == "a\nb"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.booleans())
def test_any_text_arrives_as_it_was(text: str, escaped: bool) -> None:
    data = json.dumps(json.loads(completion(choice(text))), ensure_ascii=escaped).encode()
    assert [delta.text for delta in decode_completion(data) if isinstance(delta, TextDelta)] == [text]
    (chunk,) = completion_as_chunks(data)
    assert json.loads(chunk)["choices"][0]["delta"]["content"] == text
