"""The official Anthropic client against the running server, before every kind of upstream."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from server.simulators.script import ToolCall
from tests.behaviour.anthropic_client import ASKED, TOOLS, asking, body_of, message
from tests.behaviour.kinds import KINDS

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CALLS = (ToolCall(arguments='{"city": "Paris – 巴黎 🎶"}'), ToolCall(name="now", arguments='{"zone": 1}'))
SEVERAL = [name for name in KINDS if name != "spark"]  # Spark calls one function at a time


@pytest.mark.parametrize("name", KINDS)
async def test_a_stream_and_a_plain_message_say_the_same(name: str) -> None:
    async with asking(name) as (client, kind):
        for _ in range(2):
            kind.say(text="one 二 🎶 three")
        whole = await client.messages.create(
            model=kind.model, max_tokens=100, messages=ASKED, system="Be brief."
        )
        assert (whole.type, whole.role, whole.model) == ("message", "assistant", kind.model)
        assert whole.id.startswith("msg_")
        assert [block.type for block in whole.content] == ["text"]
        assert whole.content[0].type == "text"
        assert whole.content[0].text == "one 二 🎶 three"
        assert whole.stop_reason == "end_turn"
        assert whole.usage.input_tokens > 0
        assert whole._request_id is not None
        assert whole._request_id.startswith("req_")
        async with client.messages.stream(
            model=kind.model, max_tokens=100, messages=ASKED, system="Be brief."
        ) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_message()
            assert stream.response.headers["request-id"]
        assert kinds[0] == "message_start"
        assert kinds[-2:] == ["message_delta", "message_stop"]
        assert final.content[0].type == "text"
        assert final.content[0].text == "one 二 🎶 three"
        assert final.stop_reason == "end_turn"
        assert final.usage.input_tokens == whole.usage.input_tokens
        assert final.usage.output_tokens == whole.usage.output_tokens
        await kind.nothing_left()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", KINDS)
async def test_an_agents_loop_of_tools_closes(name: str, stream: bool) -> None:
    calls = CALLS if name in SEVERAL else CALLS[:1]
    async with asking(name) as (client, kind):
        model = "spark-ultra" if name == "spark" else kind.model
        kind.say(text="" if name == "spark" else "I look.", tools=calls)
        turns = list(ASKED)
        asked: Any = {"model": model, "max_tokens": 100, "tools": TOOLS, "tool_choice": {"type": "auto"}}
        first = await message(client, stream, messages=turns, **asked)
        assert first.stop_reason == "tool_use"
        used = [block for block in first.content if block.type == "tool_use"]
        assert [(call.name, call.input) for call in used] == [
            (call.name, json.loads(call.arguments)) for call in calls
        ]
        assert len({call.id for call in used}) == len(calls)
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "fine"}]}
            for call in used
        ]
        turns += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
        kind.say(text="Sunny.")
        last = await message(client, stream, messages=turns, **asked)
        assert [block.text for block in last.content if block.type == "text"] == ["Sunny."]
        if name == "openai":
            sent = kind.sent()["messages"]
            assert [turn["role"] for turn in sent] == ["user", "assistant", "tool", "tool"]
            assert [turn["tool_call_id"] for turn in sent[2:]] == [call.id for call in used]
        await kind.nothing_left()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", KINDS)
async def test_the_vendors_own_runner_of_tools_closes_its_loop(name: str, stream: bool) -> None:
    heard: list[str] = []

    @anthropic.beta_async_tool
    async def get_weather(city: str) -> str:
        """The weather of a city."""
        heard.append(city)
        return "fine"

    async with asking(name) as (client, kind):
        model = "spark-ultra" if name == "spark" else kind.model
        kind.say(text="" if name == "spark" else "I look.", tools=CALLS[:1])
        kind.say(text="Sunny.")
        asked: Any = {"model": model, "max_tokens": 100, "tools": [get_weather], "messages": ASKED}
        runner: Any = client.beta.messages.tool_runner(stream=stream, **asked)
        last = await runner.until_done()
        assert [block.text for block in last.content if block.type == "text"] == ["Sunny."]
        assert heard == ["Paris – 巴黎 🎶"]
        await kind.nothing_left()


@pytest.mark.parametrize("stream", [True, False])
async def test_signed_thoughts_go_out_and_come_back_unchanged(stream: bool) -> None:
    async with asking("anthropic") as (client, kind):
        thinking = {"type": "enabled", "budget_tokens": 1024}
        asked: Any = {"model": "claude-x", "max_tokens": 4000, "tools": TOOLS, "thinking": thinking}
        kind.say(reasoning=("which ", "city?"), text="I look.", tools=CALLS[:1], cache_read=5)
        first = await message(client, stream, messages=ASKED, **asked)
        assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
        thought = first.content[0]
        assert thought.type == "thinking"
        assert (thought.thinking, thought.signature) == ("which city?", "EqSim==")
        assert first.usage.cache_read_input_tokens == 5
        assert kind.sent()["thinking"] == thinking
        call = first.content[2]
        assert call.type == "tool_use"
        failed = {"type": "tool_result", "tool_use_id": call.id, "content": "no", "is_error": True}
        turns = [
            *ASKED,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [failed]},
        ]
        await message(client, stream, messages=turns, **asked)
        sent = kind.sent()["messages"]
        assert sent[1]["content"][0] == {
            "type": "thinking",
            "thinking": "which city?",
            "signature": "EqSim==",
        }
        assert sent[2]["content"][0]["is_error"] is True


async def test_what_only_anthropic_knows_reaches_it_and_nobody_else() -> None:
    mark = {"type": "ephemeral"}
    asked: Any = {
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": mark}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": mark}]}],
        "tools": [TOOLS[0] | {"cache_control": mark}],
        "metadata": {"user_id": "u1"},
        "output_config": {"effort": "low"},
    }
    async with asking("anthropic") as (client, kind):
        await client.messages.create(model=kind.model, **asked)
        sent = kind.sent()
        assert sent["system"] == asked["system"]
        assert sent["messages"] == asked["messages"]
        assert sent["tools"][0]["cache_control"] == mark
        assert sent["metadata"] == {"user_id": "u1"}
        assert sent["output_config"] == {"effort": "low"}
    async with asking("openai") as (client, kind):
        told = await client.messages.with_raw_response.create(
            model="m", thinking={"type": "enabled", "budget_tokens": 1024}, **asked
        )
        assert (
            told.headers["x-antiphon-warnings"]
            == "thinking was left out; metadata was left out; cache_control was left out"
        )
        sent = kind.sent()
        assert "cache_control" not in json.dumps(sent)
        assert sent["reasoning_effort"] == "low"
        assert not {"thinking", "metadata", "output_config"} & sent.keys()


@pytest.mark.parametrize("name", [name for name in KINDS if name != "anthropic"])
async def test_marks_and_errors_of_tools_are_put_in_words_that_others_know(name: str) -> None:
    mark = {"type": "ephemeral"}
    result = {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": "no",
        "is_error": True,
        "cache_control": mark,
    }
    used = {"type": "tool_use", "id": "a", "name": "now", "input": {}, "cache_control": mark}
    turns: Any = [
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": mark}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I look.", "cache_control": mark}, used]},
        {"role": "user", "content": [result, {"type": "text", "text": "so?", "cache_control": mark}]},
    ]
    async with asking(name) as (client, kind):
        asked: Any = {
            "model": "spark-ultra" if name == "spark" else kind.model,
            "max_tokens": 100,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": mark}],
            "messages": turns,
            "tools": [TOOLS[1] | {"cache_control": mark}],
            "metadata": {"user_id": "u"},
        }
        told = await client.messages.with_raw_response.create(**asked)
        assert name == "panel" or "metadata was left out" in told.headers["x-antiphon-warnings"]
        requests = [*kind.sim.requests, *(kind.drafting.requests if kind.drafting else ())]
        assert requests
        for request in requests:
            assert b"cache_control" not in request.body
            assert b"is_error" not in request.body
        if name != "panel":
            assert b"Error: no" in requests[-1].body


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "panel"])
async def test_a_picture_is_seen(name: str) -> None:
    source: Any = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    async with asking(name) as (client, kind):
        kind.say(text="A pixel.")
        turns: list[Any] = [{"role": "user", "content": content}]
        answer = await client.messages.create(model=kind.model, max_tokens=10, messages=turns)
        assert answer.content[0].type == "text"
        assert answer.content[0].text == "A pixel."
        if name == "anthropic":
            assert kind.sent()["messages"][0]["content"] == content
        if name == "openai":
            (part, _) = kind.sent()["messages"][0]["content"]
            assert part["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"


async def test_a_picture_for_a_model_that_is_blind_is_a_400_in_the_clients_words() -> None:
    async with asking("spark") as (client, kind):
        source: Any = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        turns: list[Any] = [{"role": "user", "content": [{"type": "image", "source": source}]}]
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.create(model=kind.model, max_tokens=10, messages=turns)
        assert body_of(refused.value)["type"] == "invalid_request_error"


@pytest.mark.parametrize("form", ["streamed", "interleaved", "whole"])
async def test_pieces_of_several_calls_stay_apart_however_they_come(form: str) -> None:
    async with asking("openai") as (client, kind):
        kind.say(tools=CALLS, tool_form=form, tool_pieces=5)
        answer = await message(client, True, model="m", max_tokens=10, messages=ASKED, tools=TOOLS)
        assert [block.input for block in answer.content if block.type == "tool_use"] == [
            json.loads(call.arguments) for call in CALLS
        ]


async def test_tokens_are_estimated_without_asking_anybody() -> None:
    async with asking("openai") as (client, kind):
        told = await client.messages.count_tokens(model="m", messages=ASKED, tools=TOOLS, system="Be brief.")
        assert 20 < told.input_tokens < 200
        assert told.model_extra == {"estimated": True}
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="mm", messages=ASKED)
        assert not kind.sim.requests


async def test_an_answer_under_a_schema_is_asked_for_in_each_dialect() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wish: Any = {"format": {"type": "json_schema", "schema": schema}}
    async with asking("openai") as (client, kind):
        await client.messages.create(model="m", max_tokens=10, messages=ASKED, output_config=wish)
        assert kind.sent()["response_format"]["json_schema"]["schema"] == schema
    async with asking("anthropic") as (client, kind):
        await client.messages.create(model=kind.model, max_tokens=10, messages=ASKED, output_config=wish)
        assert kind.sent()["output_config"] == wish


@pytest.mark.parametrize("stream", [True, False])
async def test_what_gemini_signs_comes_back_to_it(stream: bool) -> None:
    async with asking("gemini") as (client, kind):
        kind.say(tools=CALLS)
        asked: Any = {"model": kind.model, "max_tokens": 100, "tools": TOOLS}
        first = await message(client, stream, messages=ASKED, **asked)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "fine"}
            for block in first.content
            if block.type == "tool_use"
        ]
        turns = [
            *ASKED,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]
        told = await client.messages.with_raw_response.create(messages=turns, **asked)
        assert "signature" not in told.headers.get("x-antiphon-warnings", "")
        said = kind.sent()["contents"][1]["parts"]
        assert said[0]["functionCall"]["name"] == "get_weather"
        assert said[0]["thoughtSignature"] == kind.script().signature  # type: ignore[attr-defined]


async def test_the_models_are_listed_as_the_client_knows_them() -> None:
    async with asking("openai") as (client, _kind):
        found = [model async for model in client.models.list()]
        assert [(model.type, model.id, model.display_name) for model in found] == [("model", "m", "m")]
        assert (await client.models.retrieve("m")).created_at == found[0].created_at
