"""A chat as the wires of other dialects read it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from server.chat import ChatRequest, JsonObject
from server.errors import InvalidRequest
from server.foreign import (
    MOST_WARNINGS,
    Call,
    Called,
    decoded,
    left_out,
    plain_key,
    read_arguments,
    read_data_uri,
    read_tool,
    read_turn,
    refuse_outdated,
    refuse_two_limits,
    shortened,
    tool_choice,
)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest(JsonObject(json.dumps({"model": "m", **fields}).encode()))


def refusal(error: pytest.ExceptionInfo[InvalidRequest]) -> tuple[str | None, str]:
    return error.value.param, error.value.code


def test_a_turn_that_cannot_be_read_is_named_to_the_part() -> None:
    with pytest.raises(InvalidRequest) as error:
        read_turn(b'{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 7}}]}', 3)
    assert refusal(error) == ("messages[3].content[0].image_url.url", "invalid_type")
    assert read_turn(b'{"role": "user", "content": "a", "more": [1]}', 0).content == "a"


@pytest.mark.parametrize(
    ("tool", "place", "code"),
    [
        (b'{"type": "function"}', "tools[2]", "invalid_type"),
        (b'"weather"', "tools[2]", "invalid_type"),
        (b'{"type": "custom", "function": {"name": "f"}}', "tools[2].type", "unsupported_parameter"),
    ],
)
def test_a_tool_that_is_no_function_is_refused(tool: bytes, place: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_tool(Raw(tool), 2)
    assert refusal(error) == (place, code)


def test_a_choice_of_tools_is_a_word_or_a_name() -> None:
    assert tool_choice(chat()) is None
    assert tool_choice(chat(tool_choice=None)) is None
    assert tool_choice(chat(tool_choice="required")) == ("required", None)
    assert tool_choice(chat(tool_choice={"type": "function", "function": {"name": "f"}})) == ("function", "f")


@pytest.mark.parametrize("odd", ["any", {}, {"function": {}}, {"function": {"name": ""}}, {"function": 7}])
def test_any_other_choice_is_refused(odd: Any) -> None:
    with pytest.raises(InvalidRequest) as error:
        tool_choice(chat(tool_choice=odd))
    assert refusal(error) == ("tool_choice", "invalid_value")


@pytest.mark.parametrize("key", ["functions", "function_call"])
def test_fields_of_long_ago_are_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        refuse_outdated(chat(**{key: []}))
    assert refusal(error) == (key, "unsupported_parameter")
    refuse_outdated(chat(**{key: None}))


def test_arguments_are_an_object_and_none_are_an_empty_one() -> None:
    assert bytes(read_arguments(Call("c", Called("f", ' {"n": 1.0} ')), "p")) == b'{"n": 1.0}'
    assert bytes(read_arguments(Call("c", Called("f", " ")), "p")) == b"{}"
    for odd in ("[1]", "{", "\ud800"):
        with pytest.raises(InvalidRequest) as error:
            read_arguments(Call("c", Called("f", odd)), "p")
        assert refusal(error) == ("p.function.arguments", "invalid_value")


def test_a_data_uri_is_its_type_and_its_data_untouched() -> None:
    assert read_data_uri("data:image/JPG;base64,AAAA", "p") == ("image/jpeg", "AAAA")
    assert read_data_uri("DATA:text/plain;charset=utf-8;base64,AAAA", "p") == ("text/plain", "AAAA")
    assert read_data_uri("data:;base64,AAAA", "p") == ("", "AAAA")


@pytest.mark.parametrize(
    "uri", ["", "https://example.com", "data:image/png,AAAA", "data:image/png;base64,", "data:;base64,A"]
)
def test_what_is_no_data_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_data_uri(uri, "p")
    assert refusal(error) == ("p", "invalid_image")


def test_fields_that_nobody_knows_are_told_by_name_if_it_can_be_said() -> None:
    sent = chat(**{"user": "ann", "seed": None, "a\r\nb": 1})
    assert left_out(sent, {"model"}) == ["user was left out", "a field of an odd name was left out"]
    assert plain_key("top_k") == "top_k"
    assert decoded(sent, "user") == "ann"


def test_many_warnings_are_cut_short_and_counted() -> None:
    few = [str(at) for at in range(MOST_WARNINGS)]
    assert shortened(few) == tuple(few)
    assert shortened([*few, "a", "b"]) == (*few, "and 2 more")


def test_two_limits_that_differ_are_refused() -> None:
    refuse_two_limits(chat(max_tokens=5, max_completion_tokens=5))
    refuse_two_limits(chat(max_tokens=5, max_completion_tokens=None))
    with pytest.raises(InvalidRequest) as error:
        refuse_two_limits(chat(max_tokens=5, max_completion_tokens=6))
    assert refusal(error) == ("max_tokens", "invalid_value")
