"""What our own HTTP client does beyond what both clients promise."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from server.errors import ServerError, UpstreamCut, UpstreamInvalid, UpstreamUnreachable
from server.settings import Tls
from server.upstreams.http import MAX_HEADERS, Target
from server.upstreams.http_connection import HIGH_WATER
from server.upstreams.http_fast import READ_BYTES, FastClient
from tests.upstreams.http_cases import (
    CERTIFICATE,
    CHUNKED,
    HI,
    ask,
    each_request,
    fails,
    read_all,
    target,
    then_close,
    until,
)
from tests.upstreams.raw_upstream import Peer, raw_upstream


@pytest.fixture
async def client() -> AsyncIterator[FastClient]:
    client = FastClient()
    yield client
    await client.aclose()


# ── kept connections ──


async def test_a_connection_that_closed_while_idle_is_not_tried(client: FastClient) -> None:
    async with raw_upstream(then_close(HI)) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        await until(lambda: not upstream.open)
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.peers) == 2


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_kept_connection_that_closes_without_a_byte_is_replaced_once(
    client: FastClient, how: str
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.head()  # as if the close had crossed the request on its way
        peer.reset() if how == "reset" else peer.close()

    told: list[ServerError] = []
    async with raw_upstream(serve) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        answer = await client.post(target(upstream), b"{}", connect_s=5, again=told.append)
        assert await read_all(answer) == b"hi"
        answer.close()
        assert len(upstream.peers) == 2
        assert [type(error) for error in told] == [UpstreamUnreachable]  # never in silence


async def test_a_new_connection_that_closes_without_a_byte_is_not_replaced(client: FastClient) -> None:
    async with raw_upstream(then_close(b"")) as upstream:
        await fails(client, target(upstream), UpstreamUnreachable)
        assert len(upstream.peers) == 1


async def test_a_server_that_dies_while_it_works_is_not_asked_twice() -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()

    client = FastClient(stale_s=-1)  # however soon it closes, that is too late
    async with raw_upstream(serve) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        await fails(client, target(upstream), UpstreamUnreachable)
        assert len(upstream.peers) == 1
    await client.aclose()


async def test_a_connection_that_we_asked_to_close_is_not_kept(client: FastClient) -> None:
    async with raw_upstream(each_request(HI)) as upstream:
        to = Target(target(upstream).url, {"Connection": "close"})
        assert await ask(client, to) == b"hi"
        await until(lambda: not upstream.open)


async def test_only_one_new_connection_is_tried(client: FastClient) -> None:
    answers = [HI]

    async def serve(peer: Peer) -> None:
        await peer.request()
        if answers:
            await peer.send(answers.pop())
            await peer.request()

    async with raw_upstream(serve) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        await fails(client, target(upstream), UpstreamUnreachable)
        assert len(upstream.peers) == 2


@pytest.mark.parametrize("said", [b"HTTP/1.1 2", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_once_a_byte_has_come_a_request_is_never_sent_twice(client: FastClient, said: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        await peer.send(said)

    async with raw_upstream(serve) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        await fails(client, target(upstream), UpstreamUnreachable)
        assert len(upstream.peers) == 1


async def test_the_connection_used_last_is_used_first(client: FastClient) -> None:
    async with raw_upstream(each_request(HI, HI, HI)) as upstream:
        to = target(upstream)
        first, second = [await client.post(to, b"{}", connect_s=5) for _ in range(2)]
        for answer in (first, second):
            assert await answer.read() == b"hi"
            answer.close()
        used = []
        for _ in range(2):
            answer = await client.post(to, b"{}", connect_s=5)
            used.append(next(iter(client._open - {c for kept in client._idle.values() for c in kept})))
            assert await answer.read() == b"hi"
            answer.close()
        assert used[0] is used[1]
        assert len(upstream.peers) == 2


async def test_idle_connections_are_closed_after_their_time() -> None:
    client = FastClient(keep_s=0.02, sweep_s=0.01)
    async with raw_upstream(each_request(HI)) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.open) == 1
        await until(lambda: not upstream.open)
        assert client._sweeper is None
        assert client._idle == {}
    await client.aclose()


async def test_one_that_lay_idle_for_too_long_is_not_used_though_nobody_has_swept_yet() -> None:
    client = FastClient(keep_s=0.02, sweep_s=3600)
    async with raw_upstream(each_request(HI, HI)) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        await asyncio.sleep(0.05)
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.peers) == 2
    await client.aclose()


async def test_a_connection_that_the_server_keeps_for_a_second_only_is_not_kept(client: FastClient) -> None:
    data = HI.replace(b"Content", b"Keep-Alive: timeout=1\r\nContent")
    async with raw_upstream(each_request(data)) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        await until(lambda: not upstream.open)


async def test_origins_do_not_share_connections(client: FastClient, server_tls: ssl.SSLContext) -> None:
    async with raw_upstream(each_request(HI, HI), tls=server_tls) as upstream:
        strict, lax = Tls(ca_file=str(CERTIFICATE)), Tls(verify=False)
        assert await ask(client, target(upstream, tls=lax)) == b"hi"
        assert await ask(client, target(upstream, tls=strict)) == b"hi"
        assert len(upstream.peers) == 2  # what was not verified is not used where it must be


async def test_an_answer_that_came_before_the_request_was_read_closes_the_connection(
    client: FastClient,
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(HI)
        await client_is_done.wait()
        await peer.gone()

    client_is_done = asyncio.Event()
    async with raw_upstream(serve) as upstream:
        assert await ask(client, target(upstream), bytes(30_000_000)) == b"hi"
        client_is_done.set()
        await until(lambda: not upstream.open)


async def test_a_closed_client_takes_no_request() -> None:
    client = FastClient()
    await client.aclose()
    with pytest.raises(RuntimeError):
        await client.post(target(1), b"", connect_s=1)


async def test_small_packets_are_not_held_back(client: FastClient, server_tls: ssl.SSLContext) -> None:
    async with (
        raw_upstream(each_request(HI)) as plain,
        raw_upstream(each_request(HI), tls=server_tls) as encrypted,
    ):
        for to in (target(plain), target(encrypted, tls=Tls(verify=False))):
            assert await ask(client, to) == b"hi"
        for connection in client._open:
            sock = connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ── answers ──


async def test_a_broken_chunk_is_a_cut(client: FastClient) -> None:
    """aiohttp's client waits on: with it only the idle clock ends the call."""
    got = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nhi\r\n")
        await got.wait()
        await peer.send(b"zz\r\nhi\r\n")
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        assert await answer.read() == b"hi"
        got.set()
        with pytest.raises(UpstreamCut):
            await answer.read()
        answer.close()
        await until(lambda: not upstream.open)


