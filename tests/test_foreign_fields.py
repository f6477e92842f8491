"""What of turns, parts, calls and tools has no place upstream is told, each field once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat import ChatRequest, JsonObject
from server.foreign_fields import Carried, lost_fields

CARRIED = Carried(
    turns=frozenset({"thinking_blocks", "extra_content"}),
    parts=frozenset({"cache_control"}),
    files=frozenset({"filename"}),
    calls=frozenset({"extra_content"}),
    tools=frozenset({"cache_control"}),
    functions=frozenset({"strict"}),
)


def lost(*messages: dict[str, Any], carried: Carried = Carried(), **fields: Any) -> list[str]:  # noqa: B008
    asked = {"model": "m", "messages": list(messages), **fields}
    return lost_fields(ChatRequest(JsonObject(json.dumps(asked).encode())), carried)


def part(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [fields]}


CALL = {"id": "a", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}


def test_what_every_dialect_has_is_not_told() -> None:
    image = {"type": "image_url", "image_url": {"url": "a", "detail": "auto"}}
    turns = [part(**image), {"role": "assistant", "content": None, "refusal": "No.", "tool_calls": [CALL]}]
    assert lost(*turns, {"role": "tool", "tool_call_id": "a", "content": "b"}, tools=[TOOL]) == []


@pytest.mark.parametrize("value", [None, False, [], {}, ""])
def test_what_asks_for_nothing_is_not_told(value: Any) -> None:
    assert lost({"role": "user", "content": "a", "odd": value}, tools=None) == []


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        ({"role": "user", "content": "a", "name": "b"}, "name of messages was left out"),
        ({"role": "user", "content": "a", "b c": 1}, "a field of an odd name of messages was left out"),
        (part(type="text", text="a", cache_control={"a": 1}), "cache_control of parts was left out"),
        (part(type="image_url", image_url={"url": "a", "detail": "low"}), "detail of images was left out"),
        (part(type="file", file={"file_id": "a", "filename": "b"}), "filename of files was left out"),
        (
            {"role": "assistant", "tool_calls": [CALL | {"extra_content": {"a": 1}}]},
            "extra_content of tool calls was left out",
        ),
    ],
)
def test_what_has_no_place_is_told_once(turn: dict[str, Any], told: str) -> None:
    assert lost(turn, turn) == [told]
    if "extra_content" in told or "of parts" in told or "of files" in told:
        assert lost(turn, carried=CARRIED) == []


def test_fields_of_tools_are_told_too() -> None:
    tool = {**TOOL, "cache_control": {"a": 1}, "function": {"name": "f", "strict": True}}
    assert lost(tools=[tool]) == ["cache_control of tools was left out", "strict of tools was left out"]
    assert lost(tools=[tool], carried=CARRIED) == []


def test_thoughts_are_not_missed_where_what_is_signed_stands_for_them() -> None:
    thought = {"role": "assistant", "content": "a", "reasoning_content": "b"}
    assert lost(thought, carried=CARRIED) == ["reasoning_content of messages was left out"]
    assert lost(thought | {"thinking_blocks": [{"a": 1}]}, carried=CARRIED) == []
    signed = thought | {"tool_calls": [CALL | {"extra_content": {"a": 1}}]}
    assert lost(signed, carried=CARRIED) == []
