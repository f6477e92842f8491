"""What both HTTP clients do when something goes wrong, or is no longer wanted."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from server.errors import UpstreamCut, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from server.settings import Tls
from server.upstreams.http import MAX_HEAD_BYTES, HttpClient, Target
from tests.upstreams.http_cases import (
    CHUNKED,
    HEADERS,
    HI,
    ask,
    each_request,
    fails,
    target,
    then_close,
    until,
)
from tests.upstreams.raw_upstream import Peer, raw_upstream

# ── faults ──


async def test_nobody_listens(client: HttpClient) -> None:
    async with raw_upstream(each_request()) as upstream:
        port = upstream.port
    await fails(client, target(port), UpstreamUnreachable)


async def test_a_name_that_cannot_be_one(client: HttpClient) -> None:
    await fails(client, Target(URL("http://127.0.0.1.x..y:80/"), HEADERS), UpstreamUnreachable)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_closed_before_an_answer(client: HttpClient, data: bytes) -> None:
    async with raw_upstream(then_close(data)) as upstream:
        await fails(client, target(upstream), UpstreamUnreachable)
        assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"<html>nginx</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * (MAX_HEAD_BYTES + 10) + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_invalid(client: HttpClient, data: bytes) -> None:
    async with raw_upstream(each_request(data)) as upstream:
        await fails(client, target(upstream), UpstreamInvalid)
        await until(lambda: not upstream.open)


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 9\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"]
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_body_that_ends_too_early_is_cut(client: HttpClient, rest: bytes, how: str) -> None:
    got = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + rest)
        await got.wait()
        peer.reset() if how == "reset" else peer.close()

    async with raw_upstream(serve) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        assert await answer.read() == b"hi"
        got.set()
        with pytest.raises(UpstreamCut):
            await answer.read()
        assert not answer.at_end
        answer.close()


async def test_after_a_fault_the_next_request_is_clean(client: HttpClient) -> None:
    answers = iter([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", HI])

    async with raw_upstream(lambda peer: then_close(next(answers))(peer)) as upstream:
        await fails(client, target(upstream), UpstreamCut)
        assert await ask(client, target(upstream)) == b"hi"


async def test_a_body_that_was_not_read_out_closes_the_connection(client: HttpClient) -> None:
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"
    async with raw_upstream(each_request(more, more)) as upstream:
        for number in (1, 2):
            answer = await client.post(target(upstream), b"{}", connect_s=5)
            assert await answer.read() == b"hi"
            answer.close()
            await until(lambda: not upstream.open)
            assert len(upstream.peers) == number


async def test_bytes_behind_an_answer_never_become_the_next_answer(client: HttpClient) -> None:
    async with raw_upstream(each_request(HI + HI.replace(b"hi", b"NO"), HI)) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.peers) == 2


# ── clocks, cancelling, closing ──


async def test_the_connect_clock_covers_the_handshake(client: HttpClient) -> None:
    async def serve(peer: Peer) -> None:
        await peer.gone()  # TLS is never answered

    async with raw_upstream(serve) as upstream:
        with pytest.raises(UpstreamTimeout) as raised:
            await client.post(target(upstream, tls=Tls()), b"{}", connect_s=0.05)
        assert raised.value.clock == "connect"
        await until(lambda: not upstream.open)


async def test_a_clock_that_runs_out_ends_the_pending_read(client: HttpClient) -> None:
    async with raw_upstream(each_request(CHUNKED)) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        asyncio.get_running_loop().call_soon(answer.fail, UpstreamTimeout("idle", 1))
        with pytest.raises(UpstreamTimeout):
            await answer.read()
        answer.close()
        await until(lambda: not upstream.open)


async def test_a_clock_that_has_run_out_ends_the_next_read(client: HttpClient) -> None:
    async with raw_upstream(each_request(CHUNKED)) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        answer.fail(UpstreamTimeout("total", 1))
        with pytest.raises(UpstreamTimeout):
            await answer.read()
        answer.close()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_cancelled_before_the_head_the_connection_closes(client: HttpClient, sent: bytes) -> None:
    asked = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        asked.set()
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        task = asyncio.create_task(ask(client, target(upstream)))
        await asked.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await until(lambda: not upstream.open)


async def test_cancelled_during_the_handshake_the_connection_closes(client: HttpClient) -> None:
    async def serve(peer: Peer) -> None:
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        task = asyncio.create_task(ask(client, target(upstream, tls=Tls())))
        await until(lambda: len(upstream.open) == 1)
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: not upstream.open)


async def test_cancelled_while_reading_the_connection_closes(client: HttpClient) -> None:
    async with raw_upstream(each_request(CHUNKED + b"2\r\nhi\r\n")) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        assert await answer.read() == b"hi"
        task = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        answer.close()
        await until(lambda: not upstream.open)


async def test_many_requests_cancelled_at_any_moment_leave_nothing(client: HttpClient) -> None:
    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            for piece in (CHUNKED, b"2\r\nhi\r\n", b"0\r\n\r\n"):
                await peer.send(piece)
                await asyncio.sleep(0)

    async with raw_upstream(serve) as upstream:
        to = target(upstream)
        before = asyncio.all_tasks()
        tasks = []
        for turns in range(120):
            task = asyncio.create_task(ask(client, to))
            tasks.append(task)
            for _ in range(turns % 23):
                await asyncio.sleep(0)
            if turns % 3:
                task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in done} <= {bytes, asyncio.CancelledError}
        assert {result for result in done if isinstance(result, bytes)} == {b"hi"}
        assert await ask(client, to) == b"hi"
        await client.aclose()
        await until(lambda: not upstream.open)
        assert {task for task in asyncio.all_tasks() - before if "accept" not in repr(task)} == set()


async def test_closing_the_client_closes_idle_and_busy_connections(client: HttpClient) -> None:
    answers = iter([CHUNKED, HI])
    async with raw_upstream(lambda peer: each_request(next(answers))(peer)) as upstream:
        busy = await client.post(target(upstream), b"{}", connect_s=5)
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.open) == 2
        await client.aclose()
        busy.close()
        await until(lambda: not upstream.open)
