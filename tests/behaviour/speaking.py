"""One conversation in each dialect that clients speak, by the vendors' own packages.

A conversation is written as OpenAI's chat messages; each speaker says it in its own dialect and tells what
came back in the same words for all.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import anthropic
import openai

Turns: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Called:
    """A tool call that the client was told of."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Told:
    """An answer as a client understood it.

    ``end``: ``said``, ``calls`` where tools are to be called, ``limit`` of tokens, ``filtered``.
    """

    text: str
    calls: tuple[Called, ...]
    end: str
    tokens: int
    thought: str = ""


@dataclass(frozen=True)
class Refused:
    """A failure as a client understood it; ``status`` 0: within a stream that had begun."""

    status: int
    code: str
    message: str


class Speaker(Protocol):
    """One client. Failures are raised as its package raises them; ``refused`` reads them."""

    async def ask(
        self, model: str, turns: Turns, *, stream: bool = False, tools: bool = False, thinks: bool = False
    ) -> Told: ...

    def words(self, model: str, turns: Turns) -> AsyncGenerator[str, None]:
        """The pieces of text of a streamed answer as they come; whoever closes this leaves."""


FUNCTIONS = ("get_weather", "now")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
MOST_TOKENS = 2000
ENDS = {"stop": "said", "tool_calls": "calls", "length": "limit", "content_filter": "filtered"}
MESSAGE_ENDS = {"end_turn": "said", "tool_use": "calls", "max_tokens": "limit", "refusal": "filtered"}
RESPONSE_ENDS = {"max_output_tokens": "limit", "content_filter": "filtered"}


def refused(error: Exception) -> Refused:
    """What a client's exception tells. It must be one that its package documents."""
    assert isinstance(error, (openai.APIError, anthropic.APIStatusError)), repr(error)
    body: Any = error.body
    told = body["error"] if isinstance(error, anthropic.APIError) else body
    status = getattr(error, "status_code", 0)
    if isinstance(error, anthropic.APIError) and status == 200:
        status = 0
    return Refused(status, told["code"], told["message"])


def _read(calls: Sequence[tuple[str, str, str]]) -> tuple[Called, ...]:
    return tuple(Called(id_, name, json.loads(arguments)) for id_, name, arguments in calls)


class Chats:
    """``/v1/chat/completions``."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client

    async def ask(
        self, model: str, turns: Turns, *, stream: bool = False, tools: bool = False, thinks: bool = False
    ) -> Told:
        asked: Any = {"model": model, "messages": list(turns), "max_completion_tokens": MOST_TOKENS}
        if tools:
            asked["tools"] = [
                {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}
                for name in FUNCTIONS
            ]
        if thinks:
            asked["reasoning_effort"] = "low"
        if stream:
            wish: Any = {"include_usage": True}
            async with self._client.chat.completions.stream(**asked, stream_options=wish) as events:
                async for _ in events:
                    pass
                # Its final completion raises for an answer that ended at a limit.
                whole: Any = events.current_completion_snapshot
        else:
            whole = await self._client.chat.completions.create(**asked)
        (choice,) = whole.choices
        calls = [
            (call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()
        ]
        thought = getattr(choice.message, "reasoning_content", None) or ""
        end, tokens = ENDS[choice.finish_reason], whole.usage.total_tokens
        return Told(choice.message.content or "", _read(calls), end, tokens, thought)

    async def words(self, model: str, turns: Turns) -> AsyncGenerator[str, None]:
        asked: Any = {"model": model, "messages": list(turns), "stream": True}
        async with await self._client.chat.completions.create(**asked) as chunks:
            async for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content


class Texts:
    """``/v1/completions``: a prompt, and nothing else can be said. Lists of parts are sent as they are."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client

    async def ask(
        self, model: str, turns: Turns, *, stream: bool = False, tools: bool = False, thinks: bool = False
    ) -> Told:
        asked: Any = {"model": model, "prompt": turns[-1]["content"], "max_tokens": MOST_TOKENS}
        if tools:
            asked["extra_body"] = {"tools": [{"type": "function", "function": {"name": FUNCTIONS[0]}}]}
        if stream:
            wish: Any = {"include_usage": True}
            chunks = await self._client.completions.create(**asked, stream=True, stream_options=wish)
            *said, last = [chunk async for chunk in chunks]
            text = "".join(chunk.choices[0].text for chunk in said)
            end, usage = said[-1].choices[0].finish_reason, last.usage
        else:
            whole = await self._client.completions.create(**asked)
            text, end, usage = whole.choices[0].text, whole.choices[0].finish_reason, whole.usage
        assert usage is not None
        return Told(text, (), ENDS[end], usage.total_tokens)

    async def words(self, model: str, turns: Turns) -> AsyncGenerator[str, None]:
        asked: Any = {"model": model, "prompt": turns[-1]["content"], "stream": True}
        async with await self._client.completions.create(**asked) as chunks:
            async for chunk in chunks:
                if chunk.choices and chunk.choices[0].text:
                    yield chunk.choices[0].text


