"""A chat as Ollama takes it: what goes out, what is refused, what is told as lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from server.errors import InvalidRequest
from server.ollama_settings import Ollama
from server.ollama_wire import chat_request
from server.openai_wire import parse_chat

TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
BARE = {"type": "function", "function": {"name": "g"}}
PNG = "data:image/png;base64,iVBORw0KGgo="


def made(
    *messages: Any, settings: dict[str, Any] | None = None, name: str = "llama3.2", **fields: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    asked = {"model": "m", "messages": list(messages) or [{"role": "user", "content": "hello"}], **fields}
    own = msgspec.convert(settings or {}, Ollama)
    request = chat_request(parse_chat(json.dumps(asked).encode()), own, name)
    return json.loads(request.body), request.warnings


def refused(*messages: Any, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        made(*messages, **fields)
    return raised.value


def test_a_plain_request_says_what_is_needed_and_no_more() -> None:
    body, warnings = made()
    assert body == {"model": "llama3.2", "messages": [{"role": "user", "content": "hello"}], "stream": False}
    assert warnings == ()
    assert made(stream=True)[0]["stream"] is True


def test_sampling_and_limits_are_options() -> None:
    body, warnings = made(
        temperature=0.5, top_p=0.9, seed=7, stop="x", max_tokens=9, presence_penalty=1, top_k=4, min_p=0.1
    )
    assert body["options"] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["x"],
        "num_predict": 9,
        "presence_penalty": 1,
        "top_k": 4,
        "min_p": 0.1,
    }
    assert warnings == ()
    assert made(stop=["a", "b"], max_completion_tokens=3)[0]["options"] == {
        "stop": ["a", "b"],
        "num_predict": 3,
    }


def test_the_channel_says_how_large_the_context_is_and_how_long_a_model_stays() -> None:
    settings = {
        "num_ctx": 8192,
        "keep_alive": "10m",
        "options": {"temperature": 1, "num_gpu": 0},
        "models": {"big": {"num_ctx": 65536}},
    }
    body, _ = made(settings=settings, temperature=0)
    assert body["options"] == {"temperature": 0, "num_gpu": 0, "num_ctx": 8192}
    assert body["keep_alive"] == "10m"
    body, _ = made(settings=settings, name="big", options={"num_ctx": 5}, keep_alive=0)
    assert (body["options"]["num_ctx"], body["keep_alive"]) == (5, 0)
    assert made(settings=settings, name="big")[0]["options"]["num_ctx"] == 65536


def test_a_conversation_with_tools_goes_on() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}}
    body, warnings = made(
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
        {"role": "user", "content": "and?", "name": "Ann"},
        tools=[TOOL, BARE],
        tool_choice="auto",
        parallel_tool_calls=False,
    )
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": "é"}}}],
        },
        {"role": "tool", "tool_name": "f", "content": "4"},
        {"role": "user", "content": "and?"},
    ]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["f", "g"]
    assert body["tools"][1]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert warnings == (
        "parallel_tool_calls was left out: this model may call several tools at once",
        "name of messages was left out",
    )


def test_no_tools_are_shown_to_a_model_that_shall_call_none() -> None:
    assert "tools" not in made(tools=[TOOL], tool_choice="none")[0]


def test_images_are_base64_beside_the_text() -> None:
    parts = [{"type": "image_url", "image_url": {"url": PNG}}, {"type": "text", "text": "what?"}]
    (message,) = made({"role": "user", "content": parts})[0]["messages"]
    assert message == {"role": "user", "content": "what?", "images": ["iVBORw0KGgo="]}


@pytest.mark.parametrize(
    ("fields", "format"),
    [
        ({"response_format": {"type": "json_object"}}, "json"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "object"}},
                }
            },
            {"type": "object"},
        ),
        ({"response_format": {"type": "text"}}, None),
        ({"format": "json"}, "json"),
    ],
)
def test_structured_output_is_a_format(fields: dict[str, Any], format: Any) -> None:
    assert made(**fields)[0].get("format") == format


@pytest.mark.parametrize(
    ("name", "fields", "think"),
    [
        ("qwen3", {"reasoning_effort": "none"}, False),
        ("qwen3", {}, None),
        ("gpt-oss:20b", {"reasoning_effort": "low"}, "low"),
        ("gpt-oss:20b", {"think": "medium"}, "medium"),
        ("qwen3", {"think": False, "reasoning_effort": "high"}, False),
    ],
)
def test_effort_is_thinking(name: str, fields: dict[str, Any], think: Any) -> None:
    body, warnings = made(name=name, **fields)
    assert (body.get("think"), warnings) == (think, ())


@pytest.mark.parametrize(
    ("name", "effort", "think", "told"),
    [
        ("qwen3", "high", True, "reasoning_effort was changed to on: this model knows no levels"),
        ("gpt-oss:20b", "minimal", "low", "reasoning_effort was changed to low"),
        ("gpt-oss:20b", "xhigh", "high", "reasoning_effort was changed to high"),
    ],
)
def test_effort_of_a_level_that_is_not_there_is_changed_and_told(
    name: str, effort: str, think: Any, told: str
) -> None:
    body, warnings = made(name=name, reasoning_effort=effort)
    assert (body["think"], warnings) == (think, (told,))


def test_effort_that_cannot_be_told_is_left_out() -> None:
    left = ("reasoning_effort was left out",)
    assert made(name="gpt-oss", reasoning_effort="none")[1] == left
    own = {"models": {"llama3.2": {"thinking": "no"}}}
    body, warnings = made(settings=own, reasoning_effort="low")
    assert ("think" in body, warnings) == (False, left)
    own = {"models": {"llama3.2": {"thinking": "level"}}}
    assert made(settings=own, reasoning_effort="low")[0]["think"] == "low"


def test_what_it_does_not_know_is_told() -> None:
    odd: dict[str, Any] = {"x\n": 1}
    body, warnings = made(user="u", logit_bias={"1": 2}, n=1, logprobs=False, store=None, **odd)
    assert set(body) == {"model", "messages", "stream"}
    assert warnings == ("user was left out", "logit_bias was left out", "a field of an odd name was left out")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": []}, "functions"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
    ],
)
def test_what_cannot_be_had_is_refused(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error.param, error.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "narrator", "content": "a"}, "messages[0].role"),
        ({"role": "tool", "tool_call_id": "c", "content": "a"}, "messages[0].tool_call_id"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0].type"),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:text/html;base64,YQ=="}}],
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[1]"}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_messages_that_cannot_be_told_are_refused(message: dict[str, Any], param: str) -> None:
    assert refused(message).param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"options": [1]}, "options"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"think": 3}, "think"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_odd_values_are_named(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param
