"""Known fields of unknown types, brought into OpenAI's shape; unknown fields keep their bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.openai_wire.chunks import decode_chunk
from server.openai_wire.reshaping import reshaped


def shape(**fields: Any) -> dict[str, Any]:
    data = reshaped(json.dumps(fields).encode())
    assert data is not None
    decode_chunk(data)  # it is what the structs take
    value: dict[str, Any] = json.loads(data)
    return value


def said(content: Any, **fields: Any) -> dict[str, Any]:
    """What a message with this content becomes."""
    message = {"role": "assistant", "content": content, **fields}
    value: dict[str, Any] = shape(choices=[{"index": 0, "message": message}])["choices"][0]["message"]
    return value


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (["a", "b"], "ab"),
        ({"type": "text", "text": "a"}, "a"),
        ([{"type": "output_text", "text": "a"}], "a"),
        ([{"type": "text", "text": [{"text": "a"}, "b"]}], "ab"),
        ([], ""),
    ],
)
def test_content_parts_are_a_text(content: Any, text: str) -> None:
    assert said(content)["content"] == text


def test_parts_that_are_thought_are_reasoning() -> None:
    message = said([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}])
    assert (message["content"], message["reasoning_content"]) == ("a", "hm")


def test_parts_that_are_only_thought_leave_no_text() -> None:
    assert said([{"type": "thinking", "thinking": "hm"}])["content"] is None


def test_parts_of_other_kinds_are_kept() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    message = said([{"type": "text", "text": "a"}, image])
    assert (message["content"], message["content_parts"]) == ("a", [image])


@pytest.mark.parametrize("content", [5, 1.5, True, False])
def test_content_without_a_plain_meaning_is_left_out(content: Any) -> None:
    assert "content" not in said(content)


@pytest.mark.parametrize("reason", [False, 5, {}, ["stop"]])
def test_a_finish_reason_without_a_plain_meaning_is_none(reason: Any) -> None:
    (choice,) = shape(choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": reason}])["choices"]
    assert choice == {"index": 0, "delta": {"content": "a"}, "finish_reason": None}


@pytest.mark.parametrize("fields", [{}, {"finish_reason": None}, {"finish_reason": "stop"}])
def test_a_finish_reason_that_is_one_or_is_left_out_stays_so(fields: dict[str, Any]) -> None:
    broken = {"index": 0, "delta": {"content": 5}}
    (choice,) = shape(choices=[broken | fields])["choices"]
    assert choice == {"index": 0, "delta": {}} | fields


@pytest.mark.parametrize(("index", "kept"), [("1", 1), (1.0, 1), ("٣", None), (-1, None), ("9" * 9, None)])
def test_an_index_is_read_where_it_is_one(index: Any, kept: int | None) -> None:
    (choice,) = shape(choices=[{"index": index, "delta": {}}])["choices"]
    assert choice.get("index") == kept


def test_one_choice_and_one_call_may_stand_without_their_lists() -> None:
    call = {"id": 7, "function": {"name": "f", "arguments": {"a": 1}}}
    (choice,) = shape(choices={"delta": {"tool_calls": call}})["choices"]
    (kept,) = choice["delta"]["tool_calls"]
    assert kept["id"] == "7"
    assert json.loads(kept["function"]["arguments"]) == {"a": 1}


def test_arguments_as_an_object_keep_their_bytes() -> None:
    data = (
        b'{"choices":[{"index":"0","delta":{"tool_calls":'
        b'[{"function":{"arguments":{"n": 123456789012345678901234567890 }}}]}}]}'
    )
    told = json.loads(reshaped(data) or b"")
    arguments = told["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
    assert arguments == '{"n": 123456789012345678901234567890 }'


def test_unknown_fields_keep_their_bytes_at_every_level() -> None:
    odd = b"123456789012345678901234567890"
    data = b'{"x":%b,"choices":[{"y":%b,"delta":{"z":%b,"content":["a"]}}]}' % (odd, odd, odd)
    assert (reshaped(data) or b"").count(odd) == 3


@pytest.mark.parametrize("choices", [5, "text", True])
def test_choices_that_are_none_are_left_out(choices: Any) -> None:
    assert "choices" not in shape(choices=choices, id="c")


def test_null_choices_stay_null() -> None:
    assert shape(choices=None) == {"choices": None}


@pytest.mark.parametrize("data", [b"", b"[]", b'"a"', b"{", b"5", b"\xff", b"[" * 100_000])
def test_what_is_no_object_has_no_shape(data: bytes) -> None:
    assert reshaped(data) is None


NAMES = st.sampled_from(
    ["choices", "delta", "message", "content", "tool_calls", "function", "arguments", "index", "text", "type"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, values))
def test_whatever_comes_the_structs_take_what_is_made_of_it(fields: dict[str, Any]) -> None:
    shape(**fields)


@given(st.lists(values, max_size=3))
def test_so_they_do_whatever_stands_within_the_choices(choices: list[Any]) -> None:
    shape(choices=choices)
    shape(choices=[{"delta": one, "message": one} for one in choices])
    shape(choices=[{"delta": {"tool_calls": one, "content": one}} for one in choices])
