from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.settings import Channel
from server.upstreams.anthropic import AnthropicUpstream
from server.upstreams.factory import Clients, build_upstream, client_session
from server.upstreams.gemini import GeminiUpstream
from server.upstreams.http_aiohttp import AiohttpClient
from server.upstreams.http_fast import FastClient
from server.upstreams.local import LocalUpstream
from server.upstreams.openai import OpenAIUpstream


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = client_session()
    yield clients
    await clients.close()


async def test_a_channel_uses_the_fast_client_unless_it_says_otherwise(clients: Clients) -> None:
    assert isinstance(clients.of(Channel(name="a", kind="openai")), FastClient)
    assert isinstance(clients.of(Channel(name="a", kind="openai", http="aiohttp")), AiohttpClient)


async def test_a_proxy_is_spoken_to_by_aiohttp(clients: Clients) -> None:
    channel = Channel(name="a", kind="openai", proxy="http://proxy.example:3128", http="fast")
    assert isinstance(clients.of(channel), AiohttpClient)


async def test_channels_share_the_clients(clients: Clients) -> None:
    one, other = Channel(name="a", kind="openai"), Channel(name="b", kind="openai")
    assert clients.of(one) is clients.of(other)


async def test_each_kind_has_its_upstream(clients: Clients) -> None:
    openai = build_upstream(Channel(name="a", kind="openai", base_url="http://localhost/v1"), clients)
    assert isinstance(openai, OpenAIUpstream)
    anthropic = build_upstream(Channel(name="b", kind="anthropic", api_key="k"), clients)
    assert isinstance(anthropic, AnthropicUpstream)
    gemini = build_upstream(Channel(name="g", kind="gemini", api_key="k", models=("a",)), clients)
    assert isinstance(gemini, GeminiUpstream)
    local = build_upstream(Channel(name="l", kind="local"), clients)
    assert isinstance(local, LocalUpstream)
    await openai.aclose()
    await local.aclose()
