"""What only Anthropic's dialect knows is taken out of a chat for upstreams of OpenAI's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat import ChatRequest, JsonObject
from server.errors import InvalidRequest
from server.openai_wire import narrowed
from server.openai_wire.narrowing import MOVED

MARK = {"type": "ephemeral"}


def narrow(**fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    chat, warnings = narrowed(ChatRequest(JsonObject(json.dumps(asked).encode()), wide=True))
    return json.loads(chat.body), warnings


def test_marks_for_a_cache_are_taken_out_wherever_they_stand() -> None:
    part = {"type": "text", "text": "a"}
    tool = {"type": "function", "function": {"name": "cache_control"}}
    made, warnings = narrow(
        messages=[{"role": "user", "content": [part | {"cache_control": MARK}, part]}],
        tools=[tool | {"cache_control": MARK}, tool],
        cache_control=MARK,
    )
    assert made == {
        "model": "m",
        "messages": [{"role": "user", "content": [part, part]}],
        "tools": [tool] * 2,
    }
    assert warnings == ("cache_control was left out",)


def test_anthropics_sources_of_a_text_are_taken_out() -> None:
    cited = {"type": "text", "text": "a", "citations": [{"type": "page_location"}]}
    made, _ = narrow(messages=[{"role": "assistant", "content": [cited]}])
    assert made["messages"][0]["content"] == [{"type": "text", "text": "a"}]


def test_what_is_missed_is_told_and_an_effort_stays_one() -> None:
    made, warnings = narrow(
        thinking={"type": "enabled"}, metadata={"user_id": "u"}, output_config={"effort": "low"}, top_k=1
    )
    assert made["reasoning_effort"] == "low"
    assert made["top_k"] == 1
    assert not {"thinking", "metadata", "output_config"} & made.keys()
    assert warnings == ("thinking was left out", "metadata was left out")
    assert narrow(service_tier="standard_only")[1] == ("service_tier was left out",)
    assert narrow(service_tier="auto")[0]["service_tier"] == "auto"


def test_fields_of_the_service_alone_are_taken_out_and_told_by_their_names() -> None:
    made, warnings = narrow(anthropic_fields={"speed": "fast", "mcp_servers": []})
    assert "anthropic_fields" not in made
    assert warnings == ("speed was left out", "mcp_servers was left out")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"anthropic_fields": {"mcp_servers": [{"url": "x"}]}}, "mcp_servers", "unsupported_parameter"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "unsupported_parameter"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "anthropic_block", "anthropic_block": {"type": "document"}}],
                    }
                ]
            },
            "messages[0].content",
            "unsupported_content",
        ),
    ],
)
def test_what_only_the_service_itself_can_do_is_refused(
    fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        narrow(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_field_that_an_upstream_knows_stays() -> None:
    asked = {"model": "m", "messages": [], "thinking": {"type": "enabled"}, "metadata": {}}
    chat, warnings = narrowed(ChatRequest(JsonObject(json.dumps(asked).encode())), keep=("thinking",))
    assert json.loads(chat.body) == {"model": "m", "messages": [], "thinking": {"type": "enabled"}}
    assert warnings == ("metadata was left out",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("no such file", "Error: no such file"), ("error: no", "error: no"), ("", "Error: ")],
)
def test_a_result_that_is_an_error_says_so(content: str, expected: str) -> None:
    turn = {"role": "tool", "tool_call_id": "a", "content": content}
    assert narrow(messages=[turn | {"is_error": True}])[0]["messages"] == [turn | {"content": expected}]
    assert narrow(messages=[turn | {"is_error": False}])[0]["messages"] == [turn]


@pytest.mark.parametrize("beside", [{}, {"google": {"thought_signature": "Ej"}}])
def test_what_anthropic_says_of_a_call_is_left_out_and_told(beside: dict[str, Any]) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    own = {"caller": {"type": "code_execution_20250825"}}
    asked = turn | {"tool_calls": [call | {"extra_content": {"anthropic": own, **beside}}]}
    made, warnings = narrow(messages=[asked])
    expected = call | ({"extra_content": beside} if beside else {})
    assert made["messages"] == [turn | {"tool_calls": [expected]}]
    assert warnings == ("caller of tool calls was left out",)
    odd = turn | {"tool_calls": [call | {"extra_content": {"anthropic": 5}}]}
    assert narrow(messages=[odd])[0]["messages"] == [turn]


def test_signed_thoughts_are_for_their_own_service_alone() -> None:
    turn = {"role": "assistant", "content": "a", "reasoning_content": "b"}
    made, warnings = narrow(messages=[turn | {"thinking_blocks": [{"type": "thinking"}]}])
    assert made["messages"] == [turn]
    assert warnings == ("thinking_blocks of messages was left out",)


def test_what_only_a_block_says_is_taken_out_and_told() -> None:
    part = {"type": "text", "text": "T\nbody"}
    cited = {"citations": {"enabled": True}}
    whole = {"type": "document", "title": "T", "source": {"type": "text", "data": "body"}}
    for block, told in (
        (whole, ("documents were put into text",)),
        (whole | cited, ("documents were put into text", "citations of messages was left out")),
        ({"type": "search_result"}, ("search results were put into text",)),
        (
            {"context": "c"} | cited,
            ("citations of messages was left out", "context of messages was left out"),
        ),
    ):
        asked = {"role": "user", "content": [part | {"anthropic_block": block}]}
        made, warnings = narrow(messages=[asked])
        assert made["messages"] == [{"role": "user", "content": [part]}]
        assert warnings == told


def test_what_stands_beside_a_tool_is_taken_out_and_told() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    made, warnings = narrow(tools=[tool | {"defer_loading": True}, tool], anthropic_beta=["a"])
    assert made["tools"] == [tool, tool]
    assert warnings == ("the header anthropic-beta was left out", "defer_loading of tools was left out")


def test_what_results_show_is_put_behind_them() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    words = {"type": "text", "text": "Shown by the result of a:"}
    result = {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "see"}, image]}
    plain = {"role": "tool", "tool_call_id": "b", "content": "b"}
    told = {"role": "tool", "tool_call_id": "a", "content": "see"}
    shown = {"role": "user", "content": [words, image]}
    made, warnings = narrow(messages=[result, plain])
    assert made["messages"] == [told, plain, shown]
    assert warnings == (MOVED,)
    said = {"role": "assistant", "content": "so"}
    assert narrow(messages=[result, said])[0]["messages"] == [told, shown, said]
    for content in ("so?", [{"type": "text", "text": "so?"}]):
        asked = narrow(messages=[result, {"role": "user", "content": content}])[0]["messages"]
        assert asked == [told, {"role": "user", "content": [words, image, {"type": "text", "text": "so?"}]}]
    seen = {"role": "user", "content": [image]}
    assert narrow(messages=[seen])[0]["messages"] == [seen]
