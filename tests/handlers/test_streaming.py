"""One event stream as a client meets it: its head, its silence, its end; and what a slow reader costs."""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from server.app import create_app
from server.app_keys import TASKS
from server.handlers.streaming import EventStream
from server.settings import Server, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    data_lines,
    get_request,
    post,
    text_of,
    until,
)
from tests.behaviour.running import QUIET, ask, channel
from tests.raw_http import PATIENCE_S, RawClient
from tests.served import exchange as exchange_on
from tests.served import served

MB = 1000 * 1000


def settings(sim: OpenAISimulator, **server: float) -> Settings:
    return Settings(server=Server(**server), channels=(channel(sim, "m"),), logging=QUIET)  # type: ignore[arg-type]


@asynccontextmanager
async def narrow(port: int, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A client whose own buffers hold little, and that has sent ``request``."""
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mine.setblocking(False)
    await asyncio.get_running_loop().sock_connect(mine, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=mine, limit=1024)
    writer.write(request)
    try:
        yield reader
    finally:
        writer.transport.abort()


async def held_back(sim: OpenAISimulator) -> int:
    """How much the upstream has sent once it has sent no more for a good while of turns."""
    last, same = -1, 0
    async with asyncio.timeout(PATIENCE_S):
        while same < 20:
            await asyncio.sleep(0.005)
            sent = sim.requests[-1].sent_bytes if sim.requests else 0
            same = same + 1 if sent and sent == last else 0
            last = sent
    return last


async def test_a_reader_that_takes_nothing_stops_the_upstream_whatever_the_length() -> None:
    """All that left the upstream is in socket buffers and one write: no more for 200 MB than for 60."""
    for pieces in (600, 2000):
        async with both(settings) as (server, sim):
            sim.script(Script(pieces=("y" * 100_000,) * pieces))
            async with narrow(server.port, chat_request(ask(stream=True))):
                assert await held_back(sim) < 20 * MB
                assert not sim.requests[-1].finished
            await sim.wait_until(lambda: sim.requests[-1].aborted)
            await until(lambda: sim.stats()["live"] == 0)


async def test_nothing_of_a_long_stream_is_kept() -> None:
    """Sixty megabytes go through in the memory of a few lines; upstream, server and client count together."""
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=("y" * 100_000,) * 600))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            await raw.head()
            tracemalloc.start()
            try:
                size = 0
                while piece := await raw.chunk():
                    size += len(piece)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert size > 60 * MB
        assert peak < 15 * MB


async def test_a_line_of_a_megabyte_passes_whole() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(huge_bytes=MB))
        chunks = chunks_of((await post(server, ask(stream=True))).body)
        assert len(text_of(chunks)) == MB


async def test_a_line_beyond_all_measure_ends_as_an_error_and_not_in_our_memory() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=("ok", "z" * (17 * MB), "never")), times=3)
        body = (await post(server, ask(stream=True))).body
        *_, last = data_lines(body)
        assert json.loads(last)["error"]["code"] == "upstream_invalid"
        assert b"[DONE]" not in body
        assert (await post(server, ask())).status == 200


async def test_a_comment_with_the_head_is_no_delta_and_failure_after_it_is_one_event() -> None:
    async with both(lambda sim: settings(sim, commit_after_s=0)) as (server, sim):
        sim.script(Script(status=400, error_message="too long", error_code="context_length_exceeded"))
        answer = await post(server, ask(stream=True))
        assert answer.status == 200
        assert answer.body.startswith(b": keep-alive\n\n")
        (only,) = data_lines(answer.body)
        assert json.loads(only)["error"]["code"] == "context_length_exceeded"


async def test_after_a_commit_another_try_may_still_answer() -> None:
    async with both(lambda sim: settings(sim, commit_after_s=0)) as (server, sim):
        sim.script(Script(status=503))
        sim.script(Script(text="second"))
        chunks = chunks_of((await post(server, ask(stream=True))).body)
        assert text_of(chunks) == "second"
        assert len(sim.requests) == 2


async def test_a_stream_that_was_committed_returns_in_the_turn_of_the_loop_that_ends_its_body() -> None:
    """A turn later the client, who has read all of it, may have closed: its request would count as left."""
    turns: list[int] = []
    returned_after: list[int] = []

    async def said_and_done(request: web.Request) -> web.StreamResponse:
        async with EventStream(request, commit_after_s=PATIENCE_S) as stream:
            stream.commit()
            await stream.write(b"data: all\n\n")
            await stream.end()
            asyncio.get_running_loop().call_soon(turns.append, 1)
        returned_after.append(len(turns))
        return stream.response

    async with OpenAISimulator() as sim:
        app = create_app(settings(sim))
        app.router.add_get("/said", said_and_done)
        async with served(app) as port:
            answer = await exchange_on(port, get_request("/said"))
    assert answer.body == b": keep-alive\n\ndata: all\n\n"
    assert returned_after == [0]


async def test_leaving_while_the_head_is_being_committed_leaves_nothing() -> None:
    """The unhappy twin: the stream ends while its head is still on the way, and waits for that."""
    ended: list[bool] = []

    async def given_up(request: web.Request) -> web.StreamResponse:
        async with EventStream(request, commit_after_s=PATIENCE_S) as stream:
            stream.commit()
        ended.append(stream.response.prepared)
        return web.Response(text="given up")

    async with OpenAISimulator() as sim:
        app = create_app(settings(sim))
        app.router.add_get("/given-up", given_up)
        async with served(app) as port:
            answer = await exchange_on(port, get_request("/given-up"))
        assert len(app[TASKS]) == 0
    assert (answer.status, ended) == (200, [False])


async def next_event(raw: RawClient) -> bytes:
    event = b""
    while not event.endswith(b"\n\n"):
        piece = await raw.chunk()
        assert piece, "the stream ended"
        event += piece
    return event


async def test_silence_is_filled_again_and_again_and_the_answer_goes_on_behind_it() -> None:
    async with both(lambda sim: settings(sim, heartbeat_s=0.02, commit_after_s=0)) as (server, sim):
        sim.script(Script(pieces=("a", "b"), stall_after=1, stall_ms=200))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            assert (await raw.head()).status == 200
            seen: list[bytes] = []
            while not seen or b"[DONE]" not in seen[-1]:
                seen.append(await next_event(raw))
        said = b"".join(seen)
        assert text_of(chunks_of(said)) == "ab"
        between = said[said.index(b'"a"') : said.index(b'"b"')]
        assert between.count(b": keep-alive\n\n") >= 2


@pytest.mark.parametrize("pieces", [("a",), ("a", "b", "c"), ("",), ()])
async def test_the_end_of_the_body_follows_the_end_of_the_answer_at_once(pieces: tuple[str, ...]) -> None:
    """The connection stays good: whoever reads to the end may ask again on it."""
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=(*pieces, "z")))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            first = await raw.answer()
            assert first.body.endswith(b"data: [DONE]\n\n")
            await raw.send(chat_request(ask(stream=True)))
            assert (await raw.answer()).status == 200
        assert_nothing_left(server)


async def test_hundreds_of_streams_at_once_come_apart_and_leave_nothing() -> None:
    async with both(settings) as (server, sim):

        async def one(number: int) -> None:
            answer = await post(server, ask(text=f"only number {number} says this", stream=True))
            assert text_of(chunks_of(answer.body)).count(f" {number} ") == 1

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(number))
        await until(lambda: sim.stats()["live"] == 0)
        assert_nothing_left(server)
