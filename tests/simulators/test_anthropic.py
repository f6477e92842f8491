"""The simulated Anthropic: what it refuses, what it says, and how it is told to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from server.simulators.anthropic import AnthropicSimulator
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.script import ToolCall

HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}


@pytest.fixture
async def sim() -> AsyncIterator[AnthropicSimulator]:
    async with AnthropicSimulator(api_key="k") as simulator:
        yield simulator


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks) or "hello there"}


async def ask(sim: AnthropicSimulator, headers: dict[str, str] = HEADERS, **fields: Any) -> tuple[int, bytes]:
    body = {"model": "claude", "max_tokens": 2000, "messages": [user()], **fields}
    kept = {key: value for key, value in body.items() if value is not ...}
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{sim.url}/v1/messages", json=kept, headers=headers) as response,
    ):
        return response.status, await response.read()


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events' data; each stands under its own name."""
    found = []
    for event in body.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        read = json.loads(data.removeprefix("data: "))
        assert name == f"event: {read['type']}"
        found.append(read)
    return found


async def test_it_answers_with_a_message(sim: AnthropicSimulator) -> None:
    status, body = await ask(sim)
    message = json.loads(body)
    assert (status, message["type"], message["stop_reason"]) == (200, "message", "end_turn")
    assert message["content"] == [{"type": "text", "text": "You said: hello there"}]
    assert message["usage"]["input_tokens"] == 2


async def test_a_stream_is_named_events_in_their_order(sim: AnthropicSimulator) -> None:
    sim.script(AnthropicScript(text="Good morning", reasoning=("hm",), tools=(ToolCall(),)))
    _, body = await ask(sim, stream=True)
    events = events_of(body)
    order = [event["type"] for event in events if event["type"] != "content_block_delta"]
    block = ["content_block_start", "content_block_stop"]
    assert order == [
        "message_start", "content_block_start", "ping", "content_block_stop", *block, *block,
        "message_delta", "message_stop",
    ]  # fmt: skip
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert [delta["type"] for delta in deltas][:3] == ["thinking_delta", "signature_delta", "text_delta"]
    arguments = "".join(delta.get("partial_json", "") for delta in deltas)
    assert json.loads(arguments) == {"city": "Paris", "unit": "c"}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_an_error_in_midstream_is_an_event(sim: AnthropicSimulator) -> None:
    sim.script(AnthropicScript(chunks=4, error_after=2))
    status, body = await ask(sim, stream=True)
    last = events_of(body)[-1]
    assert (status, last["type"], last["error"]["type"]) == (200, "error", "overloaded_error")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error"), (529, "overloaded_error")]
)
async def test_a_scripted_error_has_the_vendors_shape(
    sim: AnthropicSimulator, status: int, kind: str
) -> None:
    sim.script(AnthropicScript(status=status))
    told, body = await ask(sim)
    assert (told, json.loads(body)["error"]["type"]) == (status, kind)


async def test_who_brings_no_good_key_or_no_version_is_refused(sim: AnthropicSimulator) -> None:
    assert (await ask(sim, {"anthropic-version": "2023-06-01"}))[0] == 401
    assert (await ask(sim, {**HEADERS, "x-api-key": "other"}))[0] == 401
    assert (await ask(sim, {"x-api-key": "k"}))[0] == 400
    assert (await ask(sim, {"authorization": "Bearer k", "anthropic-version": "2023-06-01"}))[0] == 200


async def test_it_is_told_by_a_line_in_the_message(sim: AnthropicSimulator) -> None:
    _, body = await ask(sim, messages=[{"role": "user", "content": 'sim: {"text": "Bonjour"}'}])
    assert json.loads(body)["content"][0]["text"] == "Bonjour"
    status, body = await ask(sim, messages=[{"role": "user", "content": 'sim: {"colour": 1}'}])
    assert status == 400


async def test_what_the_vendor_refuses_is_refused(sim: AnthropicSimulator) -> None:
    status, body = await ask(sim, max_tokens=...)
    error = json.loads(body)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert "max_tokens: Field required" in error["message"]


async def test_it_lists_its_models_and_knows_no_other_path(sim: AnthropicSimulator) -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as client:
        async with client.get(f"{sim.url}/v1/models") as response:
            assert (await response.json())["data"][0]["type"] == "model"
        async with client.get(f"{sim.url}/v1/messages") as response:
            assert response.status == 405
        async with client.post(f"{sim.url}/v1/other") as response:
            assert response.status == 404
