"""The turns of a chat as Anthropic takes them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from server.anthropic_wire import messages_request
from server.errors import InvalidRequest
from server.messages_wire import parse_messages
from server.openai_wire import narrowed
from tests.anthropic_wire.messages import ADAPTIVE, called, request, result, user

PIXEL = "iVBORw0KGgo="


def test_the_sources_of_an_assistants_text_go_back_to_it() -> None:
    cited = {"type": "text", "text": "a", "citations": [{"type": "page_location", "document_index": 0}]}
    body, _ = request(user("q"), {"role": "assistant", "content": [cited]}, user([cited]))
    assert body["messages"][1]["content"] == [cited]
    assert body["messages"][2]["content"] == [{"type": "text", "text": "a"}]


def test_the_citations_that_a_client_of_chats_sends_back_go_with_their_words() -> None:
    native = {"type": "page_location", "document_index": 0}
    place = {"file_id": "document_0", "start_index": 3, "end_index": 6}
    said = {
        "role": "assistant",
        "content": "So it is",
        "native_citations": [{"index": 0, **native}],
        "annotations": [{"index": 0, "type": "file_citation", "file_citation": place}],
    }
    body, warnings = request(user("q"), said, user("r"))
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "So "},
        {"type": "text", "text": "it ", "citations": [native]},
        {"type": "text", "text": "is"},
    ]
    assert warnings == ()
    body, warnings = request(user("q"), said | {"native_citations": []}, user("r"))
    assert warnings == ("annotations of messages was left out",)
    parts = [{"type": "text", "text": text} for text in ("So ", "it is")]
    assert request(user("q"), said | {"content": parts[1:]})[0]["messages"][1]["content"][1]["citations"]
    body, warnings = request(user("q"), said | {"content": parts}, user("r"))
    assert body["messages"][1]["content"] == parts
    assert warnings == ("native_citations of messages was left out: their text has several parts",)


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def test_system_prompts_at_the_start_are_a_field_of_their_own_in_order() -> None:
    cached = {"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}
    body, warnings = request(system("one"), {"role": "developer", "content": [cached]}, user("hello"))
    assert body["system"] == [{"type": "text", "text": "one"}, cached]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert warnings == ()


def test_a_later_system_prompt_is_said_at_its_place() -> None:
    body, _ = request(user("a"), {"role": "assistant", "content": "b"}, system("be brief"), user("c"))
    assert body["messages"][2]["content"] == [
        {"type": "text", "text": "<system>be brief</system>"},
        {"type": "text", "text": "c"},
    ]
    assert "system" not in body


def test_nothing_but_a_system_prompt_is_the_users_turn() -> None:
    body, _ = request(system("one"))
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "one"}]}]
    assert "system" not in body


def test_neighbours_of_one_role_are_one_turn_and_blank_texts_are_left_out() -> None:
    body, _ = request(
        user("a"), user(" "), user([{"type": "text", "text": "b"}, {"type": "text", "text": ""}])
    )
    assert [block["text"] for block in body["messages"][0]["content"]] == ["a", "b"]
    assert len(body["messages"]) == 1


def test_parallel_calls_and_their_results_stand_in_one_turn_each_before_any_text() -> None:
    body, _ = request(user("go"), called("c1", "c2"), result("c2", "two"), user("and?"), result("c1", "one"))
    calls, results = body["messages"][1:]
    assert calls == {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": id, "name": "f", "input": {"a": 1}} for id in ("c1", "c2")],
    }
    assert results["content"] == [
        {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
        {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
        {"type": "text", "text": "and?"},
    ]


def test_a_result_may_hold_images_or_nothing() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    body, _ = request(user("go"), called("c1", "c2"), result("c1", [image]), result("c2", ""))
    first, second = body["messages"][2]["content"]
    assert first["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    ]
    assert second == {"type": "tool_result", "tool_use_id": "c2"}


def test_an_id_that_the_service_would_refuse_is_mapped_alike_on_both_sides() -> None:
    body, _ = request(user("go"), called("functions.f:0"), result("functions.f:0"))
    asked, answered = (
        body["messages"][1]["content"][0]["id"],
        body["messages"][2]["content"][0]["tool_use_id"],
    )
    assert asked == answered
    assert re.fullmatch("[a-zA-Z0-9_-]+", asked)


def test_arguments_travel_as_they_are_and_none_are_an_empty_object() -> None:
    calls = [
        {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}
        for id, arguments in (("a", ""), ("b", '{"n": "\u2028 é"}'))
    ]
    body, _ = request(user("x"), {"role": "assistant", "tool_calls": calls}, result("a"), result("b"))
    assert [block["input"] for block in body["messages"][1]["content"]] == [{}, {"n": "\u2028 é"}]


def test_thoughts_that_came_back_stand_first_and_unchanged() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "Eq"}
    turn = called("c1", thinking_blocks=[{"index": 0, **thought}], reasoning_content="hm")
    body, _ = request(user("go"), turn, result("c1"))
    assert body["messages"][1]["content"][0] == thought


def test_what_the_service_put_beside_a_call_goes_back_and_nothing_of_others() -> None:
    own = {"caller": {"type": "code_execution_20250825", "tool_id": "s"}, "name": "g"}
    turn = called("c1")
    turn["tool_calls"][0]["extra_content"] = {"anthropic": own}
    body, warnings = request(user("go"), turn, result("c1"))
    (block,) = body["messages"][1]["content"]
    assert block["caller"] == own["caller"]
    assert block["name"] != "g"
    assert not warnings
    turn["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "Ej"}}
    body, warnings = request(user("go"), turn, result("c1"))
    assert body["messages"][1]["content"][0].keys() == {"type", "id", "name", "input"}
    assert warnings == ("extra_content of tool calls was left out",)


def test_images_and_documents_become_sources() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PIXEL}"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
    ]
    body, _ = request(user(parts))
    link, data, document = body["messages"][0]["content"]
    assert link == {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert data["source"] == {"type": "base64", "media_type": "image/jpeg", "data": PIXEL}
    assert (document["type"], document["title"]) == ("document", "a.pdf")


def test_an_answer_to_go_on_with_does_not_end_in_blanks() -> None:
    body, _ = request(user("a"), {"role": "assistant", "content": "Once upon \n"})
    assert body["messages"][-1]["content"][-1]["text"] == "Once upon"


def test_the_first_turn_is_the_users() -> None:
    body, warnings = request({"role": "assistant", "content": "Hi"}, user("a"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ([user("a"), {"role": "robot", "content": "b"}], "messages[1].role", "invalid_value"),
        ([user("")], "messages", "invalid_value"),
        ([user("a"), result("c1")], "messages[0].tool_call_id", "invalid_value"),
        ([user("a"), called("c1")], "messages[1].tool_calls", "invalid_value"),
        ([user("a"), called("c1", "c2"), result("c1")], "messages[1].tool_calls", "invalid_value"),
        ([user("a"), called("c1"), result("c1"), result("c1")], "messages[2].tool_call_id", "invalid_value"),
        ([user("a"), called("c1"), user("b")], "messages[1].tool_calls", "invalid_value"),
        (
            [user("a"), {"role": "tool", "content": "b"}],
            "messages[1].tool_call_id",
            "missing_required_parameter",
        ),
        ([user([{"type": "input_audio"}])], "messages[0].content[0].type", "unsupported_parameter"),
        ([user([{"type": "hologram"}])], "messages[0].content[0].type", "unsupported_content"),
        (
            [user([{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,Qk0="}}])],
            "messages[0].content[0].image_url.url",
            "invalid_image",
        ),
        (
            [user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}}])],
            "messages[0].content[0].image_url.url",
            "invalid_image",
        ),
        (
            [user([{"type": "file", "file": {"file_id": "f"}}])],
            "messages[0].content[0].file.file_data",
            "unsupported_content",
        ),
        (
            [user("a"), {"role": "assistant", "content": "x", "thinking_blocks": [{}]}],
            "messages[1].thinking_blocks[0].type",
            "missing_required_parameter",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_by_its_place(
    messages: list[dict[str, Any]], param: str, code: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request(*messages)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("arguments", ["[1]", "{", "null", '{"a": tru}'])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(InvalidRequest) as caught:
        request(user("a"), {"role": "assistant", "tool_calls": [call]}, result("c"))
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_blocks_of_the_services_own_come_back_at_their_places_among_texts_and_calls() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "E"}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    said = [
        thought,
        {"type": "text", "text": "I search."},
        search,
        found,
        {"type": "text", "text": "Found."},
        thought,
        call,
    ]
    asked = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            user("q"),
            {"role": "assistant", "content": said},
            user([{"type": "tool_result", "tool_use_id": "t", "content": "x"}]),
        ],
    }
    chat = parse_messages(json.dumps(asked).encode()).chat
    assert json.loads(messages_request(chat, ADAPTIVE, "c").body)["messages"][1]["content"] == said
    (odd,) = narrowed(chat)[0].raw_messages()[1:2]
    assert b"antiphon_after" not in odd
