"""An agent that calls tools until it has its answer: each client's dialect before each kind of upstream.

The agent is written as the vendors' own examples are: what the package gave is put into the history as it is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anthropic
import openai
import pytest

from server.simulators.script import ToolCall
from tests.behaviour.hearing import heard
from tests.behaviour.kinds import KINDS, Kind, kind_of

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
}
QUESTION = "Wie ist das Wetter – 天气怎么样?"
SAID = "Sonnig 晴 🌞 \u2028überall."
FIRST: tuple[dict[str, Any], ...] = (
    {"city": "Zürich – 苏黎世 🎶", "days": [1, 2]},
    {"city": 'Ål"esund\\ \u2028\n', "days": []},
)
AGAIN = {"city": "東京"}
NOWHERE = "Error: no such city – 没有"
# Of what the agent's tools give, by the round: the second call of the first fails.
RESULTS = (("12 °C ☀", NOWHERE), ("31 °C",))


class Tools:
    """The agent's tools, which note what they are called with."""

    def __init__(self, *rounds: tuple[str, ...]) -> None:
        self.called: list[dict[str, Any]] = []
        self._results = [result for one in rounds for result in one]

    def __call__(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        assert name == "get_weather"
        self.called.append(arguments)
        result = self._results[len(self.called) - 1]
        return result, result.startswith("Error")


async def by_chats(url: str, model: str, tools: Tools, *, stream: bool) -> str:
    """An agent of chat completions."""
    function: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        while True:
            asked: Any = {"model": model, "messages": messages, "tools": [function]}
            if stream:
                async with client.chat.completions.stream(**asked) as events:
                    answer: Any = await events.get_final_completion()
            else:
                answer = await client.chat.completions.create(**asked)
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
            if answer.choices[0].finish_reason != "tool_calls":
                return str(message.content)
            for call in message.tool_calls:
                result, _ = tools(call.function.name, json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


async def by_messages(url: str, model: str, tools: Tools, *, stream: bool) -> str:
    """An agent of Anthropic's messages."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        while True:
            asked: Any = {
                "model": model,
                "max_tokens": 2000,
                "messages": messages,
                "tools": [{"name": "get_weather", "input_schema": WEATHER}],
            }
            if stream:
                async with client.messages.stream(**asked) as events:
                    answer: Any = await events.get_final_message()
            else:
                answer = await client.messages.create(**asked)
            messages.append({"role": "assistant", "content": answer.content})
            if answer.stop_reason != "tool_use":
                return "".join(block.text for block in answer.content if block.type == "text")
            results = []
            for block in answer.content:
                if block.type == "tool_use":
                    result, failed = tools(block.name, block.input)
                    told = {"type": "tool_result", "tool_use_id": block.id, "content": result}
                    results.append(told | ({"is_error": True} if failed else {}))
            messages.append({"role": "user", "content": results})


async def by_responses(url: str, model: str, tools: Tools, *, stream: bool, kept: bool = False) -> str:
    """An agent of responses; ``kept``: it goes on from the response before, and sends what is new alone."""
    tool: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    before: Any = {}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        while True:
            asked: Any = {"model": model, "input": items, "tools": [tool], **before}
            if stream:
                async with client.responses.stream(**asked) as events:
                    answer: Any = await events.get_final_response()
            else:
                answer = await client.responses.create(**asked)
            calls = [item for item in answer.output if item.type == "function_call"]
            if not calls:
                return str(answer.output_text)
            if kept:
                items, before = [], {"previous_response_id": answer.id}
            else:
                items += [
                    item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output
                ]
            for call in calls:
                result, _ = tools(call.name, json.loads(call.arguments))
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})


async def by_kept_responses(url: str, model: str, tools: Tools, *, stream: bool) -> str:
    """See ``by_responses``."""
    return await by_responses(url, model, tools, stream=stream, kept=True)


Agent: TypeAlias = Callable[..., Awaitable[str]]
AGENTS: dict[str, Agent] = {
    "chats": by_chats,
    "messages": by_messages,
    "responses": by_responses,
    "kept responses": by_kept_responses,
}

every_agent = pytest.mark.parametrize("agent", AGENTS.values(), ids=AGENTS)
every_kind = pytest.mark.parametrize("name", KINDS)
both_forms = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@asynccontextmanager
async def upstream(name: str) -> AsyncIterator[tuple[Kind, str]]:
    """The server before an upstream of this kind, and a model of it that takes tools."""
    async with kind_of(name) as kind:
        yield kind, "spark-ultra" if name == "spark" else kind.model
        await kind.nothing_left()


def call(arguments: dict[str, Any]) -> ToolCall:
    return ToolCall(name="get_weather", arguments=json.dumps(arguments, ensure_ascii=False))


@both_forms
@every_kind
@every_agent
async def test_two_rounds_of_calls_and_an_error_among_the_results(
    agent: Agent, name: str, stream: bool
) -> None:
    spark = name == "spark"  # which calls one function at a time, and says nothing beside it
    first = FIRST[1:] if spark else FIRST
    tools = Tools(*((RESULTS[0][1:], RESULTS[1]) if spark else RESULTS))
    async with upstream(name) as (kind, model):
        kind.say(text="" if spark else "Ich sehe nach – 看看.", tools=tuple(map(call, first)))
        kind.say(text="", tools=(call(AGAIN),))
        kind.say(text=SAID)
        assert await agent(kind.server.url, model, tools, stream=stream) == SAID
        assert tools.called == [*first, AGAIN]
        assert len(kind.sim.requests) == 3
        came = heard("openai" if kind.drafting else name, kind.sim.requests[-1])
        told = "".join(text for _, text in came.said)
        if spark:  # whose turns are texts
            for words in (NOWHERE, RESULTS[1][0], "東京", QUESTION):
                assert words in told
            return
        assert came.calls == [("get_weather", arguments) for arguments in (*first, AGAIN)]
        assert came.results == [*RESULTS[0], *RESULTS[1]]
        assert "Ich sehe nach – 看看." in told
        if name == "anthropic" and agent is by_messages:
            blocks = [block for turn in kind.sent()["messages"] for block in turn["content"]]
            failed = [block for block in blocks if isinstance(block, dict) and block.get("is_error")]
            assert [block["content"] for block in failed] == [NOWHERE], "that it failed is told"


@both_forms
@every_agent
@pytest.mark.parametrize("name", ["anthropic", "gemini"])
async def test_what_was_thought_before_a_call_comes_back_to_who_thought_it(
    agent: Agent, name: str, stream: bool
) -> None:
    async with upstream(name) as (kind, model):
        kind.say(text="", reasoning=("where – 哪里? ",), tools=(call(AGAIN),))
        kind.say(text=SAID)
        assert await agent(kind.server.url, model, Tools(("1",)), stream=stream) == SAID
        sent = kind.sim.requests[-1].body.decode()
        if name == "anthropic":
            thought = [
                one for turn in kind.sent()["messages"] for one in turn["content"] if "thinking" in one
            ]
            assert [one["thinking"] for one in thought] == ["where – 哪里? "]
            assert thought[0]["signature"]
        else:
            assert "thoughtSignature" in sent
            assert "skip_thought_signature_validator" not in sent
