"""A Responses request as a chat: what becomes of each field, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from server.errors import InvalidRequest
from server.openai_wire import narrowed, sealed
from server.responses_wire import Asked, parse_response
from tests.mangled import mangled

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": "d"}


class Memory:
    """Remembers one response and its one item."""

    said = json.dumps({"type": "message", "role": "assistant", "content": "before"}).encode()

    def items(self, response_id: str) -> list[bytes]:
        assert response_id == "resp_1"
        return [self.said]

    def item(self, item_id: str, param: str) -> bytes:
        assert item_id == "msg_1"
        return self.said


def parsed(**fields: Any) -> Asked:
    asked = {"model": "m", "input": "hi", **fields}
    body = {key: value for key, value in asked.items() if value is not ...}
    return parse_response(json.dumps(body).encode(), Memory())


def chat(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(parsed(**fields).chat.body)
    return made


def test_the_plain_fields_are_a_chats_and_unknown_ones_go_on() -> None:
    made = chat(
        instructions="Be brief.",
        stream=True,
        max_output_tokens=9,
        temperature=0,
        text={"verbosity": "low", "format": {"type": "json_object"}},
        reasoning={"effort": "high"},
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        metadata={"a": "b"},
        store=False,
        odd=[1.0],
        service_tier=None,
    )
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert made == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "temperature": 0,
        "odd": [1.0],
        "service_tier": None,
        "stream": True,
        "max_tokens": 9,
        "reasoning_effort": "high",
        "verbosity": "low",
        "response_format": {"type": "json_object"},
        "tools": [{"type": "function", "function": function}],
        "parallel_tool_calls": False,
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }


def test_the_response_says_again_what_was_asked() -> None:
    asked = parsed(metadata={"a": "b"}, tools=[TOOL], top_p=0.5, store=False)
    told = msgspec.json.decode(msgspec.json.encode(asked.echo))
    assert (told["metadata"], told["tools"], told["top_p"]) == ({"a": "b"}, [TOOL], 0.5)
    assert told["store"] is False
    assert (told["tool_choice"], told["truncation"], told["parallel_tool_calls"]) == (
        "auto",
        "disabled",
        True,
    )


def test_what_was_said_before_comes_first_without_its_instructions() -> None:
    asked = parsed(previous_response_id="resp_1")
    assert [turn.text for turn in asked.chat.messages] == ["before", "hi"]
    assert (len(asked.history), len(asked.items)) == (1, 1)
    alone = parsed(previous_response_id="resp_1", input=...)
    assert [turn.text for turn in alone.chat.messages] == ["before"]


def test_an_item_that_is_referred_to_is_kept_itself() -> None:
    asked = parsed(input=[{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "x"}])
    assert asked.items[0] == Memory.said


@pytest.mark.parametrize("summary", ["summary", "generate_summary"])
def test_summaries_are_told_where_they_are_asked_for(summary: str) -> None:
    assert parsed(reasoning={summary: "auto"}).summaries
    assert not parsed(reasoning={"effort": "low"}).summaries


def test_a_schema_for_the_answer() -> None:
    form = {
        "type": "json_schema",
        "name": "n",
        "schema": {"type": "object"},
        "strict": True,
        "description": "d",
    }
    assert chat(text={"format": form})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"},
    }
    assert "response_format" not in chat(text={"format": {"type": "text"}})


def test_what_is_left_out_is_told() -> None:
    assert parsed(max_tool_calls=3).warnings == ("max_tool_calls was left out",)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": ...}, "model", "missing_required_parameter"),
        ({"input": ...}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "missing_required_parameter"),
        ({"input": 1}, "input", "invalid_type"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [1]}, "tools[0]", "invalid_value"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice", "unsupported_parameter"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "missing_required_parameter"),
        ({"conversation": "c"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
    ],
)
def test_a_fault_names_its_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


WHOLE: dict[str, Any] = {
    "model": "m",
    "instructions": "i",
    "tools": [TOOL],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True},
        "verbosity": "low",
    },
    "reasoning": {"effort": "low", "summary": "auto"},
    "max_output_tokens": 5,
    "metadata": {"a": "b"},
    "include": ["x"],
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://e.com", "detail": "low"},
                {"type": "input_file", "filename": "f", "file_data": "data:,"},
                {"type": "input_audio", "input_audio": {"data": "a", "format": "wav"}},
            ],
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "s"}],
            "encrypted_content": sealed([{"type": "thinking"}, {"call": "a", "extra_content": {}}]),
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "o"}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "a",
            "output": [{"type": "input_image", "image_url": "https://e.com"}],
        },
        {"type": "item_reference", "id": "msg_1"},
    ],
}


class Anything(Memory):
    """Remembers one item under every id."""

    def item(self, item_id: str, param: str) -> bytes:
        return self.said


@given(mangled(WHOLE))
def test_whatever_is_odd_in_a_request_is_a_clear_refusal_or_is_taken(asked: dict[str, Any]) -> None:
    try:
        made = parse_response(json.dumps(asked).encode(), Anything())
    except InvalidRequest:
        return
    assert narrowed(made.chat)[0].body
    assert msgspec.json.encode(made.echo)


def test_the_request_before_anything_is_odd_is_taken() -> None:
    assert parse_response(json.dumps(WHOLE).encode(), Anything()).chat.messages
