"""The official Anthropic client before a server whose upstreams are simulated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic

from tests.behaviour.kinds import Kind, kind_of

ASKED: list[Any] = [{"role": "user", "content": "hello"}]
TOOLS: list[Any] = [
    {
        "name": name,
        "description": "looks",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    for name in ("get_weather", "now")
]


@asynccontextmanager
async def asking(name: str, **more: Any) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Kind]]:
    async with (
        kind_of(name, **more) as kind,
        anthropic.AsyncAnthropic(
            base_url=kind.server.url, api_key="unused", max_retries=0, timeout=20
        ) as client,
    ):
        yield client, kind


async def message(client: anthropic.AsyncAnthropic, stream: bool, **asked: Any) -> anthropic.types.Message:
    """One answer, streamed or not."""
    if not stream:
        made: anthropic.types.Message = await client.messages.create(**asked)
        return made
    async with client.messages.stream(**asked) as events:
        return await events.get_final_message()


def body_of(error: anthropic.APIStatusError) -> dict[str, Any]:
    body: Any = error.body
    assert body["type"] == "error"
    assert body["request_id"] == error.request_id
    found: dict[str, Any] = body["error"]
    return found
