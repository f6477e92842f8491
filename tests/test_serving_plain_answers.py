"""Plain answers are written at once: the same bytes as aiohttp writes, and nothing else of it changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.raw_http import PATIENCE_S, connect
from tests.served import HOST, exchange, served

BODIES = {"/empty": b"", "/small": b'{"ok":true}', "/large": b"x" * 300_000}
JSON = "application/json"


def app(*, slow: bool) -> web.Application:
    """Each body under its path; ``slow`` has aiohttp write the answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        status = int(request.query.get("status", "200"))
        headers = {"X-Twice": "a", "X-Unicode": "blau", "Vary": "Origin"}
        response = web.Response(body=BODIES[request.path], status=status, content_type=JSON, headers=headers)
        response.headers.add("X-Twice", "b")
        if "close" in request.query:
            response.force_close()
        if "cookie" in request.query:
            response.set_cookie("a", "b")
        if "text" in request.query:
            return web.Response(text="grün", headers={"X-Twice": "a"})
        if "bare" in request.query:
            return web.Response(body=b"bytes of no type")
        return response

    async def look(request: web.Request, response: web.StreamResponse) -> None:
        """Somebody looks at answers before they leave."""

    made = web.Application()
    for path in BODIES:
        made.router.add_route("*", path, answer)
    if slow:
        made.on_response_prepare.append(look)
    return made


@asynccontextmanager
async def both() -> AsyncIterator[tuple[int, int]]:
    async with served(app(slow=False)) as fast, served(app(slow=True)) as slow:
        yield fast, slow


async def raw_answer(port: int, request: bytes) -> bytes:
    """Every byte up to the connection's end; the request has to ask for that."""
    async with connect("127.0.0.1", port) as client:
        await client.send(request)
        async with asyncio.timeout(PATIENCE_S):
            return await client.reader.read()


def get(path: str, *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return method + b" " + path.encode() + b" HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n"


LAST = get("/small", b"Connection: close")


@pytest.mark.parametrize(
    "request_bytes",
    [
        *(get(path) for path in BODIES),
        *(get(f"/small?status={status}") for status in (200, 201, 204, 304, 400, 404, 429, 500, 503, 599)),
        get("/small?text"),
        get("/small?bare"),
        get("/small?cookie"),
        get("/small", method=b"HEAD"),
        get("/large", method=b"HEAD"),
        get("/small", b"Content-Length: 5", method=b"POST") + b"hello",
        get("/small", b"Connection: keep-alive", version=b"1.0"),
        get("/small") * 5,
    ],
    ids=lambda data: data.split(b"\r\n")[0].decode(),
)
async def test_the_bytes_are_those_of_aiohttp(request_bytes: bytes) -> None:
    async with both() as (fast, slow):
        answers = [await raw_answer(port, request_bytes + LAST) for port in (fast, slow)]
    undated = [re.sub(rb"(?m)^Date: .*\r\n", b"", answer) for answer in answers]
    assert _heads_sorted(undated[0]) == _heads_sorted(undated[1])
    assert answers[0].count(b"\r\nDate: ") == answers[1].count(b"\r\nDate: ")


def _heads_sorted(answer: bytes) -> list[bytes]:
    """All lines; the order of header fields with different names means nothing (RFC 9110, 5.3)."""
    return sorted(answer.split(b"\r\n"))


@pytest.mark.parametrize("query", ["?close", ""])
async def test_a_connection_ends_when_either_side_wants_it_to(query: str) -> None:
    async with served(app(slow=False)) as port:
        closing = [] if query else [b"Connection: close"]
        answer = await raw_answer(port, get(f"/small{query}", *closing))
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in answer.lower()


async def test_a_connection_otherwise_goes_on() -> None:
    async with served(app(slow=False)) as port, connect("127.0.0.1", port) as client:
        for _ in range(3):
            await client.send(get("/small"))
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, BODIES["/small"])
            assert answer.headers["server"] == "antiphon"


async def test_a_client_that_reads_late_gets_every_answer_whole() -> None:
    async with served(app(slow=False)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(get("/large") * 40)
        await writer.drain()
        async with asyncio.timeout(PATIENCE_S):
            total = 0
            while total < 40 * len(BODIES["/large"]):
                total += len(await reader.read(65536))
        writer.close()
        assert (await exchange(port, get("/small"))).status == 200


async def test_a_client_that_goes_in_the_middle_of_a_large_answer_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(app(slow=False)) as port:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(get("/large") * 20)
            await writer.drain()
            writer.transport.abort()
        assert (await exchange(port, get("/small"))).status == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
