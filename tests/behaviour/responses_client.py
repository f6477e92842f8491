"""The official client of the Responses API before a server whose upstreams are simulated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai

from tests.behaviour.kinds import Kind, kind_of


@asynccontextmanager
async def asking(
    name: str, key: str = "unused", **more: Any
) -> AsyncIterator[tuple[openai.AsyncOpenAI, Kind]]:
    async with kind_of(name, **more) as kind:
        base = f"{kind.server.url}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0, timeout=20) as client:
            yield client, kind


async def response(client: openai.AsyncOpenAI, stream: bool, **asked: Any) -> Any:
    """One response, streamed or not."""
    if not stream:
        return await client.responses.create(**asked)
    async with client.responses.stream(**asked) as events:
        return await events.get_final_response()