class Messages:
    """``/v1/messages``."""

    def __init__(self, client: anthropic.AsyncAnthropic) -> None:
        self._client = client

    async def ask(
        self, model: str, turns: Turns, *, stream: bool = False, tools: bool = False, thinks: bool = False
    ) -> Told:
        asked: Any = {"model": model, "max_tokens": MOST_TOKENS, **_as_messages(turns)}
        if tools:
            asked["tools"] = [{"name": name, "input_schema": PARAMETERS} for name in FUNCTIONS]
        if thinks:
            asked["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        if stream:
            async with self._client.messages.stream(**asked) as events:
                whole: Any = await events.get_final_message()
        else:
            whole = await self._client.messages.create(**asked)
        text = "".join(block.text for block in whole.content if block.type == "text")
        calls = tuple(
            Called(block.id, block.name, block.input) for block in whole.content if block.type == "tool_use"
        )
        thought = "".join(block.thinking for block in whole.content if block.type == "thinking")
        end, tokens = MESSAGE_ENDS[whole.stop_reason], whole.usage.input_tokens + whole.usage.output_tokens
        return Told(text, calls, end, tokens, thought)

    async def words(self, model: str, turns: Turns) -> AsyncGenerator[str, None]:
        asked: Any = {"model": model, "max_tokens": MOST_TOKENS, **_as_messages(turns)}
        async with self._client.messages.stream(**asked) as events:
            async for text in events.text_stream:
                yield text


def _as_messages(turns: Turns) -> dict[str, Any]:
    asked: dict[str, Any] = {"messages": []}
    for turn in turns:
        content = turn["content"]
        if turn["role"] == "system":
            asked["system"] = content
        elif turn["role"] == "tool":
            result = {"type": "tool_result", "tool_use_id": turn["tool_call_id"], "content": content}
            if asked["messages"][-1]["role"] == "user":
                asked["messages"][-1]["content"].append(result)
            else:
                asked["messages"].append({"role": "user", "content": [result]})
        elif turn.get("tool_calls"):
            used = [
                {"type": "tool_use", "id": call["id"], "name": call["function"]["name"],
                 "input": json.loads(call["function"]["arguments"])}
                for call in turn["tool_calls"]
            ]  # fmt: skip
            text = [{"type": "text", "text": content}] if content else []
            asked["messages"].append({"role": "assistant", "content": text + used})
        else:
            said: Any = content if isinstance(content, str) else [_block(part) for part in content]
            asked["messages"].append({"role": turn["role"], "content": said})
    return asked


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return dict(part)
    head, _, data = part["image_url"]["url"].partition(";base64,")
    source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    return {"type": "image", "source": source}


class Responses:
    """``/v1/responses``, with the whole conversation in each request."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client

    async def ask(
        self, model: str, turns: Turns, *, stream: bool = False, tools: bool = False, thinks: bool = False
    ) -> Told:
        asked: Any = {"model": model, "max_output_tokens": MOST_TOKENS, **_as_input(turns)}
        if tools:
            asked["tools"] = [
                {"type": "function", "name": name, "parameters": PARAMETERS, "strict": False}
                for name in FUNCTIONS
            ]
        if thinks:
            asked["reasoning"] = {"effort": "low"}
        if stream:
            async with await self._client.responses.create(**asked, stream=True) as events:
                *_, last = [event async for event in events]
            whole: Any = last.response
        else:
            whole = await self._client.responses.create(**asked)
        calls = [
            (item.call_id, item.name, item.arguments) for item in whole.output if item.type == "function_call"
        ]
        thought = "".join(
            part.text for item in whole.output if item.type == "reasoning" for part in item.content or ()
        )
        end = "calls" if calls else "said"
        if whole.status != "completed":
            assert whole.status == "incomplete"
            end = RESPONSE_ENDS[whole.incomplete_details.reason]
        return Told(whole.output_text, _read(calls), end, whole.usage.total_tokens, thought)

    async def words(self, model: str, turns: Turns) -> AsyncGenerator[str, None]:
        asked: Any = {"model": model, "stream": True, **_as_input(turns)}
        async with await self._client.responses.create(**asked) as events:
            async for event in events:
                if event.type == "response.output_text.delta":
                    yield event.delta
                elif event.type == "response.failed":
                    # The package raises nothing here: the event is the failure.
                    error = event.response.error
                    raise openai.APIError(error.message, request=events.response.request, body=dict(error))


def _as_input(turns: Turns) -> dict[str, Any]:
    asked: dict[str, Any] = {"input": []}
    for turn in turns:
        content = turn["content"]
        if turn["role"] == "system":
            asked["instructions"] = content
        elif turn["role"] == "tool":
            item = {"type": "function_call_output", "call_id": turn["tool_call_id"], "output": content}
            asked["input"].append(item)
        else:
            said = content if isinstance(content, str) else [_input_part(part) for part in content]
            if said:
                asked["input"].append({"role": turn["role"], "content": said})
            asked["input"] += [
                {"type": "function_call", "call_id": call["id"], **call["function"]}
                for call in turn.get("tool_calls", ())
            ]
    return asked


def _input_part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    return {"type": "input_image", "image_url": part["image_url"]["url"]}


DIALECTS = ("chat completions", "messages", "responses", "completions")


@asynccontextmanager
async def speaker(dialect: str, url: str) -> AsyncIterator[Speaker]:
    """A client of the server at ``url`` that tries nothing twice."""
    if dialect == "messages":
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0, timeout=20) as claude:
            yield Messages(claude)
        return
    kinds: Any = {"chat completions": Chats, "responses": Responses, "completions": Texts}
    of = kinds[dialect]
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, timeout=20) as client:
        yield of(client)
