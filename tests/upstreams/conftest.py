"""The HTTP clients under test, and the event loops: what speaks HTTP is tested on both of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.upstreams.http import HttpClient
from server.upstreams.http_aiohttp import AiohttpClient
from server.upstreams.http_fast import FastClient
from tests.upstreams.http_cases import CERTIFICATE, tasks_of_others
from tests.upstreams.openai_cases import TEXT

ON_BOTH = ("test_http.py", "test_http_faults.py", "test_http_fast.py", "test_openai_clocks.py")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
    if item.path.name in ON_BOTH:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(params=["fast", "aiohttp"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[HttpClient]:
    tasks = tasks_of_others()
    client: HttpClient = FastClient() if request.param == "fast" else AiohttpClient()
    yield client
    await client.aclose()
    assert tasks_of_others() <= tasks


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.fixture(params=["fast", "aiohttp"])
def http(request: pytest.FixtureRequest) -> str:
    """Which client a channel uses."""
    return str(request.param)


@pytest.fixture
async def sim() -> AsyncIterator[OpenAISimulator]:
    """An upstream that says TEXT in four chunks, unless it is told otherwise."""
    async with OpenAISimulator(default=Script(text=TEXT, chunks=4)) as sim:
        yield sim
