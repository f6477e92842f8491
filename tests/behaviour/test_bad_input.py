"""What is wrong with a request is told by the names of the client's own dialect, and nothing is sent."""

from __future__ import annotations

from typing import Any

import pytest

from server.app_keys import METRICS
from tests.behaviour.asking import chunks_of, error_of, get, post, text_of
from tests.behaviour.kinds import kind_of

CHATS, MESSAGES, RESPONSES, TEXTS = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/responses",
    "/v1/completions",
)
HI = {"role": "user", "content": "hi"}
BROKEN = "data:image/png;base64,@@"
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "1"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FOREIGN = ("anthropic", "gemini", "ollama", "spark")


async def refused(name: str, path: str, body: dict[str, Any], model: str = "") -> dict[str, Any]:
    """The error of a request that is refused here; the upstream is not asked."""
    async with kind_of(name) as kind:
        answer = await post(kind.server, {"model": model or kind.model, **body}, "x-api-key: k", path=path)
        assert answer.status == 400, answer.body
        assert not kind.sim.requests
        if path == MESSAGES:
            told: dict[str, Any] = answer.json()["error"]
            assert answer.json()["type"] == "error"
            assert told["type"] == "invalid_request_error"
            return told
        return dict(error_of(answer, 400))


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize(
    ("messages", "at", "code"),
    [
        ([HI, RESULT], 1, "invalid_value"),
        ([HI, CALLED, {**RESULT, "tool_call_id": "c2"}], 2, "invalid_value"),
        ([HI, CALLED, {"role": "tool", "content": "1"}], 2, "missing_required_parameter"),
        ([HI, CALLED, RESULT, RESULT], 3, "invalid_value"),
    ],
)
async def test_a_result_without_a_call_is_the_same_400_everywhere(
    name: str, messages: list[Any], at: int, code: str
) -> None:
    told = await refused(
        name, CHATS, {"messages": messages, "tools": [TOOL]}, "spark-ultra" * (name == "spark")
    )
    assert told["code"] == code
    if code != "invalid_value" or name in ("ollama", "spark"):
        assert told["param"] == f"messages[{at}].tool_call_id"
    else:  # a vendor that merges turns blames one of them
        assert told["param"].startswith("messages[")


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHATS, {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        (CHATS, {"messages": [HI], "tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        (
            CHATS,
            {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
            "messages[0].content[0].type",
        ),
        (MESSAGES, {"max_tokens": 9, "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        (
            MESSAGES,
            {"max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
            "messages[0].content[0].type",
        ),
        (RESPONSES, {"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        (RESPONSES, {"input": [{"type": "hologram"}]}, "input[0].type"),
        (
            RESPONSES,
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "input[0].call_id",
        ),
        (TEXTS, {"prompt": [1, 2]}, "prompt"),
    ],
)
async def test_odd_roles_blocks_and_tools_are_named(
    name: str, path: str, body: dict[str, Any], param: str
) -> None:
    model = "spark-ultra" if name == "spark" else ""
    assert (await refused(name, path, body, model))["param"] == param


@pytest.mark.parametrize("name", FOREIGN)
async def test_an_image_that_cannot_be_sent_is_named_by_the_clients_own_field(name: str) -> None:
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "@@"}}
    turns = [HI, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": [block]}]
    told = await refused(name, MESSAGES, {"max_tokens": 9, "system": "Be brief.", "messages": turns})
    assert told["param"] == "messages[2].content"
    assert "messages[3]" not in told["message"]
    item = {"role": "user", "content": [{"type": "input_image", "image_url": BROKEN}]}
    told = await refused(name, RESPONSES, {"instructions": "Be brief.", "input": [item]})
    assert told["param"] == "input"
    assert "messages" not in told["message"]


ODD = {
    "openai": "data: {gar\n\ndata: bage\n\n",
    "azure": "data: {gar\n\n",
    "anthropic": 'event: odd\ndata: {"type": "odd"}\n\n',
    "gemini": 'data: {"candidates": [{"content": {"role": "model", "parts": [{"odd": 1}]}}]}\r\n\r\n',
    "ollama": "{gar\n",
}


@pytest.mark.parametrize("name", ODD)
async def test_what_nobody_knows_in_a_stream_is_passed_over_and_counted(name: str) -> None:
    async with kind_of(name) as kind:
        kind.say(pieces=("one ", "two"), inject={1: ODD[name]})
        answer = await post(kind.server, {"model": kind.model, "messages": [HI], "stream": True}, path=CHATS)
        assert text_of(chunks_of(answer.body)) == "one two"
        (channel,) = kind.server.app[METRICS].skipped
        count = ODD[name].count("data: ") or 1
        told = (await get(kind.server, "/metrics")).body.decode()
        assert f'antiphon_upstream_skipped_total{{channel="{channel}"}} {count}.0' in told


@pytest.mark.parametrize("name", ["anthropic", "gemini", "ollama"])
async def test_odd_wishes_are_named_by_the_clients_own_field(name: str) -> None:
    told = await refused(name, RESPONSES, {"input": "hi", "reasoning": {"effort": "insane"}})
    assert told["param"] == "reasoning.effort"
    assert told["message"].startswith("reasoning.effort must be")
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{no"}
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    told = await refused(name, RESPONSES, {"input": [item, output]})
    assert told["param"] == "input"
