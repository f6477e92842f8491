"""A Messages request as a chat: what becomes of each field, and what is refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given

from server.errors import InvalidRequest
from server.messages_wire import Asked, parse_messages
from server.openai_wire import narrowed, sealed
from tests.mangled import mangled

TOOL = {"name": "f", "input_schema": {"type": "object"}}


def body(**fields: Any) -> bytes:
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps({key: value for key, value in asked.items() if value is not ...}).encode()


def parsed(**fields: Any) -> Asked:
    return parse_messages(body(**fields))


def chat(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(parsed(**fields).chat.body)
    return made


def test_a_conversation_that_is_to_be_held_is_refused_in_the_vendors_own_words() -> None:
    asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    body = json.dumps(asked | {"thread": {"type": "create"}}).encode()
    with pytest.raises(InvalidRequest) as refused:
        parse_messages(body)
    assert refused.value.param == "thread"
    assert refused.value.details is not None
    assert refused.value.details["error_code"] == "thread_unsupported_request"
    parse_messages(json.dumps(asked | {"thread": None}).encode())


def test_the_plain_fields_are_a_chats() -> None:
    assert chat(
        system="Be brief.",
        stream=True,
        stop_sequences=["."],
        temperature=0,
        top_k=3,
        metadata={"user_id": "u"},
        service_tier=None,
    ) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "stream": True,
        "stop": ["."],
        "temperature": 0,
        "top_k": 3,
        "metadata": {"user_id": "u"},
    }
    assert parsed().chat.wide


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", None),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}, None),
    ],
)
def test_tools_and_their_choice(choice: object, expected: object, parallel: bool | None) -> None:
    mark = {"type": "ephemeral"}
    made = chat(
        tools=[TOOL | {"description": "d", "strict": True, "cache_control": mark}], tool_choice=choice
    )
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert made["tools"] == [{"type": "function", "function": function, "cache_control": mark}]
    assert made["tool_choice"] == expected
    assert made.get("parallel_tool_calls") == parallel


def test_a_schema_for_the_answer_and_the_effort_go_their_own_ways() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    made = chat(output_config={"effort": "high", "format": form})
    assert made["output_config"] == {"effort": "high"}
    assert made["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "output_config" not in chat(output_format=form)
    assert chat(output_format=form)["response_format"] == made["response_format"]


@pytest.mark.parametrize(
    ("fields", "thoughts"),
    [
        ({}, False),
        ({"tools": [TOOL]}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, False),
        ({"thinking": {"type": "disabled"}, "tools": [TOOL]}, False),
    ],
)
def test_thoughts_are_shown_where_they_are_asked_for_or_must_come_back(
    fields: dict[str, Any], thoughts: bool
) -> None:
    assert parsed(**fields).thoughts is thoughts


def test_fields_without_a_name_here_wait_for_an_upstream_of_the_same_dialect() -> None:
    others = {"inference_geo": "eu", "odd\nname": 1, "mcp_servers": []}
    made = chat(**others, service_tier="odd", speed=None)
    assert made["anthropic_fields"] == others | {"service_tier": "odd"}
    assert "inference_geo" not in made
    assert "service_tier" not in made
    assert "anthropic_fields" not in chat(service_tier="auto")


def test_a_tool_of_the_services_own_stays_as_it_came() -> None:
    search = {"type": "web_search_20250305", "name": "w", "max_uses": 2}
    assert chat(tools=[search])["tools"] == [search]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": ...}, "model", "missing_required_parameter"),
        ({"messages": []}, "messages", "missing_required_parameter"),
        ({"max_tokens": ...}, "max_tokens", "missing_required_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": "9"}, "max_tokens", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "missing_required_parameter"),
        ({"tools": [{"input_schema": {}}]}, "tools[0]", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "odd"}}, "tool_choice", "invalid_value"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format", "invalid_value"),
        ({"stop_sequences": "x"}, "stop_sequences", "invalid_type"),
    ],
)
def test_a_fault_names_its_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_bytes_that_are_no_json_or_say_a_field_twice_are_refused() -> None:
    for data, code in ((b"", "invalid_json"), (b'{"model":"a","model":"b"}', "duplicate_key")):
        with pytest.raises(InvalidRequest) as refused:
            parse_messages(data)
        assert refused.value.code == code


def test_a_request_that_is_only_counted_needs_no_limit() -> None:
    assert "max_tokens" not in parse_messages(body(max_tokens=...), to_count=True).chat.json


MARK = {"type": "ephemeral"}
WHOLE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "s", "cache_control": MARK}],
    "stop_sequences": ["x"],
    "temperature": 0.5,
    "tools": [TOOL | {"strict": True, "type": "custom"}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "metadata": {"user_id": "u"},
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "b"}]},
                },
                {"type": "search_result", "source": "s", "title": "t", "content": []},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "redacted_thinking", "data": sealed([{"call": "a", "extra_content": {"x": 1}}])},
                {"type": "tool_use", "id": "a", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "is_error": True,
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://e.com"}}],
                },
            ],
        },
    ],
}


@given(mangled(WHOLE))
def test_whatever_is_odd_in_a_request_is_a_clear_refusal_or_is_taken(asked: dict[str, Any]) -> None:
    try:
        made = parse_messages(json.dumps(asked).encode())
    except InvalidRequest:
        return
    with suppress(InvalidRequest):
        assert narrowed(made.chat)[0].body


def test_the_request_before_anything_is_odd_is_taken() -> None:
    assert parse_messages(json.dumps(WHOLE).encode()).chat.messages
