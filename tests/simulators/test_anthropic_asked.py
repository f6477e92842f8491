"""What the simulated Anthropic reads of a request, and refuses as the vendor does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.simulators.anthropic_asked import read_messages
from server.simulators.asked import Asked
from server.simulators.errors import Refused

USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks) or "hello there"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def result(content: Any = "fine", id: str = "t1") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def read(**fields: Any) -> Asked:
    body = {"model": "claude", "max_tokens": 2000, "messages": [user()], **fields}
    return read_messages(json.dumps({key: value for key, value in body.items() if value is not ...}).encode())


def test_what_is_asked_is_read() -> None:
    asked = read(
        stream=True,
        system=[text("be brief")],
        messages=[
            user(text("one")),
            user(text("two")),
            USE,
            user(result([text("three four")]), text("five")),
        ],
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "f"},
        stop_sequences=["END"],
        thinking={"type": "disabled"},
    )
    assert (asked.model, asked.stream, asked.n) == ("claude", True, 1)
    assert asked.prompt_tokens == 2 + 1 + 1 + 3
    assert asked.last_user == "three four\nfive"
    assert {"stop_sequences", "system"} <= asked.fields


def test_neighbours_of_one_role_are_one_turn_to_it() -> None:
    split = [user(), USE, user(result()), user(text("and?"))]
    assert read(messages=split).last_user == "fine\nand?"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1, "top_p": 0},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "adaptive"}, "temperature": 1},
        {
            "messages": [
                user({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}})
            ]
        },
        {"messages": [user(), {"role": "assistant", "content": "Once upon"}]},
        {
            "messages": [
                user(),
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "E"}]},
                user(),
            ]
        },
    ],
)
def test_what_the_vendor_takes_is_taken(fields: dict[str, Any]) -> None:
    assert read(**fields).model == "claude"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": ...}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: 0"),
        ({"seed": 1}, "seed: Extra inputs"),
        ({"temperature": 1.5}, "temperature: range"),
        ({"model": "claude-opus-4-7", "temperature": 1}, "`temperature` is deprecated"),
        ({"model": "claude-opus-5", "top_k": 4}, "`top_k` is deprecated"),
        (
            {
                "model": "claude-opus-4-8-20260301",
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "max_tokens": 2000,
            },
            "`thinking.type.enabled` is not supported",
        ),
        ({"stop_sequences": [" "]}, "non-whitespace"),
        ({"system": [{"type": "image"}]}, "system.0"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [user({"type": "text", "text": " "})]}, "non-whitespace text"),
        ({"messages": [user({"type": "tool_result", "tool_use_id": "t1"})]}, "unexpected `tool_use_id`"),
        ({"messages": [user(), USE, user()]}, "without `tool_result`"),
        ({"messages": [user(), USE]}, "without `tool_result`"),
        (
            {
                "messages": [
                    user(),
                    USE,
                    user({"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "t1"}),
                ]
            },
            "must come first",
        ),
        ({"messages": [user(), {"role": "assistant", "content": "x "}]}, "trailing whitespace"),
        (
            {"messages": [user({"type": "image", "source": {"type": "base64", "media_type": "image/bmp"}})]},
            "media_type",
        ),
        ({"tools": [{"name": "f"}]}, "input_schema"),
        ({"tool_choice": {"type": "auto"}}, "while providing tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "not found in provided tools"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "must be greater than"),
        ({"thinking": {"type": "adaptive"}, "temperature": 0.5}, "only be set to 1"),
        (
            {"thinking": {"type": "adaptive"}, "tools": [TOOL], "tool_choice": {"type": "any"}},
            "forces tool use",
        ),
        ({"model": ...}, "model: Field required"),
        ({"model": ""}, "model: String should have at least 1"),
        ({"max_tokens": True}, "max_tokens: True"),
        ({"n": 1}, "n: Extra inputs"),
        ({"top_p": "1"}, "top_p: range"),
        ({"system": 7}, "system: Input should be a valid list"),
        ({"messages": "hello"}, "at least one message"),
        ({"messages": ["hello"]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": []}]}, "non-empty content"),
        ({"messages": [user({"type": "video"})]}, "Input tag 'video'"),
        ({"messages": [user({"type": "tool_use", "id": "t"})]}, "Input tag 'tool_use'"),
        ({"messages": [user({"type": "image", "source": {"type": "text"}})]}, "base64, url or file source"),
        (
            {
                "messages": [
                    user({"type": "document", "source": {"type": "base64", "media_type": "image/png"}})
                ]
            },
            "'application/pdf'",
        ),
        ({"messages": [user(), USE, user(result(), result())]}, "unexpected `tool_use_id`"),
        ({"messages": [user(), USE, user(result(id="t2"))]}, "unexpected `tool_use_id`"),
        ({"messages": [user(), USE, user(result([text(" ")]))]}, "non-whitespace text"),
        (
            {"messages": [user(), {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}]},
            "signature: Field required",
        ),
        (
            {
                "messages": [
                    user(),
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t", "name": "f", "input": "{}"}],
                    },
                    user(result(id="t")),
                ]
            },
            "valid dictionary",
        ),
        (
            {
                "messages": [
                    user(),
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t:1", "name": "f", "input": {}}],
                    },
                    user(result(id="t:1")),
                ]
            },
            "should match pattern",
        ),
        ({"tools": [{**TOOL, "name": "a b"}]}, "name: String should match pattern"),
        ({"tools": [TOOL], "tool_choice": {"type": "required"}}, "tool_choice: Input should be one of"),
        ({"thinking": True}, "thinking: Input should be"),
        ({"thinking": {"type": "adaptive"}, "top_k": 5}, "only be set to 1"),
    ],
)
def test_what_the_vendor_refuses_is_refused_by_its_place(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as refused:
        read(**fields)
    assert refused.value.fault.status == 400
    assert words in refused.value.fault.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"hello"'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        read_messages(body)