async def test_a_truncated_tls_stream_is_a_cut_and_a_closed_one_is_the_end(
    client: FastClient, server_tls: ssl.SSLContext
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await got.wait()
        got.clear()
        peer.reset() if truncate else peer.close()

    got = asyncio.Event()
    async with raw_upstream(serve, tls=server_tls) as upstream:
        on_uvloop = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        for truncate in (True, False) if on_uvloop else (False,):  # asyncio does not tell
            answer = await client.post(target(upstream, tls=Tls(verify=False)), b"{}", connect_s=5)
            assert await answer.read() == b"hello"
            got.set()
            if truncate:
                with pytest.raises(UpstreamCut):
                    await answer.read()
            else:
                assert await answer.read() == b""
            assert answer.at_end is not truncate
            answer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_that_nobody_asked_for_is_invalid(client: FastClient, data: bytes) -> None:
    async with raw_upstream(each_request(data)) as upstream:
        await fails(client, target(upstream), UpstreamInvalid)
        await until(lambda: not upstream.open)


async def test_the_status_is_known_although_the_body_cannot_be_read(client: FastClient) -> None:
    data = b"HTTP/1.1 429 No\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nhi"
    async with raw_upstream(each_request(data)) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        assert answer.status == 429
        with pytest.raises(UpstreamInvalid):
            await answer.read()
        answer.close()


async def test_what_waits_for_a_reader_is_bounded(client: FastClient) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
        await peer.send(bytes(40_000_000))
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        total = 0
        while data := await answer.read():
            total += len(data)
            assert len(data) <= HIGH_WATER + READ_BYTES
            for _ in range(10):
                await asyncio.sleep(0)
        assert total == 40_000_000
        assert answer.at_end
        answer.close()
        assert len(upstream.open) == 1  # kept


async def test_a_second_reader_is_refused(client: FastClient) -> None:
    async with raw_upstream(each_request(CHUNKED)) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        first = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await answer.read()
        first.cancel()
        await asyncio.wait({first})
        answer.close()
        with pytest.raises(RuntimeError):
            await answer.read()
