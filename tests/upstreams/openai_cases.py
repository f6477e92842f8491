"""What the tests of the openai upstream share: a channel to a simulator, over either client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from server.settings import Channel
from server.simulators.openai import OpenAISimulator
from server.upstreams.base import Upstream
from server.upstreams.factory import build_upstream, client_session

KEY = "sk-of-the-channel-0123456789"
# An answer of a few chunks, the same for every request.
TEXT = "One, two, three – 四."


@asynccontextmanager
async def upstream(base_url: str, **settings: Any) -> AsyncIterator[Upstream]:
    """A channel's upstream; at the end no task of it is left."""
    known = {"name": "a", "kind": "openai", "base_url": base_url, "api_key": KEY, "models": ["m"]}
    before = asyncio.all_tasks()
    clients = client_session()
    try:
        yield build_upstream(msgspec.convert(known | settings, Channel), clients)
    finally:
        await clients.close()
    left = {task for task in asyncio.all_tasks() - before if not task.get_name().startswith("simulator")}
    # What serves connections on the other side belongs to the test's own server.
    assert not [task for task in left if "server/" in repr(task) and "simulators" not in repr(task)]


async def all_closed(sim: OpenAISimulator) -> None:
    await sim.wait_until(lambda: not sim.stats()["connections_open"])


def connections(sim: OpenAISimulator) -> int:
    """How many connections were ever opened."""
    return sim.stats()["connections_total"]
