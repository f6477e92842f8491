"""Images that stand on the web go into the request, once for all attempts of a call."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from server.errors import InvalidRequest
from server.settings import Channel, Images
from server.simulators.ollama import OllamaSimulator
from server.upstreams.base import Call
from server.upstreams.factory import build_upstream, client_session
from server.upstreams.inlining import InliningUpstream
from tests.channels import chat, deltas, failure
from tests.small_host import small_host

PNG = b"\x89PNG\r\n\x1a\n" + base64.b64decode(
    "AAAADUlIRFIAAAABAAAAAQgCAAAAkHdT3gAAAAxJREFUCNdjYGBgAAAABAABJzQnCgAAAABJRU5ErkJggg=="
)


@asynccontextmanager
async def pictures(fetched: list[str]) -> AsyncIterator[str]:
    async def give(request: web.Request) -> web.Response:
        fetched.append(request.path)
        if request.path == "/none.png":
            raise web.HTTPNotFound
        return web.Response(body=PNG, content_type="image/png")

    async with small_host(give) as url:
        yield url


@asynccontextmanager
async def speaking(sim: OllamaSimulator) -> AsyncIterator[InliningUpstream]:
    made = {"name": "a", "kind": "ollama", "base_url": sim.url, "models": ["m"]}
    clients = client_session(Images(allow_hosts=("127.0.0.1",)))
    try:
        upstream = build_upstream(msgspec.convert(made, Channel), clients)
        assert isinstance(upstream, InliningUpstream)
        yield upstream
    finally:
        await clients.close()


def shown(url: str) -> Callable[[bool], Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    return lambda stream: chat(stream=stream, messages=[{"role": "user", "content": parts}])


@pytest.mark.parametrize("stream", [True, False])
async def test_an_image_is_fetched_once_for_all_attempts_of_a_call(stream: bool) -> None:
    fetched: list[str] = []
    async with OllamaSimulator() as sim, pictures(fetched) as url, speaking(sim) as upstream:
        request, call = shown(f"{url}/a.png")(stream), Call()
        for _ in range(2):
            await deltas(upstream, call, request=request)
        assert [one.json()["messages"][0]["images"] for one in sim.requests] == [
            [base64.b64encode(PNG).decode()]
        ] * 2
    assert fetched == ["/a.png"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_image_that_is_not_there_is_refused_unsent(stream: bool) -> None:
    async with OllamaSimulator() as sim, pictures([]) as url, speaking(sim) as upstream:
        error = await failure(upstream, request=shown(f"{url}/none.png")(stream))
        assert isinstance(error, InvalidRequest)
        assert sim.requests == []
