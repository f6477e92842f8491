"""One connection: what leaves in one packet, what waits, and after what it may be used again."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from server.errors import ServerError, UpstreamCut, UpstreamUnreachable
from server.upstreams.http_connection import HIGH_WATER, JOINED_BYTES, VANISHED_S
from server.upstreams.http_fast import FastClient
from tests.raw_http import PATIENCE_S
from tests.upstreams.http_cases import CHUNKED, HI, ask, each_request, target, then_close, until
from tests.upstreams.raw_upstream import Peer, raw_upstream


@pytest.mark.parametrize("size", [0, 1, JOINED_BYTES, JOINED_BYTES + 1, 1_000_000])
async def test_a_body_arrives_whole_whether_or_not_it_is_joined_to_its_head(size: int) -> None:
    seen: list[bytes] = []

    async def serve(peer: Peer) -> None:
        seen.append((await peer.request()).body)
        await peer.send(HI)
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        client = FastClient()
        assert await ask(client, target(upstream), b"x" * size) == b"hi"
        await client.aclose()
    assert seen == [b"x" * size]


async def test_an_answer_that_is_read_out_leaves_its_connection_to_the_next() -> None:
    async with raw_upstream(each_request(HI, HI, HI)) as upstream:
        client = FastClient()
        for _ in range(3):
            assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.peers) == 1
        await client.aclose()
        await until(lambda: not upstream.open)


async def test_an_answer_that_is_left_closes_its_connection() -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nhi\r\n")
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        client = FastClient()
        answer = await client.post(target(upstream), b"{}", connect_s=PATIENCE_S)
        assert await answer.read() == b"hi"
        answer.close()
        answer.close()
        await until(lambda: not upstream.open)
        await client.aclose()


async def test_more_than_can_wait_stays_with_the_upstream_until_it_is_read() -> None:
    total = 40_000_000
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(b"y" * 100_000)
            sent += 100_000
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        client = FastClient()
        answer = await client.post(target(upstream), b"{}", connect_s=PATIENCE_S)
        read = len(await answer.read())
        # Nobody reads: the sockets between fill, and the upstream stops.
        last = -1
        while last != sent:
            last = sent
            await asyncio.sleep(0.05)
        assert sent < total / 2
        waiting = len(await answer.read())
        assert waiting <= HIGH_WATER + 1024 * 1024, "what waited here, with one read of the socket more"
        read += waiting
        async with asyncio.timeout(PATIENCE_S):
            while piece := await answer.read():
                read += len(piece)
        answer.close()
        assert read == sent == total
        await client.aclose()


@pytest.mark.parametrize(
    "body", [CHUNKED + b"2\r\nhi\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"]
)
async def test_an_answer_whose_end_does_not_come_is_cut(body: bytes) -> None:
    async with raw_upstream(then_close(body)) as upstream:
        client = FastClient()
        with pytest.raises(UpstreamCut):
            await ask(client, target(upstream))
        await client.aclose()


async def test_who_is_told_to_fail_hears_it_while_it_reads() -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        client = FastClient()
        answer = await client.post(target(upstream), b"{}", connect_s=PATIENCE_S)
        reading = asyncio.ensure_future(answer.read())
        await asyncio.sleep(0)
        answer.fail(ServerError("Enough."))
        with pytest.raises(ServerError, match="Enough"):
            await reading
        answer.close()
        await client.aclose()
        await until(lambda: not upstream.open)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have their own words for it")
async def test_the_kernel_is_told_to_notice_a_host_that_vanishes() -> None:
    async with raw_upstream(each_request(HI)) as upstream:
        client = FastClient()
        assert await ask(client, target(upstream)) == b"hi"
        [connection] = client._open
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < VANISHED_S
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == VANISHED_S * 1000
        await client.aclose()


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    idle = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await idle.wait()
        await peer.send(HI)
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        client = FastClient()
        assert await ask(client, target(upstream)) == b"hi"
        idle.set()
        await until(lambda: not upstream.open)
        assert not any(client._idle.values()), "nobody finds it there any more"
        await client.aclose()


async def test_one_that_is_lost_in_the_turn_in_which_it_is_asked_fails_at_once() -> None:
    async with raw_upstream(each_request(HI)) as upstream:
        client = FastClient()
        assert await ask(client, target(upstream)) == b"hi"
        [[kept]] = client._idle.values()
        kept.eof_received()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(UpstreamUnreachable):
                await kept.ask(target(upstream), b"{}", lambda expired: None)
        assert not kept.heard
        await client.aclose()
