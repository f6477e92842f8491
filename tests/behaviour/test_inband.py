"""Status within a chat stream, read by the official client where machines read the answer: tools and JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from server.handlers.inband import HEADER, MODES
from server.settings import Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from tests.behaviour.asking import assert_nothing_left, both
from tests.behaviour.running import QUIET, Antiphon, channel

CITY = '{"city": "Oslo"}'
JSON = '{"n": 42}'
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
KINDS: dict[str, tuple[dict[str, Any], Script]] = {
    "tools": ({"tools": TOOLS}, Script(tools=(ToolCall("get_weather", CITY),))),
    "json_object": ({"response_format": {"type": "json_object"}}, Script(text=JSON)),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        Script(text=JSON),
    ),
}


def settings(sim: OpenAISimulator) -> Settings:
    members = tuple(Member(model=name) for name in ("m1", "m2", "m3"))
    panel = Combination(name="panel", members=members, summary=Summary(model="s"))
    told = Combination(name="told", members=members, summary=Summary(model="s"), status="content")
    channels = (channel(sim, "m1", "m2", "m3", "s"),)
    return Settings(channels=channels, combinations=(panel, told), logging=QUIET)


@asynccontextmanager
async def official(server: Antiphon) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20
    ) as made:
        yield made


async def answered(client: openai.AsyncOpenAI, stream: bool, **asked: Any) -> ChatCompletion:
    """The whole answer, and no less of it because it came in pieces."""
    if not stream:
        plain: ChatCompletion = await client.chat.completions.create(**asked)
        return plain
    async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
        async for _event in events:
            pass
        return await events.get_final_completion()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [*MODES, None])
async def test_what_machines_read_is_whole_in_every_mode(mode: str | None, kind: str, stream: bool) -> None:
    fields, script = KINDS[kind]
    async with both(settings) as (server, sim), official(server) as client:
        for name in ("m1", "m2", "m3", "s"):
            sim.script(script, model=name)
        asked = {
            "model": "panel"
            if mode is not None
            else "told",  # there it is the configuration that says content
            "messages": [{"role": "user", "content": "Answer in JSON."}],
            "extra_headers": {} if mode is None else {HEADER: mode},
            **fields,
        }
        if mode == "content" and stream:
            with pytest.raises(openai.BadRequestError, match="does not go with tools"):
                await answered(client, stream, **asked)
            assert sim.requests == []
            return
        whole = await answered(client, stream, **asked)
        (choice,) = whole.choices
        assert choice.message.role == "assistant"
        assert whole.usage is not None
        if kind == "tools":
            assert choice.finish_reason == "tool_calls"
            calls = [call.model_dump()["function"] for call in choice.message.tool_calls or ()]
            assert [(call["name"], call["arguments"]) for call in calls] == [("get_weather", CITY)]
        else:
            assert choice.finish_reason == "stop"
            assert json.loads(choice.message.content or "") == {"n": 42}
        assert_nothing_left(server)
