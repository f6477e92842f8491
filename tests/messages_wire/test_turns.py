"""Turns of blocks as turns of a chat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import InvalidRequest
from server.messages_wire import parse_messages
from server.messages_wire.beside import UNSIGNED
from server.openai_wire import sealed

USE = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "fine"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
SEEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def turns(*messages: tuple[str, Any]) -> Any:
    said = [{"role": role, "content": content} for role, content in messages]
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": said}).encode()
    return json.loads(parse_messages(body).chat.body)["messages"]


def test_results_stand_before_the_words_of_their_turn_with_the_images_in_them() -> None:
    other = USE | {"id": "b"}
    shown = {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "see"}, IMAGE]}
    words = {"type": "text", "text": "and now?"}
    made = turns(("user", "hi"), ("assistant", [USE, other]), ("user", [words, RESULT, shown]))
    assert made[1]["content"] is None
    assert [call["function"]["arguments"] for call in made[1]["tool_calls"]] == ['{"x": 1}'] * 2
    assert made[2:] == [
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "see"}, SEEN]},
        {"role": "user", "content": "and now?"},
    ]


def test_who_made_a_call_goes_along_unless_it_was_the_model_itself() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "s"}
    results = ("user", [{"type": "tool_result", "tool_use_id": "a"}])
    made = turns(("user", "hi"), ("assistant", [USE | {"caller": caller}]), results)
    assert made[1]["tool_calls"][0]["extra_content"] == {"anthropic": {"caller": caller}}
    plain = turns(("user", "hi"), ("assistant", [USE | {"caller": {"type": "direct"}}]), results)
    assert "extra_content" not in plain[1]["tool_calls"][0]


def test_a_result_may_be_empty_or_an_error() -> None:
    empty = {"type": "tool_result", "tool_use_id": "a", "is_error": True}
    made = turns(("user", "hi"), ("assistant", [USE]), ("user", [empty]))
    assert made[2] == {"role": "tool", "tool_call_id": "a", "content": "", "is_error": True}


@pytest.mark.parametrize("none", ["", UNSIGNED])
def test_signed_thoughts_are_kept_as_they_are_and_others_are_reasoning(none: str) -> None:
    signed = {"type": "thinking", "thinking": "a", "signature": "Eq", "odd": 1}
    hidden = {"type": "redacted_thinking", "data": "x"}
    ours = {"type": "thinking", "thinking": "b", "signature": none}
    made = turns(("user", "hi"), ("assistant", [signed, hidden, ours, {"type": "text", "text": "c"}]))
    assert made[1] == {
        "role": "assistant",
        "content": "c",
        "reasoning_content": "b",
        "thinking_blocks": [signed, hidden],
    }


def test_openrouters_thoughts_go_back_as_they_were() -> None:
    details = [{"type": "reasoning.text", "text": "a", "signature": "s"}]
    thought = {"type": "thinking", "thinking": "a", "signature": UNSIGNED}
    kept = {"type": "redacted_thinking", "data": sealed([{"reasoning_details": details}])}
    made = turns(("user", "hi"), ("assistant", [thought, kept, {"type": "text", "text": "b"}]))
    assert made[1] == {
        "role": "assistant",
        "content": "b",
        "reasoning_content": "a",
        "reasoning_details": details,
    }


def test_the_services_own_sources_go_back_and_what_stood_beside_the_text() -> None:
    theirs = {"type": "web_search_result_location", "url": "https://e.com", "encrypted_index": "Eo"}
    ours = theirs | {"encrypted_index": UNSIGNED}
    extra = {"google": {"thought_signature": "Ej"}}
    said = [
        {"type": "text", "text": "a", "citations": [theirs, ours]},
        {"type": "text", "text": "b", "citations": [ours]},
        {"type": "redacted_thinking", "data": sealed([{"extra_content": extra}])},
    ]
    made = turns(("user", "hi"), ("assistant", said))
    assert made[1] == {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "a", "citations": [theirs]},
            {"type": "text", "text": "b"},
        ],
        "extra_content": extra,
    }


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (IMAGE, SEEN),
        (
            {"type": "image", "source": {"type": "url", "url": "https://e.com/a"}},
            {"type": "image_url", "image_url": {"url": "https://e.com/a"}},
        ),
        (
            {"type": "document", "title": "T", "source": {"type": "text", "data": "body"}},
            {"type": "text", "text": "T\nbody"},
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "b"}]}},
            {"type": "text", "text": "b"},
        ),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            },
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "document.pdf"},
            },
        ),
        (
            {
                "type": "search_result",
                "title": "T",
                "source": "https://e.com",
                "content": [{"type": "text", "text": "b"}],
            },
            {"type": "text", "text": "T\nhttps://e.com\nb"},
        ),
    ],
)
def test_each_block_of_a_user_has_its_part(block: dict[str, Any], expected: dict[str, Any]) -> None:
    made = turns(("user", [{"type": "text", "text": "hi"}, block]))
    if expected["type"] == "text":  # what was put into other words stays beside them
        expected = expected | {"anthropic_block": block}
    assert made[0]["content"][1] == expected


def test_what_a_part_does_not_say_of_its_block_stays_beside_it() -> None:
    odd = {"type": "text", "text": "a", "odd": 1}
    assert turns(("user", [odd]))[0]["content"] == [
        {"type": "text", "text": "a", "anthropic_block": {"odd": 1}}
    ]
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
    document = {"type": "document", "source": source, "title": "T", "citations": {"enabled": False}}
    made = turns(("user", [document]))
    assert made[0]["content"][0]["anthropic_block"] == {"title": "T"}


def test_marks_of_calls_and_results_stay() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    made = turns(("user", "hi"), ("assistant", [USE | mark]), ("user", [RESULT | mark]))
    assert made[1]["tool_calls"][0]["cache_control"] == {"type": "ephemeral"}
    assert made[2]["cache_control"] == {"type": "ephemeral"}


def test_a_system_turn_in_the_midst_stays_there() -> None:
    assert turns(("user", "hi"), ("system", "be brief"))[1] == {"role": "system", "content": "be brief"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([("tool", "x")], "messages[0].role"),
        ([("user", [])], "messages[0].content"),
        ([("user", [{"type": "odd"}])], "messages[0].content[0].type"),
        ([("user", [{"text": "x"}])], "messages[0].content[0]"),
        ([("user", ["x"])], "messages[0].content[0]"),
        ([("user", [{"type": "image"}])], "messages[0].content[0].source"),
        (
            [("user", [{"type": "image", "source": {"type": "odd", "file_id": "f"}}])],
            "messages[0].content[0].source",
        ),
        ([("user", [RESULT])], "messages[0].content"),
        ([("user", "hi"), ("assistant", [USE]), ("user", [RESULT, RESULT])], "messages[2].content"),
        ([("user", "hi"), ("assistant", [USE]), ("user", "no")], "messages[2]"),
        ([("user", "hi"), ("assistant", [USE])], "messages"),
        ([("user", "hi"), ("assistant", [IMAGE])], "messages[1].content[0].type"),
        ([("user", "hi"), ("assistant", [USE | {"input": "x"}])], "messages[1].content[0].input"),
        ([("user", "hi"), ("assistant", [USE | {"id": ""}])], "messages[1].content[0].id"),
        (
            [("user", "hi"), ("assistant", [USE]), ("user", [RESULT | {"content": 1}])],
            "messages[2].content[0].content",
        ),
        (
            [("user", "hi"), ("assistant", [USE]), ("user", [{"type": "tool_result"}])],
            "messages[2].content[0].tool_use_id",
        ),
    ],
)
def test_a_fault_names_its_place(messages: list[tuple[str, Any]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        turns(*messages)
    assert refused.value.param == param
