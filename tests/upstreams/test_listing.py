"""Reading the list of models that an upstream gives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.errors import ServerError, UpstreamAuth, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from server.settings import Channel
from server.simulators.gemini import GeminiSimulator
from server.simulators.ollama import OllamaSimulator
from server.simulators.openai import OpenAISimulator
from server.upstreams.listing import MAX_LIST_BYTES, Listing, ModelLister
from tests.upstreams.raw_upstream import Peer, raw_upstream

Behaviour = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def lister() -> AsyncIterator[ModelLister]:
    made = ModelLister()
    try:
        yield made
    finally:
        await made.aclose()


def openai(port: int, **more: Any) -> Channel:
    return Channel(name="a", kind="openai", base_url=f"http://127.0.0.1:{port}/v1", **more)


def gives(body: bytes | object, status: str = "200 OK") -> Behaviour:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(peer: Peer) -> None:
        await peer.head()
        await peer.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

    return behave


async def listed(behave: Behaviour, **more: Any) -> Listing | None:
    async with raw_upstream(behave) as upstream, lister() as made:
        return await made.list(openai(upstream.port, **more))


async def refused(behave: Behaviour, **more: Any) -> ServerError:
    with pytest.raises(ServerError) as caught:
        await listed(behave, **more)
    return caught.value


async def test_an_openai_server_lists_its_models_in_its_order() -> None:
    async with OpenAISimulator(models={"b": None, "a": None}) as sim, lister() as made:  # type: ignore[dict-item]
        found = await made.list(openai(sim.port))
        assert found is not None
        assert found.models == ("sim", "b", "a")
        assert found.connect_s > 0


@pytest.mark.parametrize("keys", [{"api_key": "k1"}, {"api_keys": ("k1", "k2")}])
async def test_the_channels_first_key_and_its_headers_go_with_it(keys: dict[str, Any]) -> None:
    async with OpenAISimulator(api_key="k1") as sim, lister() as made:
        assert await made.list(openai(sim.port, headers={"x-org": "mine"}, **keys)) is not None
        [request] = sim.requests
        assert (request.method, request.path) == ("GET", "/v1/models")
        assert request.header("x-org") == "mine"
        assert request.header("content-type") is None


async def test_an_anthropic_server_lists_its_models_page_by_page() -> None:
    heads = []
    pages = [
        {"data": [{"id": "one"}, {"id": "two"}], "has_more": True, "last_id": "two"},
        {"data": [{"id": "two"}, {"id": "three"}], "has_more": False, "last_id": "three"},
    ]

    async def behave(peer: Peer) -> None:
        heads.append(await peer.head())
        data = json.dumps(pages[len(heads) - 1]).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    async with raw_upstream(behave) as upstream, lister() as made:
        url = f"http://127.0.0.1:{upstream.port}"
        found = await made.list(Channel("a", "anthropic", base_url=url, api_key="k"))
    assert found is not None
    assert found.models == ("one", "two", "three")
    assert heads[0].startswith(b"GET /v1/models?limit=1000 HTTP/1.1\r\n")
    assert heads[1].startswith(b"GET /v1/models?limit=1000&after_id=two HTTP/1.1\r\n")
    assert b"x-api-key: k\r\n" in heads[0]


async def test_a_gemini_lists_those_of_its_models_that_can_chat_page_by_page() -> None:
    heads = []
    chats, embeds = ["generateContent", "countTokens"], ["embedContent"]
    pages = [
        {
            "models": [
                {"name": "models/one", "supportedGenerationMethods": chats},
                {"name": "models/vectors", "supportedGenerationMethods": embeds},
            ],
            "nextPageToken": "p2",
        },
        {"models": [{"name": "models/two", "supportedGenerationMethods": chats}, {"name": "models/odd"}]},
    ]

    async def behave(peer: Peer) -> None:
        heads.append(await peer.head())
        data = json.dumps(pages[len(heads) - 1]).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    async with raw_upstream(behave) as upstream, lister() as made:
        url = f"http://127.0.0.1:{upstream.port}"
        found = await made.list(Channel("a", "gemini", base_url=url, api_key="k"))
    assert found is not None
    assert found.models == ("one", "two")
    assert heads[0].startswith(b"GET /v1beta/models?pageSize=1000 HTTP/1.1\r\n")
    assert heads[1].startswith(b"GET /v1beta/models?pageSize=1000&pageToken=p2 HTTP/1.1\r\n")
    assert b"x-goog-api-key: k\r\n" in heads[0]


async def test_a_gemini_that_refuses_the_key_is_told_as_such() -> None:
    async with GeminiSimulator(api_key="k") as sim, lister() as made:
        with pytest.raises(UpstreamAuth):
            await made.list(Channel("a", "gemini", base_url=sim.url, api_key="other"))
        found = await made.list(Channel("a", "gemini", base_url=sim.url, api_key="k"))
        assert found is not None
        assert found.models == ("gemini-sim",)


async def test_a_server_that_always_has_more_is_believed_for_some_pages_only() -> None:
    page = {"data": [{"id": "again"}], "has_more": True, "last_id": "again"}
    assert (await listed(gives(page))).models == ("again",)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["spark", "local"])
async def test_kinds_without_a_list_have_none(kind: Any) -> None:
    async with lister() as made:
        assert await made.list(Channel(name="a", kind=kind)) is None


async def test_a_name_that_holds_a_secret_of_the_channel_is_left_out() -> None:
    secret, header = "own-secret-key", "own-org-secret"
    names = ("a", f"x-{secret}", header, "own")
    behave = gives({"data": [{"id": name} for name in names]})
    found = await listed(behave, api_key=secret, headers={"x-secret": header})
    assert found is not None
    assert found.models == ("a", "own")


async def test_names_that_cannot_be_one_are_left_out() -> None:
    names = ["good", "", " blank ", "two\nlines", "x" * 5000, "good"]
    found = await listed(gives({"data": [{"id": name, "more": 1} for name in names]}))
    assert found is not None
    assert found.models == ("good",)


async def test_a_wrong_key_is_told_without_the_key() -> None:
    secret = "sk-very-secret-key"
    body = {"error": {"message": f"Incorrect API key: {secret}"}}
    error = await refused(gives(body, "401 Unauthorized"), api_key=secret)
    assert isinstance(error, UpstreamAuth)
    assert secret not in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"[]",
        {"data": "m"},
        {"data": [{"name": "m"}]},
        b'{"data":[{"id":"' + b"\xff" + b'"}]}',
    ],
)
async def test_what_is_no_list_is_told(body: bytes | object) -> None:
    assert isinstance(await refused(gives(body)), UpstreamInvalid)


async def test_a_list_that_is_far_too_long_is_not_read_to_its_end() -> None:
    async def behave(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_LIST_BYTES + 1))
        await peer.gone()

    assert "too long" in (await refused(behave)).message


async def test_a_redirect_is_not_followed() -> None:
    async def behave(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    assert "base_url" in (await refused(behave)).message


async def test_a_list_that_is_cut_off_is_told() -> None:
    async def behave(peer: Peer) -> None:
        await peer.head()
        await peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data":')
        peer.close()

    assert isinstance(await refused(behave), UpstreamInvalid)


async def test_a_server_that_is_not_there_is_told() -> None:
    async with lister() as made:
        with pytest.raises(UpstreamUnreachable):
            await made.list(openai(1))


async def test_a_server_that_stays_silent_is_not_waited_for_long() -> None:
    async def behave(peer: Peer) -> None:
        await peer.gone()

    async with raw_upstream(behave) as upstream:
        made = ModelLister(patience_s=0.05)
        try:
            with pytest.raises(UpstreamTimeout) as caught:
                await made.list(openai(upstream.port))
        finally:
            await made.aclose()
    assert caught.value.clock == "total"


async def test_a_presets_names_are_listed_as_they_are_asked_for() -> None:
    named = gives({"data": [{"id": "models/gemini-x"}, {"id": "other"}]})
    found = await listed(named, preset="gemini-openai")
    assert found is not None
    assert found.models == ("gemini-x", "other")


async def test_a_vendor_without_a_list_is_not_asked() -> None:
    async with lister() as made:
        assert await made.list(openai(1, preset="zhipu")) is None


async def test_an_ollama_lists_what_is_pulled() -> None:
    async with OllamaSimulator(models=("a:latest", "b:1b")) as sim, lister() as made:
        found = await made.list(Channel(name="o", kind="ollama", base_url=sim.url))
        assert found is not None
        assert found.models == ("a:latest", "b:1b")


async def test_words_of_ollama_where_its_list_fails_are_read() -> None:
    async with raw_upstream(gives({"error": "unauthorized"}, "401 No")) as upstream, lister() as made:
        with pytest.raises(UpstreamAuth):
            await made.list(Channel(name="o", kind="ollama", base_url=f"http://127.0.0.1:{upstream.port}"))
