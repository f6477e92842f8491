from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.raw_http import PATIENCE_S, RawClient, connect
from tests.served import GET, assert_refused, echo_app, post, served


async def test_a_silent_client_is_left_without_a_word() -> None:
    async with served(echo_app(), header_timeout_s=0.2) as port, connect("127.0.0.1", port) as client:
        assert await client.rest() == b""


async def test_a_head_that_stalls_is_a_json_408() -> None:
    async with served(echo_app(), header_timeout_s=0.2) as port, connect("127.0.0.1", port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHos")
        assert_refused(await client.answer(), 408, "request_timeout")
        assert await client.rest() == b""


async def drip(client: RawClient) -> None:
    try:
        while True:
            await client.send(b"a")
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass


async def test_a_head_that_drips_is_a_json_408() -> None:
    async with served(echo_app(), header_timeout_s=0.3) as port, connect("127.0.0.1", port) as client:
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(drip(client))
            assert_refused(await client.answer(), 408, "request_timeout")
            dripping.cancel()


async def test_the_second_head_on_a_connection_has_its_own_deadline() -> None:
    async with served(echo_app(), header_timeout_s=0.2) as port, connect("127.0.0.1", port) as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        await client.send(b"GET / HTTP/1.1\r\nHos")
        assert_refused(await client.answer(), 408, "request_timeout")


async def test_a_stalled_head_behind_a_running_answer_waits_for_that_answer() -> None:
    running, release = asyncio.Event(), asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        running.set()
        await release.wait()
        return web.Response(text="done")

    app = web.Application()
    app.router.add_get("/", wait)
    async with served(app, header_timeout_s=0.1) as port, connect("127.0.0.1", port) as client:
        await client.send(GET)
        await running.wait()
        await client.send(b"GET / HT")
        asyncio.get_running_loop().call_later(0.3, release.set)
        assert (await client.answer()).body == b"done"
        assert_refused(await client.answer(), 408, "request_timeout")


async def test_neither_a_slow_body_nor_a_long_answer_counts_as_a_slow_head() -> None:
    async def slow(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(0.3)
        return web.Response(body=body)

    app = web.Application()
    app.router.add_post("/", slow)
    async with served(app, header_timeout_s=0.1) as port, connect("127.0.0.1", port) as client:
        await client.send(post(b"Content-Length: 4", body=b"ab"))
        await asyncio.sleep(0.3)
        await client.send(b"cd")
        assert (await client.answer()).body == b"abcd"


async def test_an_idle_connection_outlives_the_head_deadline_and_ends_at_its_own() -> None:
    options = {"header_timeout_s": 0.1, "keepalive_s": 0.6}
    async with served(echo_app(), **options) as port, connect("127.0.0.1", port) as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        await asyncio.sleep(0.2)
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


@asynccontextmanager
async def waiting_handler() -> AsyncIterator[tuple[RawClient, asyncio.Event]]:
    """A client whose request is being handled, for ever; the event is set when the handler is cancelled."""
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("unreachable")

    app = web.Application()
    app.router.add_get("/", wait)
    async with served(app) as port, connect("127.0.0.1", port) as client:
        await client.send(GET)
        async with asyncio.timeout(PATIENCE_S):
            await running.wait()
            yield client, cancelled


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    async with waiting_handler() as (client, cancelled):
        client.writer.transport.abort()
        await cancelled.wait()


async def test_a_half_closed_client_counts_as_gone() -> None:
    # Its FIN is all we see of a client that closed for good, too: to wait for more would be to answer nobody.
    async with waiting_handler() as (client, cancelled):
        client.writer.write_eof()
        await cancelled.wait()
        assert await client.rest() == b""
