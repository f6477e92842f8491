"""What the tests of the HTTP clients share: answers in bytes, what an upstream does with them, and asking."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from yarl import URL

from server.errors import ServerError
from server.settings import Tls
from server.upstreams.http import HttpAnswer, HttpClient, Target, tls_context
from tests.raw_http import PATIENCE_S
from tests.upstreams.raw_upstream import Peer, RawUpstream

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
HEADERS = {"User-Agent": "antiphon", "Authorization": "Bearer sk-secret"}
HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def tasks_of_others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def target(upstream: RawUpstream | int, path: str = "/v1/chat", *, tls: Tls | None = None) -> Target:
    port = upstream if isinstance(upstream, int) else upstream.port
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    url = URL(f"{scheme}://{host}:{port}{path}")
    return Target(url, HEADERS, tls=None if tls is None else tls_context(tls))


def each_request(*answers: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Every connection gets these answers, one for each request; then it waits for the client to close."""

    async def serve(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.gone()

    return serve


def then_close(answer: bytes) -> Callable[[Peer], Awaitable[None]]:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return serve


async def read_all(answer: HttpAnswer) -> bytes:
    body = b""
    async with asyncio.timeout(PATIENCE_S):
        while data := await answer.read():
            body += data
    return body


async def ask(client: HttpClient, to: Target, body: bytes = b"{}") -> bytes:
    """One request; the answer's body."""
    answer = await client.post(to, body, connect_s=PATIENCE_S)
    try:
        return await read_all(answer)
    finally:
        answer.close()


async def fails(client: HttpClient, to: Target, error: type[ServerError]) -> None:
    with pytest.raises(error) as raised:
        await ask(client, to)
    assert type(raised.value) is error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
